//! A batch between its locks and its commit: each input ends here, on locked rows, in memory. Never
//! awaits.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use ports::{Key, Op, Outgoing, Partition, Row, Rows};
use serde_json::json;
use tracing::Span;
use xxhash_rust::xxh3::xxh3_64;

use crate::app::Shared;
use crate::http::Problem;
use crate::letters::{DeadLetter, LetterState, Letters, Wanted};
use crate::retention::Expiry;
use crate::slot::{Ask, Ended, Slot, Source, State, panicked};
use crate::tables::position_key;
use crate::touched::{Line, document};
use crate::transaction::{at, json as body_of};
use crate::{
    Decided, Document, Emit, Handler, INBOX, InboxRow, Input, POSITIONS, Position, Reason, Reply,
    Sample, Sequence, StoredReply, Touched, Trace, trial,
};

/// What the transaction will write besides the handler's rows and the letters.
#[derive(Default)]
struct Writes {
    /// What is to stand where another outcome was inserted, or stood before.
    inbox: Rows,
    /// Ids whose inbox rows stand. The others that this batch inserted go: their inputs were fenced
    /// (the partition's owner must not take them for handled), or passed without a trace.
    kept: BTreeSet<Key>,
    outgoing: Vec<Outgoing>,
    positions: Rows,
}

/// What comes with the commit.
pub(crate) struct Last {
    pub(crate) ops: Vec<Op>,
    /// Whether there is anything to commit, inbox rows of the begin included.
    pub(crate) writes: bool,
    /// Whether the outbox grew.
    pub(crate) appended: bool,
    /// Whether rows with an index value, which may be an instant, were put.
    pub(crate) changed: bool,
    /// Whether letters wait for nothing any more.
    pub(crate) drainable: bool,
    /// What the rules counted.
    pub(crate) samples: Vec<Sample>,
    /// What is to be logged, each line in the span of its input.
    pub(crate) lines: Vec<(Span, Line)>,
}

/// A batch between its locks and its commit.
pub(crate) struct Deciding<'a, H: Handler> {
    shared: &'a Shared<H>,
    now: DateTime<Utc>,
    now_text: String,
    expiry: &'a Expiry,
    epochs: &'a BTreeMap<Partition, u64>,
    /// Inbox rows as this batch inserted them.
    inbox: Rows,
    touched: Touched,
    positions: Rows,
    /// Inbox rows that were there before this batch.
    existing: Rows,
    letters: Letters,
    /// What the first input of an id in this batch was answered, with its fingerprint.
    replies: BTreeMap<Key, (String, Option<Reply>)>,
    writes: Writes,
    lines: Vec<(Span, Line)>,
}

impl<'a, H: Handler> Deciding<'a, H> {
    pub(crate) fn new(
        shared: &'a Shared<H>,
        now: DateTime<Utc>,
        expiry: &'a Expiry,
        epochs: &'a BTreeMap<Partition, u64>,
        inbox: Rows,
    ) -> Self {
        Deciding {
            shared,
            now,
            now_text: at(now),
            expiry,
            epochs,
            inbox,
            touched: Touched::new(),
            positions: Rows::new(),
            existing: Rows::new(),
            letters: Letters::default(),
            replies: BTreeMap::new(),
            writes: Writes::default(),
            lines: Vec::new(),
        }
    }

    /// The rows that the transaction holds locked.
    pub(crate) fn locked(
        &mut self,
        touched: Touched,
        positions: Rows,
        existing: Rows,
        letters: Letters,
    ) {
        self.touched = touched;
        self.positions = positions;
        self.existing = existing;
        self.letters = letters;
    }

    /// What should have been locked besides: then nothing of this may be committed.
    pub(crate) fn missing(&self) -> Option<Wanted> {
        self.letters.missing()
    }

