//! Runs programs on a backend and writes down what it shows. Never judges: it asks the monitor only how long
//! something is worth waiting for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ports::{Consumer, EventLog, Fault, Offsets, Partition, Polled, Record};

use super::generate::{MEMBERS, PARTITIONS, Step, generate};
use super::history::{Event, Next};
use super::judge;
use super::monitor::Monitor;
use crate::log::{Link, LogBackend};
use crate::programs::{Answer, Programs, Trial};

/// Programs on this backend.
pub struct LogPrograms<'a> {
    backend: &'a dyn LogBackend,
    /// What is to come must be there after so long, by the backend's clock.
    patience: Duration,
    runs: AtomicU64,
}

impl<'a> LogPrograms<'a> {
    /// On this backend.
    pub fn on(backend: &'a dyn LogBackend, patience: Duration) -> Self {
        LogPrograms { backend, patience, runs: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Programs for LogPrograms<'_> {
    type Step = Step;

    fn program(&self, seed: u64) -> Vec<Step> {
        generate(seed)
    }

    async fn trial(&self, lane: usize, steps: &[Step]) -> Trial {
        let topic = self.backend.topic(PARTITIONS).await;
        let client = self.backend.client(&format!("lane-{lane}")).await;
        let group = format!("{topic}-{}", self.runs.fetch_add(1, Ordering::Relaxed));
        let mut run = Run {
            programs: self,
            client,
            topic,
            group,
            history: Vec::new(),
            monitor: Monitor::default(),
            sound: true,
            members: BTreeMap::new(),
            doomed: steps.iter().filter_map(Step::killed).collect(),
            dead: Vec::new(),
            joined: 0,
            records: 0,
        };
        for step in steps {
            run.step(step).await;
        }
        run.drain().await;
        Trial::of(&run.history, |event| Some(event.met()), judge)
    }
}

struct Member {
    number: u32,
    consumer: Box<dyn Consumer>,
    /// Where it stands in what it holds; none where it read nothing yet.
    next: BTreeMap<i32, Option<i64>>,
    /// What it dies by, where a drop is not enough.
    link: Option<Box<dyn Link>>,
}

struct Run<'a> {
    programs: &'a LogPrograms<'a>,
    client: Arc<dyn EventLog>,
    topic: Arc<str>,
    group: String,
    history: Vec<Event>,
    monitor: Monitor,
    /// Whether the monitor still agrees; if not, nothing is worth waiting for.
    sound: bool,
    members: BTreeMap<usize, Member>,
    /// Who is going to be killed.
    doomed: BTreeSet<usize>,
    /// Links of the dead: they stay silent.
    dead: Vec<Box<dyn Link>>,
    joined: u32,
    records: u64,
}

impl Run<'_> {
    fn note(&mut self, event: Event) {
        self.sound = self.sound && self.monitor.see(&event).is_ok();
        self.history.push(event);
    }

