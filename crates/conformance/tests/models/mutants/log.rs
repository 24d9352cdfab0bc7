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
    /// Another hash chooses the partition (K1).
    OtherHash,
    /// A producer of the same name is known again, and what it sends again left out (K9).
    Dedup,
    /// A commit is of the last offset, not of the next (K16).
    LastNotNext,
    /// A close is silent (K24).
    SilentClose,
    /// A kill says goodbye (K24).
    PoliteKill,
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
            LogLie::LastNotNext | LogLie::SilentClose | LogLie::PoliteKill => {}
        }
        self.truth.produce(batch).await;
        vec![Ok(()); count]
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let truth = self.truth.subscribe(group, topics).await?;
        Ok(Box::new(Member { truth, lie: self.lie }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.truth.watermarks(topic).await
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
        Ok(polled)
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let mut next = next.clone();
        if self.lie == LogLie::LastNotNext {
            next.values_mut().for_each(|offset| *offset += 1);
        }
        self.truth.commit(&next).await
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.truth.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.truth.seek(next).await
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        self.truth.pause(partitions, paused);
    }

    async fn close(self: Box<Self>) {
        if self.lie != LogLie::SilentClose {
            self.truth.close().await;
        }
    }
}
