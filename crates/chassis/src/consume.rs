//! Consuming topics: claim positions, hand records to the batch, commit offsets after it. The
//! committed offset is a copy of the database's position and never ahead of it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{Either, select};
use ports::{
    Consumer, Fault, Fetched, Key, Offsets, Op, Outcome, Partition, Polled, Record, Row, Rows,
};
use tokio::sync::{mpsc, oneshot};

use crate::app::Shared;
use crate::slot::Source;
use crate::stop::Working;
use crate::tables::position_key;
use crate::touched::document;
use crate::transaction::{json, rows};
use crate::trial;
use crate::vitals::Loop;
use crate::{Document, POSITIONS, Position, meters};

mod marks;
mod rewind;
mod waiting;

use marks::{Round, Suspect};

/// A record in hand.
pub(crate) struct Taken {
    pub(crate) source: Source,
    pub(crate) record: Record,
    pub(crate) produced_at: Option<DateTime<Utc>>,
    /// It is given up: so often the process ended when it was handled.
    pub(crate) crashed: Option<u32>,
}

/// Records for the batch.
pub(crate) struct Work {
    pub(crate) records: Vec<Taken>,
    /// The epoch under which each partition is read.
    pub(crate) epochs: BTreeMap<Partition, u64>,
    /// Whether nothing else may share its transaction: the process may die of it.
    pub(crate) alone: bool,
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

/// Marks that stand though the process did not die of what they are of: of what comes before these offsets. At
/// most one of each: what it wants to mark again it takes back in the same transaction.
type Owed = BTreeSet<(Partition, i64)>;

/// A membership in the group.
struct Member<'a> {
    shared: &'a Shared,
    consumer: Box<dyn Consumer>,
    /// The partitions that are ours by the group.
    held: BTreeMap<Partition, Held>,
    /// In the database, not yet confirmed by the log.
    uncommitted: Offsets,
    /// When it last was all confirmed, by the monotonic clock.
    confirmed: Duration,
    owed: &'a mut Owed,
    /// Read while a batch was waited for; handled next.
    later: Vec<Fetched>,
    /// Whether partitions came while a batch was waited for.
    added: bool,
    work: &'a mpsc::Sender<Work>,
}

/// A partition that is ours by the group.
#[derive(Default)]
struct Held {
    /// Under which its position is ours; `None` before the claim, and when a later one fenced it.
    epoch: Option<u64>,
    /// The first offset that was read and not handled, where the claim finds no position.
    again: Option<i64>,
    /// Behind the last offset that was read; where it was to read on, before the first one.
    read_to: Option<i64>,
    /// Set where a process may have died of what is read next.
    suspect: Option<Suspect>,
}

/// Why a membership ends.
enum Leave {
    Asked,
    /// What is in hand takes longer than there is time.
    Late,
    Broken(Fault),
}

pub(crate) async fn run(
    shared: Arc<Shared>,
    topics: Vec<Arc<str>>,
    work: mpsc::Sender<Work>,
    working: Working,
) {
    let service = shared.settings.service;
    let (mut failures, mut owed) = (0, Owed::new());
    while !working.asked() {
        let consumer = match shared.ports.log.subscribe(service, &topics).await {
            Ok(consumer) => consumer,
            Err(fault) => {
                tracing::warn!(service, %fault, "could not join the group");
                shared.back_off("subscribe", &mut failures).await;
                continue;
            }
        };
        let mut member = Member {
            shared: &shared,
            consumer,
            held: BTreeMap::new(),
            uncommitted: Offsets::new(),
            confirmed: Duration::ZERO,
            owed: &mut owed,
            later: Vec::new(),
            added: false,
            work: &work,
        };
        member.note(false);
        let leave = {
            let reading = pin!(member.read(&working, &mut failures));
            match select(reading, pin!(working.until_late())).await {
                Either::Left((leave, _)) => leave,
                Either::Right(_) => Leave::Late,
            }
        };
        match leave {
            Leave::Asked => {
                member.take_back(3).await;
                member.commit(3).await;
                member.consumer.close().await;
                return;
            }
            Leave::Late => {
                tracing::warn!(service, "leaving with a batch in hand: it is another's to repeat");
                // A goodbye all the same: the partitions move at once, and the next owner's claim
                // fences the batch.
                member.consumer.close().await;
                return;
            }
            Leave::Broken(fault) => {
                tracing::warn!(service, %fault, "left the group; joining anew");
                drop(member);
                shared.vitals.note(|seen| seen.consumer = Some(Loop::default()));
                shared.back_off("subscribe", &mut failures).await;
            }
        }
    }
}

