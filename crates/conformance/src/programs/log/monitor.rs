//! Judges the history of one program on the event log: K1, K3, K4, K10, K16, K19, K25 of the broker contract. Pure.
//! The committed offset has a set of possible values, for a commit may end unknown.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Event, Next};
use crate::programs::{Answer, Judgement, Stop, rule};

/// The rules, by name.
#[cfg(test)]
pub(super) const RULES: [&str; 9] = [
    "answers",    // a record is confirmed, a seek is done
    "produced",   // what is read was produced, and is as it was
    "place",      // a record has one offset, an offset one record, a key one partition (K1, K3)
    "rising",     // offsets rise, and no known record is left out (K3, K16)
    "start",      // reading begins at the committed offset, or where a seek says (K15, K16)
    "order",      // a key keeps its order (K10)
    "fenced", // what a member does not hold it cannot commit, and no one else's offset moves (K19, K25)
    "watermarks", // what is read lies between them (K4)
    "lost",   // what is confirmed is read, by the next owner too (K4, K16)
];

/// Judges a whole history.
pub fn judge(history: &[Event]) -> Judgement {
    let mut monitor = Monitor::default();
    Judgement::of(history.iter().try_for_each(|event| monitor.see(event)))
}

/// What is known after the events so far.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    /// Key and answer of each record.
    produced: BTreeMap<u64, (String, Answer)>,
    /// The records by partition and offset.
    log: BTreeMap<(i32, i64), u64>,
    homes: BTreeMap<String, i32>,
    committed: BTreeMap<i32, BTreeSet<i64>>,
    /// What each member holds.
    held: BTreeMap<(u32, i32), Reading>,
    /// From where to where members have read: partition, begin, end.
    read: Vec<(u32, i32, i64, i64)>,
    marks: BTreeMap<i32, (i64, i64)>,
}

#[derive(Debug)]
struct Reading {
    /// Where it may begin, before the first record.
    starts: BTreeSet<i64>,
    next: Option<i64>,
    paused: bool,
}

impl Reading {
    fn at(starts: BTreeSet<i64>) -> Self {
        Reading { starts, next: None, paused: false }
    }
}

impl Monitor {
    /// Numbers of confirmed records that this member has not read.
    pub(super) fn unread(&self) -> usize {
        let read: BTreeSet<_> = self.log.values().collect();
        let confirmed = |(n, (_, answer)): &(&u64, &(String, Answer))| {
            *answer == Answer::Ok && !read.contains(n)
        };
        self.produced.iter().filter(confirmed).count()
    }

    /// How many known records, from the committed offsets on, the member has not read.
    pub(super) fn unread_by(&self, heir: u32) -> usize {
        let read = |partition: i32, offset: i64| {
            let within = |(member, of, begin, end): &&(u32, i32, i64, i64)| {
                *member == heir && *of == partition && (*begin..*end).contains(&offset)
            };
            self.read.iter().any(|stretch| within(&stretch))
        };
        let due = |(partition, offset): &&(i32, i64)| {
            *offset >= self.starts(*partition).last().copied().unwrap_or(0)
                && !read(*partition, *offset)
        };
        self.log.keys().filter(due).count()
    }

    fn starts(&self, partition: i32) -> BTreeSet<i64> {
        self.committed.get(&partition).cloned().unwrap_or_else(|| [0].into())
    }

    /// Goes on by an event.
    pub(super) fn see(&mut self, event: &Event) -> Result<(), Stop> {
        match event {
            Event::Produced { key, n, answer } => {
                rule("answers", *answer == Answer::Ok, || format!("produce: {answer:?}"))?;
                self.produced.insert(*n, (key.clone(), *answer));
                Ok(())
            }
            Event::Assigned { member, partitions } => {
                for partition in partitions {
                    let reading = Reading::at(self.starts(*partition));
                    self.held.insert((*member, *partition), reading);
                }
                Ok(())
            }
            Event::Gone { member, partitions } => {
                partitions
                    .iter()
                    .for_each(|partition| drop(self.held.remove(&(*member, *partition))));
                Ok(())
            }
            Event::Got { member, partition, offset, key, n } => {
                self.placed(*partition, *offset, key, *n)?;
                self.got(*member, *partition, *offset)
            }
            Event::Committed { member, next, answer } => self.commit(*member, next, *answer),
            Event::Sought { member, next, answer } => {
                rule("answers", *answer == Answer::Ok, || format!("seek: {answer:?}"))?;
                for (partition, offset) in next {
                    if let Some(reading) = self.held.get_mut(&(*member, *partition)) {
                        let paused = reading.paused;
                        *reading = Reading { paused, ..Reading::at([*offset].into()) };
                    }
                }
                Ok(())
            }
            Event::Paused { member, partition, paused } => {
                let reading = self.held.get_mut(&(*member, *partition));
                reading.into_iter().for_each(|reading| reading.paused = *paused);
                Ok(())
            }
            Event::Left { member, .. } => {
                self.held.retain(|(holder, _), _| holder != member);
                Ok(())
            }
            Event::Offsets { next } => self.offsets(next),
            Event::Watermarks { marks } => self.watermarks(marks),
            Event::Drained { heir } => self.drained(*heir),
        }
    }

