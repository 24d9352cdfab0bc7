//! A batch between its locks and its commit: each input ends here, on locked rows, in memory. Never
//! awaits.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ports::{Key, Op, Outgoing, Partition, Row, Rows};
use serde_json::json;
use tracing::Span;
use xxhash_rust::xxh3::xxh3_64;

use crate::app::Shared;
use crate::http::Problem;
use crate::inputs::{Entry, Rules, What};
use crate::letters::{DeadLetter, LetterState, Letters, Wanted};
use crate::retention::Expiry;
use crate::slot::{Ask, Ended, Head, Source};
use crate::tables::position_key;
use crate::touched::{Line, document};
use crate::transaction::json as body_of;
use crate::{
    Decided, Document, Due, Emit, INBOX, InboxRow, POSITIONS, Position, Reason, Reply, Sample,
    Sequence, StoredReply, Touched, Trace, trial,
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
}

/// Where a partition of ours stands, as this batch moves it.
struct Place {
    /// Of its row.
    key: Key,
    /// The version that was locked.
    version: i64,
    position: Position,
    moved: bool,
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
pub(crate) struct Deciding<'a> {
    shared: &'a Shared,
    rules: &'a dyn Rules,
    now: DateTime<Utc>,
    expiry: &'a Expiry,
    epochs: &'a BTreeMap<Partition, u64>,
    /// Inbox rows as this batch inserted them.
    inbox: BTreeMap<Key, InboxRow>,
    touched: Touched,
    places: BTreeMap<Partition, Place>,
    /// Inbox rows that were there before this batch.
    existing: Rows,
    letters: Letters,
    /// What the first input of an id in this batch was answered, with its fingerprint.
    replies: BTreeMap<Key, (String, Option<Reply>)>,
    writes: Writes,
    lines: Vec<(Span, Line)>,
}

