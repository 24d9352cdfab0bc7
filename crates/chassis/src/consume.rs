//! Consuming topics: claim positions, hand records to the batch, commit offsets after it. The
//! committed offset is a copy of the database's position and never ahead of it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use ports::{
    Consumer, Fault, Fetched, Key, Offsets, Op, Outcome, Partition, Polled, Record, Row, Rows,
};
use tokio::sync::{mpsc, oneshot};

use crate::app::Shared;
use crate::stop::Working;
use crate::tables::position_key;
use crate::touched::document;
use crate::transaction::{Source, json, rows};
use crate::{Document, Handler, POSITIONS, Position};

/// A record in hand.
pub(crate) struct Taken {
    pub(crate) source: Source,
    pub(crate) record: Record,
}

/// Records for the batch.
pub(crate) struct Work {
    pub(crate) records: Vec<Taken>,
    /// The epoch under which each partition is read.
    pub(crate) epochs: BTreeMap<Partition, u64>,
    pub(crate) done: oneshot::Sender<Done>,
}

/// What became of them.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Next offsets, now in the database.
    pub(crate) next: Offsets,
    /// Partitions that a later epoch owns.
    pub(crate) fenced: Vec<Partition>,
}

/// A membership in the group.
struct Member<'a, H: Handler> {
    shared: &'a Shared<H>,
    consumer: Box<dyn Consumer>,
    epochs: BTreeMap<Partition, u64>,
    /// In the database, not yet confirmed by the log.
    uncommitted: Offsets,
    work: &'a mpsc::Sender<Work>,
}

/// Why a membership ends.
enum Leave {
    Asked,
    Broken(Fault),
}

pub(crate) async fn run<H: Handler>(
    shared: Arc<Shared<H>>,
    topics: Vec<Arc<str>>,
    work: mpsc::Sender<Work>,
    working: Working,
) {
    let service = shared.settings.service;
    let mut failures = 0;
    while !working.asked() {
        let consumer = match shared.ports.log.subscribe(service, &topics).await {
            Ok(consumer) => consumer,
            Err(fault) => {
                tracing::warn!(service, %fault, "could not join the group");
                shared.back_off("subscribe", &mut failures).await;
                continue;
            }
        };
        let (epochs, uncommitted) = (BTreeMap::new(), Offsets::new());
        let mut member = Member { shared: &shared, consumer, epochs, uncommitted, work: &work };
        match member.read(&working, &mut failures).await {
            Leave::Asked => {
                member.commit(3).await;
                member.consumer.close().await;
                return;
            }
            Leave::Broken(fault) => {
                tracing::warn!(service, %fault, "left the group; joining anew");
                drop(member);
                shared.back_off("subscribe", &mut failures).await;
            }
        }
    }
}

