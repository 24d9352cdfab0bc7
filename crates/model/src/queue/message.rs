//! What the queue model is made of: settings, messages, effects. Never decides anything about them
//! but how a dead letter looks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::{Delivery, Header, Record};

/// Header of a dead letter: one line, `<reason> <count> <queue>` (broker-contract R20). The count is
/// 1: since 4.0 the server ignores an `x-death` that a client published.
pub const X_DEATH: &str = "x-death";
/// Header of a dead letter: the queue it died in first.
pub const FIRST_DEATH_QUEUE: &str = "x-first-death-queue";
/// Header of a dead letter: why it died first, `rejected` or `delivery_limit`.
pub const FIRST_DEATH_REASON: &str = "x-first-death-reason";
/// Why a message died that its client rejected.
pub(super) const REJECTED: &str = "rejected";

/// The release of the server that is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3, 4, …
    pub major: u8,
    /// The second number.
    pub minor: u8,
}

impl Version {
    /// As in Debian 12.
    pub const V3_10: Version = Version { major: 3, minor: 10 };
    /// As in Debian 13; here a dead letter begins to tell what failed before (broker-contract R33).
    pub const V4_0: Version = Version { major: 4, minor: 0 };
    /// Where a consumer time-out no longer counts as a return (broker-contract R16), and a dead letter counts on
    /// (R33).
    pub const V4_3: Version = Version { major: 4, minor: 3 };
}

/// How the modelled server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which release.
    pub version: Version,
    /// How long a delivery may stay unsettled (broker-contract R24).
    pub ack_timeout: Duration,
    /// How many messages may be ready in a queue; more are nacked (`reject-publish`, broker-contract
    /// R23). A real quorum queue lets some more in before it tells its publishers.
    pub max_length: usize,
    /// Keep [`Effect`]s for a journal, and hold dead letters back until the journal inserts them.
    pub journaled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: Version::V4_0,
            ack_timeout: Duration::from_secs(30 * 60),
            // As the adapter declares its queues.
            max_length: 1_000_000,
            journaled: false,
        }
    }
}

/// A channel with its one consumer. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub(super) u64);

/// A message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Rises with each publish over all queues: the order within a queue.
    pub id: u64,
    /// `to` is the queue.
    pub record: Record,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// How many returns were counted.
    pub returns: u32,
    /// How many deliveries failed: they ended with their channel, or in a rejection. A dead letter of 4.0 tells
    /// them until it comes back (broker-contract R33).
    pub failures: u32,
}

impl Message {
    /// As the channel gives it to its client.
    pub(super) fn delivery(&self, tag: u64) -> Delivery {
        Delivery {
            tag,
            redelivered: self.redelivered,
            returns: if self.returns > 0 { self.returns } else { self.failures },
            record: self.record.clone(),
        }
    }

    /// The dead letter of this message. Headers of an earlier death are replaced. What it tells of the deliveries
    /// before its death depends on the release (broker-contract R33).
    pub(super) fn died(self, id: u64, reason: &str, target: Arc<str>, version: Version) -> Message {
        let rejected = u32::from(reason == REJECTED);
        let (returns, failures) = if version >= Version::V4_3 {
            (self.returns + rejected, 0)
        } else if version >= Version::V4_0 {
            (0, self.failures + rejected)
        } else {
            (0, 0)
        };
        let redelivered = returns + failures > 0;
        let queue = self.record.to;
        let deaths = [X_DEATH, FIRST_DEATH_QUEUE, FIRST_DEATH_REASON];
        let mut headers = self.record.headers;
        headers.retain(|(name, _)| !deaths.contains(&&**name));
        headers.push(header(X_DEATH, format!("{reason} 1 {queue}")));
        headers.push(header(FIRST_DEATH_QUEUE, queue.to_string()));
        headers.push(header(FIRST_DEATH_REASON, reason.to_owned()));
        let record =
            Record { to: target, key: self.record.key, headers, payload: self.record.payload };
        Message { id, record, redelivered, returns, failures }
    }
}

fn header(name: &str, value: String) -> Header {
    (name.into(), Bytes::from(value))
}

/// A change of stored messages, in the order it happened, for a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Acked, or dropped because there is no dead-letter queue.
    Deleted {
        /// Which message.
        id: u64,
    },
    /// Left its queue for the dead-letter queue. It is not visible there before the journal gives it
    /// to `Queues::insert`.
    DeadLettered {
        /// The message that is gone.
        from: u64,
        /// The one to insert.
        message: Message,
    },
    /// Came back to its queue.
    Returned {
        /// Which message.
        id: u64,
        /// Its count now.
        returns: u32,
    },
}
