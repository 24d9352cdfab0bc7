//! What there is, in words. Never runs a world.

use std::fmt::Write;

use super::find::{stem, stored_plans};
use crate::fault::{FaultKind, Site};
use crate::system::System;

/// Scenarios, stored plans, profiles, fault kinds with their sites, invariants and marks.
pub(super) fn list<S: System>(system: &S) -> String {
    let mut text = String::new();
    let mut scenarios = system.scenarios();
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    head(&mut text, "scenarios", scenarios.len());
    for scene in &scenarios {
        let _ = writeln!(text, "  {}\n      {}", scene.name, scene.claim);
        let _ = writeln!(text, "      {}", scene.snapshot.display());
    }
    let plans = stored_plans(system);
    head(&mut text, &format!("stored plans in {}", system.plans().display()), plans.len());
    for path in &plans {
        let _ = writeln!(text, "  {}", stem(path));
    }
    let profiles = system.profiles();
    head(&mut text, "profiles", profiles.len());
    for profile in profiles {
        let _ = writeln!(text, "  {profile}");
    }
    head(&mut text, "faults, and the calls where each is legal", FaultKind::ALL.len());
    for kind in FaultKind::ALL {
        let sites = sites(kind);
        let _ = writeln!(text, "  {:<16} {sites}", kind.name());
    }
    let invariants = system.invariants();
    head(&mut text, "invariants", invariants.len());
    for invariant in invariants {
        let _ = writeln!(text, "  {invariant}");
    }
    let marks = system.marks();
    head(&mut text, "marks", marks.len());
    for (mark, meaning) in marks {
        let _ = writeln!(text, "  {mark:<28} {meaning}");
    }
    text
}

/// The calls at which a fault is legal; few exceptions are named instead of many rules.
fn sites(kind: FaultKind) -> String {
    let (legal, not): (Vec<Site>, Vec<Site>) =
        Site::ALL.into_iter().partition(|site| kind.legal(*site));
    let names = |sites: Vec<Site>| {
        let names: Vec<&str> = sites.into_iter().map(Site::name).collect();
        names.join(", ")
    };
    let mut text = match not.len() {
        0 => "every call".to_owned(),
        1..=3 => format!("every call but {}", names(not)),
        _ => names(legal),
    };
    if kind.any_instant() {
        text.push_str("; any instant");
    }
    text
}

fn head(text: &mut String, what: &str, count: usize) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{what} ({count})");
}
