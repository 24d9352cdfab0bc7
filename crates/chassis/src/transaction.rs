//! One batch as one transaction: positions and inbox, markers of parked keys, locks in the fixed
//! order, the pure rule for each input, rows and outbox, commit. Never calls anything outside the
//! store.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, SecondsFormat, Utc};
use ports::{Fault, Key, Op, Partition, Reply as Got, Row, Rows};

use crate::app::Shared;
use crate::deciding::{Deciding, Last};
use crate::letters::{DEAD_LETTERS, Letters, PARKED, Wanted};
use crate::retention::Expiry;
use crate::slot::{Ended, Slot, State, panicked};
use crate::tables::Lease;
use crate::work::ClaimedAtOnce;
use crate::{Document, Handler, INBOX, InboxRow, Input, POSITIONS, Reason, Touched};

/// What a transaction did.
pub(crate) struct Committed {
    pub(crate) ended: Vec<Ended>,
    pub(crate) appended: bool,
    pub(crate) changed: bool,
    /// Letters wait for nothing any more.
    pub(crate) drainable: bool,
}

/// Why a batch was not committed.
pub(crate) enum Failed {
    /// The store said so.
    Store(Fault),
    /// A rule panicked before single inputs could be told apart.
    Rule(Reason),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed::Store(fault)
    }
}

/// How an attempt ended that the store did not refuse.
enum Attempt {
    Done(Committed),
    /// Nothing was done: these rows have to be locked too.
    Wider(Wanted),
}

/// Runs the batch in one transaction.
pub(crate) async fn run<H: Handler>(
    shared: &Shared<H>,
    slots: &mut [Slot<H::Fact>],
    epochs: &BTreeMap<Partition, u64>,
) -> Result<Committed, Failed> {
    let expiry = Expiry::new(&shared.settings, shared.ports.runtime.now());
    let mut wanted = wanted(slots);
    // Inputs leave their slots for the time of the transaction, so that rules see them as a slice.
    let inputs = Inputs::take(slots);
    let result = loop {
        let mut inbox = Rows::new();
        for (id, row) in inputs.inbox_rows(slots, &expiry) {
            inbox.entry(id).or_insert(row);
        }
        let known = Known { expiry: &expiry, inbox, wanted: &wanted };
        match attempt(shared, slots, epochs, known, &inputs).await {
            Ok(Attempt::Done(committed)) => break Ok(committed),
            Ok(Attempt::Wider(more)) => wanted.extend(more),
            Err(failed) => break Err(failed),
        }
    };
    inputs.put_back(slots);
    result
}

/// The chassis' own rows that this batch is known to need: of letters that are to be settled, and of
/// those that will be.
fn wanted<F>(slots: &[Slot<F>]) -> Wanted {
    let mut wanted = Wanted::default();
    for slot in
        slots.iter().filter(|slot| slot.settles() || matches!(slot.state, State::Dead { .. }))
    {
        wanted.letters.extend(slot.letter_id());
        wanted.markers.extend(slot.sequence().map(|(key, _)| key.clone()));
    }
    wanted
}

/// What a batch knows before an attempt.
struct Known<'a> {
    expiry: &'a Expiry,
    /// Inbox rows to insert: of the first input of each id.
    inbox: Rows,
    wanted: &'a Wanted,
}

