//! The outbox's committed rows and its sequence. Never gives an id twice (mutant M40), and never
//! waits for a commit to give one: ids are not in commit order (broker-contract D1).

use std::collections::{BTreeMap, BTreeSet};

use ports::{OutboxRow, Shard};

#[derive(Debug)]
pub(super) struct Outbox {
    rows: BTreeMap<i64, OutboxRow>,
    by_shard: BTreeSet<(Shard, i64)>,
    next: i64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Outbox { rows: BTreeMap::new(), by_shard: BTreeSet::new(), next: 1 }
    }

    /// Draws an id. A rollback does not give it back.
    pub(super) fn draw(&mut self) -> i64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// A restarted server goes on behind the block of ids that it had logged ahead.
    pub(super) fn skip_logged_block(&mut self) {
        self.next += 32;
    }

    pub(super) fn insert(&mut self, row: OutboxRow) {
        self.by_shard.insert((row.outgoing.shard, row.id));
        self.rows.insert(row.id, row);
    }

    pub(super) fn remove(&mut self, id: i64) {
        if let Some(row) = self.rows.remove(&id) {
            self.by_shard.remove(&(row.outgoing.shard, id));
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &OutboxRow> {
        self.rows.values()
    }

    pub(super) fn of_shard(&self, shard: Shard) -> impl Iterator<Item = &OutboxRow> {
        self.by_shard
            .range((shard, i64::MIN)..=(shard, i64::MAX))
            .filter_map(|(_, id)| self.rows.get(id))
    }
}
