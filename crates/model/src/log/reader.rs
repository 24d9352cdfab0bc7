//! A member's own side of the group protocol: what it believes to hold, and where it reads.
//! Pure, like the log; the client wraps it with waiting, and never the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ports::{Fault, Fetched, Offsets, Outcome, Partition, Polled};

use super::group::{MemberId, Step};
use super::state::Log;

/// A partition that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    next: i64,
    paused: bool,
}

/// A member as it sees itself: it may be wrong, until it polls (broker-contract K23).
#[derive(Debug, Clone)]
pub struct Reader {
    group: Arc<str>,
    name: Arc<str>,
    topics: Vec<Arc<str>>,
    id: MemberId,
    generation: i32,
    held: BTreeMap<Partition, Held>,
    /// Of what it holds, what it was told to give up: no longer read.
    revoked: BTreeSet<Partition>,
    /// The partition that was read last: the next read starts behind it.
    last: Option<Partition>,
}

impl Reader {
    /// Joins the group under this name.
    pub fn join(
        log: &mut Log,
        now: Duration,
        group: &str,
        name: &Arc<str>,
        topics: &[Arc<str>],
    ) -> Self {
        Reader {
            group: group.into(),
            name: name.clone(),
            topics: topics.to_vec(),
            id: log.join(now, group, name, topics),
            generation: 0,
            held: BTreeMap::new(),
            revoked: BTreeSet::new(),
            last: None,
        }
    }

    /// Its present id; another one after it was expelled and has joined anew.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The partitions that it believes to hold.
    pub fn held(&self) -> Vec<Partition> {
        self.held.keys().cloned().collect()
    }

    /// The next records, at most `max`, or a change; `None` when there is nothing now.
    pub fn poll(&mut self, log: &mut Log, now: Duration, max: usize) -> Option<Polled> {
        match log.poll(now, &self.group, self.id) {
            Step::Unknown => {
                let lost = self.held();
                self.held.clear();
                self.revoked.clear();
                self.generation = 0;
                self.id = log.join(now, &self.group, &self.name, &self.topics);
                (!lost.is_empty()).then_some(Polled::Lost(lost))
            }
            Step::Revoke(generation, mut partitions) => {
                self.generation = generation;
                partitions.retain(|partition| self.revoked.insert(partition.clone()));
                match partitions.is_empty() {
                    true => self.read(log, max),
                    false => Some(Polled::Revoked(partitions)),
                }
            }
            Step::Assigned(generation, partitions) => {
                self.generation = generation;
                for partition in &partitions {
                    let next = match log.committed_at(&self.group, partition) {
                        Some(offset) => offset,
                        None => log.watermarks(partition).map_or(0, |(low, _)| low),
                    };
                    self.held.insert(partition.clone(), Held { next, paused: false });
                }
                match partitions.is_empty() {
                    true => self.read(log, max),
                    false => Some(Polled::Assigned(partitions)),
                }
            }
            Step::Read(generation) => {
                self.generation = generation;
                self.read(log, max)
            }
        }
    }

    fn read(&mut self, log: &Log, max: usize) -> Option<Polled> {
        let records = self.fetch(log, max.max(1));
        (!records.is_empty()).then_some(Polled::Records(records))
    }

    /// Commits. `Refused` for partitions that it doesn't hold, before the server is asked: a late
    /// commit must not move another owner's offset (K25).
    pub fn commit(&mut self, log: &mut Log, now: Duration, next: &Offsets) -> Outcome<()> {
        self.check_held(next)?;
        Ok(log.commit(now, &self.group, self.id, self.generation, next)?)
    }

    /// Gives up revoked partitions. Before [`Polled::Revoked`] nothing can be given up.
    pub fn release(&mut self, log: &mut Log, now: Duration, revoked: &[Partition]) {
        for partition in revoked {
            if self.revoked.contains(partition) {
                self.held.remove(partition);
            }
        }
        let left = self.revoked.iter().any(|partition| self.held.contains_key(partition));
        if !self.revoked.is_empty() && !left {
            self.revoked.clear();
            log.release(now, &self.group, self.id);
        }
    }

    /// Reads on from these offsets. `Refused` for partitions that it doesn't hold.
    pub fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.check_held(next)?;
        for (partition, offset) in next {
            if let Some(held) = self.held.get_mut(partition) {
                held.next = *offset;
            }
        }
        Ok(())
    }

    /// Stops or resumes reading these partitions, as long as they are held.
    pub fn pause(&mut self, partitions: &[Partition], paused: bool) {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.paused = paused;
            }
        }
    }

    /// Leaves the group.
    pub fn leave(self, log: &mut Log, now: Duration) {
        log.leave(now, &self.group, self.id);
    }

    fn check_held(&self, offsets: &Offsets) -> Outcome<()> {
        match offsets.keys().find(|partition| !self.held.contains_key(*partition)) {
            Some(partition) => Err(Fault::refused(format!("{partition} is not held"))),
            None if offsets.values().any(|offset| *offset < 0) => {
                Err(Fault::refused("offsets start at 0"))
            }
            None => Ok(()),
        }
    }

    /// Reads partition by partition, starting behind the one that was read last. An offset out of
    /// range starts again at the first one: `auto.offset.reset=earliest` (K15, K32).
    fn fetch(&mut self, log: &Log, max: usize) -> Vec<Fetched> {
        let (mut order, mut seen): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (partition, held) in &mut self.held {
            let behind = self.last.as_ref().is_none_or(|last| partition > last);
            if behind { &mut order } else { &mut seen }.push((partition, held));
        }
        order.append(&mut seen);
        let mut records: Vec<Fetched> = Vec::new();
        for (partition, held) in order {
            if held.paused || records.len() == max || self.revoked.contains(partition) {
                continue;
            }
            let Some(kept) = log.partition(partition) else { continue };
            let (low, high) = kept.watermarks();
            if held.next < low || held.next > high {
                held.next = low;
            }
            if held.next == high {
                continue;
            }
            let room = max - records.len();
            let visible = kept.from(held.next).take_while(|record| record.offset < high);
            records.extend(visible.take(room).cloned());
            if let Some(last) = records.last().filter(|record| record.partition == *partition) {
                held.next = last.offset + 1;
                self.last = Some(partition.clone());
            }
        }
        records
    }
}
