//! The store: keyed, versioned rows in transactions, and an outbox. Operations are data: adapters
//! translate them, the model applies them, a fault can drop one.
//!
//! The locking rule: a transaction decides only on rows that it holds locked by key (or on their
//! versions, which are checked on put); locks are taken in a fixed order of tables, then in key
//! order. Never decide on a range or a count. Such transactions are conflict-serializable.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use litemap::LiteMap;

use crate::{Header, Key, Outcome};

/// A table of keyed rows: its name in snake case, and its indexed text columns.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// `[a-z_]+`, unique within a store.
    pub name: &'static str,
    /// Names of the indexed columns, `[a-z_]+`. A row has a value or none for each.
    pub index: &'static [&'static str],
}

/// A row, without its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Counts the puts. 0 means absent, to every reader.
    pub version: i64,
    /// One value or none for each index column of the table, in its order.
    pub index: Vec<Option<String>>,
    /// JSON text.
    pub body: String,
}

/// Rows by key, in its order; in one vector, as most transactions touch one row of a table.
pub type Rows = LiteMap<Key, Row>;

/// A shard of the outbox, from 0. Fixed for a key: events of one key leave in order.
pub type Shard = u16;

/// Where an outbox row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// A topic of the event log.
    Topic,
    /// A queue of jobs.
    Queue,
}

/// What is appended to the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The shard of its key.
    pub shard: Shard,
    /// Topic or queue.
    pub channel: Channel,
    /// The topic's or queue's name.
    pub to: Arc<str>,
    /// Partition key, or message id.
    pub key: Key,
    /// In order.
    pub headers: Vec<Header>,
    /// The bytes that will be sent, each time the same.
    pub payload: Bytes,
}

/// A row of the outbox that was not deleted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Rises within the rows of one key in commit order; never reused; not in commit order across
    /// keys (broker-contract D1).
    pub id: i64,
    /// When it was appended, by the store's clock.
    pub at: DateTime<Utc>,
    /// What to send.
    pub outgoing: Outgoing,
}

/// A stretch of an index, ordered by (value, key). Values compare by their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Position of the column in [`Table::index`].
    pub column: usize,
    /// Lowest value, included.
    pub from: String,
    /// Highest value, excluded.
    pub to: String,
    /// Continue behind this (value, key), in the direction of reading.
    pub after: Option<(String, Key)>,
    /// Highest first.
    pub descending: bool,
    /// At most so many rows.
    pub limit: usize,
}

/// One operation. Sets are ordered, and so are the locks they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Inserts the rows whose keys are new, at version 1, and locks all of them. A key that another
    /// open transaction inserted waits for that one's fate (broker-contract D4). Replies
    /// [`Reply::Rows`] with those that existed already, as they are.
    Insert {
        /// Where.
        table: &'static Table,
        /// What; `version` is ignored.
        rows: Rows,
    },
    /// Locks by key until the transaction ends. Replies [`Reply::Rows`] with a row for each key,
    /// absent ones at version 0.
    Lock {
        /// Where.
        table: &'static Table,
        /// In key order.
        keys: BTreeSet<Key>,
    },
    /// Writes each row over the version given in it (0: it must be absent), which it increments.
    /// The lock is taken if not yet held. Another version: the whole transaction fails with
    /// `Retry`, the next answer of it or its commit.
    Put {
        /// Where.
        table: &'static Table,
        /// Rows with the versions they were read at.
        rows: Rows,
    },
    /// Deletes locked rows; absent ones are fine.
    Delete {
        /// Where.
        table: &'static Table,
        /// Keys that this transaction locked.
        keys: BTreeSet<Key>,
    },
    /// Appends to the outbox. After the locks of their keys, so that ids follow the commits.
    Append {
        /// In order.
        rows: Vec<Outgoing>,
    },
    /// Deletes outbox rows that were sent.
    Sent {
        /// Absent ones are fine.
        ids: BTreeSet<i64>,
    },
    /// Locks and replies ([`Reply::Listed`]) rows of the range that no other transaction holds
    /// (SKIP LOCKED, broker-contract D3).
    Claim {
        /// Where.
        table: &'static Table,
        /// Which.
        range: Range,
    },
    /// Reads committed rows by key, without a lock: [`Reply::Rows`] with those that exist.
    Read {
        /// Where.
        table: &'static Table,
        /// Which.
        keys: BTreeSet<Key>,
    },
    /// Reads committed rows by index, without a lock: [`Reply::Listed`].
    List {
        /// Where.
        table: &'static Table,
        /// Which.
        range: Range,
    },
    /// Reads the first committed outbox rows of a shard by id, without a lock: [`Reply::Outbox`].
    Unsent {
        /// Which shard.
        shard: Shard,
        /// At most so many.
        limit: usize,
    },
    /// The store's own clock: [`Reply::Now`].
    Now,
}

/// The answer to an [`Op`]; [`Reply::Done`] where nothing is said above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was done.
    Done,
    /// Rows by key.
    Rows(Rows),
    /// Rows in the order of an index.
    Listed(Vec<(Key, Row)>),
    /// Outbox rows by id.
    Outbox(Vec<OutboxRow>),
    /// The store's clock.
    Now(DateTime<Utc>),
}

/// A service's own database.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates the tables that do not exist, the outbox among them.
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()>;

    /// Opens a transaction with these operations: one round trip. On a fault nothing is open.
    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)>;

    /// Reads without a transaction and without the writer: `Read`, `List`, `Unsent` and `Now` only.
    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>>;

    /// A whole transaction in one go. `Unknown` where the commit's reply was lost.
    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let (tx, replies) = self.begin(ops).await?;
        tx.commit(Vec::new()).await?;
        Ok(replies)
    }
}

/// An open transaction. Dropping it rolls back. After a fault it is dead: drop it.
#[async_trait]
pub trait Tx: Send {
    /// More operations: one round trip.
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>>;

    /// Last operations and the commit: one round trip. `Unknown` where the reply was lost (D2):
    /// it is committed or not, and may still become so.
    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()>;
}
