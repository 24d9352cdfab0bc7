//! Crash loops at the consumer: what is handled next is marked where a process may have died of it, and
//! the mark is taken back where none did: a group that does not come to rest accuses nobody. What to
//! mark, and whom to give up, is decided by the position under its lock, in which others take back.

use std::collections::{BTreeMap, BTreeSet};

use ports::{Fault, Fetched, Key, Offsets, Op, Outcome, Partition, Row, Rows, Store, Tx};

use super::{Held, Member, Owed, Taken, firsts};
use crate::slot::Source;
use crate::tables::position_key;
use crate::touched::document;
use crate::transaction::{json, rows};
use crate::trial::{self, Step, Trial};
use crate::{Document, POSITIONS, Position};

/// What its position says of a partition that was claimed again without progress.
pub(super) struct Suspect {
    /// Claims without progress, the present one included.
    pub(super) claims: u32,
    /// As it stood; its position has it as it stands.
    pub(super) trial: Option<Trial>,
}

/// Records in hand, parted.
#[derive(Default)]
pub(super) struct Round {
    pub(super) records: Vec<Taken>,
    /// See [`super::Work::alone`].
    pub(super) alone: bool,
    /// The marks that were written for them.
    pub(super) marked: Owed,
    /// What comes after them.
    pub(super) later: Vec<Fetched>,
}

/// What is decided of partitions that are suspected.
#[derive(Default)]
struct Decided {
    marks: BTreeMap<Partition, Trial>,
    /// Whose first record is handled alone.
    alone: Option<Partition>,
    /// Whose first record is given up, and how often the process ended when it was handled.
    crashed: BTreeMap<Partition, u32>,
    /// Claimed by somebody else, or not to be told.
    left: BTreeSet<Partition>,
}

impl Member<'_> {
    /// What is to be handled now, and what after it. Of a partition that is suspected of a crash loop
    /// a mark is written first, and where that fails its records are left for later.
    pub(super) async fn mark(&mut self, records: Vec<Fetched>) -> Round {
        let mut suspected = firsts(&records);
        suspected.retain(|p, _| self.held.get(p).is_some_and(|held| held.suspect.is_some()));
        let decided = match suspected.is_empty() {
            true => Decided::default(),
            false => match self.decide(&suspected, &records).await {
                Ok(decided) => decided,
                Err(fault) => {
                    tracing::debug!(service = self.shared.settings.service, %fault, "not marked");
                    Decided { left: suspected.into_keys().collect(), ..Decided::default() }
                }
            },
        };
        let Decided { marks, alone, crashed, left } = decided;
        let mut round = Round { alone: alone.is_some(), marked: owed(&marks), ..Round::default() };
        let (mut begun, mut unhandled) = (BTreeSet::new(), Offsets::new());
        for record in records {
            let more = !begun.insert(record.partition.clone());
            let waits = match &alone {
                Some(alone) => more || record.partition != *alone,
                None => more && crashed.contains_key(&record.partition),
            };
            if left.contains(&record.partition) {
                unhandled.entry(record.partition).or_insert(record.offset);
            } else if waits {
                round.later.push(record);
            } else {
                let Fetched { partition, offset, at, record } = record;
                let crashed = crashed.get(&partition).copied();
                let source = Source::Log { partition, offset };
                round.records.push(Taken { source, record, produced_at: Some(at), crashed });
            }
        }
        self.drop_unhandled(&unhandled);
        round
    }

    /// Decides by the positions of what is suspected, and writes the marks.
    async fn decide(&mut self, suspected: &Offsets, records: &[Fetched]) -> Outcome<Decided> {
        let locked = Locked::of(&*self.shared.ports.store, suspected.keys()).await?;
        let mut decided = Decided::default();
        for (partition, first) in suspected {
            let held = self.held.get(partition);
            let Some(Held { epoch: Some(epoch), suspect: Some(suspect), .. }) = held else {
                continue;
            };
            let position = locked.positions.get(partition).map(|(_, position)| position);
            let Some(position) = position.filter(|position| position.epoch == *epoch) else {
                decided.left.insert(partition.clone());
                continue;
            };
            let left = without_owed(partition, position, self.owed);
            let trial = left.as_ref().unwrap_or(&position.trial).as_ref();
            let end = records.iter().rfind(|record| record.partition == *partition);
            let stretch = (*first, end.map_or(*first, |last| last.offset) + 1);
            match trial::step(suspect.claims, trial, stretch, records.len() == 1) {
                Step::Handle => {}
                Step::MarkAll(mark) => drop(decided.marks.insert(partition.clone(), mark)),
                Step::MarkFirst(mark) => {
                    decided.alone = Some(partition.clone());
                    decided.marks = BTreeMap::from([(partition.clone(), mark)]);
                    break;
                }
                Step::GiveUp => {
                    let times = trial.map_or(0, |trial| trial.marks) + 1;
                    decided.crashed.insert(partition.clone(), times);
                }
            }
        }
        let trials = decided.marks.iter().map(|(p, mark)| (p.clone(), Some(mark.clone())));
        if let Err(fault) = locked.commit(trials.collect()).await {
            if let Fault::Unknown(_) = fault {
                self.owed.append(&mut owed(&decided.marks));
            }
            return Err(fault);
        }
        for (partition, mark) in &decided.marks {
            // In its place.
            self.owed.retain(|(owed, _)| owed != partition);
            let Some(held) = self.held.get_mut(partition) else { continue };
            let suspect = Suspect { claims: 0, trial: Some(mark.clone()) };
            let before = held.suspect.replace(suspect).and_then(|suspect| suspect.trial);
            let service = self.shared.settings.service;
            // The first mark is nothing yet: so it is of each partition to which nothing came between two starts.
            if before.is_some() {
                tracing::warn!(service, %partition, ?mark,
                    "claimed again without progress: the process may die of what comes next");
            } else {
                tracing::debug!(service, %partition, ?mark, "marked: claimed again without progress");
            }
        }
        Ok(decided)
    }

    /// Takes back the marks that are owed: what they stand for did not end the process. Whoever claimed the
    /// partition since may have marked it, too: those marks stay. What fails is owed still: the polls go on.
    pub(super) async fn take_back(&mut self, attempts: u32) {
        for _ in 0..attempts {
            if self.owed.is_empty() {
                return;
            }
            match try_take_back(&*self.shared.ports.store, self.owed).await {
                Ok(()) => self.owed.clear(),
                Err(fault) => tracing::debug!(service = self.shared.settings.service, %fault,
                    "marks not taken back; again later"),
            }
        }
    }
}

