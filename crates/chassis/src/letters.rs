//! Dead letters and what waits behind them. A letter keeps all that is needed to look at a record and
//! to redrive it; one marker row a key says in which order the letters of that key are to go. Appending
//! and draining both lock the marker. Never decides what an event means.

use std::collections::{BTreeMap, BTreeSet};

use ports::{Key, Op, Row, Rows, Table};
use serde::{Deserialize, Serialize};

use crate::touched::content;
use crate::transaction::json;
use crate::{Document, Reason, document};

/// Records that broke the contract, and those that wait behind one.
pub static DEAD_LETTERS: Table =
    Table { name: "chassis_dead_letters", index: &["open_since", "closed_at"] };
/// One marker row for each key with open letters.
pub static PARKED: Table = Table { name: "chassis_parked", index: &["since", "drainable"] };

/// Most letters in a key's marker. What comes behind them dies by itself, `parked_overflow`: an
/// operator decides about its order.
pub const PARKED_MAX: usize = 1_000;

/// Positions of the index columns.
pub(crate) const OPEN_SINCE: usize = 0;
pub(crate) const CLOSED_AT: usize = 1;
pub(crate) const SINCE: usize = 0;
pub(crate) const DRAINABLE: usize = 1;

/// How a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// It broke the contract: open, an operator's to redrive or discard.
    Dead,
    /// It waits behind an open letter of its key: open, applied by itself when that one is settled.
    Parked,
    /// Redriven, and its effects are in the rows. Closed.
    Applied,
    /// Given up by an operator. Closed.
    Discarded,
    /// A final event of its key made it void. Closed.
    Superseded,
}

impl LetterState {
    /// Whether somebody still has to do something.
    pub fn is_open(self) -> bool {
        match self {
            LetterState::Dead | LetterState::Parked => true,
            LetterState::Applied | LetterState::Discarded | LetterState::Superseded => false,
        }
    }

    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LetterState::Dead => "dead",
            LetterState::Parked => "parked",
            LetterState::Applied => "applied",
            LetterState::Discarded => "discarded",
            LetterState::Superseded => "superseded",
        }
    }
}

/// A record that was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Its own id: `topic:partition:offset`, or `queue:fingerprint`.
    pub id: String,
    /// How it stands.
    pub state: LetterState,
    /// Topic or queue.
    pub from: String,
    /// Where the record stood; `None` for a job.
    pub partition: Option<i32>,
    /// Its offset; `None` for a job.
    pub offset: Option<i64>,
    /// When it was produced, RFC 3339; `None` for a job.
    pub produced_at: Option<String>,
    /// Its key.
    pub key: String,
    /// Header names and values, as text where they are UTF-8; see [`LetterText`].
    pub headers: Vec<(String, LetterText)>,
    /// The payload.
    pub payload: LetterText,
    /// What it was redriven as, where an operator changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<LetterText>,
    /// From its envelope, where that could be read.
    pub event_id: Option<String>,
    /// From its envelope.
    pub event_type: Option<String>,
    /// From its envelope.
    pub correlation_id: Option<String>,
    /// Its row in the inbox; of one that has none, a name that is no row's.
    pub inbox_id: String,
    /// The reason's stable code; `parked` for what only waits.
    pub code: String,
    /// The reason for people, at most 1 kB.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed or was parked, by the store's clock, RFC 3339.
    pub first_failed_at: String,
    /// When it last failed.
    pub last_failed_at: String,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<String>,
    /// What an operator said when discarding it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Document for DeadLetter {
    const TABLE: &'static Table = &DEAD_LETTERS;
    fn index(&self) -> Vec<Option<String>> {
        let open = self.state.is_open().then(|| self.first_failed_at.clone());
        vec![open, self.closed_at.clone()]
    }
}

impl DeadLetter {
    /// Whether it ever was more than parked behind another one: a letter that dies takes its reason's code for that
    /// of its parking.
    pub fn has_died(&self) -> bool {
        self.code != PARKED_CODE
    }

    /// Notes that it was tried once more and why it failed.
    pub(crate) fn failed(&mut self, reason: &Reason, now: &str) {
        let mut error = reason.text.clone();
        error.truncate((0..=1024).rev().find(|&n| error.is_char_boundary(n)).unwrap_or(0));
        self.state = LetterState::Dead;
        self.attempts += 1;
        self.code = reason.code.to_string();
        self.error = error;
        self.last_failed_at = now.to_owned();
    }
}

/// A letter's row at a glance: without its payload, which may be large.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LetterStanding {
    /// How it stands.
    pub state: LetterState,
    /// See [`DeadLetter::code`].
    pub code: String,
}

