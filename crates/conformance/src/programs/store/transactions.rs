//! A history as transactions: what each read and wrote, and when. Never judges.

use std::collections::BTreeMap;

use super::history::{Event, Seen};
use crate::programs::Answer;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    Committed,
    Unknown,
    #[default]
    Aborted,
}

/// A read: when it was asked for, the key, what was there.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) asked: usize,
    pub(super) key: String,
    pub(super) seen: Seen,
}

/// A transaction, or a read without one.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    asked: usize,
    pub(super) fate: Fate,
    /// When it ended, for the client.
    pub(super) ended: Option<usize>,
    /// Of what it had not written itself.
    pub(super) reads: Vec<Reading>,
    /// Reads of what it wrote itself: what came, and what it had written.
    pub(super) own: Vec<(String, Seen, Seen)>,
    /// By key: over which version first, and what is there then.
    pub(super) writes: BTreeMap<String, (i64, Seen)>,
    /// What others must never see of it: what it wrote over.
    pub(super) between: Vec<(String, Seen)>,
    /// A write over another version than its own last.
    pub(super) torn: bool,
}

/// The transactions by number.
pub(super) fn transactions(history: &[Event]) -> BTreeMap<u32, Transaction> {
    let mut all: BTreeMap<u32, Transaction> = BTreeMap::new();
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Locking { tx } | Event::Reading { tx } => {
                all.entry(*tx).or_default().asked = at;
            }
            Event::Locked { tx, rows } | Event::Read { tx, rows } => {
                let this = all.entry(*tx).or_default();
                rows.iter().for_each(|(key, seen)| this.read(key, seen));
            }
            Event::Put { tx, key, over, body } => {
                all.entry(*tx).or_default().put(key, *over, body);
            }
            Event::Failed { tx, .. } | Event::RolledBack { tx } => {
                all.entry(*tx).or_default().ended = Some(at);
            }
            Event::Committed { tx, answer, .. } => {
                let this = all.entry(*tx).or_default();
                this.ended = Some(at);
                this.fate = match answer {
                    Answer::Ok => Fate::Committed,
                    Answer::Unknown | Answer::Silence => Fate::Unknown,
                    Answer::Retry | Answer::Refused => Fate::Aborted,
                };
            }
            Event::Final { .. } => {}
        }
    }
    all
}

impl Transaction {
    fn read(&mut self, key: &str, seen: &Seen) {
        match self.writes.get(key) {
            Some((_, own)) => self.own.push((key.to_owned(), seen.clone(), own.clone())),
            None => {
                let (asked, key, seen) = (self.asked, key.to_owned(), seen.clone());
                self.reads.push(Reading { asked, key, seen });
            }
        }
    }

    fn put(&mut self, key: &str, over: i64, body: &str) {
        let now = (over + 1, body.to_owned());
        match self.writes.get_mut(key) {
            Some((_, last)) => {
                self.torn |= last.0 != over;
                self.between.push((key.to_owned(), std::mem::replace(last, now)));
            }
            None => drop(self.writes.insert(key.to_owned(), (over, now))),
        }
    }
}