    /// Ends one input: fenced, already done, repeated, parked, refused or applied.
    pub(crate) fn end(&mut self, slot: &Slot<H::Fact>, input: Option<&Input<H::Fact>>) -> Ended {
        if let Source::Log { partition, offset } = &slot.source
            && let Some(ended) = self.advance(partition, *offset)
        {
            return ended;
        }
        if let Source::Letter { id, ask } = &slot.source {
            return self.settle(slot, input, id, ask);
        }
        let (id, fingerprint) = match (input, &slot.state) {
            (Some(input), _) => (input.id.as_ref(), input.fingerprint.as_str()),
            (None, State::Dead { id, fingerprint, .. }) => (Some(id), fingerprint.as_str()),
            (None, State::Skip | State::Input(_)) => return Ended::Skipped,
        };
        if let Some(id) = id
            && let Some(ended) = self.repeated(slot, id, fingerprint)
        {
            return ended;
        }
        let decided = match (input, &slot.state) {
            (Some(_), _) if self.behind(slot) => return self.park(slot, id, fingerprint),
            (Some(input), _) => self.decide(slot, input),
            (None, State::Dead { reason, .. }) => Err(reason.clone()),
            (None, State::Skip | State::Input(_)) => return Ended::Skipped,
        };
        match decided {
            Ok(decided) => {
                let ended = self.applied(slot, id, fingerprint, decided);
                self.supersede(slot);
                ended
            }
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
        let trial = trial::after(position.trial.as_ref(), offset + 1);
        let next = Position { next: Some(offset + 1), claims: 0, trial, ..position };
        let row = Row { version: row.version, index: next.index(), body: body_of(&next) };
        self.positions.insert(key.clone(), row.clone());
        self.writes.positions.insert(key, row);
        None
    }

    /// The stored outcome of an id that was handled before, in this batch or an earlier one.
    fn repeated(&mut self, slot: &Slot<H::Fact>, id: &Key, fingerprint: &str) -> Option<Ended> {
        let (said, reply) = self.outcome(id)?;
        if said == fingerprint {
            return Some(Ended::Repeated(reply));
        }
        Some(match slot.source {
            Source::Command => {
                let text = format!("{id} was used before, with another content");
                let title = "The Idempotency-Key was used for another request";
                let problem = Problem::new(422, "idempotency-key-reused", title, text);
                Ended::Repeated(Some(problem.into_reply()))
            }
            Source::Log { .. } | Source::Queue | Source::Letter { .. } => {
                let reason = reused(id);
                // Its sequence goes on with the first one.
                self.bury(slot, Some(id), None, &reason);
                Ended::Refused(reason)
            }
        })
    }

    /// What was said under this id, and what was answered.
    fn outcome(&self, id: &Key) -> Option<(String, Option<Reply>)> {
        if let Some(outcome) = self.replies.get(id) {
            return Some(outcome.clone());
        }
        Some(match document::<InboxRow>(self.existing.get(id)?)? {
            InboxRow::Applied { fingerprint, reply, .. }
            | InboxRow::Dead { fingerprint, reply, .. } => (fingerprint, reply.map(Reply::from)),
            InboxRow::Parked { fingerprint, .. } => (fingerprint, None),
        })
    }

    /// Whether letters of its key go first.
    fn behind(&self, slot: &Slot<H::Fact>) -> bool {
        match slot.sequence() {
            Some((key, Sequence::InOrder)) => self.letters.waits(key),
            Some((_, Sequence::Final | Sequence::Free)) | None => false,
        }
    }

    fn park(&mut self, slot: &Slot<H::Fact>, id: Option<&Key>, fingerprint: &str) -> Ended {
        if let Some(id) = id {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&slot.source));
            self.keep(id, InboxRow::Parked { fingerprint, expires_at }, &None);
        }
        if let (Some(letter), Some((key, _))) =
            (slot.to_letter(id, None, &self.now_text), slot.sequence())
        {
            let service = self.shared.settings.service;
            let (id, behind) = (letter.id.clone(), key.clone());
            self.say(slot, move || tracing::warn!(service, letter = id, key = %behind, "parked"));
            self.letters.add(letter, Some(key), &self.now_text);
        }
        Ended::Parked
    }

    /// Logs a line about an input, in its span, when the transaction has committed. Few inputs have one: a span
    /// costs as much as a rule.
    fn say(&mut self, slot: &Slot<H::Fact>, line: impl FnOnce() + Send + 'static) {
        self.keep_line(slot, Line::of(line));
    }

    fn keep_line(&mut self, slot: &Slot<H::Fact>, line: Line) {
        self.lines.push((slot.subject.span(self.shared.settings.service), line));
    }

    /// A panic of a rule is its input's error: its rows are as before, and nobody else's suffer.
    fn decide(&mut self, slot: &Slot<H::Fact>, input: &Input<H::Fact>) -> Result<Decided, Reason> {
        self.touched.mark();
        let (handler, touched, now) = (&self.shared.handler, &mut self.touched, self.now);
        let decided = catch_unwind(AssertUnwindSafe(|| handler.decide(input, touched, now)));
        let decided = decided.unwrap_or_else(|panic| Err(panicked(&*panic)));
        if let Err(reason) = &decided {
            self.touched.undo();
            if reason.code == Reason::PANIC {
                let (service, reason) = (self.shared.settings.service, reason.text.clone());
                self.say(slot, move || tracing::error!(service, reason, "a rule panicked"));
            }
        }
        for line in self.touched.take_lines() {
            self.keep_line(slot, line);
        }
        decided
    }

    fn applied(
        &mut self,
        slot: &Slot<H::Fact>,
        id: Option<&Key>,
        fingerprint: &str,
        decided: Decided,
    ) -> Ended {
        let Decided { emits, reply } = decided;
        let passing = reply.as_ref().is_some_and(|reply| !reply.kept);
        assert!(!passing || emits.is_empty(), "a reply that is not kept must leave no trace");
        if let Some(id) = id
            && !passing
        {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&slot.source));
            let stored = reply.as_ref().map(StoredReply::from);
            self.keep(id, InboxRow::Applied { fingerprint, expires_at, reply: stored }, &reply);
        }
        let shards = self.shared.settings.shards;
        let trace = slot.subject.context().trace.as_ref();
        self.writes.outgoing.extend(emits.into_iter().map(|emit| outgoing(emit, shards, trace)));
        Ended::Applied(reply)
    }

    /// What died before a final event of its key is void.
    fn supersede(&mut self, slot: &Slot<H::Fact>) {
        if let Some((key, Sequence::Final)) = slot.sequence() {
            self.letters.supersede(key, &self.now_text);
        }
    }

    fn refused(
        &mut self,
        slot: &Slot<H::Fact>,
        id: Option<&Key>,
        fingerprint: &str,
        reason: Reason,
    ) -> Ended {
        let reply = matches!(slot.source, Source::Command).then(|| reason.to_reply());
        if let Some(id) = id
            && reply.as_ref().is_none_or(|reply| reply.kept)
        {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&slot.source));
            let (code, stored) = (reason.code.to_string(), reply.as_ref().map(StoredReply::from));
            self.keep(id, InboxRow::Dead { fingerprint, expires_at, code, reply: stored }, &reply);
        }
        let key = match slot.sequence() {
            Some((key, Sequence::InOrder)) => Some(key),
            Some((_, Sequence::Final | Sequence::Free)) | None => None,
        };
        self.bury(slot, id, key, &reason);
        Ended::Refused(reason)
    }

    /// Has this outcome stand in the inbox, and repeats in this batch answered with the reply.
    fn keep(&mut self, id: &Key, outcome: InboxRow, reply: &Option<Reply>) {
        let (index, body) = (outcome.index(), body_of(&outcome));
        let stood = self.existing.get(id).or(self.inbox.get(id));
        let stood = stood.unwrap_or_else(|| panic!("no inbox row {id} in this batch"));
        if stood.body != body {
            // What this batch inserted is at version 1.
            let version = stood.version.max(1);
            self.writes.inbox.insert(id.clone(), Row { version, index, body });
        }
        self.writes.kept.insert(id.clone());
        self.replies.insert(id.clone(), (outcome.fingerprint().to_owned(), reply.clone()));
    }

    /// Keeps the record as a dead letter, and what comes behind it in `key` waiting.
    fn bury(&mut self, slot: &Slot<H::Fact>, id: Option<&Key>, key: Option<&Key>, reason: &Reason) {
        let Some(letter) = slot.to_letter(id, Some(reason), &self.now_text) else { return };
        let service = self.shared.settings.service;
        let (id, code, error) = (letter.id.clone(), letter.code.clone(), letter.error.clone());
        self.say(slot, move || {
            tracing::warn!(service, letter = id, code, error, "dead letter");
        });
        self.letters.add(letter, key, &self.now_text);
    }

    /// Settles a letter: applies it or gives it up, where its turn has come. A letter that is settled
    /// already stays as it is: asking twice changes nothing.
    fn settle(
        &mut self,
        slot: &Slot<H::Fact>,
        input: Option<&Input<H::Fact>>,
        letter_id: &Key,
        ask: &Ask,
    ) -> Ended {
        let Some(mut letter) = self.letters.get(letter_id).cloned() else {
            return passing(Problem::not_found("dead letter", letter_id));
        };
        if !letter.state.is_open() {
            return Ended::Repeated(Some(settled(&letter)));
        }
        let edited = match ask {
            Ask::Discard { note } => {
                letter.state = LetterState::Discarded;
                letter.note = Some(note.clone());
                return self.close(slot, letter);
            }
            Ask::Redrive { edited } => edited.clone(),
        };
        if let Some(problem) = self.out_of_turn(slot, &letter) {
            return passing(problem);
        }
        letter.edited = edited.or(letter.edited);
        let known = match (input, &slot.state) {
            (Some(input), _) => input.id.as_ref().map(|id| (id, input.fingerprint.as_str())),
            (None, State::Dead { .. } | State::Skip | State::Input(_)) => None,
        };
        // Somebody else was applied under its id: what says the same has its effect already.
        let applied = known.and_then(|(id, fingerprint)| {
            let (said, _) = self.outcome(id)?;
            (**id != *letter.inbox_id || !self.open(id)).then_some(said == fingerprint)
        });
        let decided = match (applied, input, &slot.state) {
            (Some(true), _, _) => Ok(Decided::default()),
            (Some(false), _, _) => Err(reused(known.map_or("", |(id, _)| id))),
            (None, Some(input), _) => self.decide(slot, input),
            (None, None, State::Dead { reason, .. }) => Err(reason.clone()),
            (None, None, State::Skip | State::Input(_)) => Ok(Decided::default()),
        };
        match decided {
            Ok(decided) => {
                if applied.is_none() {
                    self.applied_letter(slot, &letter, known, decided);
                    self.supersede(slot);
                }
                letter.state = LetterState::Applied;
                self.close(slot, letter)
            }
            Err(reason) => {
                letter.failed(&reason, &self.now_text);
                let problem = still_dead(&letter);
                self.letters.put(letter);
                // The failure is written down, though the caller may ask again.
                Ended::Applied(Some(Reply::passing(problem)))
            }
        }
    }

    /// Whether the inbox row of this id says that it waits to be redriven.
    fn open(&self, id: &Key) -> bool {
        let row = self.existing.get(id).and_then(document::<InboxRow>);
        match row {
            Some(InboxRow::Dead { .. } | InboxRow::Parked { .. }) => !self.replies.contains_key(id),
            Some(InboxRow::Applied { .. }) | None => false,
        }
    }

    fn applied_letter(
        &mut self,
        slot: &Slot<H::Fact>,
        letter: &DeadLetter,
        known: Option<(&Key, &str)>,
        it: Decided,
    ) {
        // A repeat of what was on the topic is to be known by what was said there, also where an
        // operator changed it.
        let said = known.map(|(id, fingerprint)| match self.outcome(id) {
            Some((said, _)) if **id == *letter.inbox_id => (id, said),
            Some(_) | None => (id, fingerprint.to_owned()),
        });
        match said {
            Some((id, said)) => drop(self.applied(slot, Some(id), &said, it)),
            None => drop(self.applied(slot, None, "", it)),
        }
    }

    /// Why it cannot be settled yet: another letter of its key goes first.
    fn out_of_turn(&self, slot: &Slot<H::Fact>, letter: &DeadLetter) -> Option<Problem> {
        let (key, _) = slot.sequence()?;
        let first = self.letters.first(key)?;
        let behind = self.letters.queued(key, &letter.id) || letter.code == "parked_overflow";
        let title = "Another letter goes first";
        let detail = format!("letter {} of key {key} goes first: redrive or discard it", first.id);
        (behind && first.id != letter.id)
            .then(|| Problem::new(409, "redrive-out-of-order", title, detail))
    }

    fn close(&mut self, slot: &Slot<H::Fact>, letter: DeadLetter) -> Ended {
        let letter = DeadLetter { closed_at: Some(self.now_text.clone()), ..letter };
        let reply = settled(&letter);
        let (id, state) = (letter.id.clone(), letter.state.name());
        let service = self.shared.settings.service;
        self.say(slot, move || tracing::info!(service, letter = id, state, "letter settled"));
        self.letters.put(letter);
        Ended::Applied(Some(reply))
    }

    pub(crate) fn into_last(mut self) -> Last {
        let samples = self.touched.take_samples();
        let Writes { inbox, kept, outgoing, positions } = self.writes;
        let mut ops = self.touched.into_puts();
        let changed = ops.iter().any(|op| match op {
            Op::Put { rows, .. } => rows.values().any(|row| row.index.iter().any(Option::is_some)),
            _ => false,
        });
        let drainable = self.letters.drainable();
        ops.extend(self.letters.into_ops());
        let appended = !outgoing.is_empty();
        if !inbox.is_empty() {
            ops.push(Op::Put { table: &INBOX, rows: inbox });
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
        Last { ops, writes, appended, changed, drainable, samples, lines: self.lines }
    }
}

