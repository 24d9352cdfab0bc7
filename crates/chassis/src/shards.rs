//! How many outbox shards a database was made with: fixed for its life, for a key's shard must not
//! change. Never changes it.

use ports::{Op, Outcome, Shard, Store};

use crate::LEASES;
use crate::tables::lease_key;
use crate::transaction::rows;

/// Most shards of an outbox.
pub const SHARDS_MAX: Shard = 64;

/// The number of shards whose leases a relay has held in this database; `None` where none ever ran.
/// Creates the table of leases where it does not exist.
pub async fn known_shards(store: &dyn Store) -> Outcome<Option<Shard>> {
    store.prepare(&[&LEASES]).await?;
    let keys = (0..SHARDS_MAX).map(lease_key).collect();
    let mut replies = store.read(vec![Op::Read { table: &LEASES, keys }]).await?;
    // All shards get their leases in one transaction, the first of a database's life.
    let known = rows(replies.pop()).values().filter(|row| row.version > 0).count();
    Ok(Shard::try_from(known).ok().filter(|known| *known > 0))
}
