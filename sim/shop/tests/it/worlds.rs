//! Worlds by seed, some of them twice. `MADSIM_TEST_SEED=N cargo test seeded_worlds` runs one.

use sim_engine::{Plan, System, run_plan, run_twice, stale};
use sim_shop::{Shop, Workload, story};

/// Plans that once failed, each named after the bug it found: their seeds may be drawn otherwise by
/// now, the plans are data and stay.
#[test]
fn plans_that_once_failed_are_clean() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/plans");
    let entries = std::fs::read_dir(folder).expect("fixtures/plans is there");
    let mut plans: Vec<_> = entries.map(|e| e.expect("it can be listed").path()).collect();
    plans.sort();
    assert!(!plans.is_empty());
    for path in plans {
        let text = std::fs::read_to_string(&path).expect("a plan can be read");
        let plan: Plan<Workload> = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{} is no plan any more: {e}", path.display()));
        let run = run_twice(&Shop, &plan);
        let place = path.display().to_string();
        assert!(run.verdict.is_clean(), "\n{}", story::failure(&run, &place, None));
        let stale = stale(&plan, &run);
        assert!(stale.is_empty(), "{place} no longer shows what it was stored for: {stale:?}");
    }
}

/// Worlds in `cargo test`; `cargo sim run` runs as many as one likes.
const WORLDS: u64 = 200;
/// One in so many is run twice.
const TWICE: u64 = 5;

#[test]
fn seeded_worlds_are_clean_and_deterministic() {
    let seeds = match std::env::var("MADSIM_TEST_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("MADSIM_TEST_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..WORLDS,
    };
    let (mut effective, mut worlds) = (0, 0);
    for seed in seeds {
        let plan = Shop.plan(seed);
        let run = match seed % TWICE {
            0 => run_twice(&Shop, &plan),
            _ => run_plan(&Shop, &plan),
        };
        assert!(run.verdict.is_clean(), "\n{}", story::failure(&run, "cargo test", None));
        for mark in run.verdict.summary.marks.keys() {
            let known = Shop.marks().iter().any(|(name, _)| mark.starts_with(name));
            assert!(known, "{mark:?} is reached, and `cargo sim list` does not know it");
        }
        effective += run.effective();
        worlds += 1;
    }
    println!("{worlds} worlds clean, {effective} effective faults");
    assert!(worlds == 1 || effective > 4 * worlds, "the faults met too little: {effective}");
}

/// `.ci/run` compares debug and release in the same way.
#[test]
fn order_process_and_company_do_not_matter() {
    let seeds = 300..304;
    let hash = |seed| (seed, run_plan(&Shop, &Shop.plan(seed)).hash);
    let mut backwards: Vec<(u64, u128)> = seeds.clone().rev().map(hash).collect();
    backwards.sort_unstable();
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("hashes");
    let mut sim = std::process::Command::new(env!("CARGO_BIN_EXE_sim"));
    sim.args(["run", "--once", "--seeds", "300..304", "--jobs", "3", "--hashes"]).arg(&file);
    let output = sim.output().expect("it was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let elsewhere = std::fs::read_to_string(file).expect("it was just written");
    let lines: String = backwards.iter().map(|(s, hash)| format!("{s} {hash:032x}\n")).collect();
    assert_eq!(lines, elsewhere);
}
