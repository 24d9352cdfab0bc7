//! What travels: entries on the topic, receipts on the queue, both as JSON. Never decides anything.

use ports::Record;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The topic that entries come on, keyed by account.
pub const ENTRIES: &str = "entries";

/// The queue that receipts go to; an entry's id is the message's.
pub const RECEIPTS: &str = "receipts";

/// One side of a transfer. It may come more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names it for ever.
    pub id: String,
    /// Whose balance it changes.
    pub account: String,
    /// By how much, in cents; below zero where it takes.
    pub amount_minor: i64,
}

/// What was booked. The receipts of an entry are all alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The entry.
    pub entry: Entry,
    /// The account's balance behind it, in cents.
    pub balance_minor: i64,
}

impl Entry {
    /// As it stands on the topic.
    pub fn record(&self) -> Record {
        record(ENTRIES, &self.account, self)
    }
}

impl Receipt {
    /// As it stands in the queue.
    pub fn record(&self) -> Record {
        record(RECEIPTS, &self.entry.id, self)
    }
}

fn record(to: &str, key: &str, body: &impl Serialize) -> Record {
    let payload = serde_json::to_vec(body).expect("it has a JSON form").into();
    Record { to: to.into(), key: key.into(), headers: Vec::new(), payload }
}

/// What a record holds; `None` where it is something else, which is then skipped.
pub(crate) fn body<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(&record.payload).ok()
}