    /// A record is what was produced, where it was before, and in its key's order.
    fn placed(&mut self, partition: i32, offset: i64, key: &str, n: u64) -> Result<(), Stop> {
        let known = self.produced.get(&n).is_some_and(|(produced, _)| produced == key);
        rule("produced", known, || format!("nobody produced {key} {n}"))?;
        let home = *self.homes.entry(key.to_owned()).or_insert(partition);
        rule("place", home == partition, || format!("{key} in {partition}, before in {home}"))?;
        let there = *self.log.entry((partition, offset)).or_insert(n);
        let copies = self.log.values().filter(|known| **known == n).count();
        rule("place", there == n && copies == 1, || {
            format!("{n} at {partition}/{offset}, where {there} is, {copies} times in all")
        })?;
        for ((of, other), known) in &self.log {
            let same_key = *of == partition && self.produced[known].0 == *key;
            let ordered = (*other < offset) == (*known < n);
            rule("order", !same_key || *known == n || ordered, || {
                format!("{key}: {n} at {offset}, {known} at {other}")
            })?;
        }
        Ok(())
    }

    fn got(&mut self, member: u32, partition: i32, offset: i64) -> Result<(), Stop> {
        if member == 0 {
            return Ok(());
        }
        let Some(reading) = self.held.get_mut(&(member, partition)) else {
            return rule("start", false, || {
                format!("{member} reads {partition}, which it has not")
            });
        };
        rule("start", !reading.paused, || format!("{member} reads {partition}, which is paused"))?;
        let begin = match reading.next {
            Some(next) => {
                rule("rising", offset >= next, || format!("{partition}/{offset} before {next}"))?;
                next
            }
            None => {
                let starts = &reading.starts;
                let start = starts.range(..=offset).next_back().copied();
                rule("start", start.is_some(), || {
                    format!("{partition} is read from {offset}, not from {starts:?}")
                })?;
                start.unwrap_or(offset)
            }
        };
        let first = reading.next.is_none();
        reading.next = Some(offset + 1);
        self.read.push((member, partition, begin, offset + 1));
        let left = self.log.range((partition, begin)..(partition, offset)).next();
        rule(if first { "start" } else { "rising" }, left.is_none(), || {
            format!("{member} reads {partition}/{offset} and left out {left:?}")
        })
    }

    fn commit(&mut self, member: u32, next: &Next, answer: Answer) -> Result<(), Stop> {
        let holds = next.keys().all(|partition| self.held.contains_key(&(member, *partition)));
        rule("fenced", holds || answer != Answer::Ok, || format!("{member} commits {next:?}"))?;
        for (partition, offset) in next {
            let mut states = self.starts(*partition);
            match answer {
                Answer::Ok => states = [*offset].into(),
                Answer::Unknown | Answer::Silence => drop(states.insert(*offset)),
                Answer::Retry | Answer::Refused => {}
            }
            self.committed.insert(*partition, states);
        }
        Ok(())
    }

    fn offsets(&self, next: &Next) -> Result<(), Stop> {
        for (partition, states) in &self.committed {
            let told = next.get(partition).copied().unwrap_or(0);
            rule("fenced", states.contains(&told), || {
                format!("{partition} is committed up to {told}, not {states:?}")
            })?;
        }
        Ok(())
    }

    fn watermarks(&mut self, marks: &BTreeMap<i32, (i64, i64)>) -> Result<(), Stop> {
        for ((partition, offset), n) in &self.log {
            let within =
                marks.get(partition).is_some_and(|(low, high)| (*low..*high).contains(offset));
            rule("watermarks", within, || format!("{n} at {partition}/{offset}: {marks:?}"))?;
        }
        for (partition, (low, high)) in marks {
            let (was_low, was_high) = self.marks.get(partition).copied().unwrap_or((*low, *high));
            rule("watermarks", was_low <= *low && was_high <= *high, || {
                format!("{partition}: {low} to {high}, before {was_low} to {was_high}")
            })?;
        }
        self.marks.extend(marks.iter().map(|(partition, mark)| (*partition, *mark)));
        let room: i64 = marks.values().map(|(low, high)| high - low).sum();
        let confirmed = self.produced.values().filter(|(_, answer)| *answer == Answer::Ok).count();
        rule("watermarks", room >= confirmed as i64, || format!("{room} for {confirmed} records"))
    }

    fn drained(&self, heir: u32) -> Result<(), Stop> {
        let unread = self.unread();
        rule("lost", unread == 0, || format!("{unread} confirmed records were never read"))?;
        let unread = self.unread_by(heir);
        rule("lost", unread == 0, || format!("{unread} records did not come to the next owner"))
    }
}
