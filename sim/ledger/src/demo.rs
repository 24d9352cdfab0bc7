//! `cargo sim demo`: the harness bites. Finds a world in which the ledger with its planted bug fails, tells
//! it, and runs many worlds without the bug. Never keeps anything.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use sim_engine::{Run, Shrunk, System, failure, run_plan, run_twice, shrink};

use crate::system::LedgerSystem;
use crate::workload::Workload;

/// Seeds among which a failing one must be, and worlds that must be clean without the bug.
const WORLDS: u64 = 1_000;

/// Worlds that are run to make the failure small, at most.
const SHRINK_RUNS: u32 = 200;

const BUGGY: LedgerSystem = LedgerSystem { ack_first: true };

/// What the demo can be asked.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Only the world of this seed, with the bug: event by event.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Of that, only what names this: an entry, say.
    #[arg(long, value_name = "TEXT", requires = "seed")]
    pub only: Option<String>,
}

impl Demo {
    /// Does it. 0: the bug was found, and without it all worlds are clean; or the seed's is clean.
    pub fn run(&self) -> ExitCode {
        match self.tell(&mut io::stdout()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) | Err(_) => ExitCode::FAILURE,
        }
    }

    /// The same in words, and whether it is clean in that sense.
    pub fn tell(&self, out: &mut dyn Write) -> io::Result<bool> {
        match self.seed {
            Some(seed) => replay(seed, self.only.as_deref(), out),
            None => Ok(bite(out)? && relieve(out)?),
        }
    }
}

/// The world of this seed with the bug, without what its failure does not need. `None`: it is clean.
fn small(seed: u64) -> Option<Shrunk<Workload>> {
    let plan = BUGGY.plan(seed);
    let run = run_plan(&BUGGY, &plan);
    shrink(&BUGGY, &plan, &run, SHRINK_RUNS, |_, _| ())
}

fn replay(seed: u64, only: Option<&str>, out: &mut dyn Write) -> io::Result<bool> {
    let Some(small) = small(seed) else {
        writeln!(out, "seed {seed} does not show the bug")?;
        return Ok(true);
    };
    let run = run_twice(&BUGGY, &small.plan);
    for event in run.trace.iter().filter(|it| only.is_none_or(|only| it.text.contains(only))) {
        writeln!(out, "{event}")?;
    }
    write!(out, "\n{}", failure(&run, "replayed", &again(seed), only))?;
    Ok(false)
}

fn again(seed: u64) -> String {
    format!("cargo sim demo --seed {seed}")
}

/// The bug, found and made small.
#[allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]
fn bite(out: &mut dyn Write) -> io::Result<bool> {
    writeln!(
        out,
        "A ledger books entries from a topic and queues receipts; a printer files them."
    )?;
    writeln!(
        out,
        "Planted bug: both ack before they commit. Looking for a world that shows it.\n"
    )?;
    let begun = Instant::now();
    let Some((seed, small)) = (0..WORLDS).find_map(|seed| Some((seed, small(seed)?))) else {
        writeln!(out, "{WORLDS} worlds, and none shows it")?;
        return Ok(false);
    };
    let found_s = begun.elapsed().as_secs_f64();
    let place = format!("world {}, found and made small in {found_s:.2} s", seed + 1);
    write!(out, "{}", failure(&small.run, &place, &again(seed), None))?;
    let (plan, left) = (BUGGY.plan(seed), small.plan);
    writeln!(
        out,
        "\nOf its {} faults it takes {}, of its {} transfers {}: this is the story of those.",
        plan.faults.len(),
        left.faults.len(),
        plan.workload.transfers.len(),
        left.workload.transfers.len()
    )?;
    Ok(true)
}

/// The ledger without the bug, in all worlds.
#[allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]
fn relieve(out: &mut dyn Write) -> io::Result<bool> {
    writeln!(out, "\nWithout the bug, commit first and ack then:")?;
    let begun = Instant::now();
    let runs = sweep(LedgerSystem { ack_first: false });
    let took_s = begun.elapsed().as_secs_f64();
    let effective: u64 = runs.iter().map(Run::effective).sum();
    let booked = |run: &Run| run.verdict.summary.marks.get("entries booked").copied();
    let booked: u64 = runs.iter().filter_map(booked).sum();
    let failed: Vec<&Run> = runs.iter().filter(|run| !run.verdict.is_clean()).collect();
    write!(out, "{WORLDS} worlds in {took_s:.1} s ({:.0} worlds/s), ", WORLDS as f64 / took_s)?;
    writeln!(
        out,
        "{effective} effective faults, {booked} entries booked, {} failed",
        failed.len()
    )?;
    if let Some(run) = failed.first() {
        let again = format!("cargo run --bin sim-ledger -- replay {}", run.seed);
        write!(out, "\n{}", failure(run, "the first", &again, None))?;
    }
    Ok(failed.is_empty())
}

/// Runs all worlds, as many at a time as there are cores.
fn sweep(system: LedgerSystem) -> Vec<Run> {
    let (next, cores) = (AtomicU64::new(0), std::thread::available_parallelism());
    let work = || {
        let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let seeds = seeds.take_while(|seed| *seed < WORLDS);
        seeds.map(|seed| run_plan(&system, &system.plan(seed))).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..cores.map_or(1, |n| n.get())).map(|_| scope.spawn(work)).collect();
        jobs.into_iter()
            .flat_map(|job| job.join().expect("a world's panic is its verdict"))
            .collect()
    })
}