impl<H: Handler> Member<'_, H> {
    async fn read(&mut self, working: &Working, failures: &mut u32) -> Leave {
        let batch_max = self.shared.settings.batch_max;
        loop {
            let polled =
                match select(self.consumer.poll(batch_max), pin!(working.until_asked())).await {
                    Either::Left((polled, _)) => polled,
                    Either::Right(_) => return Leave::Asked,
                };
            let step = match polled {
                Ok(Polled::Records(records)) => self.handle(records).await,
                Ok(Polled::Assigned(partitions)) => self.claim(partitions).await,
                Ok(Polled::Revoked(partitions)) => {
                    self.commit(3).await;
                    self.forget(&partitions);
                    self.consumer.release(partitions).await;
                    Ok(())
                }
                Ok(Polled::Lost(partitions)) => {
                    self.forget(&partitions);
                    Ok(())
                }
                Err(fault) => Err(fault),
            };
            match step {
                Ok(()) => *failures = 0,
                Err(fault @ Fault::Retry(_)) => {
                    tracing::debug!(service = self.shared.settings.service, %fault, "poll failed");
                    self.shared.back_off("poll", failures).await;
                }
                Err(fault) => return Leave::Broken(fault),
            }
        }
    }

    fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.epochs.remove(partition);
            self.uncommitted.remove(partition);
        }
    }

    /// Hands records to the batch and waits for their commit.
    async fn handle(&mut self, records: Vec<Fetched>) -> Outcome<()> {
        let unclaimed: Vec<Partition> = records
            .iter()
            .map(|r| &r.partition)
            .filter(|p| !self.epochs.contains_key(*p))
            .cloned()
            .collect();
        if !unclaimed.is_empty() {
            // Fenced by a claim that came late, yet still ours by the group: claim again, and read
            // again from the position.
            let mut all: Vec<Partition> = records.into_iter().map(|r| r.partition).collect();
            all.sort();
            all.dedup();
            return self.claim(all).await;
        }
        if !records.is_empty() {
            let partitions = records.iter().map(|r| &r.partition);
            let epochs = partitions.map(|p| (p.clone(), self.epochs[p])).collect();
            let records = records.into_iter().map(|fetched| {
                let Fetched { partition, offset, record, .. } = fetched;
                Taken { source: Source::Log { partition, offset }, record }
            });
            let (done, committed) = oneshot::channel();
            let work = Work { records: records.collect(), epochs, done };
            let leaving = || Fault::retry("the service is leaving");
            self.work.send(work).await.map_err(|_| leaving())?;
            let Done { next, fenced } = committed.await.map_err(|_| leaving())?;
            self.forget(&fenced);
            self.uncommitted.extend(next.into_iter().filter(|(p, _)| self.epochs.contains_key(p)));
        }
        self.commit(1).await;
        Ok(())
    }

    /// Commits to the log what the database has. What fails is kept for the next time: the position
    /// is in the database, the log's copy may lag.
    async fn commit(&mut self, attempts: u32) {
        for _ in 0..attempts {
            if self.uncommitted.is_empty() {
                return;
            }
            match self.consumer.commit(&self.uncommitted).await {
                Ok(()) | Err(Fault::Refused(_)) => self.uncommitted.clear(),
                Err(fault @ (Fault::Retry(_) | Fault::Unknown(_))) => {
                    tracing::debug!(service = self.shared.settings.service, %fault,
                        "offsets not committed; again later");
                }
            }
        }
    }

    /// Raises the epochs of these partitions' positions, so that an older owner's transactions fail,
    /// and reads from the positions on.
    async fn claim(&mut self, partitions: Vec<Partition>) -> Outcome<()> {
        let mut failures = 0;
        loop {
            match self.try_claim(&partitions).await {
                Ok(next) => {
                    if !next.is_empty() {
                        self.consumer.seek(&next).await?;
                    }
                    // An owner that died between its transaction and its offset commit left the
                    // log's copy behind; without new records nobody else would mend it.
                    self.uncommitted.extend(next);
                    return Ok(());
                }
                Err(fault @ Fault::Refused(_)) => return Err(fault),
                Err(fault @ (Fault::Retry(_) | Fault::Unknown(_))) => {
                    tracing::debug!(service = self.shared.settings.service, %fault,
                        "positions not claimed; again");
                    if failures > 5 {
                        // Poll in between, or the group takes us for dead; the records that come
                        // are unclaimed, and claim again.
                        return Ok(());
                    }
                    self.shared.back_off("claim", &mut failures).await;
                }
            }
        }
    }

    async fn try_claim(&mut self, partitions: &[Partition]) -> Outcome<Offsets> {
        let keys: BTreeMap<Key, &Partition> =
            partitions.iter().map(|p| (position_key(p), p)).collect();
        let lock = Op::Lock { table: &POSITIONS, keys: keys.keys().cloned().collect() };
        let (tx, replies) = self.shared.ports.store.begin(vec![lock]).await?;
        let mut puts = Rows::new();
        let mut epochs = BTreeMap::new();
        let mut next = Offsets::new();
        for (key, row) in rows(replies.into_iter().next()) {
            let partition = keys[&key];
            let mut position =
                document::<Position>(&row).unwrap_or(Position { epoch: 0, next: None });
            position.epoch += 1;
            epochs.insert(partition.clone(), position.epoch);
            if let Some(offset) = position.next {
                next.insert(partition.clone(), offset);
            }
            let (index, body) = (position.index(), json(&position));
            puts.insert(key, Row { version: row.version, index, body });
        }
        tx.commit(vec![Op::Put { table: &POSITIONS, rows: puts }]).await?;
        self.epochs.extend(epochs);
        Ok(next)
    }
}
