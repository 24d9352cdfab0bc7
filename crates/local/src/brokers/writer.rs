//! The writer thread: takes what waits, writes it in one transaction, makes it visible, replies.
//! Never goes on after an error: what the file then holds is known only by reading it anew, so it ends the
//! process.

use std::collections::BTreeMap;
use std::io::{Write as _, stderr};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use chrono::{DateTime, Utc};
use model::log::LogServer;
use model::queue::{Effect, Message, QueueServer};
use ports::{Fault, Fetched, Outcome, Partition, QueueSpec, Record, Runtime, TopicSpec};
use tokio::sync::oneshot;

use super::journal::{Journal, Round};
use crate::folder::other_partitions;
use crate::runtime::PANICKED;

/// Requests that one transaction takes at most.
const ROUND_MAX: usize = 1_024;

/// What to write.
#[derive(Debug)]
pub(super) enum Work {
    Topics(Vec<TopicSpec>),
    Produce(DateTime<Utc>, Vec<Record>),
    /// What the group has committed in the model for these partitions.
    Offsets(Arc<str>, Vec<Partition>),
    Queue(QueueSpec),
    Publish(Vec<Record>),
    /// What the queues' effects are by now.
    Effects,
}

impl Work {
    /// How many outcomes it has.
    pub fn items(&self) -> usize {
        match self {
            Work::Produce(_, records) | Work::Publish(records) => records.len(),
            Work::Topics(_) | Work::Offsets(..) | Work::Queue(_) | Work::Effects => 1,
        }
    }

    /// Whether what follows may depend on it.
    fn is_declaration(&self) -> bool {
        matches!(self, Work::Topics(_) | Work::Queue(_))
    }
}

/// Work, and where to answer.
pub(super) struct Request {
    pub work: Work,
    pub reply: oneshot::Sender<Vec<Outcome<()>>>,
}

pub(super) struct Writer {
    journal: Journal,
    log: LogServer,
    queues: QueueServer,
    runtime: Arc<dyn Runtime>,
}

impl Writer {
    pub fn new(
        journal: Journal,
        log: LogServer,
        queues: QueueServer,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Writer { journal, log, queues, runtime }
    }

    /// Until the last sender is gone. A panic ends the process, as in a task.
    pub fn run(mut self, requests: &Receiver<Request>) {
        let work = AssertUnwindSafe(|| {
            while let Ok(first) = requests.recv() {
                let mut group = vec![first];
                group.extend(requests.try_iter().take(ROUND_MAX - 1));
                self.serve(group);
            }
            // Returns of channels that were dropped at the end.
            self.round(Vec::new());
        });
        if catch_unwind(work).is_err() {
            end("the journal's thread panicked");
        }
    }

    /// Declarations in rounds of their own, everything else together.
    fn serve(&mut self, requests: Vec<Request>) {
        let mut group = Vec::new();
        for request in requests {
            if request.work.is_declaration() {
                self.round(mem::take(&mut group));
                self.round(vec![request]);
            } else {
                group.push(request);
            }
        }
        if !group.is_empty() {
            self.round(group);
        }
    }

    fn round(&mut self, requests: Vec<Request>) {
        let mut round = Round::default();
        let mut replies = Vec::with_capacity(requests.len());
        for Request { work, reply } in requests {
            let outcomes = self.plan(&mut round, work);
            replies.push((reply, outcomes));
        }
        round.effects = self.queues.with(|queues, _| queues.effects());
        let written = if round.is_empty() { Ok(()) } else { self.journal.write(&round) };
        if let Err(error) = written {
            end(&format!("{}: {error}: the journal cannot be written", self.journal.path()));
        }
        self.show(round);
        for (reply, outcomes) in replies {
            // Who asked may have gone; it is written all the same.
            let _ = reply.send(outcomes);
        }
    }

