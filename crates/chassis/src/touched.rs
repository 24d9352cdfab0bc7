//! The rows that a transaction holds locked, as documents, and what the rules count and log beside them. Never
//! touches a row that is not locked.

use std::fmt;

use litemap::LiteMap;
use ports::{Key, Op, Row, Rows, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Sample;

/// A row's content: JSON, with its indexed columns derived from it.
pub trait Document: Serialize + DeserializeOwned {
    /// Where it is kept.
    const TABLE: &'static Table;

    /// One value or none for each index column of the table, in its order.
    fn index(&self) -> Vec<Option<String>>;
}

/// Reads a row's document; `None` where the row is absent (version 0).
///
/// # Panics
/// Where the row is not what this build or an earlier one wrote: the database is broken.
pub fn document<D: Document>(row: &Row) -> Option<D> {
    (row.version > 0).then(|| content(D::TABLE, row))
}

/// Reads a row that is there, or as much of it as `T` asks for; panics as [`document`].
pub(crate) fn content<T: DeserializeOwned>(table: &Table, row: &Row) -> T {
    serde_json::from_str(&row.body)
        .unwrap_or_else(|e| panic!("a row of {} is unreadable: {e}", table.name))
}

#[derive(Debug)]
struct Slot {
    /// The version in the store, which a put is checked against.
    stored: i64,
    /// As the rules see it; version 0 is absent.
    row: Row,
    changed: bool,
}

/// Locked rows with what the rules wrote over them.
#[derive(Debug, Default)]
pub struct Touched {
    /// By table; a transaction has a handful.
    tables: Vec<(&'static Table, LiteMap<Key, Slot>)>,
    undo: Vec<(&'static Table, Key, Slot)>,
    samples: Vec<Sample>,
    /// How many samples there were at the mark.
    marked: usize,
    lines: Vec<Line>,
}

/// A line for the log.
pub(crate) struct Line(Box<dyn FnOnce() + Send>);

impl Line {
    pub(crate) fn of(line: impl FnOnce() + Send + 'static) -> Self {
        Line(Box::new(line))
    }

    pub(crate) fn write(self) {
        (self.0)();
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Touched {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rows that were just locked.
    pub fn add(&mut self, table: &'static Table, rows: Rows) {
        let slots = rows.into_iter().map(|(key, row)| {
            let stored = row.version;
            (key, Slot { stored, row, changed: false })
        });
        match self.tables.iter_mut().find(|(known, _)| known.name == table.name) {
            Some((_, known)) => known.extend(slots),
            None => self.tables.push((table, slots.collect())),
        }
    }

    fn slot(&self, table: &Table, key: &str) -> Option<&Slot> {
        self.tables.iter().find(|(known, _)| known.name == table.name)?.1.get(key)
    }

    fn slot_mut(&mut self, table: &Table, key: &str) -> Option<&mut Slot> {
        self.tables.iter_mut().find(|(known, _)| known.name == table.name)?.1.get_mut(key)
    }

    /// The document under a locked key, `None` where there is none.
    ///
    /// # Panics
    /// Where the key is not locked: a decision on it would not be serializable.
    pub fn get<D: Document>(&self, key: &str) -> Option<D> {
        let slot = self.slot(D::TABLE, key).unwrap_or_else(|| not_locked(D::TABLE, key));
        document(&slot.row)
    }

    /// Whether the key is locked.
    pub fn holds(&self, table: &'static Table, key: &str) -> bool {
        self.slot(table, key).is_some()
    }

    /// Writes a document over a locked row.
    ///
    /// # Panics
    /// Where the key is not locked, or the document has not one value for each index column.
    pub fn put<D: Document>(&mut self, key: &Key, document: &D) {
        let body = serde_json::to_string(document).expect("documents have a JSON form");
        let index = document.index();
        assert_eq!(index.len(), D::TABLE.index.len(), "index columns of {}", D::TABLE.name);
        let slot = self.slot_mut(D::TABLE, key).unwrap_or_else(|| not_locked(D::TABLE, key));
        let stored = slot.stored;
        let row = Row { version: stored.max(1), index, body };
        let before = std::mem::replace(slot, Slot { stored, row, changed: true });
        self.undo.push((D::TABLE, key.clone(), before));
    }

    /// Counts what the rule did. It is recorded when the transaction has committed, and forgotten where
    /// it has not: a batch that is tried again counts once.
    pub fn count(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Logs a line about the rule's input, in its span; when the transaction has committed, as [`Touched::count`]
    /// counts. Where the rule refuses the input nothing is logged but that.
    pub fn say(&mut self, line: impl FnOnce() + Send + 'static) {
        self.lines.push(Line::of(line));
    }

    /// What is to be logged, since the mark.
    pub(crate) fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// What was counted.
    pub(crate) fn take_samples(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.samples)
    }

    /// From here on [`Touched::undo`] takes back.
    pub(crate) fn mark(&mut self) {
        self.undo.clear();
        self.lines.clear();
        self.marked = self.samples.len();
    }

    /// Takes back what was put since the mark.
    pub(crate) fn undo(&mut self) {
        self.samples.truncate(self.marked);
        self.lines.clear();
        while let Some((table, key, slot)) = self.undo.pop() {
            if let Some(changed) = self.slot_mut(table, &key) {
                *changed = slot;
            }
        }
    }

    /// The puts of everything that changed.
    pub(crate) fn into_puts(mut self) -> Vec<Op> {
        let mut puts = Vec::new();
        self.tables.sort_by_key(|(table, _)| table.name);
        for (table, slots) in self.tables {
            let rows: Rows = slots
                .into_iter()
                .filter(|(_, slot)| slot.changed)
                .map(|(key, slot)| (key, Row { version: slot.stored, ..slot.row }))
                .collect();
            if !rows.is_empty() {
                puts.push(Op::Put { table, rows });
            }
        }
        puts
    }
}

fn not_locked(table: &Table, key: &str) -> ! {
    panic!("a rule touched {} {key}, which its keys() did not lock", table.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    static NOTES: Table = Table { name: "notes", index: &["author"] };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        author: String,
    }
    impl Document for Note {
        const TABLE: &'static Table = &NOTES;
        fn index(&self) -> Vec<Option<String>> {
            vec![Some(self.author.clone())]
        }
    }

    fn locked(key: &str) -> Touched {
        let mut rows = Touched::new();
        rows.add(&NOTES, Rows::from_iter([(Key::from(key), Row::default())]));
        rows
    }

    #[test]
    fn an_undone_put_leaves_nothing() {
        let mut rows = locked("a");
        rows.mark();
        rows.put(&"a".into(), &Note { author: "x".into() });
        assert_eq!(rows.get::<Note>("a"), Some(Note { author: "x".into() }));
        rows.undo();
        assert_eq!(rows.get::<Note>("a"), None);
        assert_eq!(rows.into_puts(), Vec::new());
    }

    #[test]
    fn what_an_undone_rule_said_is_not_logged() {
        let mut rows = Touched::new();
        rows.mark();
        rows.say(|| {});
        rows.undo();
        assert!(rows.take_lines().is_empty());
        rows.say(|| {});
        assert_eq!(rows.take_lines().len(), 1);
        assert!(rows.take_lines().is_empty());
    }

    #[test]
    fn a_new_row_is_put_over_version_0() {
        let mut rows = locked("a");
        rows.put(&"a".into(), &Note { author: "x".into() });
        let puts = rows.into_puts();
        let [Op::Put { rows, .. }] = puts.as_slice() else { panic!("{puts:?}") };
        assert_eq!(rows[&Key::from("a")].version, 0);
        assert_eq!(rows[&Key::from("a")].index, vec![Some("x".to_owned())]);
    }

    #[test]
    #[should_panic(expected = "did not lock")]
    fn a_row_that_is_not_locked_cannot_be_decided_on() {
        locked("a").get::<Note>("b");
    }
}
