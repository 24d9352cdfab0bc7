//! One table of the store model: committed rows, their indexes, and locks by key. Locks are queues:
//! who waits first gets the key first. Never knows what a transaction wrote but did not commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, RangeBounds};

use litemap::LiteMap;
use ports::{Key, Range, Row, Table};

use super::db::TxId;

/// What a transaction wrote into a table; `None` is a deletion.
pub(super) type Writes = LiteMap<Key, Option<Row>>;

#[derive(Debug)]
struct Lock {
    holder: TxId,
    waiters: VecDeque<TxId>,
}

/// A committed row.
#[derive(Debug)]
struct Kept {
    row: Row,
    /// The number of the commit that wrote it.
    commit: u64,
}

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) table: &'static Table,
    rows: BTreeMap<Key, Kept>,
    /// What each commit wrote, by its number.
    written: Vec<(u64, Key)>,
    index: Vec<BTreeSet<(String, Key)>>,
    /// Few at a time.
    locks: LiteMap<Key, Lock>,
}

impl TableState {
    pub(super) fn new(table: &'static Table) -> Self {
        let index = table.index.iter().map(|_| BTreeSet::new()).collect();
        let (rows, written, locks) = (BTreeMap::new(), Vec::new(), LiteMap::new());
        TableState { table, rows, written, index, locks }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.iter().map(|(key, kept)| (key, &kept.row))
    }

    /// The rows that a commit after this one wrote last, in the order of the commits.
    pub(super) fn rows_since(&self, commit: u64) -> impl Iterator<Item = (&Key, &Row)> {
        let from = self.written.partition_point(|(by, _)| *by <= commit);
        self.written[from..].iter().filter_map(|(by, key)| {
            let kept = self.rows.get(key).filter(|kept| kept.commit == *by)?;
            Some((key, &kept.row))
        })
    }

    pub(super) fn row(&self, key: &str) -> Option<&Row> {
        self.rows.get(key).map(|kept| &kept.row)
    }

    /// The row as a transaction with these writes sees it.
    pub(super) fn seen<'a>(&'a self, writes: Option<&'a Writes>, key: &Key) -> Option<&'a Row> {
        match writes.and_then(|writes| writes.get(key)) {
            Some(own) => own.as_ref(),
            None => self.row(key),
        }
    }

    /// Makes a transaction's writes the committed state. Commits are numbered from 1.
    pub(super) fn apply(&mut self, writes: Writes, commit: u64) {
        for (key, row) in writes {
            let place = self.rows.entry(key);
            let old = match &place {
                Entry::Occupied(place) => Some(&place.get().row),
                Entry::Vacant(_) => None,
            };
            reindex(&mut self.index, place.key(), old, row.as_ref());
            match (place, row) {
                (place, Some(row)) => {
                    self.written.push((commit, place.key().clone()));
                    place.insert_entry(Kept { row, commit });
                }
                (Entry::Occupied(place), None) => drop(place.remove()),
                (Entry::Vacant(_), None) => {}
            }
        }
    }

    /// Takes the lock for `tx`, or queues it. `None`: it was held already.
    pub(super) fn lock(&mut self, key: &Key, tx: TxId) -> Option<Locked> {
        match self.locks.get_mut(key) {
            None => {
                self.locks.insert(key.clone(), Lock { holder: tx, waiters: VecDeque::new() });
                Some(Locked::Taken)
            }
            Some(lock) if lock.holder == tx => None,
            Some(lock) => {
                lock.waiters.push_back(tx);
                Some(Locked::Queued)
            }
        }
    }

    pub(super) fn holder(&self, key: &Key) -> Option<TxId> {
        self.locks.get(key).map(|lock| lock.holder)
    }

    /// Hands the lock to the first who waits for it; tells whom.
    pub(super) fn unlock(&mut self, key: &Key) -> Option<TxId> {
        let lock = self.locks.get_mut(key)?;
        let next = lock.waiters.pop_front();
        match next {
            Some(next) => lock.holder = next,
            None => drop(self.locks.remove(key)),
        }
        next
    }

    pub(super) fn stop_waiting(&mut self, key: &Key, tx: TxId) {
        if let Some(lock) = self.locks.get_mut(key) {
            lock.waiters.retain(|waiter| *waiter != tx);
        }
    }

    /// Rows of the range in its order, as a transaction with these writes sees them, that `keep`
    /// lets pass.
    pub(super) fn list(
        &self,
        writes: Option<&Writes>,
        range: &Range,
        keep: impl Fn(&Key) -> bool,
    ) -> Vec<(Key, Row)> {
        let (Some(index), Some((low, high))) = (self.index.get(range.column), bounds(range)) else {
            return Vec::new();
        };
        let stretch = index.range((low.clone(), high.clone()));
        let wanted = |(_, key): &&(String, Key)| {
            !writes.is_some_and(|writes| writes.contains_key(key)) && keep(key)
        };
        let copy = |(_, key): &(String, Key)| Some((key.clone(), self.row(key)?.clone()));
        let mut found: Vec<(Key, Row)> = if range.descending {
            stretch.rev().filter(wanted).take(range.limit).filter_map(copy).collect()
        } else {
            stretch.filter(wanted).take(range.limit).filter_map(copy).collect()
        };
        let Some(writes) = writes.filter(|writes| !writes.is_empty()) else { return found };
        let value = |row: &Row| row.index.get(range.column).cloned().flatten();
        for (key, row) in writes {
            let Some(row) = row else { continue };
            let Some(value) = value(row) else { continue };
            if (low.clone(), high.clone()).contains(&(value, key.clone())) && keep(key) {
                found.push((key.clone(), row.clone()));
            }
        }
        found.sort_by_cached_key(|(key, row)| (value(row), key.clone()));
        if range.descending {
            found.reverse();
        }
        found.truncate(range.limit);
        found
    }
}

fn reindex(index: &mut [BTreeSet<(String, Key)>], key: &Key, old: Option<&Row>, new: Option<&Row>) {
    for (column, set) in index.iter_mut().enumerate() {
        let old = old.and_then(|row| row.index.get(column)?.as_ref());
        let new = new.and_then(|row| row.index.get(column)?.as_ref());
        if old == new {
            continue;
        }
        if let Some(value) = old {
            set.remove(&(value.clone(), key.clone()));
        }
        if let Some(value) = new {
            set.insert((value.clone(), key.clone()));
        }
    }
}

type Edge = Bound<(String, Key)>;

/// The stretch of the index that a range means; `None` where it is empty.
fn bounds(range: &Range) -> Option<(Edge, Edge)> {
    let first = |value: &String| (value.clone(), Key::from(""));
    let (from, to) = (first(&range.from), first(&range.to));
    let (low, high) = match &range.after {
        Some(after) if range.descending && *after < to => (Bound::Included(from), after.clone()),
        Some(after) if !range.descending && *after >= from => (Bound::Excluded(after.clone()), to),
        _ => (Bound::Included(from), to),
    };
    let (Bound::Included(start) | Bound::Excluded(start)) = &low else { return None };
    (*start < high).then_some((low, Bound::Excluded(high)))
}

/// How a lock that was not held was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Taken,
    Queued,
}
