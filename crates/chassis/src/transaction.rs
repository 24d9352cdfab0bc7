//! One batch as one transaction: positions and inbox, locks in the fixed order, the pure rule for
//! each input, rows and outbox, commit. Never calls anything outside the store.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use envelope::Envelope;
use ports::{Key, Op, Outcome, Outgoing, Partition, Record, Reply as Got, Row, Rows};
use xxhash_rust::xxh3::xxh3_64;

use crate::app::Shared;
use crate::http::Problem;
use crate::tables::{Lease, position_key};
use crate::touched::document;
use crate::{
    Context, DEAD_LETTERS, DeadLetter, Decided, Document, Emit, Handler, INBOX, InboxRow, Input,
    POSITIONS, Position, Read, Reason, Reply, StoredReply, Touched,
};

/// Where an input came from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A topic.
    Log { partition: Partition, offset: i64 },
    /// A queue.
    Queue,
    /// This service itself.
    Command,
}

/// An input in a batch, or why it is none.
pub(crate) struct Slot<F> {
    pub(crate) source: Source,
    record: Option<Record>,
    state: State<F>,
}

enum State<F> {
    Input(Input<F>),
    Skip,
    Dead { id: Key, fingerprint: String, reason: Reason },
}

/// How an input ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its effects are committed.
    Applied(Option<Reply>),
    /// It was handled before.
    Repeated(Option<Reply>),
    /// It broke the contract; its dead letter is committed.
    Refused(Reason),
    /// It means nothing here, or the position is behind it already.
    Skipped,
    /// Its partition belongs to a later epoch.
    Fenced,
}

/// What a transaction did.
pub(crate) struct Committed {
    pub(crate) ended: Vec<Ended>,
    pub(crate) appended: bool,
    pub(crate) due: bool,
}

impl<F> Slot<F> {
    pub(crate) fn command(input: Input<F>) -> Self {
        Slot { source: Source::Command, record: None, state: State::Input(input) }
    }

    pub(crate) fn record<H: Handler<Fact = F>>(
        handler: &H,
        source: Source,
        record: Record,
    ) -> Self {
        let state = read(handler, &source, &record);
        Slot { source, record: Some(record), state }
    }

    /// Makes it a dead letter: the store itself refuses what follows from it.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        let (id, fingerprint) = match &self.state {
            State::Input(input) => (input.id.clone(), input.fingerprint.clone()),
            State::Dead { id, fingerprint, .. } => (Some(id.clone()), fingerprint.clone()),
            State::Skip => (None, String::new()),
        };
        let id = id.unwrap_or_else(|| format!("refused:{fingerprint}").into());
        self.state = State::Dead { id, fingerprint, reason };
    }

    fn inbox(&self) -> Option<(&Key, &str)> {
        match &self.state {
            State::Input(input) => input.id.as_ref().map(|id| (id, input.fingerprint.as_str())),
            State::Dead { id, fingerprint, .. } => Some((id, fingerprint)),
            State::Skip => None,
        }
    }
}

/// Decodes a record: envelope, contract, meaning. A record without a readable eventId is known by
/// where it stood and what it holds.
fn read<H: Handler>(handler: &H, source: &Source, record: &Record) -> State<H::Fact> {
    let envelope = match Envelope::read(&record.payload) {
        Ok(envelope) => envelope,
        Err(cause) => {
            let fingerprint = envelope::fingerprint(&record.payload);
            let place = match source {
                Source::Log { partition, offset } => format!("{partition}@{offset}"),
                Source::Queue | Source::Command => record.to.to_string(),
            };
            let id = format!("unread:{place}:{fingerprint}").into();
            let reason = Reason::new("bad_envelope", cause.to_string());
            return State::Dead { id, fingerprint, reason };
        }
    };
    let id = envelope.event_id.key();
    let fingerprint = envelope.fingerprint();
    let context = Context {
        cause: Some(envelope.event_id.clone()),
        correlation: Some(envelope.correlation_id.clone()),
    };
    match handler.read(&envelope) {
        Ok(Read::Fact(fact)) => State::Input(Input { id: Some(id), fingerprint, context, fact }),
        Ok(Read::Guarded(fact)) => State::Input(Input { id: None, fingerprint, context, fact }),
        Ok(Read::Skip(reason)) => {
            tracing::trace!(event = envelope.event_type, reason, "skipped");
            State::Skip
        }
        Err(reason) => State::Dead { id, fingerprint, reason },
    }
}

