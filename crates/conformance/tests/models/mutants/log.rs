//! Logs that lie: a model behind a wrapper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Consumer, EventLog, Offsets, Outcome, Partition, Polled, Record, Runtime, TopicSpec};
use shakedown_conformance::log::{Life, LogBackend, before_the_kill};
use shakedown_conformance::{NotApplicable, Observed};

use crate::log;

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLie {
    /// Another hash chooses the partition.
    OtherHash,
    /// The high watermark is one too low.
    LowWatermark,
    /// A producer of the same name is known again, and what it sends again left out.
    Dedup,
    /// A batch is written from its end.
    LastFirst,
    /// One record that is refused takes its batch with it.
    RefusesTogether,
    /// A group without offsets begins at the end.
    BeginsAtTheEnd,
    /// A commit is of the last offset, not of the next.
    LastNotNext,
    /// Only a higher offset is committed.
    NeverBack,
    /// All partitions are revoked in each rebalance.
    Eager,
    /// A close is silent.
    SilentClose,
    /// A kill says goodbye.
    PoliteKill,
    /// What is not held is left out of a commit in silence.
    CommitsWhatItCan,
    /// A seek changes nothing.
    NoSeek,
    /// A pause changes nothing.
    NoPause,
}

impl LogLie {
    /// All of them, with the statements that each breaks.
    pub const ALL: [(LogLie, &'static [&'static str]); 14] = [
        (LogLie::OtherHash, &["K1"]),
        (LogLie::LowWatermark, &["K3", "K4"]),
        (LogLie::Dedup, &["K9"]),
        (LogLie::LastFirst, &["K10"]),
        (LogLie::RefusesTogether, &["K12"]),
        (LogLie::BeginsAtTheEnd, &["K15"]),
        (LogLie::LastNotNext, &["K16"]),
        (LogLie::NeverBack, &["K16"]),
        (LogLie::Eager, &["K22"]),
        (LogLie::SilentClose, &["K24"]),
        (LogLie::PoliteKill, &["K24"]),
        (LogLie::CommitsWhatItCan, &["K25"]),
        (LogLie::NoSeek, &[""]),
        (LogLie::NoPause, &[""]),
    ];
}

/// Topic, key and payload of what was produced.
type Produced = Arc<Mutex<BTreeSet<(Arc<str>, Arc<str>, Vec<u8>)>>>;

pub struct LyingLog {
    truth: log::InProcess,
    lie: LogLie,
    produced: Produced,
}

impl LyingLog {
    pub fn new(truth: log::InProcess, lie: LogLie) -> Self {
        LyingLog { truth, lie, produced: Arc::default() }
    }
}

#[async_trait]
impl LogBackend for LyingLog {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn session_timeout(&self) -> Duration {
        self.truth.session_timeout()
    }

    fn heartbeat(&self) -> Duration {
        self.truth.heartbeat()
    }

    fn keeps_time(&self) -> Observed {
        Ok(())
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        self.truth.topic(partitions).await
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        let truth = self.truth.client(name).await;
        Arc::new(Client { truth, lie: self.lie, produced: self.produced.clone() })
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        if self.lie != LogLie::PoliteKill {
            return self.truth.kill_a_member(life).await;
        }
        let at = self.runtime().elapsed();
        let client = self.truth.client("doomed").await;
        before_the_kill(&*client, life).await.close().await;
        Ok(at)
    }
}

struct Client {
    truth: Arc<dyn EventLog>,
    lie: LogLie,
    produced: Produced,
}

#[async_trait]
impl EventLog for Client {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.truth.declare(topics).await
    }

    async fn produce(&self, mut batch: Vec<Record>) -> Vec<Outcome<()>> {
        let count = batch.len();
        match self.lie {
            LogLie::LastFirst => batch.reverse(),
            LogLie::OtherHash => {
                for record in &mut batch {
                    record.key = format!("~{}", record.key).into();
                }
            }
            LogLie::Dedup => {
                let mut produced = self.produced.lock().unwrap();
                batch.retain(|record| {
                    let id = (record.to.clone(), record.key.clone(), record.payload.to_vec());
                    produced.insert(id)
                });
            }
            _ => {}
        }
        let outcomes = self.truth.produce(batch).await;
        match self.lie {
            LogLie::RefusesTogether => {
                let refused = outcomes.iter().find(|outcome| outcome.is_err()).cloned();
                refused.map_or(outcomes, |refused| vec![refused; count])
            }
            LogLie::Dedup => vec![Ok(()); count],
            _ => outcomes,
        }
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let truth = self.truth.subscribe(group, topics).await?;
        let (lie, log) = (self.lie, self.truth.clone());
        Ok(Box::new(Member { truth, lie, log, held: BTreeSet::new(), most: Offsets::new() }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        let mut marks = self.truth.watermarks(topic).await?;
        if self.lie == LogLie::LowWatermark {
            marks.values_mut().for_each(|(low, high)| *high = (*high - 1).max(*low));
        }
        Ok(marks)
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        let mut offsets = self.truth.committed(group, topics).await?;
        if self.lie == LogLie::LastNotNext {
            offsets.values_mut().for_each(|offset| *offset -= 1);
        }
        Ok(offsets)
    }
}

struct Member {
    truth: Box<dyn Consumer>,
    lie: LogLie,
    log: Arc<dyn EventLog>,
    held: BTreeSet<Partition>,
    /// The highest offset of each partition that was committed.
    most: Offsets,
}

#[async_trait]
impl Consumer for Member {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        let mut polled = self.truth.poll(max).await?;
        if let (LogLie::OtherHash, Polled::Records(records)) = (self.lie, &mut polled) {
            for fetched in records {
                fetched.record.key = fetched.record.key[1..].into();
            }
        }
        if let Polled::Assigned(partitions) = &polled {
            self.held.extend(partitions.iter().cloned());
            if self.lie == LogLie::BeginsAtTheEnd {
                let marks = self.log.watermarks(&partitions[0].topic).await?;
                let ends = partitions.iter().map(|it| (it.clone(), marks[it].1)).collect();
                self.truth.seek(&ends).await?;
            }
        }
        Ok(polled)
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let mut next = next.clone();
        match self.lie {
            LogLie::LastNotNext => next.values_mut().for_each(|offset| *offset += 1),
            LogLie::CommitsWhatItCan => next.retain(|partition, _| self.held.contains(partition)),
            LogLie::NeverBack => {
                for (partition, offset) in &mut next {
                    let most = self.most.entry(partition.clone()).or_insert(*offset);
                    *most = (*most).max(*offset);
                    *offset = *most;
                }
            }
            _ => {}
        }
        self.truth.commit(&next).await
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.truth.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        if self.lie == LogLie::NoSeek { Ok(()) } else { self.truth.seek(next).await }
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        if self.lie != LogLie::NoPause {
            self.truth.pause(partitions, paused);
        }
    }

    async fn close(self: Box<Self>) {
        if self.lie != LogLie::SilentClose {
            self.truth.close().await;
        }
    }
}
