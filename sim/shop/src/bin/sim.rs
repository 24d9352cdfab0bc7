//! `cargo sim`: runs seeded worlds, replays one, prints a plan. Exit codes: 0 clean, 1 a violation,
//! 2 usage.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use sim_engine::{FaultCount, Plan, Run, System, run_plan, run_twice};
use sim_shop::{Shop, Workload, story};

/// Runs the order saga in simulated worlds. A seed is a world: the same seed, the same world.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the worlds of a range of seeds; the first failure ends it with its story.
    ///
    /// Each seed is run twice, and both runs must be the same to the last event.
    Run {
        /// Seeds from A up to, but not including, B.
        #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = seeds)]
        seeds: Range<u64>,
        /// Worlds at the same time; by default one a core.
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        /// Run each seed once only: twice as fast, and no proof of determinism.
        #[arg(long)]
        once: bool,
        /// Go on after a failure, and count.
        #[arg(long)]
        keep_going: bool,
    },
    /// Run one seed again, and tell what happened.
    Replay {
        /// The seed, or the file of a plan as `plan` prints it.
        seed: String,
        /// Only what names this: an order's id, say.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Watch the harness bite: a small ledger with a planted bug, and then without it.
    Demo {
        /// Only this seed, with the bug, event by event.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
    /// Print the plan of a seed as JSON: workload and faults, to be changed by hand and replayed.
    Plan {
        /// The seed.
        seed: u64,
    },
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wanted = || format!("{text:?} is no range; write the first and the end, as in 0..200");
    let (from, to) = text.split_once("..").ok_or_else(wanted)?;
    let (from, to) = (from.parse().map_err(|_| wanted())?, to.parse().map_err(|_| wanted())?);
    if from < to { Ok(from..to) } else { Err(wanted()) }
}

fn main() -> ExitCode {
    // Panics inside a world are its verdict, told in its story.
    std::panic::set_hook(Box::new(|_| ()));
    match Cli::parse().command {
        Command::Run { seeds, jobs, once, keep_going } => {
            let jobs = jobs.unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, |cores| cores.get())
            });
            Sweep::new(seeds, once, keep_going).run(jobs.max(1))
        }
        Command::Replay { seed, only } => replay(&seed, only.as_deref()),
        Command::Demo { seed } => match sim_ledger::demo(seed, &mut std::io::stdout()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) | Err(_) => ExitCode::FAILURE,
        },
        Command::Plan { seed } => {
            println!("{}", json(&Shop.plan(seed)));
            ExitCode::SUCCESS
        }
    }
}

fn json(plan: &Plan<Workload>) -> String {
    serde_json::to_string_pretty(plan).expect("a plan has a JSON form")
}

fn replay(seed: &str, only: Option<&str>) -> ExitCode {
    let plan = match seed.parse::<u64>() {
        Ok(seed) => Shop.plan(seed),
        Err(_) => match std::fs::read_to_string(seed).map_err(|e| e.to_string()).and_then(|text| {
            serde_json::from_str::<Plan<Workload>>(&text).map_err(|e| e.to_string())
        }) {
            Ok(plan) => plan,
            Err(cause) => {
                eprintln!("{seed} is neither a seed nor the file of a plan: {cause}");
                eprintln!("try `cargo sim plan 7 > plan.json`, then `cargo sim replay plan.json`");
                return ExitCode::from(2);
            }
        },
    };
    let run = run_twice(&Shop, &plan);
    for event in &run.trace {
        if only.is_none_or(|only| event.text.contains(only)) {
            println!("{event}");
        }
    }
    println!();
    for line in &run.verdict.summary.lines {
        println!("{line}");
    }
    if !run.verdict.is_clean() {
        println!("\n{}", story::failure(&run, "replayed", only));
        return ExitCode::FAILURE;
    }
    let held = run.verdict.summary.invariants;
    println!("\nseed {}: {held} invariants hold, hash {:032x}", run.seed, run.hash);
    ExitCode::SUCCESS
}

/// A range of seeds on its way.
struct Sweep {
    seeds: Range<u64>,
    once: bool,
    keep_going: bool,
    begun: Instant,
    next: AtomicU64,
    done: AtomicU64,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    faults: BTreeMap<String, FaultCount>,
    marks: BTreeMap<String, u64>,
    failed: Vec<(u64, String)>,
}