async fn try_take_back(store: &dyn Store, owed: &Owed) -> Outcome<()> {
    let locked = Locked::of(store, owed.iter().map(|(partition, _)| partition)).await?;
    let positions = locked.positions.iter();
    let trials = positions.filter_map(|(partition, (_, it))| {
        Some((partition.clone(), without_owed(partition, it, owed)?))
    });
    let trials = trials.collect();
    locked.commit(trials).await
}

/// What these marks are of.
fn owed(marks: &BTreeMap<Partition, Trial>) -> Owed {
    marks.iter().map(|(partition, mark)| (partition.clone(), mark.upto)).collect()
}

/// What is left of a position's trial without the mark that is owed; `None` where there is none.
fn without_owed(partition: &Partition, position: &Position, owed: &Owed) -> Option<Option<Trial>> {
    let trial = position.trial.as_ref()?;
    owed.contains(&(partition.clone(), trial.upto)).then(|| trial::without(trial))?
}

/// Positions under their locks, with the versions of their rows.
pub(super) struct Locked {
    pub(super) positions: BTreeMap<Partition, (i64, Position)>,
    tx: Box<dyn Tx>,
}

impl Locked {
    pub(super) async fn of(
        store: &dyn Store,
        partitions: impl Iterator<Item = &Partition>,
    ) -> Outcome<Self> {
        let keys: BTreeMap<Key, &Partition> = partitions.map(|p| (position_key(p), p)).collect();
        let lock = Op::Lock { table: &POSITIONS, keys: keys.keys().cloned().collect() };
        let (tx, replies) = store.begin(vec![lock]).await?;
        let locked = rows(replies.into_iter().next()).into_iter();
        let positions = locked
            .filter_map(|(key, row)| Some((keys[&key].clone(), (row.version, document(&row)?))));
        Ok(Locked { positions: positions.collect(), tx })
    }

    /// Writes trials into the positions, if there are any, and lets the locks go.
    async fn commit(self, trials: BTreeMap<Partition, Option<Trial>>) -> Outcome<()> {
        self.change(trials, |position, trial| Position { trial, ..position }).await
    }

    /// Writes what becomes of some of the positions, and lets the locks go.
    pub(super) async fn change<T>(
        self,
        changes: BTreeMap<Partition, T>,
        apply: impl Fn(Position, T) -> Position,
    ) -> Outcome<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let Locked { mut positions, tx } = self;
        let mut puts = Rows::new();
        for (partition, change) in changes {
            if let Some((version, position)) = positions.remove(&partition) {
                let position = apply(position, change);
                let (index, body) = (position.index(), json(&position));
                puts.insert(position_key(&partition), Row { version, index, body });
            }
        }
        tx.commit(vec![Op::Put { table: &POSITIONS, rows: puts }]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_taken_back_where_it_is_owed_and_of_what_is_tried() {
        let at = |index| Partition { topic: "in".into(), index };
        let trial = Some(Trial { upto: 6, marks: 1, alone_until: None });
        let position = Position { trial, ..Position::default() };
        let left = |owed: &[(Partition, i64)]| {
            without_owed(&at(0), &position, &owed.iter().cloned().collect())
        };
        assert_eq!(left(&[(at(0), 6)]), Some(None));
        // Not of what is no longer tried, and of no other partition.
        assert_eq!(left(&[(at(0), 9), (at(1), 6)]), None);
    }
}
