//! The job queue: RabbitMQ's contract (broker-contract R1–R32). Never acks by itself.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Outcome, Record};

/// A durable quorum queue as it should be, with its dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: Arc<str>,
    /// How often a message may come back before it is dead-lettered (broker-contract R15).
    pub delivery_limit: u32,
    /// Where dead letters go; declared with the queue, without a limit of its own.
    pub dead_letters: Option<Arc<str>>,
}

/// A message as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The delivery tag, of this channel only (broker-contract R7).
    pub tag: u64,
    /// Whether the server says that it was delivered before (R8). `false` proves nothing (R9), and `true` on a
    /// dead letter may mean the queue that it died in (R33).
    pub redelivered: bool,
    /// How often it came back before this delivery, where the server counts (R15, R16). Of a dead letter it may be
    /// how often its delivery failed where it died (R33): nothing to decide on.
    pub returns: u32,
    /// Key (message id), headers and payload; `to` is the queue.
    pub record: Record,
}

/// What waiting for deliveries gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// At least one delivery.
    Batch(Vec<Delivery>),
    /// The channel is gone and every tag of it is dead: its unsettled messages are back in the
    /// queue (R8). Consume anew.
    ChannelLost,
}

/// Queues of jobs.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Declares the queue and its dead-letter queue. `Refused` where it exists with other arguments.
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()>;

    /// Publishes persistent messages, mandatory, with confirms: one outcome each, in the order
    /// given. `Ok` only for confirmed and not returned (R1, R4); returned is `Refused`; a nack is
    /// `Retry`; a lost connection is `Unknown` (R3).
    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>>;

    /// Opens a channel that gets at most `prefetch` unsettled messages at a time (R12), at least 1.
    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>>;

    /// How many messages are ready in the queue.
    async fn depth(&self, queue: &str) -> Outcome<u64>;
}

/// A channel that consumes. Dropping it requeues what is unsettled (R8).
#[async_trait]
pub trait Deliveries: Send {
    /// At most `max` (at least 1) deliveries; waits for the first. Cancel-safe.
    async fn next(&mut self, max: usize) -> Outcome<Delivered>;

    /// Acks the one set, rejects the other without requeue (dead letter). Tags of a lost channel
    /// are `Refused`, with no effect. `Unknown` when the link broke on the way.
    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()>;

    /// Returns messages to the queue (`basic.reject` with requeue): each return counts (R15, R16).
    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()>;
}