impl LetterStanding {
    /// Of a row of the [`DEAD_LETTERS`].
    ///
    /// # Panics
    /// As [`crate::document`].
    pub fn of(row: &Row) -> Self {
        content(&DEAD_LETTERS, row)
    }

    /// See [`DeadLetter::has_died`].
    pub fn has_died(&self) -> bool {
        self.code != PARKED_CODE
    }
}

/// The code of a letter that is parked, and of one that never died.
pub(crate) const PARKED_CODE: &str = "parked";

/// Bytes as JSON text: themselves where they are UTF-8 without NUL (which PostgreSQL cannot keep),
/// else hexadecimal digits behind `hex:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterText(pub String);

impl LetterText {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        LetterText(match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') && !text.starts_with("hex:") => text.to_owned(),
            _ => format!("hex:{}", envelope::hex(bytes)),
        })
    }

    /// The bytes that it was made of.
    pub fn bytes(&self) -> Vec<u8> {
        let Some(digits) = self.0.strip_prefix("hex:") else { return self.0.as_bytes().to_vec() };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.filter_map(byte).collect()
    }
}

/// A letter in its key's marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The letter's id.
    pub id: String,
    /// Whether it is dead; else it is parked.
    pub dead: bool,
}

/// The open letters of a key, in the order in which they are to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The key.
    pub key: String,
    /// Since when, by the store's clock, RFC 3339.
    pub since: String,
    /// Never empty: a marker with nothing in it is deleted.
    pub letters: Vec<Waiting>,
    /// Set while the service is about to apply the first of them by itself, and where it ended meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
}

/// That a letter was about to be applied when its turn had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How often it was, and neither was applied nor died.
    pub times: u32,
    /// Until then it is left to whoever tries it, by the store's clock, RFC 3339.
    pub until: String,
}

impl Document for Marker {
    const TABLE: &'static Table = &PARKED;
    fn index(&self) -> Vec<Option<String>> {
        let drainable = self.letters.first().is_some_and(|first| !first.dead);
        vec![Some(self.since.clone()), drainable.then(|| self.since.clone())]
    }
}

impl Marker {
    /// Whether nobody is about to apply the first of them.
    pub(crate) fn is_free(&self, now: &str) -> bool {
        self.tried.as_ref().is_none_or(|tried| *tried.until <= *now)
    }
}

/// Rows that a transaction must lock before those of the handler. Known only in part before the
/// markers are read: a transaction that finds more begins anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) markers: BTreeSet<Key>,
    pub(crate) letters: BTreeSet<Key>,
}

impl Wanted {
    pub(crate) fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.letters.is_empty()
    }

    pub(crate) fn extend(&mut self, more: Wanted) {
        self.markers.extend(more.markers);
        self.letters.extend(more.letters);
    }
}

#[derive(Debug)]
struct Held<D> {
    /// The version in the store.
    stored: i64,
    document: Option<D>,
    changed: bool,
}

/// The markers and letters that a transaction holds locked, with what it writes over them.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    markers: BTreeMap<Key, Held<Marker>>,
    letters: BTreeMap<Key, Held<DeadLetter>>,
    /// Locks that were found missing.
    missing: Wanted,
}

fn held<D: Document>(rows: Rows) -> BTreeMap<Key, Held<D>> {
    let held = |row: Row| Held { stored: row.version, document: document(&row), changed: false };
    rows.into_iter().map(|(key, row)| (key, held(row))).collect()
}

fn changes<D: Document>(table: &'static Table, held: BTreeMap<Key, Held<D>>, ops: &mut Vec<Op>) {
    let (mut puts, mut gone) = (Rows::new(), BTreeSet::new());
    for (key, Held { stored, document, .. }) in held.into_iter().filter(|(_, held)| held.changed) {
        match document {
            Some(document) => {
                let row = Row { version: stored, index: document.index(), body: json(&document) };
                puts.insert(key, row);
            }
            None if stored > 0 => drop(gone.insert(key)),
            None => {}
        }
    }
    if !puts.is_empty() {
        ops.push(Op::Put { table, rows: puts });
    }
    if !gone.is_empty() {
        ops.push(Op::Delete { table, keys: gone });
    }
}

impl Letters {
    /// Over locked rows.
    pub(crate) fn new(markers: Rows, letters: Rows) -> Self {
        Letters { markers: held(markers), letters: held(letters), missing: Wanted::default() }
    }

    /// What has to be locked besides: the transaction must not commit.
    pub(crate) fn missing(&self) -> Option<Wanted> {
        (!self.missing.is_empty()).then(|| self.missing.clone())
    }

