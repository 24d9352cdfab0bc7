//! Failures as stories that end with what to do. Never the whole trace: that is beside it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::outcome::Run;
use crate::trace::TraceEvent;

/// A failed world as a story: the broken invariant, what led there, and the command that shows it
/// again. `only`: the thing it is about, where that is not the first that a violation names.
pub fn failure(run: &Run, place: &str, reproduce: &str, only: Option<&str>) -> String {
    let mut text = String::new();
    let violations = &run.verdict.violations;
    let Some(first) = violations.first() else { return text };
    let _ = writeln!(text, "FAILED  {}        seed {}   {place}", first.invariant, run.seed);
    for violation in violations.iter().take(5) {
        let about = violation.about.first().map_or("the world", |about| about.as_str());
        let _ = writeln!(text, "  {}  {about}: {}", violation.invariant, violation.text);
    }
    if violations.len() > 5 {
        let _ = writeln!(text, "  and {} more", violations.len() - 5);
    }
    let about = only
        .map(str::to_owned)
        .or_else(|| violations.iter().find_map(|v| v.about.first().cloned()));
    let events = way(&run.trace, about.as_deref());
    // The way to a failure is at its end.
    let skipped = events.len().saturating_sub(40);
    if skipped > 0 {
        let _ = writeln!(text, "  ... {skipped} earlier events");
    }
    for event in &events[skipped..] {
        let _ = writeln!(text, "{event}");
    }
    let only = about.map_or(String::new(), |about| format!(" --only {about}"));
    let _ = writeln!(text, "reproduce   {reproduce}{only}");
    text
}

/// What matters, and what a node did right before something went wrong with it.
fn way<'a>(trace: &'a [TraceEvent], about: Option<&str>) -> Vec<&'a TraceEvent> {
    let mut way: BTreeSet<usize> = BTreeSet::new();
    for (at, event) in trace.iter().enumerate().filter(|(_, event)| matters(event, about)) {
        way.insert(at);
        if event.what == "fault" {
            way.extend((0..at).rev().filter(|before| trace[*before].node == event.node).take(2));
        }
    }
    way.into_iter().map(|at| &trace[at]).collect()
}

/// Faults, kills and starts, and whatever names the thing.
fn matters(event: &TraceEvent, about: Option<&str>) -> bool {
    matches!(event.what, "fault" | "killed" | "leaving" | "left" | "left late" | "healed")
        || about.is_some_and(|about| event.text.contains(about))
}
