//! A log that lost what was handled: its topic was deleted and made anew, or it came back without its disks.
//! A position beyond its end would pass over whatever is written next, up to that offset. Seen by what is
//! read: a client whose offset is out of range starts again at the first record there is (K15), and else
//! offsets only rise. Never goes back for less: what is read again the inbox knows.

use std::collections::BTreeMap;

use ports::{Fetched, Offsets, Outcome, Partition, Store};

use super::Member;
use super::marks::Locked;
use crate::Position;

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
    let locked = Locked::of(store, behind.keys()).await?;
    let mut next = behind.clone();
    next.retain(|partition, _| {
        let position = locked.positions.get(partition);
        position.is_some_and(|(_, position)| epochs[partition] == Some(position.epoch))
    });
    locked.change(next, |before, next| Position { next: Some(next), trial: None, ..before }).await
}
