//! Many worlds: drawn, run side by side, added up; the first failure is made small and told. Never more
//! than the worlds in hand at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::args::{RunArgs, Shard};
use super::find::{self, Found, Usage};
use super::keep::{self, Kept};
use super::output::Output;
use super::progress::Progress;
use super::replay::{forgive, stale_words};
use super::totals::{Failure, Pace, Totals};
use crate::outcome::Run;
use crate::report;
use crate::runner::{run_plan, run_twice, stale, unmet};
use crate::shrink::{Shrunk, shrink};
use crate::story;
use crate::system::{Plan, System};

/// Worlds that are run to make a failing one small.
const SHRINK_RUNS: u32 = 300;

/// Failures of which plan, trace and page are kept; the others are only counted.
const KEPT_MAX: usize = 20;

/// What is to be run.
enum Worlds<W> {
    /// Seeds from the first up to the end, as far as they are of the shard.
    Seeds { first: u64, end: u64, shard: Shard, profile: &'static str },
    /// One stored plan.
    Stored(Box<Found<W>>),
}

/// A range of worlds on its way.
pub(super) struct Sweep<'a, S: System> {
    system: &'a S,
    args: RunArgs,
    worlds: Worlds<S::Workload>,
    /// How many worlds there are; unknown where time ends it.
    count: Option<u64>,
    json: Option<Output>,
    hashes: Option<Output>,
    next: AtomicU64,
    over: AtomicBool,
    state: Mutex<State<S::Workload>>,
}

struct State<W> {
    totals: Totals,
    /// The failure of the lowest seed, to be made small.
    first: Option<(Plan<W>, Run)>,
    /// A seed whose world did not end.
    endless: Option<u64>,
    /// By seed.
    hashes: BTreeMap<u64, u128>,
}

impl<'a, S: System> Sweep<'a, S> {
    pub(super) fn new(system: &'a S, args: RunArgs) -> Result<Self, Usage> {
        let profile = find::profile(system, args.profile.as_deref())?;
        let (worlds, count) = match &args.plan {
            Some(plan) => {
                let found = find::world(system, plan, None)?;
                if !found.stored {
                    let (seed, end) = (found.plan.seed, found.plan.seed.saturating_add(1));
                    return Err(Usage(format!("--plan is for files; try --seeds {seed}..{end}")));
                }
                (Worlds::Stored(Box::new(found)), Some(1))
            }
            None => {
                let ends = if args.time.is_some() { u64::MAX } else { 200 };
                let seeds = args.seeds.clone().unwrap_or(0..ends);
                if seeds.end == u64::MAX && args.time.is_none() {
                    let text = "seeds without an end need --for, such as --for 10m";
                    return Err(Usage(text.to_owned()));
                }
                let (first, end, shard) = (seeds.start, seeds.end, args.shard);
                let of_shard = (end - first).saturating_sub(shard.index - 1).div_ceil(shard.count);
                let count = (end < u64::MAX).then_some(of_shard);
                (Worlds::Seeds { first, end, shard, profile }, count)
            }
        };
        let json = args.json.as_deref().map(|path| Output::open(path, "the summary"));
        let hashes = args.hashes.as_deref().map(|path| Output::open(path, "the hashes"));
        let (json, hashes) = (json.transpose()?, hashes.transpose()?);
        let (totals, hashed) = (Totals::default(), BTreeMap::new());
        let state = State { totals, first: None, endless: None, hashes: hashed };
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let state = Mutex::new(state);
        Ok(Sweep { system, args, worlds, count, json, hashes, next, over, state })
    }

