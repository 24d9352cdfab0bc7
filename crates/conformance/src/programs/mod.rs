//! Generated programs: a seed makes a program of port calls, a backend runs it, a monitor judges the
//! history. Never the other way: a monitor sees nothing but the history.

mod campaign;
mod choices;
#[cfg(test)]
mod fixture;
pub mod log;
pub mod queue;
pub mod store;

use std::collections::BTreeMap;
use std::fmt;

pub use campaign::{Programs, Report, Subject, Trial, campaign};

/// A rule of a monitor that a history breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The rule's name.
    pub rule: &'static str,
    /// What was seen.
    pub why: String,
}

/// What a monitor says of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is one that the contract allows.
    Agrees,
    /// It is not.
    Differs(Breach),
    /// There are too many possible states to tell.
    Inconclusive(String),
}

impl Judgement {
    /// Of what a monitor found.
    fn of(found: Result<(), Stop>) -> Self {
        match found {
            Ok(()) => Judgement::Agrees,
            Err(Stop::Breach(breach)) => Judgement::Differs(breach),
            Err(Stop::Overflow(why)) => Judgement::Inconclusive(why),
        }
    }
}

/// Why a monitor looks no further.
#[derive(Debug)]
enum Stop {
    Breach(Breach),
    Overflow(String),
}

/// A broken rule, where the condition does not hold.
fn rule(name: &'static str, holds: bool, why: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Breach(Breach { rule: name, why: why() })) }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.why)
    }
}

/// How often each request was made, and each kind of answer it met.
pub type Met = BTreeMap<String, u64>;

/// How a call ended, as far as a monitor asks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok,
    /// Without effect, try again.
    Retry,
    /// Without effect, ever.
    Refused,
    /// Nobody knows.
    Unknown,
    /// None came in time.
    Silence,
}

impl Answer {
    /// Of a port's outcome.
    fn of<T>(outcome: &ports::Outcome<T>) -> Self {
        match outcome {
            Ok(_) => Answer::Ok,
            Err(ports::Fault::Retry(_)) => Answer::Retry,
            Err(ports::Fault::Refused(_)) => Answer::Refused,
            Err(ports::Fault::Unknown(_)) => Answer::Unknown,
        }
    }

    /// Both in a word each.
    fn to(self, request: &str) -> String {
        format!("{request} {self:?}").to_lowercase()
    }
}
