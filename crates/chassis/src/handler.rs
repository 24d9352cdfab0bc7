//! What a service is to the chassis: two synchronous functions over inputs and rows. Never awaits,
//! never asks for the time.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use envelope::{CorrelationId, Envelope, EventId};
use ports::{Channel, Key, Op, Table};
use serde_json::Value;

use crate::{Meter, Sample, Touched, Trace};

/// Where an input came from, for the events that follow from it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The triggering event, or the request's own id.
    pub cause: Option<EventId>,
    /// What it belongs to, where already known.
    pub correlation: Option<CorrelationId>,
    /// The distributed trace: what follows is in the same one.
    pub trace: Option<Trace>,
}

/// A record, a command, a fired timer, or the result of an outside call.
#[derive(Debug, Clone)]
pub struct Input<F> {
    /// Its id in the inbox; `None` where the rows themselves guard against repeats.
    pub id: Option<Key>,
    /// Fingerprint of its content: the same id with another one is refused.
    pub fingerprint: String,
    /// Where it came from.
    pub context: Context,
    /// What it says.
    pub fact: F,
}

/// What an event means to a service.
#[derive(Debug)]
pub enum Read<F> {
    /// This, once for each event id.
    Fact(F),
    /// This; repeats are harmless by the rule's own guard, so no inbox row is kept.
    Guarded(F),
    /// Nothing: skipped and counted under this reason.
    Skip(&'static str),
}

/// What a dead letter means for the events of its key that come behind it. Only events whose
/// correlation is their partition key stand in a sequence; any other stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// They are parked behind it until it is redriven or discarded.
    InOrder,
    /// They are applied all the same: the order does not matter to this service's rows.
    Free,
    /// It is applied at once, never parks, and supersedes what died before it (saga-rules 3).
    Final,
}

/// Why an input is dead: it broke the contract, and no retry will mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Reason {
    /// Stable, snake case.
    pub code: Cow<'static, str>,
    /// For people.
    pub text: String,
}

impl Reason {
    /// The code of an input whose rule panicked.
    pub(crate) const PANIC: &'static str = "panic";
    /// The code of a record that ended the process each time it was handled.
    pub(crate) const CRASH_LOOP: &'static str = "crash_loop";

    /// A reason with a stable code and a text for people.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Reason { code: Cow::Borrowed(code), text: text.into() }
    }

    /// What a command that broke the contract is answered.
    pub(crate) fn to_reply(&self) -> Reply {
        use crate::http::Problem;
        if self.code == Reason::PANIC {
            let title = "The service has a defect";
            let detail =
                "the request met a defect of the service and changed nothing; its log says more";
            return Reply::passing(Problem::new(500, "defect", title, detail));
        }
        Problem::invalid(self.to_string()).into_reply()
    }
}

/// An event or job to publish.
#[derive(Debug, Clone)]
pub struct Emit {
    /// Topic or queue.
    pub channel: Channel,
    /// Its name.
    pub to: Arc<str>,
    /// Partition key, or message id.
    pub key: Key,
    /// What.
    pub envelope: Envelope,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON body; a problem (RFC 9457) where the status is 400 or higher.
    pub body: Value,
    /// Value of the `Location` header.
    pub location: Option<String>,
    /// Seconds, for the `Retry-After` header.
    pub retry_after_s: Option<u32>,
    /// Whether a repeat of the command's id gets this same reply. A reply that is not kept leaves no
    /// trace of the command: its rows and events must be none.
    pub kept: bool,
}

impl Reply {
    /// A reply that repeats get too.
    pub fn kept(status: u16, body: Value) -> Self {
        Reply { status, body, location: None, retry_after_s: None, kept: true }
    }

    /// A refusal that leaves no trace: the same command may succeed later.
    pub fn passing(problem: crate::http::Problem) -> Self {
        Reply { kept: false, ..problem.into_reply() }
    }
}

/// What follows from an input.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Events and jobs, in order.
    pub emits: Vec<Emit>,
    /// For whoever sent a command.
    pub reply: Option<Reply>,
}

/// A service's rules as the chassis calls them.
pub trait Handler: Send + Sync + 'static {
    /// Everything that can happen to it.
    type Fact: Send + Sync + 'static;

    /// Its tables, in the order in which they are locked.
    fn tables(&self) -> &'static [&'static Table];

    /// The types of events that there are, for counters: every other type is counted as `unknown`, since
    /// a type comes from the wire and may be anything.
    fn event_types(&self) -> &'static [&'static str] {
        &[]
    }

    /// What its rules count ([`Touched::count`]) and [`Handler::gauges`] gives.
    fn meters(&self) -> &'static [&'static Meter] {
        &[]
    }

    /// Reads for [`Handler::gauges`], each with a limit and on an index: they are carried out whenever
    /// somebody looks.
    fn gauge_reads(&self) -> Vec<Op> {
        Vec::new()
    }

    /// Gauges by what [`Handler::gauge_reads`] read, in its order. `now` is the store's clock.
    fn gauges(&self, _read: Vec<ports::Reply>, _now: DateTime<Utc>) -> Vec<Sample> {
        Vec::new()
    }

    /// What this event means here. An error is a contract violation: a dead letter.
    fn read(&self, envelope: &Envelope) -> Result<Read<Self::Fact>, Reason>;

    /// How an event of this type stands to dead letters of its key. By default it waits behind them.
    fn sequence(&self, _event_type: &str) -> Sequence {
        Sequence::InOrder
    }

    /// The keys of `table` that the batch decides on. `None`: it cannot be said before the tables
    /// that stand earlier are loaded. Called again then.
    fn keys(
        &self,
        table: &'static Table,
        batch: &[Input<Self::Fact>],
        rows: &Touched,
    ) -> Option<BTreeSet<Key>>;

    /// Decides one input on the locked rows. On an error the rows are as before. `now` is the
    /// store's clock.
    fn decide(
        &self,
        input: &Input<Self::Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason>;
}
