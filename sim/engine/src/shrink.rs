//! Makes a failing plan small: faults are left out first, then parts of the workload, as long as the
//! same invariant breaks first. Never more runs than it was given, and never another failure.

use crate::fault::FaultSpec;
use crate::outcome::{Run, Violation};
use crate::runner::{run_plan, run_twice, unmet};
use crate::system::{Plan, Smaller, System};

/// A failing plan made small.
#[derive(Debug)]
pub struct Shrunk<W> {
    /// What is left: leaving out any one part more is another world, if there were runs enough.
    pub plan: Plan<W>,
    /// How it fails.
    pub run: Run,
    /// Worlds that were run for it.
    pub runs: u32,
    /// Parts of the workload that were left out, in that order.
    pub without: Vec<String>,
}

/// Shrinks a failing plan by at most `runs_max` worlds. `tell` hears of each that still failed. `None`:
/// it does not fail when it is run again, or not by the same invariant; or its world does not end. After
/// one that does not end no more are run: its thread stays.
pub fn shrink<S: System>(
    system: &S,
    plan: &Plan<S::Workload>,
    failed: &Run,
    runs_max: u32,
    mut tell: impl FnMut(&Plan<S::Workload>, u32),
) -> Option<Shrunk<S::Workload>> {
    if failed.is_endless() {
        return None;
    }
    let first = failed.verdict.violations.first()?;
    let again = |plan: &Plan<S::Workload>| match first.invariant.as_str() {
        "world.deterministic" => run_twice(system, plan),
        _ => run_plan(system, plan),
    };
    let expected = system.expected(&plan.workload);
    let breaks = |run: &Run| {
        let mut broken = run.verdict.violations.iter();
        let broken = broken.find(|it| !expected.contains(&it.invariant.as_str()));
        broken.is_some_and(|it| is_same(it, first))
    };
    let (mut kept, mut stuck) = (None, false);
    let mut search = Search { plan: plan.clone(), without: Vec::new(), runs: 0, runs_max };
    let mut fails = |plan: &Plan<S::Workload>, runs: u32| {
        if stuck {
            return false;
        }
        let run = again(plan);
        stuck = run.is_endless();
        let fails = breaks(&run);
        if fails {
            tell(plan, runs);
            kept = Some(run);
        }
        fails
    };
    // What met nothing changed nothing.
    let masked = unmet(plan, failed);
    let met: Vec<FaultSpec> =
        plan.faults.iter().filter(|fault| !masked.contains(fault)).cloned().collect();
    if !search.attempt(Plan { faults: met, ..plan.clone() }, &mut fails)
        && !search.attempt(plan.clone(), &mut fails)
    {
        return None;
    }
    search.minimise(&mut |workload| system.smaller(workload), &mut fails);
    let Search { plan, without, runs, .. } = search;
    Some(Shrunk { plan, run: kept?, runs, without })
}

/// Whether both are one failure. Panics are when they say the same, whatever seeds, ids, counts and
/// addresses they say it of.
fn is_same(a: &Violation, b: &Violation) -> bool {
    fn words(it: &Violation) -> impl Iterator<Item = &str> {
        it.text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
    }
    a.invariant == b.invariant && (a.invariant != "world.panic" || words(a).eq(words(b)))
}

/// The smallest failing plan so far.
struct Search<W> {
    plan: Plan<W>,
    without: Vec<String>,
    runs: u32,
    runs_max: u32,
}