/// Runs the batch in one transaction.
pub(crate) async fn run<H: Handler>(
    shared: &Shared<H>,
    slots: &mut [Slot<H::Fact>],
    epochs: &BTreeMap<Partition, u64>,
) -> Outcome<Committed> {
    let seen_at = at(shared.ports.runtime.now());
    let positions: BTreeSet<Key> = slots.iter().filter_map(Slot::position_key).collect();
    let mut inbox = Rows::new();
    for (id, row) in slots.iter().filter_map(|slot| slot.inbox_row(&seen_at)) {
        inbox.entry(id).or_insert(row);
    }
    // Inputs leave their slots for the time of the transaction, so that rules see them as a slice.
    let inputs = Inputs::take(slots);
    let known = Known { seen_at, positions, inbox };
    let result = run_inputs(shared, slots, epochs, known, &inputs).await;
    inputs.put_back(slots);
    result
}

/// What a batch knows of itself before its transaction.
struct Known {
    seen_at: String,
    positions: BTreeSet<Key>,
    /// Inbox rows to insert: of the first input of each id.
    inbox: Rows,
}

async fn run_inputs<H: Handler>(
    shared: &Shared<H>,
    slots: &[Slot<H::Fact>],
    epochs: &BTreeMap<Partition, u64>,
    known: Known,
    inputs: &Inputs<H::Fact>,
) -> Outcome<Committed> {
    let handler = &shared.handler;
    let Known { seen_at, positions, inbox } = known;
    let mut touched = Touched::new();
    let mut ops = vec![
        Op::Now,
        Op::Lock { table: &POSITIONS, keys: positions },
        Op::Insert { table: &INBOX, rows: inbox.clone() },
    ];
    let mut tables = handler.tables().iter().copied();
    let mut asked = Vec::new();
    let mut blocked = None;
    for table in tables.by_ref() {
        match handler.keys(table, &inputs.batch, &touched) {
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
    for table in asked {
        touched.add(table, rows(replies.next()));
    }
    for table in blocked.into_iter().chain(tables) {
        let keys = handler.keys(table, &inputs.batch, &touched);
        let keys = keys.unwrap_or_else(|| panic!("keys of {} depend on later tables", table.name));
        let locked = tx.run(vec![Op::Lock { table, keys }]).await?;
        touched.add(table, rows(locked.into_iter().next()));
    }

    let mut batch = Deciding {
        shared,
        now,
        touched,
        positions,
        epochs,
        existing,
        seen_at,
        inbox,
        replies: BTreeMap::new(),
        writes: Writes::default(),
    };
    let ended = slots.iter().enumerate().map(|(i, slot)| batch.end(slot, inputs.of(i))).collect();
    let Last { ops, writes, appended, due } = batch.into_last();
    if writes {
        tx.commit(ops).await?;
    }
    // Else the rollback frees the locks without a commit.
    Ok(Committed { ended, appended, due })
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

    fn put_back(self, slots: &mut [Slot<F>]) {
        let mut batch = self.batch.into_iter();
        for (slot, at) in slots.iter_mut().zip(self.slots) {
            if at.is_some() {
                slot.state = State::Input(batch.next().expect("one input a slot"));
            }
        }
    }
}

/// What the transaction will write besides the handler's rows.
#[derive(Default)]
struct Writes {
    /// What is to stand where another outcome was inserted.
    inbox: Rows,
    /// Ids whose inbox rows stand. The others that this batch inserted go: their inputs were fenced
    /// (the partition's owner must not take them for handled), or passed without a trace.
    kept: BTreeSet<Key>,
    dead: Rows,
    outgoing: Vec<Outgoing>,
    positions: Rows,
}

/// What comes with the commit.
struct Last {
    ops: Vec<Op>,
    /// Whether there is anything to commit, inbox rows of the begin included.
    writes: bool,
    /// Whether the outbox grew.
    appended: bool,
    /// Whether rows with an index value, which may be an instant, were put.
    due: bool,
}

/// A batch between its locks and its commit.
struct Deciding<'a, H: Handler> {
    shared: &'a Shared<H>,
    now: DateTime<Utc>,
    touched: Touched,
    positions: Rows,
    epochs: &'a BTreeMap<Partition, u64>,
    /// Inbox rows that were there before this batch.
    existing: Rows,
    seen_at: String,
    /// Inbox rows as this batch inserted them.
    inbox: Rows,
    /// What the first input of an id in this batch was answered, with its fingerprint.
    replies: BTreeMap<Key, (String, Option<Reply>)>,
    writes: Writes,
}

impl<H: Handler> Deciding<'_, H> {
    /// Ends one input: fenced, already done, repeated, refused or applied.
    fn end(&mut self, slot: &Slot<H::Fact>, input: Option<&Input<H::Fact>>) -> Ended {
        if let Source::Log { partition, offset } = &slot.source
            && let Some(ended) = self.advance(partition, *offset)
        {
            return ended;
        }
        let (id, fingerprint) = match (input, &slot.state) {
            (Some(input), _) => (input.id.as_ref(), &input.fingerprint),
            (None, State::Dead { id, fingerprint, .. }) => (Some(id), fingerprint),
            (None, State::Skip | State::Input(_)) => return Ended::Skipped,
        };
        if let Some(id) = id
            && let Some(ended) = self.repeated(slot, id, fingerprint)
        {
            return ended;
        }
        let decided = match (input, &slot.state) {
            (Some(input), _) => self.decide(input),
            (None, State::Dead { reason, .. }) => Err(reason.clone()),
            (None, State::Skip | State::Input(_)) => return Ended::Skipped,
        };
        match decided {
            Ok(decided) => self.applied(id, fingerprint, decided),
            Err(reason) => self.refused(slot, id, fingerprint, reason),
        }
    }

    /// Moves the partition's position over the record; `Some` where it is not ours to handle.
    fn advance(&mut self, partition: &Partition, offset: i64) -> Option<Ended> {
        let key = position_key(partition);
        let row = self.positions.get(&key).cloned().unwrap_or_default();
        let position: Option<Position> = document(&row);
        let Some(position) = position.filter(|p| self.epochs.get(partition) == Some(&p.epoch))
        else {
            return Some(Ended::Fenced);
        };
        if position.next.is_some_and(|next| offset < next) {
            return Some(Ended::Skipped);
        }
        let next = Position { next: Some(offset + 1), ..position };
        let row = Row { version: row.version, index: next.index(), body: json(&next) };
        self.positions.insert(key.clone(), row.clone());
        self.writes.positions.insert(key, row);
        None
    }

    /// The stored outcome of an id that was handled before, in this batch or an earlier one.
    fn repeated(&mut self, slot: &Slot<H::Fact>, id: &Key, fingerprint: &str) -> Option<Ended> {
        let (said, reply) = match self.replies.get(id) {
            Some((said, reply)) => (said.clone(), reply.clone()),
            None => match document::<InboxRow>(self.existing.get(id)?)? {
                InboxRow::Applied { fingerprint, reply, .. } => {
                    (fingerprint, reply.map(Reply::from))
                }
                InboxRow::Dead { fingerprint, reply, .. } => (fingerprint, reply.map(Reply::from)),
            },
        };
        if said == fingerprint {
            return Some(Ended::Repeated(reply));
        }
        let text = format!("{id} was used before, with another content");
        Some(match slot.source {
            Source::Command => {
                let title = "The Idempotency-Key was used for another request";
                let problem = Problem::new(422, "idempotency-key-reused", title, text);
                Ended::Repeated(Some(problem.into_reply()))
            }
            Source::Log { .. } | Source::Queue => {
                let reason = Reason::new("event_id_reused", text);
                self.bury(slot, fingerprint, &reason);
                Ended::Refused(reason)
            }
        })
    }

    fn decide(&mut self, input: &Input<H::Fact>) -> Result<Decided, Reason> {
        self.touched.mark();
        let decided = self.shared.handler.decide(input, &mut self.touched, self.now);
        if decided.is_err() {
            self.touched.undo();
        }
        decided
    }

    fn applied(&mut self, id: Option<&Key>, fingerprint: &str, decided: Decided) -> Ended {
        let Decided { emits, reply } = decided;
        let passing = reply.as_ref().is_some_and(|reply| !reply.kept);
        assert!(!passing || emits.is_empty(), "a reply that is not kept must leave no trace");
        if let Some(id) = id
            && !passing
        {
            let (fingerprint, seen_at) = (fingerprint.to_owned(), self.seen_at.clone());
            let stored = reply.as_ref().map(StoredReply::from);
            self.keep(id, InboxRow::Applied { fingerprint, seen_at, reply: stored }, &reply);
        }
        let shards = self.shared.settings.shards;
        self.writes.outgoing.extend(emits.into_iter().map(|emit| outgoing(emit, shards)));
        Ended::Applied(reply)
    }

    fn refused(
        &mut self,
        slot: &Slot<H::Fact>,
        id: Option<&Key>,
        fingerprint: &str,
        reason: Reason,
    ) -> Ended {
        if let Some(id) = id {
            let (fingerprint, seen_at) = (fingerprint.to_owned(), self.seen_at.clone());
            let reply = matches!(slot.source, Source::Command).then(|| reason.to_reply());
            let (code, stored) = (reason.code.to_string(), reply.as_ref().map(StoredReply::from));
            self.keep(id, InboxRow::Dead { fingerprint, seen_at, code, reply: stored }, &reply);
        }
        self.bury(slot, fingerprint, &reason);
        Ended::Refused(reason)
    }

    /// Has this outcome stand in the inbox, and repeats in this batch answered with the reply.
    fn keep(&mut self, id: &Key, outcome: InboxRow, reply: &Option<Reply>) {
        let (index, body) = (outcome.index(), json(&outcome));
        let inserted = self.inbox.get(id);
        let inserted = inserted.unwrap_or_else(|| panic!("no inbox row {id} in this batch"));
        if inserted.body != body {
            self.writes.inbox.insert(id.clone(), Row { version: 1, index, body });
        }
        self.writes.kept.insert(id.clone());
        self.replies.insert(id.clone(), (outcome.fingerprint().to_owned(), reply.clone()));
    }

    /// Keeps the record as a dead letter.
    fn bury(&mut self, slot: &Slot<H::Fact>, fingerprint: &str, reason: &Reason) {
        let Some(record) = &slot.record else { return };
        let (key, partition, offset): (Key, _, _) = match &slot.source {
            Source::Log { partition, offset } => {
                (format!("{partition}@{offset}").into(), Some(partition.index), Some(*offset))
            }
            Source::Queue | Source::Command => {
                let id = text(record.key.as_bytes());
                (format!("{}:{id}:{fingerprint}", record.to).into(), None, None)
            }
        };
        let mut error = reason.text.clone();
        error.truncate((0..=1024).rev().find(|&n| error.is_char_boundary(n)).unwrap_or(0));
        let letter = DeadLetter {
            from: record.to.to_string(),
            partition,
            offset,
            key: record.key.to_string(),
            headers: record.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
            payload: text(&record.payload),
            code: reason.code.to_string(),
            error,
            died_at: at(self.now),
        };
        tracing::warn!(service = self.shared.settings.service, from = letter.from, key = %key,
            code = letter.code, error = letter.error, "dead letter");
        self.writes
            .dead
            .insert(key, Row { version: 0, index: letter.index(), body: json(&letter) });
    }

    fn into_last(self) -> Last {
        let Writes { inbox, kept, dead, outgoing, positions } = self.writes;
        let mut ops = self.touched.into_puts();
        let due = ops.iter().any(|op| match op {
            Op::Put { rows, .. } => rows.values().any(|row| row.index.iter().any(Option::is_some)),
            _ => false,
        });
        let appended = !outgoing.is_empty();
        if !inbox.is_empty() {
            ops.push(Op::Put { table: &INBOX, rows: inbox });
        }
        if !dead.is_empty() {
            ops.push(Op::Insert { table: &DEAD_LETTERS, rows: dead });
        }
        if appended {
            ops.push(Op::Append { rows: outgoing });
        }
        if !positions.is_empty() {
            ops.push(Op::Put { table: &POSITIONS, rows: positions });
        }
        let writes = !kept.is_empty() || !ops.is_empty();
        let inserted = self.inbox.into_keys().filter(|id| !self.existing.contains_key(id));
        let forget: BTreeSet<Key> = inserted.filter(|id| !kept.contains(id)).collect();
        if !forget.is_empty() {
            // Alone it is no reason to commit: the rollback forgets it too.
            ops.push(Op::Delete { table: &INBOX, keys: forget });
        }
        Last { ops, writes, appended, due }
    }
}