impl Member<'_> {
    async fn read(&mut self, working: &Working, failures: &mut u32) -> Leave {
        let batch_max = self.shared.settings.batch_max;
        // Asked first: a backlog would always have records ready.
        while !working.asked() {
            let polled =
                match select(self.consumer.poll(batch_max), pin!(working.until_asked())).await {
                    Either::Left((polled, _)) => polled,
                    Either::Right(_) => return Leave::Asked,
                };
            if polled.is_ok() {
                self.note(matches!(&polled, Ok(Polled::Records(records)) if !records.is_empty()));
            }
            let step = match polled {
                Ok(Polled::Records(records)) => self.handle(records).await,
                Ok(Polled::Assigned(partitions)) => {
                    self.rebalanced("assigned");
                    self.forget(&partitions);
                    self.held.extend(partitions.into_iter().map(|p| (p, Held::default())));
                    self.claim().await
                }
                Ok(Polled::Revoked(partitions)) => {
                    self.rebalanced("revoked");
                    self.commit(3).await;
                    self.forget(&partitions);
                    self.consumer.release(partitions).await;
                    Ok(())
                }
                Ok(Polled::Lost(partitions)) => {
                    self.rebalanced("lost");
                    self.forget(&partitions);
                    Ok(())
                }
                Err(fault) => Err(fault),
            };
            self.take_back(1).await;
            self.note_held();
            match step {
                Ok(()) => *failures = 0,
                Err(fault @ Fault::Retry(_)) => {
                    tracing::debug!(service = self.shared.settings.service, %fault, "poll failed");
                    self.shared.back_off("poll", failures).await;
                }
                Err(fault) => return Leave::Broken(fault),
            }
        }
        Leave::Asked
    }

    /// The log answered, with records or without.
    fn note(&self, records: bool) {
        let now = self.shared.ports.runtime.elapsed();
        self.shared.vitals.note(|seen| {
            let consumer = seen.consumer.get_or_insert_default();
            (consumer.joined, consumer.polled) = (true, now);
            if records {
                seen.message = now;
            }
        });
    }

    fn rebalanced(&self, how: &'static str) {
        self.shared.settings.metrics.count(&meters::REBALANCE, &[how]);
    }

    fn note_held(&self) {
        let assigned = self.held.len();
        let claimed = self.held.values().filter(|held| held.epoch.is_some()).count();
        self.shared.vitals.note(|seen| {
            let consumer = seen.consumer.get_or_insert_default();
            (consumer.assigned, consumer.claimed) = (assigned, claimed);
        });
    }

    fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.held.remove(partition);
            self.uncommitted.remove(partition);
        }
        self.later.retain(|record| !partitions.contains(&record.partition));
    }

    fn epoch(&self, partition: &Partition) -> Option<u64> {
        self.held.get(partition)?.epoch
    }

    /// Notes records that were read and not handled: they are to be read again.
    fn drop_unhandled(&mut self, unhandled: &Offsets) {
        for (partition, offset) in unhandled {
            if let Some(held) = self.held.get_mut(partition) {
                held.epoch = None;
                held.again = Some(held.again.map_or(*offset, |again| again.min(*offset)));
            }
        }
    }

    /// Hands records to the batch, after marking them where a process may have died of them; and so
    /// what was read while it waited.
    async fn handle(&mut self, mut records: Vec<Fetched>) -> Outcome<()> {
        self.drop_unclaimed(&mut records);
        self.rewind(&mut records).await;
        let unclaimed = self.held.values().any(|held| held.epoch.is_none());
        self.added = false;
        while !records.is_empty() {
            let mut round = self.mark(records).await;
            records = std::mem::take(&mut round.later);
            if !round.records.is_empty() {
                self.hand_over(round).await?;
            }
            let mut waited = std::mem::take(&mut self.later);
            self.drop_unclaimed(&mut waited);
            self.rewind(&mut waited).await;
            records.append(&mut waited);
            self.drop_unclaimed(&mut records);
        }
        if unclaimed || self.added {
            self.claim().await?;
        }
        let now = self.shared.ports.runtime.elapsed();
        if now.saturating_sub(self.confirmed) >= self.shared.settings.offsets_every {
            self.commit(1).await;
        }
        Ok(())
    }

    fn drop_unclaimed(&mut self, records: &mut Vec<Fetched>) {
        let unclaimed = records.extract_if(.., |record| {
            self.held.get(&record.partition).is_none_or(|held| held.epoch.is_none())
        });
        let unclaimed: Vec<Fetched> = unclaimed.collect();
        self.drop_unhandled(&firsts(&unclaimed));
    }

    /// Hands records to the batch and waits for their commit. What was marked for it and did not come
    /// through did not end the process either.
    async fn hand_over(&mut self, round: Round) -> Outcome<()> {
        let Round { records, alone, mut marked, .. } = round;
        let mut first = Offsets::new();
        for taken in &records {
            if let Source::Log { partition, offset } = &taken.source {
                first.entry(partition.clone()).or_insert(*offset);
            }
        }
        let epochs = first.keys().filter_map(|p| Some((p.clone(), self.epoch(p)?))).collect();
        let done = self.committed(records, epochs, alone).await;
        if let Ok(Done { next, .. }) = &done {
            marked.retain(|(partition, _)| !next.contains_key(partition));
        }
        self.owed.append(&mut marked);
        self.take_back(1).await;
        let done = done?;
        for (partition, next) in &done.next {
            if let Some(held) = self.held.get_mut(partition)
                && let Some(suspect) = held.suspect.take()
            {
                let trial = trial::after(suspect.trial.as_ref(), *next);
                held.suspect = trial.map(|trial| Suspect { claims: 0, trial: Some(trial) });
            }
        }
        self.keep_offsets(&done);
        // A claim that came late, or a later owner's: the next poll says whether they are still
        // ours by the group.
        let Done { fenced, .. } = done;
        self.drop_unhandled(&first.into_iter().filter(|(p, _)| fenced.contains(p)).collect());
        Ok(())
    }

    async fn committed(
        &mut self,
        records: Vec<Taken>,
        epochs: BTreeMap<Partition, u64>,
        alone: bool,
    ) -> Outcome<Done> {
        let (done, committed) = oneshot::channel();
        let work = Work { records, epochs, alone, done };
        let leaving = || Fault::retry("the service is leaving");
        self.work.send(work).await.map_err(|_| leaving())?;
        self.outcome(committed).await
    }

    /// What is now in the database is to be committed to the log, if it is still ours by the group.
    fn keep_offsets(&mut self, done: &Done) {
        for (partition, next) in &done.next {
            if self.held.contains_key(partition) {
                let known = self.uncommitted.entry(partition.clone()).or_insert(*next);
                *known = (*known).max(*next);
            }
        }
        for partition in &done.fenced {
            self.uncommitted.remove(partition);
        }
    }

    /// Commits to the log what the database has. What fails is kept for the next time: the position
    /// is in the database, the log's copy may lag. Refused is not for ever where the group went on
    /// and these partitions stayed ours; the next poll says which did not.
    async fn commit(&mut self, attempts: u32) {
        for _ in 0..attempts {
            if self.uncommitted.is_empty() {
                return;
            }
            match self.consumer.commit(&self.uncommitted).await {
                Ok(()) => {
                    self.uncommitted.clear();
                    self.confirmed = self.shared.ports.runtime.elapsed();
                }
                Err(fault) => {
                    tracing::debug!(service = self.shared.settings.service, %fault,
                        "offsets not committed; again later");
                    if matches!(fault, Fault::Refused(_)) {
                        return;
                    }
                }
            }
        }
    }

    /// Raises the epochs of the positions of what is ours and not claimed, so that an older owner's
    /// transactions fail, and reads from the positions on.
    async fn claim(&mut self) -> Outcome<()> {
        let unclaimed = self.held.iter().filter(|(_, held)| held.epoch.is_none());
        let partitions: Vec<Partition> =
            unclaimed.map(|(partition, _)| partition.clone()).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let mut failures = 0;
        loop {
            match self.try_claim(&partitions).await {
                Ok(claimed) => return self.start(claimed).await,
                Err(fault @ Fault::Refused(_)) => return Err(fault),
                Err(fault @ (Fault::Retry(_) | Fault::Unknown(_))) => {
                    tracing::debug!(service = self.shared.settings.service, %fault,
                        "positions not claimed; again");
                    if failures > 5 {
                        // Poll in between, or the group takes us for dead; then claim again.
                        return Ok(());
                    }
                    self.shared.back_off("claim", &mut failures).await;
                }
            }
        }
    }

    /// Reads claimed partitions from their positions on. Only after the seek they count as claimed:
    /// else what was dropped before it would be passed over.
    async fn start(&mut self, claimed: BTreeMap<Partition, Position>) -> Outcome<()> {
        let next: Offsets =
            claimed.iter().filter_map(|(p, position)| Some((p.clone(), position.next?))).collect();
        let again = |p: &Partition| self.held.get(p).and_then(|held| held.again);
        let mut from: Offsets =
            claimed.keys().filter_map(|p| Some((p.clone(), again(p)?))).collect();
        from.extend(next.clone());
        if !from.is_empty() {
            self.consumer.seek(&from).await?;
        }
        for (partition, Position { epoch, claims, trial, .. }) in claimed {
            let suspected = claims > 1 || trial.is_some();
            let suspect = suspected.then_some(Suspect { claims, trial });
            let read_to = from.get(&partition).copied();
            self.held.insert(partition, Held { epoch: Some(epoch), again: None, read_to, suspect });
        }
        // An owner that died between its transaction and its offset commit left the log's copy
        // behind; without new records nobody else would mend it.
        self.uncommitted.extend(next);
        Ok(())
    }

    async fn try_claim(
        &mut self,
        partitions: &[Partition],
    ) -> Outcome<BTreeMap<Partition, Position>> {
        let keys: BTreeMap<Key, &Partition> =
            partitions.iter().map(|p| (position_key(p), p)).collect();
        let lock = Op::Lock { table: &POSITIONS, keys: keys.keys().cloned().collect() };
        let (tx, replies) = self.shared.ports.store.begin(vec![lock]).await?;
        let mut puts = Rows::new();
        let mut claimed = BTreeMap::new();
        for (key, row) in rows(replies.into_iter().next()) {
            let partition = keys[&key];
            let mut position = document::<Position>(&row).unwrap_or_default();
            position.epoch += 1;
            position.claims = position.claims.saturating_add(1);
            let (index, body) = (position.index(), json(&position));
            puts.insert(key, Row { version: row.version, index, body });
            claimed.insert(partition.clone(), position);
        }
        tx.commit(vec![Op::Put { table: &POSITIONS, rows: puts }]).await?;
        Ok(claimed)
    }
}

/// The first offset of each partition.
fn firsts(records: &[Fetched]) -> Offsets {
    let mut first = Offsets::new();
    for Fetched { partition, offset, .. } in records {
        first.entry(partition.clone()).or_insert(*offset);
    }
    first
}
