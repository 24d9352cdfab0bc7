//! Which locked keys may have placeholders (rows at version 0) that the commit has to remove.
//! Errs only to one side: a key too many is removed nowhere, since the removal looks at the version.

use std::collections::{BTreeMap, BTreeSet};

use ports::{Key, Op, Reply, Table};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placeholders {
    keys: BTreeMap<&'static Table, BTreeSet<Key>>,
}

impl Placeholders {
    /// Operations that are about to be sent: keys that they lock may be absent, those that they
    /// write are there.
    pub(crate) fn sending(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Lock { table, keys } => {
                    self.keys.entry(table).or_default().extend(keys.iter().cloned());
                }
                Op::Put { table, rows } | Op::Insert { table, rows } => {
                    self.forget(table, |key| rows.contains_key(key));
                }
                // What is deleted or was read by another operation stays where it is.
                Op::Delete { .. } | Op::Append { .. } | Op::Sent { .. } | Op::Claim { .. } => {}
                Op::Read { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now => {}
            }
        }
    }

    /// Their replies: what was there when it was locked is no placeholder.
    pub(crate) fn answered(&mut self, ops: &[Op], replies: &[Reply]) {
        for (op, reply) in ops.iter().zip(replies) {
            if let (Op::Lock { table, .. }, Reply::Rows(rows)) = (op, reply) {
                self.forget(table, |key| rows.get(key).is_some_and(|row| row.version > 0));
            }
        }
    }

    /// The keys to look at, table by table. Afterwards there are none.
    pub(crate) fn take(&mut self) -> BTreeMap<&'static Table, BTreeSet<Key>> {
        std::mem::take(&mut self.keys)
    }

    fn forget(&mut self, table: &'static Table, known: impl Fn(&Key) -> bool) {
        if let Some(keys) = self.keys.get_mut(table) {
            keys.retain(|key| !known(key));
            if keys.is_empty() {
                self.keys.remove(table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ports::{Row, Rows};

    use super::*;

    static ONE: Table = Table { name: "one", index: &[] };
    static TWO: Table = Table { name: "two", index: &[] };

    fn keys<const N: usize>(keys: [&str; N]) -> BTreeSet<Key> {
        keys.into_iter().map(Key::from).collect()
    }

    fn row(key: &str, version: i64) -> (Key, Row) {
        (key.into(), Row { version, ..Row::default() })
    }

    #[test]
    fn absent_keys_that_were_locked_and_not_written_are_left() {
        let mut placeholders = Placeholders::default();
        let lock = Op::Lock { table: &ONE, keys: keys(["a", "b", "c"]) };
        placeholders.sending(std::slice::from_ref(&lock));
        let found = Rows::from_iter([row("a", 7), row("b", 0), row("c", 0)]);
        placeholders.answered(&[lock], &[Reply::Rows(found)]);
        let lock = Op::Lock { table: &TWO, keys: keys(["b"]) };
        let put = Op::Put { table: &ONE, rows: Rows::from_iter([row("b", 0)]) };
        placeholders.sending(&[lock, put]);
        let left = BTreeMap::from([(&ONE, keys(["c"])), (&TWO, keys(["b"]))]);
        assert_eq!(placeholders.take(), left);
        assert_eq!(placeholders, Placeholders::default());
    }

    #[test]
    fn a_key_that_was_deleted_and_locked_again_is_one_again() {
        let mut placeholders = Placeholders::default();
        placeholders.sending(&[
            Op::Insert { table: &ONE, rows: Rows::from_iter([row("a", 0)]) },
            Op::Delete { table: &ONE, keys: keys(["a"]) },
            Op::Lock { table: &ONE, keys: keys(["a"]) },
        ]);
        assert_eq!(placeholders.take(), BTreeMap::from([(&ONE, keys(["a"]))]));
    }
}