impl<F> Slot<F> {
    fn position_key(&self) -> Option<Key> {
        match &self.source {
            Source::Log { partition, .. } => Some(position_key(partition)),
            Source::Queue | Source::Command => None,
        }
    }

    fn inbox_row(&self, seen_at: &str) -> Option<(Key, Row)> {
        let (id, fingerprint) = self.inbox()?;
        let (fingerprint, seen_at) = (fingerprint.to_owned(), seen_at.to_owned());
        let row = InboxRow::Applied { fingerprint, seen_at, reply: None };
        Some((id.clone(), Row { version: 0, index: row.index(), body: json(&row) }))
    }
}

/// The outbox row of an event: its shard is fixed by its key.
fn outgoing(emit: Emit, shards: u16) -> Outgoing {
    let shard = (xxh3_64(emit.key.as_bytes()) % u64::from(shards)) as u16;
    let payload = emit.envelope.to_bytes();
    let headers = vec![("content-type".into(), bytes::Bytes::from_static(b"application/json"))];
    let Emit { channel, to, key, .. } = emit;
    Outgoing { shard, channel, to, key, headers, payload }
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

pub(crate) fn clock(reply: Option<Got>) -> DateTime<Utc> {
    match reply {
        Some(Got::Now(now)) => now,
        other => panic!("the store answered {other:?} where its clock was due"),
    }
}

pub(crate) fn json<T: serde::Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("the chassis' documents have a JSON form")
}

fn at(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Text where it is UTF-8 without NUL (which PostgreSQL cannot keep), else hexadecimal.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') && !text.starts_with("hex:") => text.to_owned(),
        _ => bytes.iter().fold(String::from("hex:"), |mut hex, byte| {
            hex.push_str(&format!("{byte:02x}"));
            hex
        }),
    }
}