    /// Whether letters of this key are open. Of a key that is not locked the markers that were read
    /// have shown that there are none.
    pub(crate) fn waits(&self, key: &Key) -> bool {
        self.markers.get(key).is_some_and(|held| held.document.is_some())
    }

    /// The letter under this id, where it is locked and there.
    pub(crate) fn get(&self, id: &str) -> Option<&DeadLetter> {
        self.letters.get(id)?.document.as_ref()
    }

    /// The letter of this key that goes first.
    pub(crate) fn first(&self, key: &Key) -> Option<&Waiting> {
        self.markers.get(key)?.document.as_ref()?.letters.first()
    }

    /// Whether the letter stands in its key's marker.
    pub(crate) fn queued(&self, key: &Key, id: &str) -> bool {
        let marker = self.markers.get(key).and_then(|held| held.document.as_ref());
        marker.is_some_and(|marker| marker.letters.iter().any(|waiting| waiting.id == id))
    }

    /// Keeps a new letter; behind the others of `key`, where it stands in a sequence. One that is
    /// there already, by an earlier delivery, stays as it is.
    pub(crate) fn add(&mut self, mut letter: DeadLetter, key: Option<&Key>, now: &str) {
        let missing_key = key.filter(|key| !self.markers.contains_key(*key));
        self.missing.markers.extend(missing_key.cloned());
        let id = Key::from(letter.id.as_str());
        let Some(row) = self.letters.get_mut(&id) else {
            self.missing.letters.insert(id);
            return;
        };
        if missing_key.is_some() || row.document.is_some() {
            return;
        }
        if let Some(held) = key.and_then(|key| self.markers.get_mut(key)) {
            let new = || Marker {
                key: letter.key.clone(),
                since: now.into(),
                letters: Vec::new(),
                tried: None,
            };
            let marker = held.document.get_or_insert_with(new);
            if marker.letters.len() < PARKED_MAX {
                let dead = letter.state == LetterState::Dead;
                marker.letters.push(Waiting { id: letter.id.clone(), dead });
                held.changed = true;
            } else {
                let text = format!("{PARKED_MAX} letters of its key are open already");
                letter.failed(&Reason::new("parked_overflow", text), now);
            }
        }
        (row.document, row.changed) = (Some(letter), true);
    }

    /// Writes a letter over the one that is locked. A closed one leaves the marker where it stands, an
    /// open one stands there as what it is.
    pub(crate) fn put(&mut self, letter: DeadLetter) {
        for held in self.markers.values_mut() {
            let Some(marker) = &mut held.document else { continue };
            let mut letters = marker.letters.iter();
            let Some(at) = letters.position(|waiting| waiting.id == letter.id) else { continue };
            held.changed = true;
            if at == 0 {
                marker.tried = None;
            }
            if letter.state.is_open() {
                marker.letters[at].dead = letter.state == LetterState::Dead;
            } else {
                marker.letters.remove(at);
            }
            if marker.letters.is_empty() {
                held.document = None;
            }
        }
        let held = self.letters.get_mut(letter.id.as_str());
        let held = held.unwrap_or_else(|| panic!("letter {} is not locked", letter.id));
        (held.document, held.changed) = (Some(letter), true);
    }

    /// A final event of this key makes its dead letters void.
    pub(crate) fn supersede(&mut self, key: &Key, now: &str) {
        let marker = self.markers.get(key).and_then(|held| held.document.as_ref());
        let Some(marker) = marker else { return };
        let dead: Vec<String> =
            marker.letters.iter().filter(|it| it.dead).map(|it| it.id.clone()).collect();
        for id in dead {
            let Some(letter) = self.get(&id).cloned() else {
                self.missing.letters.insert(id.into());
                continue;
            };
            let (state, closed_at) = (LetterState::Superseded, Some(now.to_owned()));
            self.put(DeadLetter { state, closed_at, ..letter });
        }
    }

    /// Whether a marker was left whose first letter only waits.
    pub(crate) fn drainable(&self) -> bool {
        let mut markers = self.markers.values().filter(|held| held.changed);
        markers.any(|held| {
            let first = held.document.as_ref().and_then(|marker| marker.letters.first());
            first.is_some_and(|first| !first.dead)
        })
    }

    /// The writes of everything that changed.
    pub(crate) fn into_ops(self) -> Vec<Op> {
        let mut ops = Vec::new();
        changes(&PARKED, self.markers, &mut ops);
        changes(&DEAD_LETTERS, self.letters, &mut ops);
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b"text"[..], b"", b"hex:00", b"\0", &[0xff, 0x00, 0x61]] {
            assert_eq!(LetterText::of(bytes).bytes(), bytes);
        }
    }
}
