//! The ledger: entries from the topic into the books, their receipts to the queue, then the offset.
//! Never commits an offset before the books, but for the bug that it can be asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::{Consumer, EventLog, Fetched, JobQueue, Offsets, Outcome, Polled, Record, Runtime};

use crate::disk::Books;
use crate::entry::{ENTRIES, Entry, body};

/// The consumer group of all ledgers.
pub const GROUP: &str = "ledger";

/// Records in one transaction, at most.
const BATCH: usize = 8;

/// Between two attempts.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// An instance of the ledger: what it runs on.
pub struct Ledger {
    /// Where entries come from.
    pub log: Arc<dyn EventLog>,
    /// Where receipts go.
    pub queue: Arc<dyn JobQueue>,
    /// The node.
    pub runtime: Arc<dyn Runtime>,
    /// What survives the node.
    pub books: Arc<dyn Books>,
    /// The planted bug: the offset is committed before the books are.
    pub ack_first: bool,
}

impl Ledger {
    /// Joins the group.
    pub async fn join(&self) -> Outcome<Box<dyn Consumer>> {
        self.log.subscribe(GROUP, &[ENTRIES.into()]).await
    }

    /// Works until it is asked to stop; then it leaves the group.
    pub async fn run(self, mut consumer: Box<dyn Consumer>, stop: Arc<AtomicBool>) {
        let mut handled = Offsets::new();
        while !stop.load(Ordering::Relaxed) {
            match consumer.poll(BATCH).await {
                Ok(Polled::Records(records)) => {
                    handled.extend(records.iter().map(|r| (r.partition.clone(), r.offset + 1)));
                    if self.ack_first {
                        commit(&mut *consumer, &mut handled).await;
                    }
                    self.handle(&records).await;
                    commit(&mut *consumer, &mut handled).await;
                }
                Ok(Polled::Assigned(_)) => {}
                Ok(Polled::Revoked(partitions)) => {
                    commit(&mut *consumer, &mut handled).await;
                    handled.retain(|partition, _| !partitions.contains(partition));
                    consumer.release(partitions).await;
                }
                Ok(Polled::Lost(partitions)) => {
                    handled.retain(|partition, _| !partitions.contains(partition));
                }
                Err(_) => self.runtime.sleep(PAUSE).await,
            }
        }
        consumer.close().await;
    }

    /// Books the entries and publishes their receipts. Both may have happened before, in part or whole.
    async fn handle(&self, records: &[Fetched]) {
        let entries: Vec<Entry> = records.iter().filter_map(|r| body(&r.record)).collect();
        if entries.is_empty() {
            return;
        }
        let receipts = loop {
            match self.books.book(&entries).await {
                Ok(receipts) => break receipts,
                Err(_) => self.runtime.sleep(PAUSE).await,
            }
        };
        let mut left: Vec<Record> = receipts.iter().map(|receipt| receipt.record()).collect();
        while !left.is_empty() {
            let outcomes = self.queue.publish(left.clone()).await;
            let unconfirmed = left.into_iter().zip(outcomes).filter(|(_, it)| it.is_err());
            left = unconfirmed.map(|(record, _)| record).collect();
            if !left.is_empty() {
                self.runtime.sleep(PAUSE).await;
            }
        }
    }
}

/// Commits what was handled. What cannot be committed now goes with the next commit; if there is none,
/// the next owner reads it again.
async fn commit(consumer: &mut dyn Consumer, handled: &mut Offsets) {
    if !handled.is_empty() && consumer.commit(handled).await.is_ok() {
        handled.clear();
    }
}
