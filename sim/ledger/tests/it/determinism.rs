//! A seed is a world: the same in another order, in another process, beside others. `.ci/run` compares
//! debug and release in the same way.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use sim_engine::{System, run_plan, run_twice};
use sim_ledger::LedgerSystem;

const SEEDS: u64 = 40;

fn here(seeds: impl Iterator<Item = u64>) -> BTreeMap<u64, u128> {
    let system = LedgerSystem::default();
    seeds.map(|seed| (seed, run_plan(&system, &system.plan(seed)).hash)).collect()
}

/// As a process of its own writes them, with so many worlds at the same time.
fn elsewhere(jobs: u32) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hashes.{jobs}"));
    let mut sim = Command::new(env!("CARGO_BIN_EXE_sim-ledger"));
    sim.args(["run", "--once", "--seeds", &format!("0..{SEEDS}"), "--jobs", &jobs.to_string()]);
    let output = sim.arg("--hashes").arg(&file).output().expect("it was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::read_to_string(file).expect("it was just written")
}

#[test]
fn the_same_seed_twice_is_the_same_world() {
    let system = LedgerSystem::default();
    for seed in 0..SEEDS {
        let run = run_twice(&system, &system.plan(seed));
        assert!(run.verdict.is_clean(), "{:?}", run.verdict.violations);
    }
}

#[test]
fn order_process_and_company_do_not_matter() {
    let forwards = here(0..SEEDS);
    assert_eq!(forwards.len() as u64, SEEDS);
    let different: std::collections::BTreeSet<u128> = forwards.values().copied().collect();
    assert_eq!(different.len() as u64, SEEDS, "another seed is another world");
    assert_eq!(forwards, here((0..SEEDS).rev()), "in another order");
    let line = |(seed, hash): (&u64, &u128)| format!("{seed} {hash:032x}\n");
    let lines: String = forwards.iter().map(line).collect();
    assert_eq!(lines, elsewhere(1), "in a fresh process");
    assert_eq!(lines, elsewhere(4), "beside three others");
}
