//! The printer: receipts from the queue into the files, then the ack. Never acks before it has filed, but
//! for the bug that it can be asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::{Delivered, Deliveries, Delivery, JobQueue, Outcome, Runtime, timeout};

use crate::disk::Files;
use crate::entry::{RECEIPTS, Receipt, body};
use crate::ledger::PAUSE;

/// Unsettled deliveries of a channel, at most.
const PREFETCH: u16 = 4;

/// How long it waits for a delivery before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(500);

/// An instance of the printer: what it runs on.
pub struct Printer {
    /// Where receipts come from.
    pub queue: Arc<dyn JobQueue>,
    /// The node.
    pub runtime: Arc<dyn Runtime>,
    /// What survives the node.
    pub files: Arc<dyn Files>,
    /// The planted bug: a receipt is acked before it is filed.
    pub ack_first: bool,
}

impl Printer {
    /// Works until it is asked to stop.
    pub async fn run(self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            match self.queue.consume(RECEIPTS, PREFETCH).await {
                Ok(mut channel) => self.drain(&mut *channel, &stop).await,
                Err(_) => self.runtime.sleep(PAUSE).await,
            }
        }
    }

    /// Prints until the channel is lost, or a delivery's settlement is in doubt: dropping the channel
    /// then brings it back.
    async fn drain(&self, channel: &mut dyn Deliveries, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let goes_on = match timeout(&*self.runtime, WAIT, channel.next(PREFETCH.into())).await {
                Some(Ok(Delivered::Batch(batch))) => self.print(channel, &batch).await.is_ok(),
                Some(Ok(Delivered::ChannelLost) | Err(_)) => false,
                None => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn print(&self, channel: &mut dyn Deliveries, batch: &[Delivery]) -> Outcome<()> {
        let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
        let receipts: Vec<Receipt> = batch.iter().filter_map(|d| body(&d.record)).collect();
        if self.ack_first {
            channel.settle(&tags, &[]).await?;
            return self.files.file(&receipts).await;
        }
        self.files.file(&receipts).await?;
        channel.settle(&tags, &[]).await
    }
}
