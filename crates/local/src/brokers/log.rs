//! The log model's client, with its writes through the journal. Never writes to the model itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use model::log::LogClient;
use ports::{Consumer, EventLog, Offsets, Outcome, Partition, Polled, Record, Runtime, TopicSpec};

use super::Brokers;
use super::writer::Work;

/// The event log of local mode.
pub(crate) struct LocalLog {
    brokers: Arc<Brokers>,
    runtime: Arc<dyn Runtime>,
    inner: LogClient,
}

impl LocalLog {
    pub(crate) fn new(brokers: Arc<Brokers>, runtime: Arc<dyn Runtime>) -> Self {
        let inner = brokers.log.client("local", runtime.clone());
        LocalLog { brokers, runtime, inner }
    }
}

#[async_trait]
impl EventLog for LocalLog {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.brokers.ask_one(Work::Topics(topics.to_vec())).await
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        // In microseconds, as it is stored: a restart changes nothing.
        let now = self.runtime.now();
        let at = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now);
        self.brokers.ask(Work::Produce(at, batch)).await
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let inner = self.inner.subscribe(group, topics).await?;
        let (brokers, group) = (self.brokers.clone(), group.into());
        Ok(Box::new(LocalConsumer { brokers, group, inner }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.inner.watermarks(topic).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        self.inner.committed(group, topics).await
    }
}

/// A member whose commits are stored before they are confirmed.
struct LocalConsumer {
    brokers: Arc<Brokers>,
    group: Arc<str>,
    inner: Box<dyn Consumer>,
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        self.inner.poll(max).await
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        // The model decides who may commit (K19). The writer stores what it finds there, so that of
        // two members' commits the later one stays.
        self.inner.commit(next).await?;
        let partitions = next.keys().cloned().collect();
        self.brokers.sync(Work::Offsets(self.group.clone(), partitions)).await
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.inner.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.inner.seek(next).await
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        self.inner.pause(partitions, paused);
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}
