//! An input on its way through a batch: where it came from, what it says, and what it is known by.
//! Never touches a row.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use envelope::{CorrelationId, Envelope};
use ports::{Key, Partition, Record};

use crate::consume::Taken;
use crate::letters::{DeadLetter, LetterState, LetterText, PARKED_CODE};
use crate::subject::Subject;
use crate::{Handler, Input, Read, Reason, Reply, Sequence};

/// Where an input came from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A topic.
    Log { partition: Partition, offset: i64 },
    /// A queue.
    Queue,
    /// This service itself.
    Command,
    /// A letter of ours, which somebody wants to be settled.
    Letter { id: Key, ask: Ask },
}

/// What is to become of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Apply it, as somebody wishes; with another payload where `edited`.
    Redrive { edited: Option<LetterText> },
    /// Apply it, now that its turn has come: what only waited, and nothing else. Or give it up: so often the
    /// process ended when it was `tried`.
    Drain { tried: Option<u32> },
    /// Give it up, with a note.
    Discard { note: String },
}

/// An input in a batch, or why it is none.
pub(crate) struct Slot<F> {
    pub(crate) head: Head,
    pub(crate) state: State<F>,
}

/// What the chassis needs of it, whatever it says.
pub(crate) struct Head {
    pub(crate) source: Source,
    /// For logs and counters, and for the events that follow.
    pub(crate) subject: Subject,
    about: Option<About>,
}

/// What is kept of a record, in case that it becomes a letter.
struct About {
    record: Record,
    produced_at: Option<DateTime<Utc>>,
    /// Where it could be read.
    envelope: Option<Envelope>,
    sequence: Sequence,
}

/// What it says.
pub(crate) enum State<F> {
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
    /// It waits behind a dead letter of its key.
    Parked,
    /// It means nothing here, or the position is behind it already.
    Skipped,
    /// Its partition belongs to a later epoch.
    Fenced,
}

impl<F> Slot<F> {
    pub(crate) fn command(input: Input<F>) -> Self {
        let subject = Subject::command(&input.context);
        let head = Head { source: Source::Command, subject, about: None };
        Slot { head, state: State::Input(input) }
    }

    /// A record, decoded. One that `crashed` is not looked at by the handler any more.
    pub(crate) fn record<H: Handler<Fact = F>>(handler: &H, taken: Taken) -> Self {
        let Taken { source, record, produced_at, crashed } = taken;
        let envelope = Envelope::read(&record.payload);
        let mut subject = match &envelope {
            Ok(envelope) => Subject::event(handler, envelope, &record),
            Err(_) => Subject::unreadable(&record),
        };
        let state = match (&envelope, crashed) {
            (Err(cause), _) => {
                let fingerprint = envelope::fingerprint(&record.payload);
                let place = match &source {
                    Source::Log { partition, offset } => format!("{partition}@{offset}"),
                    Source::Queue | Source::Command | Source::Letter { .. } => {
                        record.to.to_string()
                    }
                };
                let id = format!("unread:{place}:{fingerprint}").into();
                State::Dead {
                    id,
                    fingerprint,
                    reason: Reason::new(cause.code(), cause.to_string()),
                }
            }
            (Ok(envelope), Some(times)) => {
                let (id, fingerprint) = (envelope.event_id.key(), envelope.fingerprint());
                let text = format!("the process ended {times} times when it handled this");
                State::Dead { id, fingerprint, reason: Reason::new(Reason::CRASH_LOOP, text) }
            }
            (Ok(envelope), None) => read(handler, envelope, &mut subject),
        };
        let sequence = sequence(handler, &record, &envelope);
        let about = About { record, produced_at, envelope: envelope.ok(), sequence };
        let head = Head { source, subject, about: Some(about) };
        Slot { head, state }
    }

    /// A letter that is to be redriven, or discarded.
    pub(crate) fn letter<H: Handler<Fact = F>>(handler: &H, letter: &DeadLetter, ask: Ask) -> Self {
        let edited = match &ask {
            Ask::Redrive { edited } => edited.as_ref().or(letter.edited.as_ref()),
            Ask::Drain { .. } => letter.edited.as_ref(),
            Ask::Discard { .. } => None,
        };
        let record = Record {
            to: letter.from.as_str().into(),
            key: String::from_utf8_lossy(&LetterText(letter.key.clone()).bytes()).into(),
            headers: letter
                .headers
                .iter()
                .map(|(n, v)| (n.as_str().into(), v.bytes().into()))
                .collect(),
            payload: edited.unwrap_or(&letter.payload).bytes().into(),
        };
        let discard = matches!(ask, Ask::Discard { .. });
        let crashed = match &ask {
            Ask::Drain { tried } => *tried,
            Ask::Redrive { .. } | Ask::Discard { .. } => None,
        };
        let source = Source::Letter { id: letter.id.as_str().into(), ask };
        let slot = Slot::record(handler, Taken { source, record, produced_at: None, crashed });
        // What cannot be read again is known by what it was known by.
        let state = match slot.state {
            _ if discard => State::Skip,
            State::Dead { fingerprint, reason, .. } => {
                State::Dead { id: letter.inbox_id.as_str().into(), fingerprint, reason }
            }
            state => state,
        };
        Slot { state, ..slot }
    }