async fn attempt<H: Handler>(
    shared: &Shared<H>,
    slots: &[Slot<H::Fact>],
    epochs: &BTreeMap<Partition, u64>,
    known: Known<'_>,
    inputs: &Inputs<H::Fact>,
) -> Result<Attempt, Failed> {
    let handler = &shared.handler;
    let Known { expiry, inbox, wanted } = known;
    let keys = |table, touched: &Touched| {
        let keys = catch_unwind(AssertUnwindSafe(|| handler.keys(table, &inputs.batch, touched)));
        keys.map_err(|panic| Failed::Rule(panicked(&*panic)))
    };
    let mut touched = Touched::new();
    let positions: BTreeSet<Key> = slots.iter().filter_map(Slot::position_key).collect();
    let sequenced = slots.iter().filter_map(Slot::sequence).map(|(key, _)| key.clone());
    let looked: BTreeSet<Key> = sequenced.filter(|key| !wanted.markers.contains(key)).collect();
    let mut ops = vec![
        Op::Now,
        Op::Lock { table: &POSITIONS, keys: positions },
        Op::Insert { table: &INBOX, rows: inbox.clone() },
    ];
    let (settles, looks) = (!wanted.is_empty(), !looked.is_empty());
    if settles {
        ops.push(Op::Lock { table: &PARKED, keys: wanted.markers.clone() });
        ops.push(Op::Lock { table: &DEAD_LETTERS, keys: wanted.letters.clone() });
    }
    if looks {
        ops.push(Op::Read { table: &PARKED, keys: looked });
    }
    let mut tables = handler.tables().iter().copied();
    let mut asked = Vec::new();
    let mut blocked = None;
    for table in tables.by_ref() {
        match keys(table, &touched)? {
            Some(keys) => {
                asked.push(table);
                ops.push(Op::Lock { table, keys });
            }
            None => {
                blocked = Some(table);
                break;
            }
        }
    }
    let (mut tx, replies) = shared.ports.store.begin(ops).await?;
    let mut replies = replies.into_iter();
    let now = clock(replies.next());
    let positions = rows(replies.next());
    let existing = rows(replies.next());
    let letters = match settles {
        true => Letters::new(rows(replies.next()), rows(replies.next())),
        false => Letters::default(),
    };
    let parked = if looks { rows(replies.next()) } else { Rows::new() };
    if !parked.is_empty() {
        // Somebody waits there: only under its lock it can be said who goes first.
        let markers = parked.into_keys().collect();
        return Ok(Attempt::Wider(Wanted { markers, letters: BTreeSet::new() }));
    }
    for table in asked {
        touched.add(table, rows(replies.next()));
    }
    for table in blocked.into_iter().chain(tables) {
        let keys = keys(table, &touched)?;
        let keys = keys.unwrap_or_else(|| panic!("keys of {} depend on later tables", table.name));
        let locked = tx.run(vec![Op::Lock { table, keys }]).await?;
        touched.add(table, rows(locked.into_iter().next()));
    }

    let mut batch = Deciding::new(shared, now, expiry, epochs, inbox);
    batch.locked(touched, positions, existing, letters);
    let ended = slots.iter().enumerate().map(|(i, slot)| batch.end(slot, inputs.of(i))).collect();
    if let Some(missing) = batch.missing() {
        return Ok(Attempt::Wider(missing));
    }
    let Last { mut ops, writes, appended, changed, drainable, samples, lines } = batch.into_last();
    if writes {
        let claimed = ClaimedAtOnce::of(&shared.desks(), &mut ops, now);
        tx.commit(ops).await?;
        claimed.begin();
    }
    // Else the rollback frees the locks without a commit.
    shared.settings.metrics.record(samples);
    lines.into_iter().for_each(|(span, line)| span.in_scope(|| line.write()));
    Ok(Attempt::Done(Committed { ended, appended, changed, drainable }))
}

/// The inputs of a batch as one slice, and whose they are.
struct Inputs<F> {
    batch: Vec<Input<F>>,
    slots: Vec<Option<usize>>,
}

impl<F> Inputs<F> {
    fn take(slots: &mut [Slot<F>]) -> Self {
        let mut inputs = Inputs { batch: Vec::new(), slots: Vec::with_capacity(slots.len()) };
        for slot in slots {
            inputs.slots.push(match std::mem::replace(&mut slot.state, State::Skip) {
                State::Input(input) => {
                    inputs.batch.push(input);
                    Some(inputs.batch.len() - 1)
                }
                other => {
                    slot.state = other;
                    None
                }
            });
        }
        inputs
    }

    fn of(&self, slot: usize) -> Option<&Input<F>> {
        self.slots[slot].map(|at| &self.batch[at])
    }

    fn inbox_rows(&self, slots: &[Slot<F>], expiry: &Expiry) -> Vec<(Key, Row)> {
        let mut rows = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            let known = match self.of(at) {
                Some(input) => input.id.as_ref().map(|id| (id, input.fingerprint.as_str())),
                None => slot.inbox(),
            };
            let Some((id, fingerprint)) = known else { continue };
            let (fingerprint, expires_at) = (fingerprint.to_owned(), expiry.of(&slot.source));
            let row = InboxRow::Applied { fingerprint, expires_at, reply: None };
            rows.push((id.clone(), Row { version: 0, index: row.index(), body: json(&row) }));
        }
        rows
    }

    fn put_back(self, slots: &mut [Slot<F>]) {
        let mut batch = self.batch.into_iter();
        for (slot, at) in slots.iter_mut().zip(self.slots) {
            if at.is_some() {
                slot.state = State::Input(batch.next().expect("one input a slot"));
            }
        }
    }
}

pub(crate) fn lease_row(lease: &Lease, version: i64) -> Row {
    Row { version, index: lease.index(), body: json(lease) }
}

pub(crate) fn rows(reply: Option<Got>) -> Rows {
    match reply {
        Some(Got::Rows(rows)) => rows,
        other => panic!("the store answered {other:?} where rows were due"),
    }
}

pub(crate) fn listed(reply: Option<Got>) -> Vec<(Key, Row)> {
    match reply {
        Some(Got::Listed(rows)) => rows,
        other => panic!("the store answered {other:?} where a list was due"),
    }
}

pub(crate) fn clock(reply: Option<Got>) -> DateTime<Utc> {
    match reply {
        Some(Got::Now(now)) => now,
        other => panic!("the store answered {other:?} where its clock was due"),
    }
}

pub(crate) fn json<T: serde::Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("the chassis' documents have a JSON form")
}

/// An instant as the chassis' rows have it.
pub(crate) fn at(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}