    /// Puts the work into the round. Nothing of it is visible yet; `Ok` means: once it is written.
    fn plan(&self, round: &mut Round, work: Work) -> Vec<Outcome<()>> {
        match work {
            Work::Topics(topics) => {
                let checked = self.check_topics(&topics);
                if checked.is_ok() {
                    round.topics = topics;
                }
                vec![checked]
            }
            Work::Queue(queue) => {
                let checked = self.queues.with(|queues, _| queues.check(&queue));
                if checked.is_ok() {
                    round.queues.push(queue);
                }
                vec![checked]
            }
            Work::Produce(at, records) => self.place(round, at, records),
            Work::Publish(records) => self.queues.with(|queues, _| {
                let reserve = |record: Record| {
                    let id = queues.reserve(&record.to)?;
                    let (returns, failures) = (0, 0);
                    let message = Message { id, record, redelivered: false, returns, failures };
                    round.messages.push(message);
                    Ok(())
                };
                records.into_iter().map(reserve).collect()
            }),
            Work::Offsets(group, partitions) => {
                let committed = self.log.with(|log| log.committed(&group));
                for partition in partitions {
                    if let Some(next) = committed.get(&partition) {
                        round.offsets.insert((group.clone(), partition), *next);
                    }
                }
                vec![Ok(())]
            }
            Work::Effects => vec![Ok(())],
        }
    }

    /// As the model will say when it is declared: this thread alone declares.
    fn check_topics(&self, topics: &[TopicSpec]) -> Outcome<()> {
        let declared: BTreeMap<_, _> = self.log.with(|log| {
            log.topics().into_iter().map(|topic| (topic.name, topic.partitions)).collect()
        });
        let mut wanted = declared;
        for topic in topics {
            if topic.partitions < 1 {
                return Err(Fault::refused("a topic needs at least one partition"));
            }
            let count = *wanted.entry(topic.name.clone()).or_insert(topic.partitions);
            if count != topic.partitions {
                return Err(Fault::refused(other_partitions(topic, count)));
            }
        }
        Ok(())
    }

    /// Gives each record its partition and its offset: this thread alone appends.
    fn place(
        &self,
        round: &mut Round,
        at: DateTime<Utc>,
        records: Vec<Record>,
    ) -> Vec<Outcome<()>> {
        let Round { records: placed, next, .. } = round;
        self.log.with(|log| {
            let place = |record: Record| {
                let partition = log.place(&record).map_err(Fault::from)?;
                let high = log.watermarks(&partition).map_or(0, |(_, high)| high);
                let slot = next.entry(partition.clone()).or_insert(high);
                let offset = *slot;
                *slot += 1;
                placed.push(Fetched { partition, offset, at, record });
                Ok(())
            };
            records.into_iter().map(place).collect()
        })
    }

    /// Makes visible what is written.
    fn show(&self, round: Round) {
        let now = self.runtime.elapsed();
        self.log.with(|log| {
            for topic in &round.topics {
                let declared = log.declare(now, topic);
                assert!(declared.is_ok(), "{topic:?} was checked: {declared:?}");
            }
            for Fetched { partition, offset, at, record } in round.records {
                let appended = log.append_at(&partition, offset, record, at);
                assert!(appended.is_ok(), "{partition}@{offset} was placed: {appended:?}");
            }
        });
        let dead_letter = |effect| match effect {
            Effect::DeadLettered { message, .. } => Some(message),
            Effect::Deleted { .. } | Effect::Returned { .. } => None,
        };
        let dead_letters = round.effects.into_iter().filter_map(dead_letter);
        self.queues.with(|queues, now| {
            for queue in &round.queues {
                let declared = queues.declare(queue);
                assert!(declared.is_ok(), "{queue:?} was checked: {declared:?}");
            }
            for message in round.messages.into_iter().chain(dead_letters) {
                let inserted = queues.insert(message, now);
                assert!(inserted.is_ok(), "its queue was there: {inserted:?}");
            }
        });
    }
}

/// Nobody is told anything more: a supervisor starts the process anew, and that reads what is written.
fn end(why: &str) -> ! {
    // Also where nobody reads it.
    let _ = writeln!(stderr(), "{why}: ending this process");
    std::process::exit(PANICKED);
}
