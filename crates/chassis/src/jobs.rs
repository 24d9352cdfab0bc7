//! Consuming a queue: hand jobs to the batch, ack after its commit. A job is never acked before its
//! effect is committed; a lost ack brings it again, and the inbox knows it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use ports::{Delivered, Deliveries, Delivery, Fault, Outcome};
use tokio::sync::{mpsc, oneshot};

use crate::Handler;
use crate::app::Shared;
use crate::consume::{Taken, Work};
use crate::stop::Working;
use crate::transaction::Source;

pub(crate) async fn run<H: Handler>(
    shared: Arc<Shared<H>>,
    queue: Arc<str>,
    prefetch: u16,
    work: mpsc::Sender<Work>,
    working: Working,
) {
    let mut failures = 0;
    while !working.asked() {
        let fault = match shared.ports.queue.consume(&queue, prefetch).await {
            Ok(mut channel) => {
                match deliver(&mut *channel, prefetch, &work, &working, &mut failures).await {
                    Ok(()) => return,
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        tracing::debug!(service = shared.settings.service, %queue, %fault, "consuming anew");
        shared.back_off("consume", &mut failures).await;
    }
}

/// Until the service leaves (`Ok`) or the channel is lost.
async fn deliver(
    channel: &mut dyn Deliveries,
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
        let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
        let records = batch.into_iter().map(|delivery| {
            let Delivery { record, .. } = delivery;
            Taken { source: Source::Queue, record }
        });
        let (done, committed) = oneshot::channel();
        let taken = Work { records: records.collect(), epochs: BTreeMap::new(), done };
        let leaving = || Fault::retry("the service is leaving");
        work.send(taken).await.map_err(|_| leaving())?;
        committed.await.map_err(|_| leaving())?;
        channel.settle(&tags, &[]).await?;
        *failures = 0;
    }
    Ok(())
}
