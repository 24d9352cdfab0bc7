//! A log that lost what was handled: its topic was deleted and made anew, or it came back without its disks.
//! A position beyond its end would pass over whatever is written next, up to that offset. Seen by what is
//! read: a client whose offset is out of range starts again at the first record there is (K15), and else
//! offsets only rise. Never goes back for less: what is read again the inbox knows.

use std::collections::BTreeMap;

use ports::{Fetched, Offsets, Op, Outcome, Partition, Row, Rows, Store};

use super::Member;
use crate::tables::position_key;
use crate::touched::document;
use crate::transaction::{json, rows};
use crate::{Document, POSITIONS, Position};

impl Member<'_> {
    /// Puts positions back to where reading began anew. Records whose position cannot be put back now are
    /// left out: they are read again after the next claim.
    pub(super) async fn rewind(&mut self, records: &mut Vec<Fetched>) {
        let (mut behind, mut epochs) = (Offsets::new(), BTreeMap::new());
        for record in &*records {
            let Some(held) = self.held.get_mut(&record.partition) else { continue };
            if held.read_to.is_some_and(|read_to| record.offset < read_to) {
                behind.entry(record.partition.clone()).or_insert(record.offset);
                epochs.insert(record.partition.clone(), held.epoch);
            }
            held.read_to = Some(record.offset + 1);
        }
        if behind.is_empty() {
            return;
        }
        for (partition, offset) in &behind {
            tracing::error!(service = self.shared.settings.service, %partition, offset,
                "the log has lost records that were handled; reading again what it has, from its beginning");
            self.uncommitted.remove(partition);
        }
        if let Err(fault) = put_back(&*self.shared.ports.store, &behind, &epochs).await {
            tracing::debug!(service = self.shared.settings.service, %fault, "positions not put back");
            records.retain(|record| !behind.contains_key(&record.partition));
            self.drop_unhandled(&behind);
        }
    }
}

/// Of those partitions that are ours still.
async fn put_back(
    store: &dyn Store,
    behind: &Offsets,
    epochs: &BTreeMap<Partition, Option<u64>>,
) -> Outcome<()> {
    let keys = behind.keys().map(position_key).collect();
    let (tx, replies) = store.begin(vec![Op::Lock { table: &POSITIONS, keys }]).await?;
    let mut found = rows(replies.into_iter().next());
    let mut puts = Rows::new();
    for (partition, offset) in behind {
        let key = position_key(partition);
        let row = found.remove(&key).unwrap_or_default();
        let before = document::<Position>(&row).unwrap_or_default();
        if epochs[partition] == Some(before.epoch) {
            let position = Position { next: Some(*offset), trial: None, ..before };
            let (index, body) = (position.index(), json(&position));
            puts.insert(key, Row { version: row.version, index, body });
        }
    }
    tx.commit(vec![Op::Put { table: &POSITIONS, rows: puts }]).await
}
