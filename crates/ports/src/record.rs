//! What travels: a key, headers and bytes. Never looks inside the bytes.

use std::sync::Arc;

use bytes::Bytes;

/// The key of a record or a row. Ordered by its bytes everywhere (PostgreSQL: `COLLATE "C"`).
pub type Key = Arc<str>;

/// A header's name and its value.
pub type Header = (Arc<str>, Bytes);

/// What is produced to a topic or published to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic, or the queue.
    pub to: Arc<str>,
    /// On a topic the partition key (broker-contract K1: same key, same partition); on a queue the
    /// message id.
    pub key: Key,
    /// In the order they were given.
    pub headers: Vec<Header>,
    /// The content, as opaque bytes.
    pub payload: Bytes,
}
