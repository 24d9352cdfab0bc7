//! What concurrent transactions saw, in the order in which calls began and ended. Never an opinion on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::programs::Answer;

/// A row as it was read: its version, and who wrote it (empty where the row is absent).
pub type Seen = (i64, String);

/// A call that begins, or one that ended. Transactions are numbered as they begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A transaction asks for locks.
    Locking {
        /// Which.
        tx: u32,
    },
    /// It has them, and read these rows.
    Locked {
        /// Which.
        tx: u32,
        /// By key.
        rows: BTreeMap<String, Seen>,
    },
    /// It wrote a row over this version.
    Put {
        /// Which.
        tx: u32,
        /// The key.
        key: String,
        /// The version that was there.
        over: i64,
        /// What it wrote, of this write only.
        body: String,
    },
    /// A call of it failed, and it is dropped.
    Failed {
        /// Which.
        tx: u32,
        /// How.
        answer: Answer,
    },
    /// It was rolled back.
    RolledBack {
        /// Which.
        tx: u32,
    },
    /// Its commit ended.
    Committed {
        /// Which.
        tx: u32,
        /// How.
        answer: Answer,
        /// Whether the link was to be lost meanwhile.
        lossy: bool,
    },
    /// A read without a transaction begins.
    Reading {
        /// Its number, among the transactions'.
        tx: u32,
    },
    /// It ended, and read these rows.
    Read {
        /// Its number.
        tx: u32,
        /// By key.
        rows: BTreeMap<String, Seen>,
    },
    /// What is there when all have ended.
    Final {
        /// By key, those too that are absent.
        rows: BTreeMap<String, Seen>,
    },
}

impl Event {
    /// The request and its answer, for counting; none for the beginning of a call.
    pub(super) fn met(&self) -> Option<String> {
        Some(match self {
            Event::Locking { .. } | Event::Reading { .. } => return None,
            Event::Locked { .. } => "lock ok".into(),
            Event::Put { .. } => "put".into(),
            Event::Failed { answer, .. } => answer.to("transaction"),
            Event::RolledBack { .. } => "rollback".into(),
            Event::Committed { answer, lossy: true, .. } => answer.to("commit on a lost link"),
            Event::Committed { answer, .. } => answer.to("commit"),
            Event::Read { .. } => "read ok".into(),
            Event::Final { .. } => "final read".into(),
        })
    }
}