    /// Runs them all. Whether every world is clean.
    pub(super) fn run(self) -> Result<bool, Usage> {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let jobs = self.args.jobs.map_or_else(cores, usize::from);
        let mut progress = Progress::new();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| self.work())).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                progress.wait();
                let took = progress.took();
                if self.args.time.is_some_and(|time| took >= time) {
                    self.over.store(true, Ordering::Relaxed);
                }
                progress.tell(|| self.state().totals.line(self.count, took));
            }
        });
        let pace = Pace { took: progress.took(), twice: !self.args.once };
        progress.end();
        let first = self.state().first.take();
        if let Some((plan, run)) = first {
            self.tell(&plan, run, progress);
        }
        let state = self.state();
        print!("{}", state.totals.table(pace));
        if let Worlds::Stored(found) = &self.worlds
            && !state.totals.stale.is_empty()
        {
            println!("\n{}", stale_words(&found.again, &state.totals.stale));
        }
        let coverage = self.system.coverage();
        let unreached = coverage.map_or(Vec::new(), |it| state.totals.unreached(&it));
        if !unreached.is_empty() {
            println!("NOT REACHED  {}", unreached.join(" · "));
            println!(
                "these should be: mend what draws workload and faults, or what they are aimed at"
            );
        }
        let clean = state.totals.is_clean(&unreached);
        let json = || state.totals.json(pace, &unreached) + "\n";
        let summary = self.json.as_ref().map_or(Ok(()), |file| file.write(&json()));
        let line = |(seed, hash): (&u64, &u128)| format!("{seed} {hash:032x}\n");
        let lines = || state.hashes.iter().map(line).collect::<String>();
        let hashes = self.hashes.as_ref().map_or(Ok(()), |file| file.write(&lines()));
        match summary.and(hashes) {
            Ok(()) => Ok(clean),
            Err(wrong) if clean => Err(wrong),
            Err(wrong) => {
                eprintln!("error: {wrong}");
                Ok(false)
            }
        }
    }

    fn work(&self) {
        while let Some(plan) = self.draw() {
            let expected = self.system.expected(&plan.workload);
            let mut run = match self.args.once {
                true => run_plan(self.system, &plan),
                false => run_twice(self.system, &plan),
            };
            let known = forgive(&mut run, &expected);
            let mut state = self.state();
            state.totals.add(&run, &known);
            if self.hashes.is_some() {
                state.hashes.insert(run.seed, run.hash);
            }
            drop(state);
            if matches!(self.worlds, Worlds::Stored(_)) {
                self.state().totals.stale = stale(&plan, &run);
            }
            if !run.verdict.is_clean() {
                self.fail(plan, run);
            }
        }
    }

    /// The next world, if there is one and it is wanted.
    fn draw(&self) -> Option<Plan<S::Workload>> {
        let failed = !self.state().totals.failed.is_empty();
        let over = self.over.load(Ordering::Relaxed) || self.state().endless.is_some();
        if over || failed && !self.args.keep_going {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        match &self.worlds {
            Worlds::Stored(found) => (n == 0).then(|| found.plan.clone()),
            Worlds::Seeds { first, end, shard, profile } => {
                let seed = shard.seed(*first, n).filter(|seed| seed < end)?;
                Some(self.system.plan_in(profile, seed))
            }
        }
    }

    fn fail(&self, plan: Plan<S::Workload>, run: Run) {
        let invariant = run.verdict.violations[0].invariant.clone();
        let (seed, replay) = (plan.seed, self.again(&plan));
        let other = {
            let mut state = self.state();
            if run.is_endless() {
                state.endless = Some(seed);
            }
            state.totals.failed.push(Failure { seed, invariant, replay });
            state.totals.failed.sort();
            match &state.first {
                Some((first, _)) if first.seed <= seed => Some((plan, run)),
                _ => state.first.replace((plan, run)),
            }
        };
        if let Some((plan, run)) = other
            && self.state().totals.failed.len() <= KEPT_MAX
        {
            self.keep(&plan, None, &run);
        }
    }

    /// Makes the failure small, tells and keeps it. Beside a world that did not end no more are run.
    fn tell(&self, plan: &Plan<S::Workload>, run: Run, mut progress: Progress) {
        if let Some(seed) = self.state().endless {
            println!("\n{}", self.keep(plan, None, &run));
            println!(
                "STOPPED  the world of seed {seed} did not end and is still at it: \
                 no more are run, nothing is made small"
            );
            return;
        }
        let faults = plan.faults.len();
        let shrunk = shrink(self.system, plan, &run, SHRINK_RUNS, |smaller, runs| {
            let left = smaller.faults.len();
            progress.tell(|| {
                format!(
                    "seed {} failed; making it small: faults {faults} → {left} ({runs} worlds)",
                    plan.seed
                )
            });
        });
        progress.end();
        let Some(Shrunk { plan: small, mut run, runs, without }) = shrunk else {
            let story = self.keep(plan, None, &run);
            println!("\n{story}");
            return;
        };
        forgive(&mut run, &self.system.expected(&small.workload));
        let story = self.keep(plan, Some(&small), &run);
        println!("\n{story}");
        let left = small.faults.len();
        println!(
            "made small by {runs} worlds: faults {faults} → {left}; {} parts of the workload left out",
            without.len()
        );
        println!("as drawn    {}", self.again(plan));
        if run.ended() {
            let page = self.system.failures().join(format!("{}.html", plan.seed));
            println!("page        {}", page.display());
        }
        println!();
    }

    /// Keeps a failed world. Its story.
    fn keep(
        &self,
        plan: &Plan<S::Workload>,
        shrunk: Option<&Plan<S::Workload>>,
        run: &Run,
    ) -> String {
        // Ids may differ between the world as drawn and the small one: each is replayed as it was told.
        let file = self.system.failures().join(format!("{}.plan.json", plan.seed));
        let again = match shrunk {
            Some(_) => format!("{} replay {}", self.system.program(), file.display()),
            None => self.again(plan),
        };
        let story = story::failure(run, &self.place(plan.seed), &again, None);
        let shows = run.ended() && self.state().endless.is_none();
        let page = shows.then(|| report::page(self.system, shrunk.unwrap_or(plan), &again));
        let page = page.flatten();
        let mut met = plan.clone();
        if shrunk.is_none() {
            let masked = unmet(plan, run);
            met.faults.retain(|fault| !masked.contains(fault));
        }
        keep::keep(&self.system.failures(), Kept { plan: &met, shrunk, run, story: &story, page });
        story
    }

    fn again(&self, plan: &Plan<S::Workload>) -> String {
        let again = match (&self.worlds, &self.args.profile) {
            (Worlds::Stored(found), _) => found.again.clone(),
            (_, Some(profile)) => format!("{} --profile {profile}", plan.seed),
            (_, None) => plan.seed.to_string(),
        };
        format!("{} replay {again}", self.system.program())
    }

    fn place(&self, seed: u64) -> String {
        let Worlds::Seeds { first, shard, .. } = &self.worlds else {
            return "a stored plan".to_owned();
        };
        let of = self.count.map_or(String::new(), |count| format!(" of {count}"));
        format!("world {}{of}", (seed - first) / shard.count + 1)
    }

    fn state(&self) -> MutexGuard<'_, State<S::Workload>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::args;
    use crate::outcome::{ENDS, Violation};
    use crate::toy::Toy;

    #[test]
    fn a_world_that_does_not_end_is_the_last_one() {
        let args = RunArgs { keep_going: true, ..args(0..1_000) };
        let sweep = Sweep::new(&Toy, args).ok().unwrap();
        let plan = sweep.draw().expect("the first one");
        let verdict = Violation::new(ENDS, "", "no end").into();
        let run = Run { seed: plan.seed, verdict, ..Run::default() };
        sweep.fail(plan, run);
        assert!(sweep.draw().is_none());
    }
}
