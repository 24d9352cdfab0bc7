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

/// Jobs that came back this often are taken one by one.
const ALONE_RETURNS: u32 = 2;

pub(crate) async fn run(
    shared: Arc<Shared>,
    queue: Arc<str>,
    (prefetch, delivery_limit): (u16, u32),
    work: mpsc::Sender<Work>,
    working: Working,
) {
    let mut failures = 0;
    let limits = (prefetch, delivery_limit.saturating_sub(1).max(ALONE_RETURNS));
    while !working.asked() {
        let fault = match shared.ports.queue.consume(&queue, prefetch).await {
            Ok(mut channel) => {
                note(&shared, true, false);
                let jobs = deliver(&shared, &mut *channel, limits, &work, &working, &mut failures);
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
    channel: &mut dyn Deliveries,
    (prefetch, last_chance): (u16, u32),
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
        // along to the delivery limit (broker-contract R17).
        let (together, alone): (Vec<Delivery>, Vec<Delivery>) =
            batch.into_iter().partition(|delivery| delivery.returns < ALONE_RETURNS);
        let alone = alone.into_iter().map(|delivery| (vec![delivery], true));
        let batches = [(together, false)].into_iter().chain(alone);
        for (batch, alone) in batches.filter(|(batch, _)| !batch.is_empty()) {
            let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
            hand_over(batch, alone, last_chance, work).await?;
            channel.settle(&tags, &[]).await?;
        }
        *failures = 0;
    }
    Ok(())
}

/// Hands jobs to the batch and waits for their commit.
async fn hand_over(
    batch: Vec<Delivery>,
    alone: bool,
    last_chance: u32,
    work: &mpsc::Sender<Work>,
) -> Outcome<()> {
    let records = batch.into_iter().map(|Delivery { record, returns, .. }| {
        // The next return may be beyond the queue's delivery limit: better a dead letter here.
        let crashed = (returns >= last_chance).then_some(returns);
        Taken { source: Source::Queue, record, produced_at: None, crashed }
    });
    let (done, committed) = oneshot::channel();
    let epochs = BTreeMap::new();
    let taken = Work { records: records.collect(), epochs, alone, done };
    let leaving = || Fault::retry("the service is leaving");
    work.send(taken).await.map_err(|_| leaving())?;
    committed.await.map_err(|_| leaving())?;
    Ok(())
}