impl<W: Clone> Search<W> {
    /// Takes the plan if it still fails; no more runs, no more attempts.
    fn attempt(&mut self, plan: Plan<W>, fails: &mut impl FnMut(&Plan<W>, u32) -> bool) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        self.runs += 1;
        let fails = fails(&plan, self.runs);
        if fails {
            self.plan = plan;
        }
        fails
    }

    /// Faults, then the workload; and again while the workload became smaller, since fewer faults may
    /// do then.
    fn minimise(
        &mut self,
        smaller: &mut impl FnMut(&W) -> Vec<Smaller<W>>,
        fails: &mut impl FnMut(&Plan<W>, u32) -> bool,
    ) {
        loop {
            self.leave_out_faults(fails);
            if !self.leave_out_work(smaller, fails) {
                return;
            }
        }
    }

    /// Delta debugging: halves, then quarters, down to single faults.
    fn leave_out_faults(&mut self, fails: &mut impl FnMut(&Plan<W>, u32) -> bool) {
        let mut size = self.plan.faults.len().max(1);
        loop {
            let mut from = 0;
            while from < self.plan.faults.len() {
                let mut fewer = self.plan.clone();
                let to = (from + size).min(fewer.faults.len());
                fewer.faults.drain(from..to);
                if !self.attempt(fewer, fails) {
                    from += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// One part after the other, as long as there is one that is not needed.
    fn leave_out_work(
        &mut self,
        smaller: &mut impl FnMut(&W) -> Vec<Smaller<W>>,
        fails: &mut impl FnMut(&Plan<W>, u32) -> bool,
    ) -> bool {
        let (mut at, before) = (0, self.without.len());
        loop {
            let Some(part) = smaller(&self.plan.workload).into_iter().nth(at) else {
                return self.without.len() > before;
            };
            let plan = Plan { workload: part.workload, ..self.plan.clone() };
            match self.attempt(plan, fails) {
                true => self.without.push(part.without),
                false if self.runs >= self.runs_max => return false,
                false => at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::cluster::{Cluster, Settings};
    use crate::fault::{FaultKind, Site, When};
    use crate::outcome::{ENDS, Verdict};

    fn plan(faults: u64, orders: u32) -> Plan<Vec<u32>> {
        let fault = |nth| FaultSpec {
            kind: FaultKind::Slow,
            node: "n".to_owned(),
            when: When::Call { site: Site::Commit, nth },
            for_ms: 1,
        };
        Plan {
            seed: 1,
            workload: (0..orders).collect(),
            faults: (1..=faults).map(fault).collect(),
            choices: Vec::new(),
        }
    }

    fn smaller(orders: &[u32]) -> Vec<Smaller<Vec<u32>>> {
        let without = |at: usize| {
            let mut workload = orders.to_vec();
            let without = format!("order {}", workload.remove(at));
            Smaller { without, workload }
        };
        (0..orders.len()).map(without).collect()
    }

    fn nths(plan: &Plan<Vec<u32>>) -> Vec<u64> {
        let nth = |fault: &FaultSpec| match fault.when {
            When::Call { nth, .. } => nth,
            When::CallFor { .. } | When::AtMs(_) => 0,
        };
        plan.faults.iter().map(nth).collect()
    }

    fn search(runs_max: u32) -> Search<Vec<u32>> {
        Search { plan: plan(16, 20), without: Vec::new(), runs: 0, runs_max }
    }

    /// It takes faults 3 and 11 and orders 4 and 17; fault 12 too as long as order 9 is there.
    fn fails(plan: &Plan<Vec<u32>>) -> bool {
        let (faults, orders) = (nths(plan), &plan.workload);
        let both = faults.contains(&3) && faults.contains(&11);
        both && orders.contains(&4)
            && orders.contains(&17)
            && (faults.contains(&12) || !orders.contains(&9))
    }

    #[test]
    fn what_is_not_needed_is_left_out() {
        let mut search = search(500);
        search.minimise(&mut |orders| smaller(orders), &mut |plan, _| fails(plan));
        assert_eq!(nths(&search.plan), [3, 11], "fault 12 goes once order 9 is gone");
        assert_eq!(search.plan.workload, [4, 17]);
        assert_eq!(search.without.len(), 18);
        assert!(search.runs < 150, "{}", search.runs);
    }

    #[test]
    fn it_never_takes_more_runs_than_it_was_given() {
        for runs_max in [0, 1, 7, 30] {
            let (mut search, mut runs) = (search(runs_max), 0);
            let mut counted = |plan: &Plan<Vec<u32>>, _| {
                runs += 1;
                fails(plan)
            };
            search.minimise(&mut |orders| smaller(orders), &mut counted);
            assert_eq!(runs, runs_max);
            assert!(fails(&search.plan), "what is kept fails");
        }
    }

    #[test]
    fn a_failure_without_any_cause_in_the_plan_is_an_empty_plan() {
        let mut search = search(500);
        search.minimise(&mut |orders| smaller(orders), &mut |_, _| true);
        assert!(search.plan.faults.is_empty() && search.plan.workload.is_empty());
    }

    /// Its worlds panic over the last number; without any they do in another way. Counts its worlds.
    #[derive(Clone, Default)]
    struct Panics(Arc<AtomicU32>);

    impl System for Panics {
        type Workload = Vec<u32>;

        fn plan(&self, _seed: u64) -> Plan<Vec<u32>> {
            plan(2, 3)
        }

        fn settings(&self, _workload: &Vec<u32>) -> Settings {
            self.0.fetch_add(1, Ordering::Relaxed);
            Settings::default()
        }

        async fn run(&self, workload: Vec<u32>, _cluster: Cluster) -> Verdict {
            panic!("{} is one too many", workload.last().expect("there are numbers"))
        }

        fn smaller(&self, workload: &Vec<u32>) -> Vec<Smaller<Vec<u32>>> {
            smaller(workload)
        }
    }

    #[test]
    fn another_panic_is_another_failure() {
        let system = Panics::default();
        let plan = system.plan(1);
        let failed = run_plan(&system, &plan);
        let small = shrink(&system, &plan, &failed, 100, |_, _| ()).expect("it fails again");
        assert_eq!(small.plan.workload.len(), 1, "of whichever number it says so");
        assert!(small.plan.faults.is_empty());
        assert!(small.run.verdict.violations[0].text.ends_with("is one too many"));
    }

    #[test]
    fn a_world_that_does_not_end_is_not_run_again() {
        let system = Panics::default();
        let failed = Run { verdict: Violation::new(ENDS, "", "no end").into(), ..Run::default() };
        assert!(shrink(&system, &system.plan(1), &failed, 100, |_, _| ()).is_none());
        assert_eq!(system.0.load(Ordering::Relaxed), 0);
    }
}
