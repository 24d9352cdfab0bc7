//! The event log: Kafka's contract (broker-contract K1–K34). Never commits offsets by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{Outcome, Record};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// From 0.
    pub index: i32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// For each partition the next offset to read: last handled + 1 (broker-contract K16).
pub type Offsets = BTreeMap<Partition, i64>;

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Fixed at creation (broker-contract K2), at least 1.
    pub partitions: i32,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it stood.
    pub partition: Partition,
    /// Its offset. Offsets rise, with gaps (broker-contract K3).
    pub offset: i64,
    /// When the producer made it (CreateTime). May go backwards (broker-contract K34).
    pub at: DateTime<Utc>,
    /// Key, headers and payload; `to` is the topic.
    pub record: Record,
}

/// What a poll gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// In order within a partition. Empty when nothing came within the adapter's poll time.
    Records(Vec<Fetched>),
    /// These come to what is ours; never empty. Reading them starts at the committed offset (the
    /// beginning where there is none) unless [`Consumer::seek`] says otherwise before the next poll.
    Assigned(Vec<Partition>),
    /// These are to go to another member: all that is ours in an eager group, only what moves in a
    /// cooperative one, whose other partitions are read on meanwhile (broker-contract K22). They stay
    /// ours until [`Consumer::release`], and no more of them is read: finish or drop what is in hand,
    /// commit, release.
    Revoked(Vec<Partition>),
    /// These are no longer ours, and another member may read them already. Revoked ones may be
    /// among them: what was not released in time.
    Lost(Vec<Partition>),
}

/// A log of records in partitions, and groups that share the reading.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Creates the topics that do not exist. An existing topic with another partition count is
    /// [`Fault::Refused`](crate::Fault::Refused).
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()>;

    /// Appends the records; one outcome each, in the order given. Records of one key keep their
    /// order where all succeed. `Unknown`: it may be in the log, or still get there (K5, K11).
    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>>;

    /// Joins the group. The partitions come as [`Polled::Assigned`].
    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>>;

    /// For each partition of the topic its first and its next offset (low and high watermark).
    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>>;

    /// The group's committed offsets. Partitions without one are absent.
    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets>;
}

/// A member of a consumer group. Dropping it is a crash without goodbye; [`Consumer::close`] says
/// goodbye.
#[async_trait]
pub trait Consumer: Send {
    /// The next records (at most `max`, at least 1) or a change of assignment. Cancel-safe: a
    /// dropped poll loses nothing. Must be called within the group's maximal poll interval (K23).
    async fn poll(&mut self, max: usize) -> Outcome<Polled>;

    /// Commits the next offsets to read: all or none. `Refused` when a partition is not ours, or
    /// when the group went on to a generation that this member has not heard of (K19, K21): the
    /// next polls tell what is still ours, and for that the commit may be tried again. In a
    /// cooperative group that may be all of it. `Retry` while the group waits for its leader.
    /// `Unknown` may be repeated.
    async fn commit(&mut self, next: &Offsets) -> Outcome<()>;

    /// Gives up revoked partitions, after the last commit for them. The group waits for that, at
    /// most the maximal poll interval (K23): all that was revoked together is to be released.
    async fn release(&mut self, revoked: Vec<Partition>);

    /// Reads these assigned partitions from the given offsets on.
    async fn seek(&mut self, next: &Offsets) -> Outcome<()>;

    /// Stops or resumes fetching from these partitions; the membership stays.
    fn pause(&mut self, partitions: &[Partition], paused: bool);

    /// Leaves the group at once (K24), without committing anything.
    async fn close(self: Box<Self>);
}
