//! A hundred stored failures of the ledger with its planted bug, under harmless edits of the ledger: nine
//! in ten and more keep failing in the same way, since choices are keyed.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sim_engine::{Plan, System, run_plan, shrink, unmet};
use sim_ledger::{LedgerSystem, Workload};

use crate::edits::{Edit, Edited};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ledger/plans.jsonl");

/// A plan, small, and what it breaks.
#[derive(Serialize, Deserialize)]
struct Stored {
    invariant: String,
    plan: Plan<Workload>,
}

/// What became of stored failures.
#[derive(Debug, Default, Clone, Copy)]
struct Kept {
    same: u32,
    other: u32,
    clean: u32,
    stale: u32,
}

fn stored() -> Vec<Stored> {
    let text = std::fs::read_to_string(FILE).expect("the stored plans are there");
    text.lines().map(|line| serde_json::from_str(line).expect("a stored plan")).collect()
}

/// Writes the stored plans anew: `cargo test -p shakedown-sim-ledger store_failures -- --ignored`.
#[test]
#[ignore = "changes fixtures/ledger/plans.jsonl"]
fn store_failures() {
    let buggy = LedgerSystem { ack_first: true };
    let failing = (0..).filter_map(|seed| {
        let plan = buggy.plan(seed);
        let small = shrink(&buggy, &plan, &run_plan(&buggy, &plan), 300, |_, _| ())?;
        let invariant = small.run.verdict.violations[0].invariant.clone();
        Some(Stored { invariant, plan: small.plan })
    });
    let lines = failing.take(100).map(|it| serde_json::to_string(&it).expect("it has a JSON form"));
    let text: String = lines.map(|line| line + "\n").collect();
    std::fs::write(FILE, text).expect("fixtures/ledger is there");
}

fn kept(stored: &[Stored], edit: Edit) -> Kept {
    let mut kept = Kept::default();
    for Stored { invariant, plan } in stored {
        let run = run_plan(&Edited(edit), plan);
        match run.verdict.violations.first() {
            Some(violation) if violation.invariant == *invariant => kept.same += 1,
            _ if !unmet(plan, &run).is_empty() => kept.stale += 1,
            Some(_) => kept.other += 1,
            None => kept.clean += 1,
        }
    }
    kept
}

#[test]
fn stored_failures_survive_harmless_edits() {
    let stored = stored();
    assert_eq!(stored.len(), 100);
    let mut table = "edit          same way  other way  clean  stale\n".to_owned();
    let mut worst = 100;
    for edit in Edit::ALL {
        let Kept { same, other, clean, stale } = kept(&stored, edit);
        let name = format!("{edit:?}");
        let _ = writeln!(table, "{name:<12} {same:>9} {other:>10} {clean:>6} {stale:>6}");
        worst = worst.min(same);
    }
    println!("{table}");
    assert!(worst >= 90, "\n{table}");
}