impl<'a> Deciding<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        rules: &'a dyn Rules,
        now: DateTime<Utc>,
        expiry: &'a Expiry,
        epochs: &'a BTreeMap<Partition, u64>,
        inbox: BTreeMap<Key, InboxRow>,
    ) -> Self {
        Deciding {
            shared,
            rules,
            now,
            expiry,
            epochs,
            inbox,
            touched: Touched::new(),
            places: BTreeMap::new(),
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
        let place = |(partition, epoch): (&Partition, &u64)| {
            let key = position_key(partition);
            let row = positions.get(&key)?;
            let position: Position = document(row)?;
            let place = Place { key, version: row.version, position, moved: false };
            (place.position.epoch == *epoch).then(|| (partition.clone(), place))
        };
        self.places = self.epochs.iter().filter_map(place).collect();
        self.existing = existing;
        self.letters = letters;
    }

    /// What should have been locked besides: then nothing of this may be committed.
    pub(crate) fn missing(&self) -> Option<Wanted> {
        self.letters.missing()
    }

    /// Ends one input: fenced, already done, repeated, parked, refused or applied.
    pub(crate) fn end(&mut self, entry: &Entry<'_>) -> Ended {
        let head = entry.head;
        if let Source::Log { partition, offset } = &head.source
            && let Some(ended) = self.advance(partition, *offset)
        {
            return ended;
        }
        if let Source::Letter { id, ask } = &head.source {
            return self.settle(entry, id, ask);
        }
        let (id, fingerprint) = match entry.what {
            What::Rule { id, fingerprint, .. } => (id, fingerprint),
            What::Dead { id, fingerprint, .. } => (Some(id), fingerprint),
            What::Skip => return Ended::Skipped,
        };
        if let Some(id) = id
            && let Some(ended) = self.repeated(head, id, fingerprint)
        {
            return ended;
        }
        let decided = match entry.what {
            What::Rule { .. } if self.behind(head) => return self.park(head, id, fingerprint),
            What::Rule { number, .. } => self.decide(head, number),
            What::Dead { reason, .. } => Err(reason.clone()),
            What::Skip => return Ended::Skipped,
        };
        match decided {
            Ok(decided) => {
                let ended = self.applied(head, id, fingerprint, decided);
                self.supersede(head);
                ended
            }
            Err(reason) => self.refused(head, id, fingerprint, reason),
        }
    }

    /// Moves the partition's position over the record; `Some` where it is not ours to handle.
    fn advance(&mut self, partition: &Partition, offset: i64) -> Option<Ended> {
        let Some(Place { position, moved, .. }) = self.places.get_mut(partition) else {
            return Some(Ended::Fenced);
        };
        if position.next.is_some_and(|next| offset < next) {
            return Some(Ended::Skipped);
        }
        position.trial = trial::after(position.trial.as_ref(), offset + 1);
        (position.next, position.claims) = (Some(offset + 1), 0);
        *moved = true;
        None
    }

    /// The stored outcome of an id that was handled before, in this batch or an earlier one.
    fn repeated(&mut self, head: &Head, id: &Key, fingerprint: &str) -> Option<Ended> {
        let (said, reply) = self.outcome(id)?;
        if said == fingerprint {
            return Some(Ended::Repeated(reply));
        }
        Some(match head.source {
            Source::Command => {
                let text = format!("{id} was used before, with another content");
                let title = "The Idempotency-Key was used for another request";
                let problem = Problem::new(422, "idempotency-key-reused", title, text);
                Ended::Repeated(Some(problem.into_reply()))
            }
            Source::Log { .. } | Source::Queue | Source::Letter { .. } => {
                let reason = reused(id);
                // Its sequence goes on with the first one, and the inbox row is that one's.
                self.bury(head, None, None, &reason);
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
    fn behind(&self, head: &Head) -> bool {
        match head.sequence() {
            Some((key, Sequence::InOrder)) => self.letters.waits(key),
            Some((_, Sequence::Final | Sequence::Free)) | None => false,
        }
    }

    fn park(&mut self, head: &Head, id: Option<&Key>, fingerprint: &str) -> Ended {
        if let Some(id) = id {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&head.source));
            self.keep(id, InboxRow::Parked { fingerprint, expires_at }, &None);
        }
        if let (Some(letter), Some((key, _))) =
            (head.to_letter(id, None, &Due::at(self.now)), head.sequence())
        {
            let service = self.shared.settings.service;
            let (id, behind) = (letter.id.clone(), key.clone());
            self.say(head, move || tracing::warn!(service, letter = id, key = %behind, "parked"));
            self.letters.add(letter, Some(key), &Due::at(self.now));
        }
        Ended::Parked
    }

    /// Logs a line about an input, in its span, when the transaction has committed. Few inputs have one: a span
    /// costs as much as a rule.
    fn say(&mut self, head: &Head, line: impl FnOnce() + Send + 'static) {
        self.keep_line(head, Line::of(line));
    }

    fn keep_line(&mut self, head: &Head, line: Line) {
        self.lines.push((head.subject.span(self.shared.settings.service), line));
    }

    /// A panic of a rule is its input's error: its rows are as before, and nobody else's suffer.
    fn decide(&mut self, head: &Head, number: usize) -> Result<Decided, Reason> {
        self.touched.mark();
        let decided = self.rules.decide(number, &mut self.touched, self.now);
        if let Err(reason) = &decided {
            self.touched.undo();
            if reason.code == Reason::PANIC {
                let (service, reason) = (self.shared.settings.service, reason.text.clone());
                self.say(head, move || tracing::error!(service, reason, "a rule panicked"));
            }
        }
        for line in self.touched.take_lines() {
            self.keep_line(head, line);
        }
        decided
    }

    fn applied(
        &mut self,
        head: &Head,
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
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&head.source));
            let stored = reply.as_ref().map(StoredReply::from);
            self.keep(id, InboxRow::Applied { fingerprint, expires_at, reply: stored }, &reply);
        }
        let shards = self.shared.settings.shards;
        let trace = head.subject.context().trace.as_ref();
        self.writes.outgoing.extend(emits.into_iter().map(|emit| outgoing(emit, shards, trace)));
        Ended::Applied(reply)
    }

    /// What died before a final event of its key is void.
    fn supersede(&mut self, head: &Head) {
        if let Some((key, Sequence::Final)) = head.sequence() {
            self.letters.supersede(key, &Due::at(self.now));
        }
    }

    fn refused(
        &mut self,
        head: &Head,
        id: Option<&Key>,
        fingerprint: &str,
        reason: Reason,
    ) -> Ended {
        let reply = matches!(head.source, Source::Command).then(|| reason.to_reply());
        if let Some(id) = id
            && reply.as_ref().is_none_or(|reply| reply.kept)
        {
            let (fingerprint, expires_at) = (fingerprint.to_owned(), self.expiry.of(&head.source));
            let (code, stored) = (reason.code.to_string(), reply.as_ref().map(StoredReply::from));
            self.keep(id, InboxRow::Dead { fingerprint, expires_at, code, reply: stored }, &reply);
        }
        let key = match head.sequence() {
            Some((key, Sequence::InOrder)) => Some(key),
            Some((_, Sequence::Final | Sequence::Free)) | None => None,
        };
        self.bury(head, id, key, &reason);
        Ended::Refused(reason)
    }

    /// Has this outcome stand in the inbox, and repeats in this batch answered with the reply.
    fn keep(&mut self, id: &Key, outcome: InboxRow, reply: &Option<Reply>) {
        let row = |version| Row { version, index: outcome.index(), body: body_of(&outcome) };
        let over = match (self.existing.get(id), self.inbox.get(id)) {
            (Some(stood), _) => Some(row(stood.version)).filter(|row| row.body != stood.body),
            // What this batch inserted is at version 1.
            (None, Some(inserted)) => (*inserted != outcome).then(|| row(1)),
            (None, None) => panic!("no inbox row {id} in this batch"),
        };
        self.writes.inbox.extend(over.map(|row| (id.clone(), row)));
        self.writes.kept.insert(id.clone());
        self.replies.insert(id.clone(), (outcome.fingerprint().to_owned(), reply.clone()));
    }

    /// Keeps the record as a dead letter, and what comes behind it in `key` waiting.
    fn bury(&mut self, head: &Head, id: Option<&Key>, key: Option<&Key>, reason: &Reason) {
        let Some(letter) = head.to_letter(id, Some(reason), &Due::at(self.now)) else { return };
        let service = self.shared.settings.service;
        let (id, code, error) = (letter.id.clone(), letter.code.clone(), letter.error.clone());
        self.say(head, move || {
            tracing::warn!(service, letter = id, code, error, "dead letter");
        });
        self.letters.add(letter, key, &Due::at(self.now));
    }

    /// Settles a letter: applies it or gives it up, where its turn has come. A letter that is settled
    /// already stays as it is: asking twice changes nothing.
    fn settle(&mut self, entry: &Entry<'_>, letter_id: &Key, ask: &Ask) -> Ended {
        let head = entry.head;
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
                return self.close(head, letter);
            }
            // Another instance was faster, and it died.
            Ask::Drain { .. } if letter.state != LetterState::Parked => {
                return Ended::Repeated(Some(settled(&letter)));
            }
            Ask::Drain { .. } => None,
            Ask::Redrive { edited } => edited.clone(),
        };
        if let Some(problem) = self.out_of_turn(head, &letter) {
            return passing(problem);
        }
        letter.edited = edited.or(letter.edited);
        let known = match entry.what {
            What::Rule { .. } => entry.inbox(),
            What::Dead { .. } | What::Skip => None,
        };
        // Its id is somebody else's: what says the same as one that was applied has its effect already.
        let anothers = known.and_then(|(id, fingerprint)| {
            let (said, _) = self.outcome(id)?;
            match (said == fingerprint, self.open(id)) {
                (_, true) if **id == *letter.inbox_id => None,
                (true, false) => Some(Ok(Decided::default())),
                (true, true) => Some(Err(twin(id))),
                (false, _) => Some(Err(reused(id))),
            }
        });
        let first = anothers.is_none();
        let decided = match (anothers, entry.what) {
            (Some(decided), _) => decided,
            (None, What::Rule { number, .. }) => self.decide(head, number),
            (None, What::Dead { reason, .. }) => Err(reason.clone()),
            (None, What::Skip) => Ok(Decided::default()),
        };
        match decided {
            Ok(decided) => {
                if first {
                    self.applied_letter(head, &letter, known, decided);
                    self.supersede(head);
                }
                letter.state = LetterState::Applied;
                self.close(head, letter)
            }
            Err(reason) => {
                letter.failed(&reason, &Due::at(self.now));
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
        head: &Head,
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
            Some((id, said)) => drop(self.applied(head, Some(id), &said, it)),
            None => drop(self.applied(head, None, "", it)),
        }
    }

    /// Why it cannot be settled yet: another letter of its key goes first.
    fn out_of_turn(&self, head: &Head, letter: &DeadLetter) -> Option<Problem> {
        let key = head.marker()?;
        let first = self.letters.first(key)?;
        let in_order = matches!(head.sequence(), Some((_, Sequence::InOrder)));
        let behind =
            in_order || self.letters.queued(key, &letter.id) || letter.code == "parked_overflow";
        let title = "Another letter goes first";
        let detail = format!("letter {} of key {key} goes first: redrive or discard it", first.id);
        (behind && first.id != letter.id)
            .then(|| Problem::new(409, "redrive-out-of-order", title, detail))
    }

    fn close(&mut self, head: &Head, letter: DeadLetter) -> Ended {
        let letter = DeadLetter { closed_at: Some(Due::at(self.now)), ..letter };
        let reply = settled(&letter);
        let (id, state) = (letter.id.clone(), letter.state.name());
        let service = self.shared.settings.service;
        self.say(head, move || tracing::info!(service, letter = id, state, "letter settled"));
        self.letters.put(letter);
        Ended::Applied(Some(reply))
    }

    pub(crate) fn into_last(mut self) -> Last {
        let samples = self.touched.take_samples();
        let Writes { inbox, kept, outgoing } = self.writes;
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
        let moved = self.places.into_values().filter(|place| place.moved);
        let positions: Rows = moved
            .map(|Place { key, version, position, .. }| {
                (key, Row { version, index: position.index(), body: body_of(&position) })
            })
            .collect();
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

fn twin(id: &str) -> Reason {
    let text = format!("{id} is that of another letter, which was not applied: settle that one");
    Reason::new("event_id_reused", text)
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
