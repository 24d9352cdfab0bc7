//! One world: told, printed as a plan, or drawn as a page.

use std::path::Path;

use super::find::{self, Usage};
use crate::outcome::{Run, Violation};
use crate::report;
use crate::runner::{run_twice, stale};
use crate::story;
use crate::system::System;

/// Tells a world event by event, and judges it. Whether it is clean, and shows what it was stored for.
pub(super) fn replay<S: System>(
    system: &S,
    what: &str,
    profile: Option<&str>,
    only: Option<&str>,
) -> Result<bool, Usage> {
    let found = find::world(system, what, profile)?;
    let mut run = run_twice(system, &found.plan);
    for event in &run.trace {
        if only.is_none_or(|only| event.text.contains(only)) {
            println!("{event}");
        }
    }
    println!();
    for line in &run.verdict.summary.lines {
        println!("{line}");
    }
    let expected = forgive(&mut run, &system.expected(&found.plan.workload));
    for Violation { invariant, about, text } in &expected {
        println!("expected here: {invariant}  {}: {text}", about.join(" "));
    }
    let stale = if found.stored { stale(&found.plan, &run) } else { Vec::new() };
    if !stale.is_empty() {
        println!("\n{}", stale_words(&found.again, &stale));
    }
    if !run.verdict.is_clean() {
        let again = format!("{} replay {}", system.program(), found.again);
        println!("\n{}", story::failure(&run, "replayed", &again, only));
        return Ok(false);
    }
    let held = run.verdict.summary.invariants;
    println!("\nseed {}: {held} invariants hold, hash {:032x}", run.seed, run.hash);
    Ok(stale.is_empty())
}

/// Prints the plan of a seed.
pub(super) fn plan<S: System>(system: &S, seed: u64, profile: Option<&str>) -> Result<bool, Usage> {
    let profile = find::profile(system, profile)?;
    println!("{}", find::json(&system.plan_in(profile, seed)));
    Ok(true)
}

/// Takes out of a verdict what its workload is known to break.
pub(super) fn forgive(run: &mut Run, expected: &[&str]) -> Vec<Violation> {
    let violations = std::mem::take(&mut run.verdict.violations);
    let (known, broken) =
        violations.into_iter().partition(|it| expected.contains(&it.invariant.as_str()));
    run.verdict.violations = broken;
    known
}

/// What to say of a stored plan that no longer fits.
pub(super) fn stale_words(which: &str, stale: &[String]) -> String {
    let mut text =
        format!("STALE  {which}: {} of its faults and choices met nothing\n", stale.len());
    for what in stale {
        text.push_str(&format!("  {what}\n"));
    }
    text.push_str("it no longer shows what it was stored for: aim them anew, or leave them out");
    text
}

/// Writes the page of a world. Whether there is one: of a world that does not come to its end there is
/// none.
pub(super) fn report<S: System>(
    system: &S,
    what: &str,
    profile: Option<&str>,
    output: &Path,
) -> Result<bool, Usage> {
    let found = find::world(system, what, profile)?;
    let again = format!("{} replay {}", system.program(), found.again);
    let Some(page) = report::page(system, &found.plan, &again) else {
        eprintln!("no page: the world did not come to its end; `{again}` tells why");
        return Ok(false);
    };
    std::fs::write(output, &page)
        .map_err(|cause| Usage(format!("cannot write {}: {cause}", output.display())))?;
    println!("{} ({} KB)", output.display(), page.len().div_ceil(1_000));
    Ok(true)
}
