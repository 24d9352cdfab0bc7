//! The ledger's worlds.

use sim_engine::{System, run_plan};
use sim_ledger::LedgerSystem;

#[test]
fn look() {
    let system = LedgerSystem { ack_first: false };
    for seed in 0..1000 {
        let run = run_plan(&system, &system.plan(seed));
        if run.verdict.is_clean() {
            continue;
        }
        println!("seed {seed}");
        for e in &run.trace {
            println!("{e}");
        }
        println!("{:?}", run.verdict);
    }
}
