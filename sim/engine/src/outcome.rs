//! What a world came to. Never how it got there: that is the trace.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Chosen, FaultSpec, TraceEvent};

/// What is broken where a world takes too long, in real time: its thread stays.
pub(crate) const ENDS: &str = "world.ends";

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Its stable name, such as `money.at_most_one_charge`.
    pub invariant: String,
    /// What was expected and what was found.
    pub text: String,
    /// What the trace should be searched for: an order's id, say.
    pub about: Vec<String>,
}

impl Violation {
    /// A violation about one thing.
    pub fn new(invariant: &str, about: &str, text: impl Into<String>) -> Self {
        let about = if about.is_empty() { Vec::new() } else { vec![about.to_owned()] };
        Violation { invariant: invariant.to_owned(), text: text.into(), about }
    }
}

/// What a world reached: counts by name, and lines for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Coverage marks: how often something was reached at all.
    pub marks: BTreeMap<String, u64>,
    /// The outcome in words, stable against schedules; for snapshots.
    pub lines: Vec<String>,
    /// How many invariants were checked.
    pub invariants: usize,
    /// How long the world took to settle once faults had ended, where it was waited for.
    pub settled: Option<Settled>,
}

/// The liveness of a world: what was promised, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// From the end of the faults until nothing was left to do.
    pub took: Duration,
    /// The bound that it is held to.
    pub bound: Duration,
}

impl Settled {
    /// The part of the bound that was used; 1 is all of it.
    pub fn share(&self) -> f64 {
        self.took.as_secs_f64() / self.bound.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Summary {
    /// Adds to a mark.
    pub fn mark(&mut self, name: &str, count: u64) {
        *self.marks.entry(name.to_owned()).or_insert(0) += count;
    }
}

/// The verdict on a world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What it reached, whether it is clean or not.
    pub summary: Summary,
    /// What does not hold; none in a clean world.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Whether every invariant holds.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether this invariant does not hold.
    pub fn breaks(&self, invariant: &str) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }
}

impl From<Violation> for Verdict {
    fn from(violation: Violation) -> Self {
        Verdict { summary: Summary::default(), violations: vec![violation] }
    }
}

/// How often faults of a kind at a step were planned and met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// In the plan.
    pub injected: u64,
    /// They met their step while the node was up.
    pub effective: u64,
}

impl FaultCount {
    /// Planned, but never met.
    pub fn masked(self) -> u64 {
        self.injected - self.effective
    }
}

/// A world that was run.
#[derive(Debug, Default)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// 128 bits over its trace.
    pub hash: u128,
    /// What it came to.
    pub verdict: Verdict,
    /// Everything that happened.
    pub trace: Vec<TraceEvent>,
    /// By kind and step, as `kill before @ commit`.
    pub faults: BTreeMap<String, FaultCount>,
    /// The faults that met their step, in the order in which they did.
    pub met: Vec<FaultSpec>,
    /// Choices of the plan that nobody asked for.
    pub unasked: Vec<Chosen>,
}

impl Run {
    /// Whether the world came to its end. Of one that did not, nobody knows what met.
    pub fn ended(&self) -> bool {
        let without_end = ["plan.legal", ENDS, "world.panic"];
        !without_end.iter().any(|invariant| self.verdict.breaks(invariant))
    }

    /// Whether the world did not end within its real time. What is run beside it has less of the machine.
    pub(crate) fn is_endless(&self) -> bool {
        self.verdict.breaks(ENDS)
    }

    /// Faults that met their step.
    pub fn effective(&self) -> u64 {
        self.faults.values().map(|count| count.effective).sum()
    }
}
