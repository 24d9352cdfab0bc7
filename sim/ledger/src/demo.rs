//! `cargo sim demo`: the harness bites. Finds a world in which the ledger with its planted bug fails, tells
//! it, and runs many worlds without the bug. Never keeps anything.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim_engine::{Plan, Run, System, run_plan, run_twice};

use crate::story::failure;
use crate::system::{LedgerSystem, Workload};

/// Seeds among which a failing one must be, and worlds that must be clean without the bug.
const WORLDS: u64 = 1_000;

/// Tells the demo; of this seed alone, where there is one. Whether it ended well: the bug was found, and
/// without it all worlds are clean; or the world of the seed is clean.
#[allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]
pub fn demo(seed: Option<u64>, out: &mut dyn Write) -> io::Result<bool> {
    let buggy = LedgerSystem { ack_first: true };
    if let Some(seed) = seed {
        let plan = smallest(&buggy, buggy.plan(seed));
        let run = run_twice(&buggy, &plan);
        for event in &run.trace {
            writeln!(out, "{event}")?;
        }
        tell(&run, out)?;
        writeln!(out, "hash        {:032x}", run.hash)?;
        return Ok(run.verdict.is_clean());
    }
    writeln!(
        out,
        "A ledger books entries from a topic and publishes receipts; a printer files them."
    )?;
    writeln!(
        out,
        "Planted bug: both ack before they commit. Looking for a world that shows it.\n"
    )?;
    let begun = Instant::now();
    let fails = |seed: &u64| !run_plan(&buggy, &buggy.plan(*seed)).verdict.is_clean();
    let Some(seed) = (0..WORLDS).find(fails) else {
        writeln!(out, "{WORLDS} worlds, and none shows the bug")?;
        return Ok(false);
    };
    let (found, plan) = (begun.elapsed(), buggy.plan(seed));
    let (all, plan) = (plan.faults.len(), smallest(&buggy, plan));
    tell(&run_plan(&buggy, &plan), out)?;
    writeln!(
        out,
        "\nFound in world {}, after {:.2} s; of its {all} faults {} would do.\n",
        seed + 1,
        found.as_secs_f64(),
        plan.faults.len()
    )?;

    writeln!(out, "Without the bug, commit first and ack then:")?;
    let begun = Instant::now();
    let runs = sweep(&LedgerSystem { ack_first: false });
    let took = begun.elapsed().as_secs_f64();
    let effective: u64 = runs.iter().map(Run::effective).sum();
    let booked: u64 = runs.iter().map(|run| run.verdict.summary.marks["entries booked"]).sum();
    let failed: Vec<&Run> = runs.iter().filter(|run| !run.verdict.is_clean()).collect();
    writeln!(
        out,
        "{WORLDS} worlds in {took:.1} s ({:.0} worlds/s), {effective} effective faults, {booked} entries booked, \
         {} failed",
        WORLDS as f64 / took,
        failed.len()
    )?;
    for run in failed.iter().take(1) {
        write!(out, "\n{}", failure(run, "cargo test ledger_worlds"))?;
    }
    Ok(failed.is_empty())
}

/// The end of a world with the bug.
fn tell(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    match run.verdict.is_clean() {
        true => writeln!(out, "\nseed {} does not show the bug", run.seed),
        false => write!(out, "{}", failure(run, &format!("cargo sim demo --seed {}", run.seed))),
    }
}

/// The plan without the faults that its failure does not need.
fn smallest(system: &LedgerSystem, mut plan: Plan<Workload>) -> Plan<Workload> {
    let broken = |plan: &Plan<Workload>| {
        let violations = run_plan(system, plan).verdict.violations;
        violations.first().map(|violation| violation.invariant.clone())
    };
    let Some(invariant) = broken(&plan) else { return plan };
    for at in (0..plan.faults.len()).rev() {
        let mut smaller = plan.clone();
        smaller.faults.remove(at);
        if broken(&smaller).as_ref() == Some(&invariant) {
            plan = smaller;
        }
    }
    plan
}

/// Runs all worlds, as many at a time as there are cores.
fn sweep(system: &LedgerSystem) -> Vec<Run> {
    let (next, cores) = (AtomicU64::new(0), std::thread::available_parallelism());
    let work = || {
        let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let seeds = seeds.take_while(|seed| *seed < WORLDS);
        seeds.map(|seed| run_plan(system, &system.plan(seed))).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..cores.map_or(1, |n| n.get())).map(|_| scope.spawn(work)).collect();
        jobs.into_iter()
            .flat_map(|job| job.join().expect("a world's panic is its verdict"))
            .collect()
    })
}
