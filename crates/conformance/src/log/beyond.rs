//! What the cases need of an event log beyond its port: links that lose something, requests that no client
//! sends by itself, and what operators do. Never demands it: a backend without it says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ports::{EventLog, Offsets, Outcome, Partition, Record, Runtime};

use super::Life;
use crate::{NotApplicable, Observed};

/// An event log, and what can be done to it.
#[async_trait]
pub trait LogBackend: Send + Sync {
    /// Measures time for the cases.
    fn runtime(&self) -> &dyn Runtime;

    /// How long a member may be silent.
    fn session_timeout(&self) -> Duration;

    /// How often a member beats.
    fn heartbeat(&self) -> Duration;

    /// How long a member may be without a poll.
    fn max_poll_interval(&self) -> Duration;

    /// Whether its rebalances end when nobody is to be waited for, as K23 and K24 need.
    fn keeps_time(&self) -> Observed {
        Ok(())
    }

    /// Whether somebody without a membership can commit to it, as K20 needs.
    fn knows_nobody(&self) -> Observed {
        Ok(())
    }

    /// Who leads the groups.
    fn groups(&self) -> Groups {
        Groups::LedByMembers
    }

    /// A new topic under a name of its own, with so many partitions.
    async fn topic(&self, partitions: i32) -> Arc<str>;

    /// A new client of this name, as after a start of its process.
    async fn client(&self, name: &str) -> Arc<dyn EventLog>;

    /// A client of this name whose members are dead, without goodbye, once its link is silent and they are dropped.
    /// None where a drop alone is a death.
    async fn mortal(&self, _name: &str) -> Option<(Arc<dyn EventLog>, Box<dyn Link>)> {
        None
    }

    /// Has a process of its own go through [`super::before_the_kill`] and kills it without goodbye.
    /// When, by the runtime's clock.
    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable>;

    /// A client without idempotence produces these, never hears of it, and sends them again.
    async fn resend_without_idempotence(&self, batch: Vec<Record>) -> Observed;

    /// A client produces these; its link breaks once they have arrived and before the answer is back.
    async fn break_before_the_answer(
        &self,
        batch: Vec<Record>,
    ) -> Result<Vec<Outcome<()>>, NotApplicable>;

    /// A client produces these on a link that loses this, until it waits no longer; then the link is
    /// whole, and it produces the second batch. The outcomes of both.
    async fn lose_until_late(
        &self,
        lost: Lost,
        batch: Vec<Record>,
        next: Vec<Record>,
    ) -> Result<[Vec<Outcome<()>>; 2], NotApplicable>;

    /// The id of a new producer.
    async fn producer_id(&self) -> Result<i64, NotApplicable>;

    /// Sends a batch of this one record, of whatever producer and number, to the topic's first partition.
    async fn send(&self, sent: Sent, record: Record) -> Result<Appended, NotApplicable>;

    /// A client whose next batch is answered with DUPLICATE_SEQUENCE_NUMBER, and a topic of one partition
    /// for it.
    async fn answers_as_a_duplicate(&self) -> Result<(Arc<dyn EventLog>, Arc<str>), NotApplicable>;

    /// Kills the leader of the topic's only partition without goodbye, and starts it again, by and by.
    async fn kill_the_leader(&self, topic: &Arc<str>) -> Observed;

    /// A new topic of one partition that has fewer replicas in sync than it needs.
    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable>;

    /// From now on they are enough.
    async fn enough_replicas(&self, topic: &Arc<str>) -> Observed;

    /// A group and a topic of one partition for a client whose links may fail, and which leads to one broker for
    /// the group and to another one for the topic.
    async fn apart(&self) -> Result<Apart, NotApplicable>;

    /// Produces a record with an answer by the leader alone (`acks=1`).
    async fn produce_to_the_leader(&self, record: Record) -> Result<Outcome<()>, NotApplicable>;

    /// Produces a record that was made at this time.
    async fn produce_at(&self, record: Record, at: DateTime<Utc>) -> Observed;

    /// Begins a transaction with these records of one partition.
    async fn begin(
        &self,
        batch: Vec<Record>,
        ending: Ending,
    ) -> Result<Box<dyn Transaction>, NotApplicable>;

    /// Deletes what is below this offset, as retention does.
    async fn delete_below(&self, partition: &Partition, offset: i64) -> Observed;

    /// A new topic of one partition that is compacted.
    async fn compacted_topic(&self) -> Result<Arc<str>, NotApplicable>;

    /// Has it compacted, soon: all of it but the last record.
    async fn compact(&self, topic: &Arc<str>) -> Observed;

    /// A member of the client library stores offsets for its committer: the committed offset after each round.
    async fn store_offsets(
        &self,
        group: &str,
        partition: &Partition,
        rounds: &[&[i64]],
    ) -> Result<Vec<Option<i64>>, NotApplicable>;

    /// A member of the client library with its defaults, but from the beginning, reads so many records
    /// and ends.
    async fn read_by_default(&self, group: &str, topic: &Arc<str>, count: usize) -> Observed;

    /// Joins a new group as its only member, and leaves all that follows to the case.
    async fn bare_member(
        &self,
        group: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn BareMember>, NotApplicable>;
}

/// What one broker does for a client and what another.
pub struct Apart {
    /// The client.
    pub client: Arc<dyn EventLog>,
    /// One broker coordinates this group.
    pub group: String,
    /// Another one leads this topic.
    pub topic: Arc<str>,
    /// The client's link to the first one.
    pub coordinator: Box<dyn Link>,
}

/// A client's link to a broker.
pub trait Link: Send + Sync {
    /// From now on all that the client sends there is lost.
    fn silence(&self);
}

/// Who leads the groups of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// The classic protocol, by generations.
    LedByMembers,
    /// KIP-848, by epochs.
    LedByBrokers,
}

/// What a link loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// What the client sends.
    Requests,
    /// What the server answers.
    Replies,
}

/// How a producer numbers a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub producer: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The number of the batch's first record.
    pub sequence: i32,
}

/// The answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is at this offset.
    At(i64),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// DUPLICATE_SEQUENCE_NUMBER.
    Duplicate,
    /// Another error code of the protocol.
    Other(i16),
}

/// How a transaction will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its records count.
    Commits,
    /// Its records never were.
    Aborts,
}

/// A transaction of a producer that is open.
#[async_trait]
pub trait Transaction: Send {
    /// Ends it, as it was said to.
    async fn end(self: Box<Self>);
}

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The member, as it is.
    Member,
    /// The member, with the generation or epoch before its own.
    MemberBefore,
    /// A member that never was.
    Stranger,
    /// No member at all: generation -1.
    Nobody,
}

/// The answer to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It counts.
    Taken,
    /// UNKNOWN_MEMBER_ID.
    UnknownMember,
    /// ILLEGAL_GENERATION.
    IllegalGeneration,
    /// STALE_MEMBER_EPOCH.
    StaleEpoch,
    /// REBALANCE_IN_PROGRESS.
    RebalanceInProgress,
    /// Another error code of the protocol.
    Other(i16),
}

/// A member that does nothing by itself. It has joined, and the group waits for its assignment.
#[async_trait]
pub trait BareMember: Send {
    /// Ends the rebalance, as its leader.
    async fn sync(&mut self);

    /// Commits for the group.
    async fn commit(&mut self, who: Who, next: &Offsets) -> Committed;

    /// Leaves the group.
    async fn leave(&mut self);
}
