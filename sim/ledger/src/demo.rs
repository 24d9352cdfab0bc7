//! `cargo sim demo`: the harness bites. Finds a world in which the ledger with its planted bug fails, tells
//! it, and runs many worlds without the bug. Never keeps anything.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim_engine::{Run, System, run_plan, run_twice};

use crate::story::failure;
use crate::system::LedgerSystem;

/// Seeds among which a failing one must be, and worlds that must be clean without the bug.
const WORLDS: u64 = 1_000;

/// Tells the demo; of this seed alone, where there is one. Whether all went as it should: the bug was
/// found and the mended ledger is clean, or the seed shows the bug.
#[allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]
pub fn demo(seed: Option<u64>, out: &mut dyn Write) -> io::Result<bool> {
    let buggy = LedgerSystem { ack_first: true };
    if let Some(seed) = seed {
        let run = run_twice(&buggy, &buggy.plan(seed));
        for event in &run.trace {
            writeln!(out, "{event}")?;
        }
        return tell(&run, out);
    }
    writeln!(
        out,
        "A ledger reads entries from a topic, books them, publishes receipts; a printer files those."
    )?;
    writeln!(
        out,
        "Planted bug: both ack before they commit. Looking for a world that shows it.\n"
    )?;
    let begun = Instant::now();
    let mut worlds = (0..WORLDS).map(|seed| run_plan(&buggy, &buggy.plan(seed)));
    let Some(run) = worlds.find(|run| !run.verdict.is_clean()) else {
        writeln!(out, "{WORLDS} worlds, and none shows the bug")?;
        return Ok(false);
    };
    tell(&run, out)?;
    let (tried, took) = (run.seed + 1, begun.elapsed().as_secs_f64());
    writeln!(out, "found in world {tried}, after {took:.2} s\n")?;

    writeln!(out, "The same ledger that commits first and acks then:")?;
    let begun = Instant::now();
    let runs = sweep(&LedgerSystem { ack_first: false });
    let took = begun.elapsed().as_secs_f64();
    let (effective, booked) = runs.iter().fold((0, 0), |(effective, booked), run| {
        let marks = &run.verdict.summary.marks;
        (effective + run.effective(), booked + marks.get("entries booked").unwrap_or(&0))
    });
    let failed: Vec<&Run> = runs.iter().filter(|run| !run.verdict.is_clean()).collect();
    writeln!(
        out,
        "{WORLDS} worlds in {took:.1} s ({:.0} worlds/s): {effective} effective faults, {booked} entries booked \
         once each, {} failed",
        WORLDS as f64 / took,
        failed.len()
    )?;
    if let Some(run) = failed.first() {
        write!(out, "\n{}", failure(run, "a clean ledger must not fail"))?;
    }
    Ok(failed.is_empty())
}

/// The end of a world with the bug, and whether it shows it.
fn tell(run: &Run, out: &mut dyn Write) -> io::Result<bool> {
    let again = format!("cargo sim demo --seed {}", run.seed);
    match run.verdict.is_clean() {
        true => writeln!(out, "\nseed {} does not show the bug, hash {:032x}", run.seed, run.hash)?,
        false => write!(out, "\n{}", failure(run, &again))?,
    }
    Ok(!run.verdict.is_clean())
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