fn reused(id: &str) -> Reason {
    Reason::new("event_id_reused", format!("{id} was used before, with another content"))
}

fn passing(problem: Problem) -> Ended {
    Ended::Repeated(Some(Reply::passing(problem)))
}

/// How a letter stands, for whoever asked.
fn settled(letter: &DeadLetter) -> Reply {
    let closed_at = &letter.closed_at;
    Reply::kept(200, json!({ "id": letter.id, "state": letter.state, "closedAt": closed_at }))
}

fn still_dead(letter: &DeadLetter) -> Problem {
    let DeadLetter { id, code, error, attempts, .. } = letter;
    let detail = format!(
        "letter {id} failed again, attempt {attempts} ({code}: {error}); mend the cause, or redrive \
         it with an edited payload, or discard it"
    );
    Problem::new(422, "still-dead", "The letter failed again", detail)
}

/// The outbox row of an event: its shard is fixed by its key, and it is a span of its own in the trace
/// of what it follows from.
fn outgoing(emit: Emit, shards: u16, trace: Option<&Trace>) -> Outgoing {
    let shard = (xxh3_64(emit.key.as_bytes()) % u64::from(shards)) as u16;
    let payload = emit.envelope.to_bytes();
    let id = emit.envelope.event_id.as_str();
    let trace = trace.map_or_else(|| Trace::begun_by(id), |trace| trace.follow(id));
    let json = bytes::Bytes::from_static(b"application/json");
    let mut headers = vec![("content-type".into(), json)];
    headers.extend(trace.to_headers());
    let Emit { channel, to, key, .. } = emit;
    Outgoing { shard, channel, to, key, headers, payload }
}
