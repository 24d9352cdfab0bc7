//! Consuming a queue: hand jobs to the batch, ack after its commit. A job is never acked before its
//! effect is committed; a lost ack brings it again, and the inbox knows it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use ports::{Delivered, Deliveries, Delivery, Fault, Outcome};
use tokio::sync::{mpsc, oneshot};

use crate::app::Shared;
use crate::consume::{Taken, Work};
use crate::slot::Source;
use crate::stop::Working;
use crate::vitals::Loop;

mod marks;

use marks::Marks;

/// Jobs that came back this often are taken one by one.
const ALONE_RETURNS: u32 = 2;
/// So many bytes of jobs share a transaction, or one job alone: what is no event becomes a letter that keeps all of
/// it, in twice the bytes where it is no text.
const BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) async fn run(
    shared: Arc<Shared>,
    queue: Arc<str>,
    prefetch: u16,
    work: mpsc::Sender<Work>,
    working: Working,
) {
    let mut failures = 0;
    while !working.asked() {
        let fault = match shared.ports.queue.consume(&queue, prefetch).await {
            Ok(mut channel) => {
                note(&shared, true, false);
                let jobs = deliver(
                    &shared,
                    (&queue, &mut *channel),
                    prefetch,
                    &work,
                    &working,
                    &mut failures,
                );
                match select(pin!(jobs), pin!(working.until_late())).await {
                    // What is in hand when the time is up goes back to the queue.
                    Either::Left((Ok(()), _)) | Either::Right(_) => return,
                    Either::Left((Err(fault), _)) => fault,
                }
            }
            Err(fault) => fault,
        };
        note(&shared, false, false);
        tracing::debug!(service = shared.settings.service, %queue, %fault, "consuming anew");
        shared.back_off("consume", &mut failures).await;
    }
}

/// What the queue let be seen.
fn note(shared: &Shared, joined: bool, delivered: bool) {
    let now = shared.ports.runtime.elapsed();
    shared.vitals.note(|seen| {
        seen.jobs = Some(Loop { joined, polled: now, ..Loop::default() });
        if delivered {
            seen.message = now;
        }
    });
}

/// Until the service leaves (`Ok`) or the channel is lost.
async fn deliver(
    shared: &Shared,
    (queue, channel): (&str, &mut dyn Deliveries),
    prefetch: u16,
    work: &mpsc::Sender<Work>,
    working: &Working,
    failures: &mut u32,
) -> Outcome<()> {
    while !working.asked() {
        let asked = pin!(working.until_asked());
        let delivered = match select(channel.next(usize::from(prefetch)), asked).await {
            Either::Left((delivered, _)) => delivered?,
            Either::Right(_) => return Ok(()),
        };
        let Delivered::Batch(batch) = delivered else {
            return Err(Fault::retry("the channel was lost"));
        };
        note(shared, true, true);
        // What came back may have ended a process, and may do so again: alone it takes no other job
        // along (broker-contract R17).
        let (together, alone): (Vec<Delivery>, Vec<Delivery>) =
            batch.into_iter().partition(|delivery| delivery.returns < ALONE_RETURNS);
        for portion in portions(together) {
            let tags: Vec<u64> = portion.iter().map(|delivery| delivery.tag).collect();
            hand_over(portion, None, work).await?;
            channel.settle(&tags, &[]).await?;
        }
        for delivery in alone {
            let (tag, marks) = (delivery.tag, Marks::of(shared, queue, &delivery.record.payload));
            let Some(crashed) = marks.mark(working).await else { return Ok(()) };
            match hand_over(vec![delivery], Some(Alone { crashed }), work).await {
                Ok(()) => marks.forget().await,
                Err(fault) => {
                    marks.take_back(working).await;
                    return Err(fault);
                }
            }
            channel.settle(&[tag], &[]).await?;
        }
        *failures = 0;
    }
    Ok(())
}

/// Parts a batch, in its order, where its bytes are too many for one transaction.
fn portions(batch: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let (mut portions, mut bytes) = (Vec::<Vec<Delivery>>::new(), 0);
    for delivery in batch {
        bytes += delivery.record.payload.len();
        match portions.last_mut() {
            Some(last) if bytes <= BYTES_MAX => last.push(delivery),
            Some(_) | None => {
                bytes = delivery.record.payload.len();
                portions.push(vec![delivery]);
            }
        }
    }
    portions
}

/// A job that has a transaction of its own.
struct Alone {
    /// It is given up: so often the process ended when it was handled.
    crashed: Option<u32>,
}

/// Hands jobs to the batch and waits for their commit.
async fn hand_over(
    batch: Vec<Delivery>,
    alone: Option<Alone>,
    work: &mpsc::Sender<Work>,
) -> Outcome<()> {
    let crashed = alone.as_ref().and_then(|alone| alone.crashed);
    let taken = |Delivery { record, .. }| Taken {
        source: Source::Queue,
        record,
        produced_at: None,
        crashed,
    };
    let records = batch.into_iter().map(taken).collect();
    let (done, committed) = oneshot::channel();
    let taken = Work { records, epochs: BTreeMap::new(), alone: alone.is_some(), done };
    let leaving = || Fault::retry("the service is leaving");
    work.send(taken).await.map_err(|_| leaving())?;
    committed.await.map_err(|_| leaving())?;
    Ok(())
}
