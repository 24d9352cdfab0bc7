//! Runs programs side by side, and makes a disagreement small. Never repeats one until it agrees.

use std::fmt;
use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::{Breach, Judgement, Met};

/// The programs of one port on one backend.
#[async_trait]
pub trait Programs: Sync {
    /// An operation of a program, with all that it needs: any sublist of a program is a program.
    type Step: Clone + Debug + Send + Sync;

    /// The program of this seed, the same on every backend.
    fn program(&self, seed: u64) -> Vec<Self::Step>;

    /// Runs a program. `lane` names what programs share that do not run at the same time.
    async fn trial(&self, lane: usize, steps: &[Self::Step]) -> Trial;
}

/// What became of a run.
#[derive(Debug)]
pub struct Trial {
    /// What the monitor says.
    pub judgement: Judgement,
    /// What was asked and answered.
    pub met: Met,
    /// The history, a line each.
    pub history: Vec<String>,
}

impl Trial {
    /// Of a history, by what each of its events met, if it is an answer.
    pub(super) fn of<E: Serialize>(
        history: &[E],
        met: impl Fn(&E) -> Option<String>,
        judge: impl Fn(&[E]) -> Judgement,
    ) -> Self {
        let mut count = Met::new();
        history.iter().filter_map(met).for_each(|it| *count.entry(it).or_default() += 1);
        let lines = history.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        Trial { judgement: judge(history), met: count, history: lines }
    }
}

/// A disagreement, made small.
#[derive(Debug)]
pub struct Subject {
    /// What made the program.
    pub seed: u64,
    /// What was broken in the first run.
    pub breach: Breach,
    /// The operations that are left, and the history of their run.
    pub shrunk: Vec<String>,
}

/// What a campaign came to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many programs ran.
    pub programs: u64,
    /// Of how many the monitor could not tell.
    pub inconclusive: u64,
    /// Those that disagree.
    pub differing: Vec<Subject>,
    /// What was asked and answered, over all.
    pub met: Met,
}

/// Disagreements that are worth a look; a campaign with so many ends.
const ENOUGH: usize = 3;

/// Runs the programs of these seeds, so many at a time; makes disagreements small, or only tells them.
pub async fn campaign<P: Programs>(
    programs: &P,
    seeds: Range<u64>,
    lanes: usize,
    shrink: bool,
) -> Report {
    let of_lane = |lane: usize| {
        let seeds = seeds.clone();
        async move {
            let mut report = Report::default();
            for seed in seeds.skip(lane).step_by(lanes) {
                if report.differing.len() < ENOUGH {
                    one(programs, lane, seed, shrink, &mut report).await;
                }
            }
            report
        }
    };
    let reports = stream::iter(0..lanes).map(of_lane).buffer_unordered(lanes);
    reports.fold(Report::default(), |all, report| async { all.with(report) }).await
}

async fn one<P: Programs>(programs: &P, lane: usize, seed: u64, shrink: bool, report: &mut Report) {
    let steps = programs.program(seed);
    let trial = programs.trial(lane, &steps).await;
    report.programs += 1;
    for (word, count) in &trial.met {
        *report.met.entry(word.clone()).or_default() += count;
    }
    match &trial.judgement {
        Judgement::Agrees => {}
        Judgement::Inconclusive(_) => report.inconclusive += 1,
        Judgement::Differs(breach) => {
            let breach = breach.clone();
            let shrunk = match shrink {
                true => shrunk(programs, lane, steps, trial).await,
                false => trial.history,
            };
            report.differing.push(Subject { seed, breach, shrunk });
        }
    }
}

/// Leaves out operations, later ones first, as long as what is left disagrees.
async fn shrunk<P: Programs>(
    programs: &P,
    lane: usize,
    mut steps: Vec<P::Step>,
    mut last: Trial,
) -> Vec<String> {
    for at in (0..steps.len()).rev() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        let trial = programs.trial(lane, &fewer).await;
        if matches!(trial.judgement, Judgement::Differs(_)) {
            (steps, last) = (fewer, trial);
        }
    }
    let told = match &last.judgement {
        Judgement::Differs(breach) => format!("the monitor: {breach}"),
        other => format!("the monitor: {other:?}"),
    };
    let steps = steps.iter().map(|step| format!("step  {step:?}"));
    steps
        .chain(last.history.into_iter().map(|line| format!("seen  {line}")))
        .chain([told])
        .collect()
}

impl Report {
    /// Both together.
    pub fn with(mut self, other: Report) -> Report {
        self.programs += other.programs;
        self.inconclusive += other.inconclusive;
        self.differing.extend(other.differing);
        for (word, count) in other.met {
            *self.met.entry(word).or_default() += count;
        }
        self
    }

    /// Whether a program disagrees, or more than one in a hundred is inconclusive.
    pub fn failed(&self) -> bool {
        !self.differing.is_empty() || self.inconclusive * 100 > self.programs
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing = self.differing.len();
        writeln!(
            f,
            "{} programs, {differing} disagree, {} inconclusive",
            self.programs, self.inconclusive
        )?;
        let met: Vec<_> = self.met.iter().map(|(word, count)| format!("{word} {count}")).collect();
        writeln!(f, "  met: {}", met.join(", "))?;
        for Subject { seed, breach, shrunk } in &self.differing {
            writeln!(f, "  DISAGREES seed {seed}: {breach}")?;
            for line in shrunk {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
