//! The queue model's client, with its writes through the journal. Never publishes to the model
//! itself.

use std::sync::Arc;

use async_trait::async_trait;
use model::queue::QueueClient;
use ports::{Delivered, Deliveries, JobQueue, Outcome, QueueSpec, Record, Runtime};

use super::Brokers;
use super::writer::Work;

/// The job queues of local mode.
pub(crate) struct LocalQueue {
    brokers: Arc<Brokers>,
    inner: QueueClient,
}

impl LocalQueue {
    pub(crate) fn new(brokers: Arc<Brokers>, runtime: Arc<dyn Runtime>) -> Self {
        let inner = brokers.queues.client("local", runtime);
        LocalQueue { brokers, inner }
    }
}

#[async_trait]
impl JobQueue for LocalQueue {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.brokers.ask_one(Work::Queue(queue.clone())).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.brokers.ask(Work::Publish(batch)).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let inner = Some(self.inner.consume(queue, prefetch).await?);
        Ok(Box::new(LocalDeliveries { brokers: self.brokers.clone(), inner }))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.inner.depth(queue).await
    }
}

/// A channel whose settling is stored before it is confirmed. What its drop returns to the queue is
/// stored soon after.
struct LocalDeliveries {
    brokers: Arc<Brokers>,
    /// There until it is dropped.
    inner: Option<Box<dyn Deliveries>>,
}

impl LocalDeliveries {
    fn inner(&mut self) -> &mut dyn Deliveries {
        &mut **self.inner.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for LocalDeliveries {
    fn drop(&mut self) {
        self.inner = None;
        // Returns beyond the limit are dead letters, which only the journal shows. Nobody waits for it.
        drop(self.brokers.tell(Work::Effects));
    }
}

#[async_trait]
impl Deliveries for LocalDeliveries {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        self.inner().next(max).await
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        let settled = self.inner().settle(acked, rejected).await;
        self.brokers.sync(Work::Effects).await?;
        settled
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        let requeued = self.inner().requeue(tags).await;
        self.brokers.sync(Work::Effects).await?;
        requeued
    }
}
