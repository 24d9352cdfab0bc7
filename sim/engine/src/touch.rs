//! What a port call touched: records, rows, offsets, deliveries. Kept only of a world that is looked at
//! in detail; never part of its hash, so that looking changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use ports::{Delivery, Fetched, Offsets, Op, Outgoing, Partition, Record};

/// Something that one event of a trace touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// A record on its way to the log.
    Produced(Record),
    /// A record on its way to a queue.
    Published(Record),
    /// A record that was read from the log.
    Fetched(Fetched),
    /// A record that came from a queue.
    Delivered(Delivery),
    /// A delivery that was acked.
    Acked(u64),
    /// A delivery that was rejected or given back.
    Rejected(u64),
    /// Offsets of a partition up to this one were committed.
    Offset(Partition, i64),
    /// The transaction that this call is part of: the event that began it.
    Transaction(usize),
    /// A record that was written to the outbox.
    Appended(Record),
    /// An operation on a row.
    Row {
        /// `insert`, `lock`, `put`, `delete` or `read`.
        verb: &'static str,
        /// The table's name.
        table: &'static str,
        /// The row's key.
        key: ports::Key,
    },
}

/// What the events of one world touched.
#[derive(Debug, Default)]
pub struct Detail {
    /// By the number of the event in the trace.
    pub touches: BTreeMap<usize, Vec<Touch>>,
    /// When each transaction was over, however it ended; by the event that began it.
    pub ended: BTreeMap<usize, Duration>,
    /// Everything that was in the log at the end.
    pub log: Vec<Fetched>,
}

pub(crate) fn offsets(next: &Offsets) -> Vec<Touch> {
    next.iter().map(|(partition, next)| Touch::Offset(partition.clone(), *next)).collect()
}

pub(crate) fn settled(acked: &[u64], rejected: &[u64]) -> Vec<Touch> {
    let acked = acked.iter().copied().map(Touch::Acked);
    acked.chain(rejected.iter().copied().map(Touch::Rejected)).collect()
}

/// The rows and outbox records of operations that name them.
pub(crate) fn ops(ops: &[Op]) -> Vec<Touch> {
    let mut touches = Vec::new();
    for op in ops {
        let (verb, table, keys): (_, _, Vec<&ports::Key>) = match op {
            Op::Insert { table, rows } => ("insert", table, rows.keys().collect()),
            Op::Lock { table, keys } => ("lock", table, keys.iter().collect()),
            Op::Put { table, rows } => ("put", table, rows.keys().collect()),
            Op::Delete { table, keys } => ("delete", table, keys.iter().collect()),
            Op::Read { table, keys } => ("read", table, keys.iter().collect()),
            Op::Append { rows } => {
                touches.extend(rows.iter().map(|row| Touch::Appended(record(row))));
                continue;
            }
            Op::Sent { .. } | Op::Claim { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now => {
                continue;
            }
        };
        let row = |key: &ports::Key| Touch::Row { verb, table: table.name, key: key.clone() };
        touches.extend(keys.into_iter().map(row));
    }
    touches
}

fn record(row: &Outgoing) -> Record {
    let Outgoing { to, key, headers, payload, .. } = row.clone();
    Record { to, key, headers, payload }
}
