//! A failed world in words: what is broken, what led there, how to see it again. Never more than a
//! screen.

use std::collections::BTreeSet;
use std::fmt::Write;

use sim_engine::Run;

/// Events of a story, at most.
const EVENTS: usize = 24;

/// The story of the first violation: what names the thing, each fault, and what its node did right before.
/// `again` is the command that runs this world again.
pub fn failure(run: &Run, again: &str) -> String {
    let mut text = String::new();
    let Some(first) = run.verdict.violations.first() else { return text };
    let _ = writeln!(text, "FAILED  {}        seed {}", first.invariant, run.seed);
    for violation in run.verdict.violations.iter().take(4) {
        let about = violation.about.first().map_or("the world", String::as_str);
        let _ = writeln!(text, "  {}  {about}: {}", violation.invariant, violation.text);
    }
    let way: Vec<usize> = way(run, &first.about).into_iter().collect();
    for at in &way[way.len().saturating_sub(EVENTS)..] {
        let _ = writeln!(text, "{}", run.trace[*at]);
    }
    let _ = writeln!(text, "reproduce   {again}");
    text
}

/// Where in the trace the way to the failure is told.
fn way(run: &Run, about: &[String]) -> BTreeSet<usize> {
    let mut way = BTreeSet::new();
    let faulty = run.trace.iter().take_while(|event| event.what != "healed");
    for (at, event) in faulty.enumerate() {
        let told = matches!(event.what, "fault" | "killed");
        if told || about.iter().any(|about| event.text.contains(about.as_str())) {
            way.insert(at);
        }
        if event.what == "fault" {
            let before = (0..at).rev().filter(|earlier| run.trace[*earlier].node == event.node);
            way.extend(before.take(2));
        }
    }
    way
}