impl Sweep {
    #[allow(
        clippy::disallowed_methods,
        reason = "progress is told in real time, outside of worlds"
    )]
    fn new(seeds: Range<u64>, once: bool, keep_going: bool) -> Self {
        let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
        Sweep {
            seeds,
            once,
            keep_going,
            begun: Instant::now(),
            next,
            done,
            totals: Mutex::default(),
        }
    }

    fn run(self, jobs: usize) -> ExitCode {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| self.work())).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                #[allow(clippy::disallowed_methods, reason = "the bystander's wait, in real time")]
                std::thread::sleep(Duration::from_millis(100));
                self.progress();
            }
        });
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        self.report()
    }

    fn work(&self) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let failed = !self.totals().failed.is_empty();
            if seed >= self.seeds.end || failed && !self.keep_going {
                return;
            }
            let plan = Shop.plan(seed);
            let run = if self.once { run_plan(&Shop, &plan) } else { run_twice(&Shop, &plan) };
            self.add(&plan, run);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, plan: &Plan<Workload>, run: Run) {
        let mut totals = self.totals();
        for (step, count) in &run.faults {
            let sum = totals.faults.entry(step.clone()).or_default();
            sum.injected += count.injected;
            sum.effective += count.effective;
        }
        for (mark, count) in &run.verdict.summary.marks {
            *totals.marks.entry(mark.clone()).or_default() += count;
        }
        if let Some(first) = run.verdict.violations.first() {
            let place = format!("world {} of {}", run.seed - self.seeds.start + 1, self.count());
            let story = story::failure(&run, &place, None);
            keep(plan, &run, &story);
            if totals.failed.is_empty() {
                println!("\n{story}");
            }
            totals.failed.push((run.seed, first.invariant.clone()));
        }
    }

    fn count(&self) -> u64 {
        self.seeds.end - self.seeds.start
    }

    fn progress(&self) {
        let mut err = std::io::stderr();
        if err.is_terminal() {
            let (done, seconds) = (self.done.load(Ordering::Relaxed), self.begun.elapsed());
            let rate = done as f64 / seconds.as_secs_f64();
            // A progress line that cannot be written is no reason to stop.
            let _ = write!(err, "\r{done} of {} worlds, {rate:.0} worlds/s ", self.count());
            let _ = err.flush();
        }
    }

    fn report(&self) -> ExitCode {
        let totals = self.totals();
        let (done, seconds) =
            (self.done.load(Ordering::Relaxed), self.begun.elapsed().as_secs_f64());
        let effective: u64 = totals.faults.values().map(|count| count.effective).sum();
        println!("{:<28} {:>9} {:>10} {:>8}", "fault @ step", "injected", "effective", "masked");
        for (step, count) in &totals.faults {
            let (injected, effective) = (count.injected, count.effective);
            println!("{step:<28} {injected:>9} {effective:>10} {:>8}", count.masked());
        }
        let marks: Vec<String> =
            totals.marks.iter().map(|(mark, count)| format!("{mark} {count}")).collect();
        println!("reached: {}", marks.join(" · "));
        let runs = if self.once { "once" } else { "twice each, equal" };
        println!(
            "{done} worlds in {seconds:.1} s ({:.0} worlds/s, {:.0} effective faults/s; {runs}), {} failed",
            done as f64 / seconds,
            effective as f64 / seconds,
            totals.failed.len()
        );
        for (seed, invariant) in &totals.failed {
            println!("  {invariant}  cargo sim replay {seed}");
        }
        if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Leaves plan and trace where they can be looked at, and where CI picks them up.
fn keep(plan: &Plan<Workload>, run: &Run, story: &str) {
    let folder = PathBuf::from("target/sim-failures");
    let trace: String = run.trace.iter().map(|event| format!("{event}\n")).collect();
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.plan.json", run.seed)), json(plan))?;
        std::fs::write(folder.join(format!("{}.txt", run.seed)), format!("{story}\n{trace}"))
    };
    if let Err(cause) = write() {
        eprintln!("could not keep the failure under {}: {cause}", folder.display());
    }
}
