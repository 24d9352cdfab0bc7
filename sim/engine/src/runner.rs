//! Runs plans: each on a fresh thread with a runtime of its own, under a watchdog of real time, twice
//! where its determinism is to be proved. Never shares state between worlds.

use std::any::Any;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::choices::Choices;
use crate::cluster::{Cluster, Settings};
use crate::fault::FaultSpec;
use crate::outcome::{ENDS, Run, Violation};
use crate::system::{Plan, System};
use crate::touch::Detail;
use crate::trace::TraceEvent;

/// Longest a world may take, in seconds of real time: longer is a loop without progress.
const SECONDS_MAX: usize = 60;

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A fault that the broker contract does not allow there.
    #[error("{0}: this fault is not legal there")]
    Illegal(String),
}

/// Checks that every fault of the plan is legal where it stands.
pub fn check<W>(plan: &Plan<W>) -> Result<(), PlanError> {
    for fault in &plan.faults {
        let legal = match fault.when.site() {
            Some(site) => fault.kind.legal(site),
            None => fault.kind.any_instant(),
        };
        if !legal {
            return Err(PlanError::Illegal(fault.to_string()));
        }
    }
    Ok(())
}

/// Runs a plan once. A panic inside, and a world that never ends, are violations too.
pub fn run_plan<S: System>(system: &S, plan: &Plan<S::Workload>) -> Run {
    run(system, plan, false).0
}

/// Runs a plan once and keeps what each event touched; its hash is that of any other run.
pub fn run_detailed<S: System>(system: &S, plan: &Plan<S::Workload>) -> (Run, Detail) {
    run(system, plan, true)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a world is a thread of its own, outside of which real time passes"
)]
fn run<S: System>(system: &S, plan: &Plan<S::Workload>, detailed: bool) -> (Run, Detail) {
    let seed = plan.seed;
    if let Err(error) = check(plan) {
        return failed(seed, Violation::new("plan.legal", "", error.to_string()));
    }
    let (done, result) = channel();
    let (system, plan) = (system.clone(), plan.clone());
    let world = std::thread::spawn(move || {
        let run = world(&system, plan, detailed);
        // The watchdog may have given up on this world.
        let _ = done.send(run);
    });
    // One by one: for as long as the whole process is stopped, one of them passes and not all.
    let mut seconds = (0..SECONDS_MAX).map(|_| result.recv_timeout(Duration::from_secs(1)));
    let ended = seconds.find(|waited| !matches!(waited, Err(RecvTimeoutError::Timeout)));
    match ended.unwrap_or(Err(RecvTimeoutError::Timeout)) {
        Ok(run) => {
            let _ = world.join();
            run
        }
        Err(RecvTimeoutError::Disconnected) => match world.join() {
            Err(panic) => failed(seed, Violation::new("world.panic", "", words(&*panic))),
            Ok(()) => failed(seed, Violation::new("world.panic", "", "ended without a verdict")),
        },
        Err(RecvTimeoutError::Timeout) => {
            let text = format!("no end after {SECONDS_MAX} s of real time");
            failed(seed, Violation::new(ENDS, "", text))
        }
    }
}

/// Runs a plan twice, and finds the first event in which the runs differ. A world that does not end is
/// not run again: its thread is still at it.
pub fn run_twice<S: System>(system: &S, plan: &Plan<S::Workload>) -> Run {
    let first = run_plan(system, plan);
    match first.is_endless() {
        true => first,
        false => compare(first, run_plan(system, plan)),
    }
}

fn compare(mut first: Run, second: Run) -> Run {
    if second.is_endless() {
        return second;
    }
    if first.hash != second.hash {
        let text = match divergence(&first.trace, &second.trace) {
            Some((a, b)) => format!("the same seed ran differently; first:\n  {a}\n  {b}"),
            None => "the same seed ran differently".to_owned(),
        };
        first.verdict = Violation::new("world.deterministic", "", text).into();
    }
    first
}

/// What no longer fits of a stored plan, in words: faults that met nothing, choices that nobody asked
/// for. If there is any, it does not show what it was stored for.
pub fn stale<W>(plan: &Plan<W>, run: &Run) -> Vec<String> {
    let faults = unmet(plan, run);
    let faults = faults.iter().map(ToString::to_string);
    faults.chain(run.unasked.iter().map(ToString::to_string)).collect()
}

/// The faults of a plan that did not meet their step; none of a world that did not come to its end.
pub fn unmet<W>(plan: &Plan<W>, run: &Run) -> Vec<FaultSpec> {
    if !run.ended() {
        return Vec::new();
    }
    let mut met = run.met.clone();
    let mut unmet = plan.faults.clone();
    unmet.retain(|fault| match met.iter().position(|other| other == fault) {
        Some(at) => {
            met.swap_remove(at);
            false
        }
        None => true,
    });
    unmet
}

fn divergence(a: &[TraceEvent], b: &[TraceEvent]) -> Option<(String, String)> {
    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let show = |e: Option<&TraceEvent>| e.map_or("(ended)".to_owned(), ToString::to_string);
    (a.len() != b.len() || at < a.len()).then(|| (show(a.get(at)), show(b.get(at))))
}

/// One world, on this thread.
fn world<S: System>(system: &S, plan: Plan<S::Workload>, detailed: bool) -> (Run, Detail) {
    let runtime =
        madsim::runtime::Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    let Plan { seed, workload, faults, choices } = plan;
    let choices = Choices::with(seed, &choices);
    let (verdict, cluster) = runtime.block_on(async {
        let settings = Settings { detailed, ..system.settings(&workload) };
        let cluster = Cluster::new(choices, settings, &faults);
        let verdict = system.run(workload, cluster.clone()).await;
        cluster.stop().await;
        (verdict, cluster)
    });
    // Tasks end with the runtime, before the servers they hold on to.
    drop(runtime);
    let (mut trace, faults, met) = (cluster.dismantle(), cluster.faults(), cluster.met());
    let mut detail = std::mem::take(trace.detail());
    if detailed {
        detail.log = cluster.log().with(|log| {
            let topics = log.topics();
            topics.iter().flat_map(|topic| log.records(&topic.name)).cloned().collect()
        });
    }
    let (hash, unasked) = (trace.hash(), cluster.choices().unasked());
    (Run { seed, hash, verdict, trace: trace.into_events(), faults, met, unasked }, detail)
}

fn failed(seed: u64, violation: Violation) -> (Run, Detail) {
    (Run { seed, verdict: violation.into(), ..Run::default() }, Detail::default())
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_does_not_end_is_not_one_that_ran_differently() {
        let whole = || Run { hash: 7, ..Run::default() };
        let endless = || failed(1, Violation::new(ENDS, "", "no end")).0;
        assert!(compare(whole(), endless()).is_endless());
        assert!(compare(whole(), whole()).verdict.is_clean());
        assert!(compare(whole(), Run::default()).verdict.breaks("world.deterministic"));
    }
}
