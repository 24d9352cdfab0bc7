//! What survives a node: balances and filed receipts. Here a value that the world owns; in production a
//! database. Never forgets what it has answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ports::Outcome;
use sim_engine::NodePorts;

use crate::entry::{Entry, Receipt};

/// Where the ledger keeps its balances.
#[async_trait]
pub trait Books: Send + Sync {
    /// Books what is not booked yet, in one transaction, and gives the receipts of all these entries.
    async fn book(&self, entries: &[Entry]) -> Outcome<Vec<Receipt>>;
}

/// Where the printer keeps what it has printed.
#[async_trait]
pub trait Files: Send + Sync {
    /// Files receipts, in one transaction. Those that are there already change nothing.
    async fn file(&self, receipts: &[Receipt]) -> Outcome<()>;
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Cents by account.
    pub balances: BTreeMap<String, i64>,
    /// Receipts by entry: what is booked.
    pub booked: BTreeMap<String, Receipt>,
    /// Different receipts by entry, as they were filed: one, if all is well.
    pub filed: BTreeMap<String, Vec<Receipt>>,
}

impl Kept {
    /// Books an entry once: the receipt of the first time.
    pub fn book(&mut self, entry: &Entry) -> Receipt {
        if let Some(receipt) = self.booked.get(&entry.id) {
            return receipt.clone();
        }
        let balance = self.balances.entry(entry.account.clone()).or_default();
        *balance += entry.amount_minor;
        let receipt = Receipt { entry: entry.clone(), balance_minor: *balance };
        self.booked.insert(entry.id.clone(), receipt.clone());
        receipt
    }

    /// Files a receipt beside those that differ from it.
    pub fn file(&mut self, receipt: &Receipt) {
        let filed = self.filed.entry(receipt.entry.id.clone()).or_default();
        if !filed.contains(receipt) {
            filed.push(receipt.clone());
        }
    }
}

/// The disk that all nodes of a world share. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Kept>>);

impl Disk {
    /// What is on it.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk as a node reaches it: through the gate, where the node can die before the commit, or behind
/// it and before the answer.
pub(crate) struct Mounted {
    pub disk: Disk,
    pub ports: NodePorts,
}

#[async_trait]
impl Books for Mounted {
    async fn book(&self, entries: &[Entry]) -> Outcome<Vec<Receipt>> {
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let (disk, entries) = (self.disk.clone(), entries.to_vec());
        let commit = move || {
            let mut kept = disk.kept();
            entries.iter().map(|entry| kept.book(entry)).collect()
        };
        self.ports.outside(format!("book {}", ids.join(" ")), commit).await
    }
}

#[async_trait]
impl Files for Mounted {
    async fn file(&self, receipts: &[Receipt]) -> Outcome<()> {
        let ids: Vec<&str> = receipts.iter().map(|receipt| receipt.entry.id.as_str()).collect();
        let (disk, receipts) = (self.disk.clone(), receipts.to_vec());
        let commit = move || {
            let mut kept = disk.kept();
            receipts.iter().for_each(|receipt| kept.file(receipt));
        };
        self.ports.outside(format!("file {}", ids.join(" ")), commit).await
    }
}
