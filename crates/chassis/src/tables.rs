//! The chassis' own tables in each service's store. Never holds a service's data.

use ports::{Key, Table};
use serde::{Deserialize, Serialize};

use crate::letters::{DEAD_LETTERS, PARKED};
use crate::touched::content;
use crate::trial::Trial;
use crate::{Document, Reply};

/// One row a (group, topic, partition): how far this service's database is.
pub static POSITIONS: Table = Table { name: "chassis_positions", index: &[] };
/// One row for each event or command that was handled, as long as it may come again.
pub static INBOX: Table = Table { name: "chassis_inbox", index: &["expires_at"] };
/// One row an outbox shard: who may send.
pub static LEASES: Table = Table { name: "chassis_leases", index: &[] };
/// One row for each job of which a process may have died, until it is handled; where nobody could say so, as
/// long as it may come again.
pub static JOB_MARKS: Table = Table { name: "chassis_job_marks", index: &["expires_at"] };

/// The tables that the chassis keeps in the store of every service.
pub static ALL: [&Table; 6] = [&POSITIONS, &INBOX, &LEASES, &PARKED, &DEAD_LETTERS, &JOB_MARKS];

/// Where a partition's next record is read, and who may say so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Rises with each claim; an older epoch's batch is fenced.
    pub epoch: u64,
    /// The next offset; `None` before the first batch.
    pub next: Option<i64>,
    /// Claims since it last moved, this one included.
    #[serde(default)]
    pub claims: u32,
    /// What was being handled when a process may have died of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

impl Document for Position {
    const TABLE: &'static Table = &POSITIONS;
    fn index(&self) -> Vec<Option<String>> {
        Vec::new()
    }
}

/// How an input ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", try_from = "InboxText")]
pub enum InboxRow {
    /// Its effects are in the rows.
    Applied {
        /// What it said.
        fingerprint: String,
        /// Until when it is kept: see [`crate::Settings::keep_events`]. RFC 3339.
        expires_at: String,
        /// For a repeat of the same command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<StoredReply>,
    },
    /// It broke the contract; see the dead letter of the same id.
    Dead {
        /// What it said.
        fingerprint: String,
        /// Until when it is kept. RFC 3339.
        expires_at: String,
        /// The reason's code.
        code: String,
        /// For a repeat of the same command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<StoredReply>,
    },
    /// It waits behind a dead letter of its key; see the letter of the same id.
    Parked {
        /// What it said.
        fingerprint: String,
        /// Until when it is kept. RFC 3339.
        expires_at: String,
    },
}

/// [`InboxRow`] as it is read: with all fields in one struct, as serde reads a tag only from a copy of them.
#[derive(Deserialize)]
struct InboxText {
    outcome: InboxOutcome,
    fingerprint: String,
    expires_at: String,
    code: Option<String>,
    reply: Option<StoredReply>,
}

/// How an input ended, in a word; see [`InboxRow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxOutcome {
    /// [`InboxRow::Applied`].
    Applied,
    /// [`InboxRow::Dead`].
    Dead,
    /// [`InboxRow::Parked`].
    Parked,
}

impl InboxOutcome {
    /// Of an inbox row, without the rest of it.
    ///
    /// # Panics
    /// As [`crate::document`].
    pub fn of(row: &ports::Row) -> InboxOutcome {
        #[derive(Deserialize)]
        struct Ended {
            outcome: InboxOutcome,
        }
        content::<Ended>(&INBOX, row).outcome
    }
}

impl TryFrom<InboxText> for InboxRow {
    type Error = &'static str;

    fn try_from(text: InboxText) -> Result<Self, Self::Error> {
        let InboxText { outcome, fingerprint, expires_at, code, reply } = text;
        Ok(match outcome {
            InboxOutcome::Applied => InboxRow::Applied { fingerprint, expires_at, reply },
            InboxOutcome::Dead => {
                let code = code.ok_or("a dead input without a code")?;
                InboxRow::Dead { fingerprint, expires_at, code, reply }
            }
            InboxOutcome::Parked => InboxRow::Parked { fingerprint, expires_at },
        })
    }
}

impl InboxRow {
    /// What the input said.
    pub fn fingerprint(&self) -> &str {
        match self {
            InboxRow::Applied { fingerprint, .. }
            | InboxRow::Dead { fingerprint, .. }
            | InboxRow::Parked { fingerprint, .. } => fingerprint,
        }
    }
}

impl Document for InboxRow {
    const TABLE: &'static Table = &INBOX;
    fn index(&self) -> Vec<Option<String>> {
        match self {
            InboxRow::Applied { expires_at, .. }
            | InboxRow::Dead { expires_at, .. }
            | InboxRow::Parked { expires_at, .. } => vec![Some(expires_at.clone())],
        }
    }
}

/// A reply as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReply {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: serde_json::Value,
    /// `Location`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl From<&Reply> for StoredReply {
    fn from(reply: &Reply) -> Self {
        let Reply { status, body, location, .. } = reply.clone();
        StoredReply { status, body, location }
    }
}

impl From<StoredReply> for Reply {
    fn from(stored: StoredReply) -> Self {
        let StoredReply { status, body, location } = stored;
        Reply { status, body, location, retry_after_s: None, kept: true }
    }
}

/// Who sends a shard's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The instance.
    pub owner: String,
    /// Until when, by the store's clock, milliseconds of the Unix epoch.
    pub until_ms: i64,
}

impl Document for Lease {
    const TABLE: &'static Table = &LEASES;
    fn index(&self) -> Vec<Option<String>> {
        Vec::new()
    }
}

/// The key of a shard's row among the [`LEASES`].
pub fn lease_key(shard: ports::Shard) -> Key {
    format!("outbox/{shard}").into()
}

/// The key of a partition's row among the [`POSITIONS`].
pub fn position_key(partition: &ports::Partition) -> Key {
    [&partition.topic, "|", &partition.index.to_string()].concat().into()
}
