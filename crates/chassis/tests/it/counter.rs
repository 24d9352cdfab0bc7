//! The service under test: a counter a key, which remembers in order what was added to it. Never
//! knows where its inputs come from.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use envelope::Envelope;
use ports::{Channel, Key, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shakedown_chassis::http::Problem;
use shakedown_chassis::{
    Context, Decided, Document, Due, Emit, Handler, Input, Meter, Read, Reason, Reply, Sample,
    Sequence, Touched,
};

use crate::world::envelope;

pub static COUNTERS: Table = Table { name: "counters", index: &["due"] };
static TABLES: [&Table; 1] = [&COUNTERS];

/// What the rule counts, also where it then breaks.
pub static ADDED: Meter = Meter::counter("added_total", "Sum of what events added.", &[]);
static METERS: [&Meter; 1] = [&ADDED];

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub value: i64,
    /// The ids of the inputs that were added, in order.
    pub trail: Vec<String>,
    /// When the outside is to be called.
    pub due: Option<String>,
}

impl Document for Counter {
    const TABLE: &'static Table = &COUNTERS;
    fn index(&self) -> Vec<Option<String>> {
        vec![self.due.clone()]
    }
}

#[derive(Debug, Clone)]
pub enum Fact {
    /// From a topic or a queue. `by` 0 breaks a rule after it wrote, below 0 is worth a line, [`PANICS`] is a defect
    /// of the rule and [`PANICS_EARLY`] one before it; `call` asks for a call.
    Add { id: String, key: Key, by: i64, call: bool, job: bool },
    /// A command. `by` 0 on an unknown counter is refused in passing, below 0 for good; [`PANICS`] is
    /// a defect.
    Ask { id: String, key: Key, by: i64 },
    /// The outside answered.
    Answered { key: Key },
}

impl Fact {
    fn key(&self) -> &Key {
        match self {
            Fact::Add { key, .. } | Fact::Ask { key, .. } | Fact::Answered { key } => key,
        }
    }
}

/// The rule panics at this number,
pub const PANICS: i64 = 666;
/// already when it says which rows it needs.
pub const PANICS_EARLY: i64 = 667;

/// A command that adds.
pub fn ask(id: &str, key: &str, by: i64) -> Input<Fact> {
    Input {
        id: Some(id.into()),
        fingerprint: format!("{key} {by}"),
        context: Context::default(),
        fact: Fact::Ask { id: id.into(), key: key.into(), by },
    }
}

/// The answer to a call for this key. The counter itself guards against a second one.
pub fn answered(key: &Key) -> Input<Fact> {
    let fact = Fact::Answered { key: key.clone() };
    Input { id: None, fingerprint: key.to_string(), context: Context::default(), fact }
}

pub struct Counters;

impl Handler for Counters {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &TABLES
    }

    fn event_types(&self) -> &'static [&'static str] {
        &["Add", "AddGuarded"]
    }

    fn meters(&self) -> &'static [&'static Meter] {
        &METERS
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        let payload: Value = serde_json::from_str(envelope.payload.get()).unwrap();
        let (Some(key), Some(by)) = (payload["key"].as_str(), payload["by"].as_i64()) else {
            return Err(Reason::new("bad_payload", "no key or no by"));
        };
        let (id, key) = (envelope.event_id.to_string(), key.into());
        let (call, job) = (payload["call"] == true, payload["job"] == true);
        let fact = Fact::Add { id, key, by, call, job };
        match envelope.event_type.as_str() {
            "Add" | "Close" => Ok(Read::Fact(fact)),
            "Unreadable" => panic!("no reader for this"),
            "AddGuarded" => Ok(Read::Guarded(fact)),
            _ => Ok(Read::Skip("unknown_type")),
        }
    }

    fn sequence(&self, event_type: &str) -> Sequence {
        match event_type {
            "Close" => Sequence::Final,
            _ => Sequence::InOrder,
        }
    }

    fn keys(&self, _: &'static Table, batch: &[Input<Fact>], _: &Touched) -> Option<BTreeSet<Key>> {
        let early =
            |input: &Input<Fact>| matches!(input.fact, Fact::Add { by, .. } if by == PANICS_EARLY);
        assert!(!batch.iter().any(early), "no rows for this");
        Some(batch.iter().map(|input| input.fact.key().clone()).collect())
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let key = input.fact.key();
        let known = rows.get::<Counter>(key);
        let mut counter = known.clone().unwrap_or_default();
        match &input.fact {
            Fact::Add { id, by, call, job, .. } => {
                counter.trail.push(id.clone());
                // Twice, so that an error has two writes of a row to undo.
                rows.put(key, &counter);
                counter.value += by;
                if *call {
                    counter.due = Some(Due::at(now));
                }
                rows.put(key, &counter);
                rows.count(Sample::new(&ADDED, by.max(&1).unsigned_abs() as f64));
                assert_ne!(*by, PANICS, "the rule is broken");
                if *by <= 0 {
                    rows.say(|| tracing::warn!("not more"));
                }
                if *by == 0 {
                    return Err(Reason::new("rule_broken", "0 is nothing"));
                }
                let channel = if *job { Channel::Queue } else { Channel::Topic };
                let to = if *job { "mail" } else { "out" };
                let payload = json!({ "value": counter.value });
                let envelope = envelope(&format!("out-{id}"), "Added", &payload);
                let emit = Emit { channel, to: to.into(), key: key.clone(), envelope };
                Ok(Decided { emits: vec![emit], reply: None })
            }
            Fact::Ask { by: 0, .. } if known.is_none() => {
                let reply = Some(Reply::passing(Problem::not_found("counter", key)));
                Ok(Decided { emits: Vec::new(), reply })
            }
            Fact::Ask { by: ..0, .. } => Err(Reason::new("negative", "a command only adds")),
            Fact::Ask { id, by, .. } => {
                assert_ne!(*by, PANICS, "the rule is broken");
                counter.value += by;
                counter.trail.push(id.clone());
                rows.put(key, &counter);
                let reply = Some(Reply::kept(200, json!({ "value": counter.value })));
                Ok(Decided { emits: Vec::new(), reply })
            }
            Fact::Answered { .. } => {
                if counter.due.take().is_some() {
                    counter.trail.push("answered".into());
                    rows.put(key, &counter);
                }
                Ok(Decided::default())
            }
        }
    }
}

/// How long a claim of a due counter holds.
pub const CLAIM: Duration = Duration::from_secs(10);

/// The counters whose call is due.
pub fn due() -> Due {
    Due { table: &COUNTERS, column: 0, parallel: 4, claim: CLAIM }
}
