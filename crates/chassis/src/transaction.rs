//! One batch as one transaction: positions and inbox, markers of parked keys, locks in the fixed
//! order, the pure rule for each input, rows and outbox, commit. Never calls anything outside the
//! store.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ports::{Fault, Key, Op, Partition, Reply as Got, Row, Rows};

use crate::app::Shared;
use crate::deciding::{Deciding, Last};
use crate::inputs::{Entry, Inputs, Rules, What};
use crate::letters::{DEAD_LETTERS, Letters, PARKED, Wanted};
use crate::retention::Expiry;
use crate::slot::{Ended, Slot};
use crate::tables::{Lease, position_key};
use crate::work::ClaimedAtOnce;
use crate::{Document, Handler, INBOX, InboxRow, POSITIONS, Reason, Touched};

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
    shared: &Shared,
    handler: &H,
    slots: &mut [Slot<H::Fact>],
    epochs: &BTreeMap<Partition, u64>,
) -> Result<Committed, Failed> {
    let inputs = Inputs::take(slots);
    let result = until_wide(shared, &inputs.rules(handler), &inputs.entries(slots), epochs).await;
    inputs.put_back(slots);
    result
}

/// Tries with more and more locks, until they are enough.
async fn until_wide(
    shared: &Shared,
    rules: &dyn Rules,
    entries: &[Entry<'_>],
    epochs: &BTreeMap<Partition, u64>,
) -> Result<Committed, Failed> {
    let expiry = Expiry::new(&shared.settings, shared.ports.runtime.now());
    let mut wanted = wanted(entries);
    loop {
        match attempt(shared, rules, entries, epochs, &expiry, &wanted).await? {
            Attempt::Done(committed) => return Ok(committed),
            Attempt::Wider(more) => wanted.extend(more),
        }
    }
}

/// The chassis' own rows that this batch is known to need: of letters that are to be settled, and of
/// those that will be.
fn wanted(entries: &[Entry<'_>]) -> Wanted {
    let mut wanted = Wanted::default();
    for Entry { head, what } in entries {
        if head.settles() || matches!(what, What::Dead { .. }) {
            wanted.letters.extend(head.letter_id());
            wanted.markers.extend(head.marker().cloned());
        }
    }
    wanted
}

/// By id what is inserted, as if all went well: of the first input that has it.
fn inbox_rows(entries: &[Entry<'_>], expiry: &Expiry) -> BTreeMap<Key, InboxRow> {
    let mut rows = BTreeMap::new();
    for entry in entries {
        let Some((id, fingerprint)) = entry.inbox() else { continue };
        rows.entry(id.clone()).or_insert_with(|| {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), expiry.of(&entry.head.source));
            InboxRow::Applied { fingerprint, expires_at, reply: None }
        });
    }
    rows
}

async fn attempt(
    shared: &Shared,
    rules: &dyn Rules,
    entries: &[Entry<'_>],
    epochs: &BTreeMap<Partition, u64>,
    expiry: &Expiry,
    wanted: &Wanted,
) -> Result<Attempt, Failed> {
    let inbox = inbox_rows(entries, expiry);
    let mut touched = Touched::new();
    let partitions: BTreeSet<&Partition> =
        entries.iter().filter_map(|it| it.head.partition()).collect();
    let positions = partitions.into_iter().map(position_key).collect();
    let sequenced = entries.iter().filter_map(|it| it.head.sequence()).map(|(key, _)| key.clone());
    let looked: BTreeSet<Key> = sequenced.filter(|key| !wanted.markers.contains(key)).collect();
    let row = |row: &InboxRow| Row { version: 0, index: row.index(), body: json(row) };
    let mut ops = vec![
        Op::Now,
        Op::Lock { table: &POSITIONS, keys: positions },
        Op::Insert {
            table: &INBOX,
            rows: inbox.iter().map(|(id, it)| (id.clone(), row(it))).collect(),
        },
    ];
    let (settles, looks) = (!wanted.is_empty(), !looked.is_empty());
    if settles {
        ops.push(Op::Lock { table: &PARKED, keys: wanted.markers.clone() });
        ops.push(Op::Lock { table: &DEAD_LETTERS, keys: wanted.letters.clone() });
    }
    let mut tables = rules.tables().iter().copied();
    let mut asked = Vec::new();
    let mut blocked = None;
    for table in tables.by_ref() {
        match rules.keys(table, &touched).map_err(Failed::Rule)? {
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
    // Behind the last lock: whoever had these rows before has committed, and its letters are seen.
    let look = looks.then_some(Op::Read { table: &PARKED, keys: looked });
    if blocked.is_none() {
        ops.extend(look.clone());
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
    for table in asked {
        touched.add(table, rows(replies.next()));
    }
    let mut parked = replies.next();
    for table in blocked.into_iter().chain(tables) {
        let keys = rules.keys(table, &touched).map_err(Failed::Rule)?;
        let keys = keys.unwrap_or_else(|| panic!("keys of {} depend on later tables", table.name));
        let ops = [Op::Lock { table, keys }].into_iter().chain(look.clone()).collect();
        let mut locked = tx.run(ops).await?.into_iter();
        touched.add(table, rows(locked.next()));
        parked = locked.next();
    }
    let parked = if looks { rows(parked) } else { Rows::new() };
    if !parked.is_empty() {
        // Somebody waits there: only under its lock it can be said who goes first.
        let markers = parked.into_iter().map(|(key, _)| key).collect();
        return Ok(Attempt::Wider(Wanted { markers, letters: BTreeSet::new() }));
    }

    let mut batch = Deciding::new(shared, rules, now, expiry, epochs, inbox);
    batch.locked(touched, positions, existing, letters);
    let ended = entries.iter().map(|entry| batch.end(entry)).collect();
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