    fn offsets(&self, next: &Next) -> Offsets {
        let partition = |index: &i32| Partition { topic: self.topic.clone(), index: *index };
        next.iter().map(|(index, offset)| (partition(index), *offset)).collect()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Produce { keys } => self.produce(keys).await,
            Step::Join { member } => {
                if !self.members.contains_key(member) {
                    self.join(*member).await;
                }
            }
            Step::Poll { times } => {
                for _ in 0..*times {
                    for member in 0..MEMBERS {
                        self.poll(member).await;
                    }
                }
            }
            Step::Commit { member, back } => {
                let Some(of) = self.members.get(member) else { return };
                let read = of.next.iter().filter_map(|(index, next)| Some((*index, (*next)?)));
                let next = read.map(|(index, next)| (index, (next - back).max(0))).collect();
                self.commit(*member, next).await;
            }
            Step::CommitForeign { member } => {
                let Some(of) = self.members.get(member) else { return };
                let foreign = (0..PARTITIONS).find(|index| !of.next.contains_key(index));
                self.commit(*member, foreign.map(|index| (index, 1)).into_iter().collect()).await;
            }
            Step::Seek { member, back } => self.seek(*member, *back).await,
            Step::Pause { member, paused } => {
                let Some(of) = self.members.get_mut(member) else { return };
                let Some(partition) = of.next.keys().next().copied() else { return };
                let (number, paused) = (of.number, *paused);
                of.consumer
                    .pause(&[Partition { topic: self.topic.clone(), index: partition }], paused);
                self.note(Event::Paused { member: number, partition, paused });
            }
            Step::Close { member } => self.leave(*member, true).await,
            Step::Kill { member } => self.leave(*member, false).await,
            Step::Look => self.look().await,
        }
    }

    async fn produce(&mut self, keys: &[usize]) {
        let first = self.records + 1;
        self.records += keys.len() as u64;
        let records = keys.iter().zip(first..).map(|(key, n)| Record {
            to: self.topic.clone(),
            key: format!("key-{key}").into(),
            headers: Vec::new(),
            payload: Bytes::from(n.to_string()),
        });
        let answers = self.client.produce(records.collect()).await;
        for ((key, n), answer) in keys.iter().zip(first..).zip(&answers) {
            let (key, answer) = (format!("key-{key}"), Answer::of(answer));
            self.note(Event::Produced { key, n, answer });
        }
    }

    async fn join(&mut self, member: usize) {
        let topics = [self.topic.clone()];
        let mortal = match self.doomed.contains(&member) {
            true => self.programs.backend.mortal("doomed").await,
            false => None,
        };
        let (client, link) = match mortal {
            Some((client, link)) => (client, Some(link)),
            None => (self.client.clone(), None),
        };
        if let Ok(consumer) = client.subscribe(&self.group, &topics).await {
            self.joined += 1;
            let joined = Member { number: self.joined, consumer, next: BTreeMap::new(), link };
            self.members.insert(member, joined);
        }
    }

    async fn poll(&mut self, member: usize) {
        let Some(of) = self.members.get_mut(&member) else { return };
        let number = of.number;
        match of.consumer.poll(10).await {
            Ok(Polled::Records(records)) => {
                for fetched in records {
                    let (partition, offset) = (fetched.partition.index, fetched.offset);
                    of.next.insert(partition, Some(offset + 1));
                    let event = got(number, partition, offset, &fetched.record);
                    self.sound = self.sound && self.monitor.see(&event).is_ok();
                    self.history.push(event);
                }
            }
            Ok(Polled::Assigned(partitions)) => {
                of.next.extend(partitions.iter().map(|partition| (partition.index, None)));
                let partitions = indexes(&partitions);
                self.note(Event::Assigned { member: number, partitions });
            }
            Ok(Polled::Revoked(partitions)) => {
                of.next.retain(|index, _| partitions.iter().all(|gone| gone.index != *index));
                let gone = indexes(&partitions);
                of.consumer.release(partitions).await;
                self.note(Event::Gone { member: number, partitions: gone });
            }
            Ok(Polled::Lost(partitions)) => {
                of.next.retain(|index, _| partitions.iter().all(|gone| gone.index != *index));
                self.note(Event::Gone { member: number, partitions: indexes(&partitions) });
            }
            Err(_) => {}
        }
    }

    async fn commit(&mut self, member: usize, next: Next) {
        let offsets = self.offsets(&next);
        let Some(of) = self.members.get_mut(&member) else { return };
        if !next.is_empty() {
            let (number, answer) = (of.number, Answer::of(&of.consumer.commit(&offsets).await));
            self.note(Event::Committed { member: number, next, answer });
        }
    }

    async fn seek(&mut self, member: usize, back: i64) {
        let Some(of) = self.members.get(&member) else { return };
        let read = of.next.iter().find_map(|(index, next)| Some((*index, (*next)?)));
        let Some((index, stands)) = read else { return };
        let next = Next::from([(index, (stands - back).max(0))]);
        let offsets = self.offsets(&next);
        let Some(of) = self.members.get_mut(&member) else { return };
        let (number, answer) = (of.number, Answer::of(&of.consumer.seek(&offsets).await));
        self.note(Event::Sought { member: number, next, answer });
    }

    async fn leave(&mut self, member: usize, goodbye: bool) {
        let Some(of) = self.members.remove(&member) else { return };
        let Member { number, consumer, link, .. } = of;
        if goodbye {
            consumer.close().await;
        } else {
            link.iter().for_each(|link| link.silence());
            drop(consumer);
            self.dead.extend(link);
        }
        self.note(Event::Left { member: number, goodbye });
    }

    async fn look(&mut self) {
        if let Ok(marks) = self.client.watermarks(&self.topic).await {
            let marks = marks.into_iter().map(|(partition, marks)| (partition.index, marks));
            self.note(Event::Watermarks { marks: marks.collect() });
        }
        let topics = [self.topic.clone()];
        if let Ok(offsets) = self.client.committed(&self.group, &topics).await {
            let next = offsets.into_iter().map(|(partition, next)| (partition.index, next));
            self.note(Event::Offsets { next: next.collect() });
        }
    }

    /// All leave; a group of its own reads all, and an heir reads on in the group.
    async fn drain(&mut self) {
        for member in 0..MEMBERS {
            self.leave(member, true).await;
        }
        self.look().await;
        self.read_all().await;
        self.join(0).await;
        let heir = self.joined;
        let begun = self.programs.backend.runtime().elapsed();
        while self.sound && self.monitor.unread_by(heir) > 0 && self.waits(begun) {
            self.poll(0).await;
        }
        self.leave(0, true).await;
        self.look().await;
        self.note(Event::Drained { heir });
    }

    fn waits(&self, begun: Duration) -> bool {
        self.programs.backend.runtime().elapsed() - begun < self.programs.patience
    }

    async fn read_all(&mut self) {
        let (group, topics) = (format!("{}-all", self.group), [self.topic.clone()]);
        let Ok(mut consumer) = self.client.subscribe(&group, &topics).await else { return };
        let begun = self.programs.backend.runtime().elapsed();
        while self.sound && self.monitor.unread() > 0 && self.waits(begun) {
            match consumer.poll(100).await {
                Ok(Polled::Records(records)) => {
                    for fetched in records {
                        let (partition, offset) = (fetched.partition.index, fetched.offset);
                        self.note(got(0, partition, offset, &fetched.record));
                    }
                }
                Ok(Polled::Revoked(partitions)) => consumer.release(partitions).await,
                Ok(Polled::Assigned(_) | Polled::Lost(_)) | Err(Fault::Retry(_)) => {}
                Err(_) => break,
            }
        }
        consumer.close().await;
    }
}

fn got(member: u32, partition: i32, offset: i64, record: &Record) -> Event {
    let n = std::str::from_utf8(&record.payload).ok().and_then(|n| n.parse().ok());
    Event::Got { member, partition, offset, key: record.key.to_string(), n: n.unwrap_or(0) }
}

fn indexes(partitions: &[Partition]) -> Vec<i32> {
    partitions.iter().map(|partition| partition.index).collect()
}
