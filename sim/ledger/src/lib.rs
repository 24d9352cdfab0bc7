//! A small system under test, as a stranger would write it: a ledger that books entries from a topic
//! and has receipts printed through a queue. It is the example of docs/simulate-your-own.md, and never
//! uses Store or chassis: its state is its own.
#![warn(missing_docs)]

mod demo;
mod disk;
mod entry;
mod ledger;
mod printer;
mod system;
mod verdict;
mod workload;

pub use demo::Demo;
pub use disk::{Books, Disk, Files, Kept};
pub use entry::{ENTRIES, Entry, RECEIPTS, Receipt};
pub use ledger::{GROUP, Ledger};
pub use printer::Printer;
pub use system::{Edit, LedgerSystem, QUIET_WITHIN};
pub use workload::{Transfer, Workload};