    /// Makes it a dead letter: what follows from it cannot be.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        let (id, fingerprint) = match &self.state {
            State::Input(input) => (input.id.clone(), input.fingerprint.clone()),
            State::Dead { id, fingerprint, .. } => (Some(id.clone()), fingerprint.clone()),
            State::Skip => (None, String::new()),
        };
        let id = id.unwrap_or_else(|| format!("refused:{fingerprint}").into());
        self.state = State::Dead { id, fingerprint, reason };
    }

    /// Its row in the inbox, and what it says; `None` where it keeps none.
    pub(crate) fn inbox(&self) -> Option<(&Key, &str)> {
        match &self.state {
            State::Input(input) => input.id.as_ref().map(|id| (id, input.fingerprint.as_str())),
            State::Dead { id, fingerprint, .. } => Some((id, fingerprint)),
            State::Skip => None,
        }
    }
}

impl Head {
    /// Where it stands in a log.
    pub(crate) fn partition(&self) -> Option<&Partition> {
        match &self.source {
            Source::Log { partition, .. } => Some(partition),
            Source::Queue | Source::Command | Source::Letter { .. } => None,
        }
    }

    /// The key in whose sequence it stands, where it stands in one.
    pub(crate) fn sequence(&self) -> Option<(&Key, Sequence)> {
        let about = self.about.as_ref()?;
        (about.sequence != Sequence::Free).then_some((&about.record.key, about.sequence))
    }

    /// The key whose marker says when it goes: that of its sequence. A letter stands there as what it was,
    /// whatever it is redriven as.
    pub(crate) fn marker(&self) -> Option<&Key> {
        match &self.source {
            Source::Letter { .. } => {
                let key = &self.about.as_ref()?.record.key;
                // Another one is no event's, and the store may not take it.
                CorrelationId::parse(key).is_ok().then_some(key)
            }
            Source::Log { .. } | Source::Queue | Source::Command => {
                self.sequence().map(|(key, _)| key)
            }
        }
    }

    /// The id of the letter that it is or may become; `None` for a command.
    pub(crate) fn letter_id(&self) -> Option<Key> {
        let about = self.about.as_ref()?;
        Some(match &self.source {
            Source::Letter { id, .. } => id.clone(),
            Source::Log { partition, offset } => {
                format!("{}:{}:{offset}", partition.topic, partition.index).into()
            }
            Source::Queue | Source::Command => {
                let said = envelope::fingerprint(&about.record.payload);
                format!("{}:{said}", about.record.to).into()
            }
        })
    }

    /// Whether it is about a letter that is there already.
    pub(crate) fn settles(&self) -> bool {
        matches!(self.source, Source::Letter { .. })
    }

    /// As a letter: dead for a reason, or parked. `inbox` is its row there.
    pub(crate) fn to_letter(
        &self,
        inbox: Option<&Key>,
        reason: Option<&Reason>,
        now: &str,
    ) -> Option<DeadLetter> {
        let About { record, produced_at, envelope, .. } = self.about.as_ref()?;
        let id = self.letter_id()?;
        let (partition, offset) = match &self.source {
            Source::Log { partition, offset } => (Some(partition.index), Some(*offset)),
            Source::Queue | Source::Command | Source::Letter { .. } => (None, None),
        };
        let envelope = envelope.as_ref();
        let headers = record.headers.iter();
        let mut letter = DeadLetter {
            id: id.to_string(),
            state: LetterState::Parked,
            from: record.to.to_string(),
            partition,
            offset,
            produced_at: produced_at.map(crate::Due::at),
            key: LetterText::of(record.key.as_bytes()).0,
            headers: headers
                .map(|(n, v)| (LetterText::of(n.as_bytes()).0, LetterText::of(v)))
                .collect(),
            payload: LetterText::of(&record.payload),
            edited: None,
            event_id: envelope.map(|it| it.event_id.to_string()),
            event_type: envelope.map(|it| it.event_type.clone()),
            correlation_id: envelope.map(|it| it.correlation_id.to_string()),
            inbox_id: inbox.map_or_else(|| format!("letter:{id}"), Key::to_string),
            code: PARKED_CODE.to_owned(),
            error: "it waits behind a dead letter of its key".to_owned(),
            attempts: 0,
            first_failed_at: now.to_owned(),
            last_failed_at: now.to_owned(),
            closed_at: None,
            note: None,
        };
        if let Some(reason) = reason {
            letter.failed(reason, now);
        }
        Some(letter)
    }
}

/// What an event means to the service. A panic of its rule is its error.
fn read<H: Handler>(handler: &H, envelope: &Envelope, subject: &mut Subject) -> State<H::Fact> {
    let (id, fingerprint) = (envelope.event_id.key(), envelope.fingerprint());
    let context = subject.context().clone();
    let read = catch_unwind(AssertUnwindSafe(|| handler.read(envelope)));
    match read.unwrap_or_else(|panic| Err(panicked(&*panic))) {
        Ok(Read::Fact(fact)) => State::Input(Input { id: Some(id), fingerprint, context, fact }),
        Ok(Read::Guarded(fact)) => State::Input(Input { id: None, fingerprint, context, fact }),
        Ok(Read::Skip(reason)) => {
            subject.skipped = Some(reason);
            State::Skip
        }
        Err(reason) => State::Dead { id, fingerprint, reason },
    }
}

/// An event stands in its key's sequence where the key is what it belongs to. A foreign record under
/// somebody else's key holds nobody up.
fn sequence<H: Handler, E>(
    handler: &H,
    record: &Record,
    envelope: &Result<Envelope, E>,
) -> Sequence {
    match envelope {
        Ok(envelope) if envelope.correlation_id.as_str() == &*record.key => {
            handler.sequence(&envelope.event_type)
        }
        Ok(_) | Err(_) => Sequence::Free,
    }
}

/// A panic as the reason of a dead letter.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Reason {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    Reason::new(Reason::PANIC, envelope::printable(&words.unwrap_or("a panic without words")))
}
