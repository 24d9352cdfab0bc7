//! AMQP 0-9-1 itself, for statements about what the port does not have: exchanges, expiry, priorities,
//! cancelling. Never used where the port shows the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ports::{Outcome, timeout};

use super::{PATIENCE, QUIET, QueueBackend};

/// A value in a queue's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A signed 32-bit number.
    Number(i32),
    /// A long string.
    Text(String),
    /// A boolean.
    Flag(bool),
}

impl From<i32> for Argument {
    fn from(number: i32) -> Self {
        Argument::Number(number)
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Argument::Text(text.to_owned())
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Argument::Flag(flag)
    }
}

/// The arguments of a declaration.
pub type Arguments = BTreeMap<&'static str, Argument>;

/// A persistent message without content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its message id.
    pub key: String,
    /// Its `expiration`, in milliseconds.
    pub ttl_ms: Option<u32>,
    /// Its `priority`.
    pub priority: Option<u8>,
}

/// A death of a message, as `x-death` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: String,
    /// Where it died.
    pub queue: String,
    /// How often, there and so.
    pub count: i64,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The delivery tag.
    pub tag: u64,
    /// The message id.
    pub key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Its `expiration`.
    pub expiration: Option<String>,
    /// `x-death`, in its order.
    pub deaths: Vec<Death>,
}

/// How to consume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consuming {
    /// `basic.qos` before it; 0 is none.
    pub prefetch: u16,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// What is sent counts as acked.
    pub auto_ack: bool,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// `basic.ack`.
    Acked,
    /// `basic.ack`, after a `basic.return`.
    Returned,
    /// `basic.nack`.
    Nacked,
}

/// A channel in confirm mode on a connection of its own. Dropping it closes both.
#[async_trait]
pub trait Amqp: Send + Sync {
    /// `queue.declare`, durable.
    async fn declare(&self, queue: &str, arguments: &Arguments) -> Outcome<()>;

    /// Declares a fan-out exchange and binds these queues.
    async fn fan_out(&self, exchange: &str, queues: &[Arc<str>]);

    /// Publishes and waits for the confirm.
    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        message: Message,
    ) -> Outcome<Confirmed>;

    /// Publishes in a transaction, on a channel of its own, and commits it.
    async fn transact(&self, exchange: &str, key: &str, message: Message) -> Outcome<()>;

    /// How many are ready.
    async fn depth(&self, queue: &str) -> u64;

    /// `basic.get`.
    async fn get(&self, queue: &str) -> Option<Got>;

    /// Consumes; the channel has one consumer.
    async fn consume(&self, queue: &str, how: Consuming) -> Outcome<()>;

    /// `basic.cancel`.
    async fn cancel(&self);

    /// The next delivery; `None` where consumer or channel have ended. Cancel-safe.
    async fn next(&self) -> Option<Got>;

    /// `basic.ack`, of those below it too.
    async fn ack(&self, tag: u64, multiple: bool);

    /// `basic.reject`.
    async fn reject(&self, tag: u64, requeue: bool);
}

/// The arguments of a queue of the backend's kind, and more.
pub(super) fn arguments<const N: usize>(
    backend: &dyn QueueBackend,
    more: [(&'static str, Argument); N],
) -> Arguments {
    let mut all = Arguments::from(more);
    all.insert("x-queue-type", backend.kind().name().into());
    all
}

/// A message of this id and nothing else.
pub(super) fn message(key: &str) -> Message {
    Message { key: key.to_owned(), ..Message::default() }
}

/// To a queue, where it is confirmed.
pub(super) async fn publish(channel: &dyn Amqp, queue: &str, message: Message) {
    assert_eq!(channel.publish("", queue, true, message).await, Ok(Confirmed::Acked));
}

/// The keys of what comes until nothing more does.
pub(super) async fn taken(backend: &dyn QueueBackend, channel: &dyn Amqp) -> Vec<Got> {
    let mut all = Vec::new();
    while let Some(Some(one)) = timeout(backend.runtime(), QUIET, channel.next()).await {
        all.push(one);
    }
    all
}

/// The next one, which must come.
pub(super) async fn next(backend: &dyn QueueBackend, channel: &dyn Amqp) -> Got {
    let next = timeout(backend.runtime(), PATIENCE, channel.next()).await;
    next.flatten().expect("a delivery")
}

/// Their message ids, in order.
pub(super) fn ids(all: &[Got]) -> Vec<&str> {
    all.iter().map(|one| one.key.as_str()).collect()
}

/// What `basic.get` gives from the queue until it is empty, acked.
pub(super) async fn emptied(channel: &dyn Amqp, queue: &str) -> Vec<Got> {
    let mut all = Vec::new();
    while let Some(one) = channel.get(queue).await {
        channel.ack(one.tag, false).await;
        all.push(one);
    }
    all
}

/// Waits until so many are ready: a server may count late.
pub(super) async fn ready(backend: &dyn QueueBackend, channel: &dyn Amqp, queue: &str, count: u64) {
    let begun = backend.runtime().elapsed();
    loop {
        let depth = channel.depth(queue).await;
        if depth == count {
            return;
        }
        let waited = backend.runtime().elapsed() - begun;
        assert!(waited < PATIENCE, "{depth} are ready, not {count}");
        backend.runtime().sleep(std::time::Duration::from_millis(20)).await;
    }
}
