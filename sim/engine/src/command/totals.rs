//! What all worlds of a run came to, as a table and as JSON. Never the story of one world.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::fault::{FaultKind, Site};
use crate::outcome::{FaultCount, Run, Settled, Violation};
use crate::system::Coverage;

/// A world that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Failure {
    pub(super) seed: u64,
    /// The first invariant that broke.
    pub(super) invariant: String,
    /// The command that shows it again.
    pub(super) replay: String,
}

/// Sums over worlds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) worlds: u64,
    faults: BTreeMap<String, FaultCount>,
    marks: BTreeMap<String, u64>,
    expected: BTreeMap<String, u64>,
    /// The world that used most of its liveness bound.
    worst: Option<(u64, Settled)>,
    pub(super) failed: Vec<Failure>,
    /// What met nothing of a stored plan.
    pub(super) stale: Vec<String>,
}

/// How a run was run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) took: Duration,
    /// Whether each world was run twice, and both were equal.
    pub(super) twice: bool,
}

#[derive(Serialize)]
struct Step {
    injected: u64,
    effective: u64,
    masked: u64,
}

#[derive(Serialize)]
struct Worst {
    seed: u64,
    took_ms: u64,
    bound_ms: u64,
    share: f64,
}

/// The summary that `--json` writes.
#[derive(Serialize)]
struct Summary<'a> {
    clean: bool,
    worlds: u64,
    twice: bool,
    took_ms: u64,
    worlds_per_s: f64,
    effective_per_s: f64,
    worst_bound_used: Option<Worst>,
    faults: BTreeMap<&'a str, Step>,
    marks: &'a BTreeMap<String, u64>,
    expected: &'a BTreeMap<String, u64>,
    failures: &'a [Failure],
    stale: &'a [String],
    unreached: &'a [String],
}

impl Totals {
    /// Adds a world whose expected violations were taken out.
    pub(super) fn add(&mut self, run: &Run, expected: &[Violation]) {
        self.worlds += 1;
        for (step, count) in &run.faults {
            let sum = self.faults.entry(step.clone()).or_default();
            sum.injected += count.injected;
            sum.effective += count.effective;
        }
        let summary = &run.verdict.summary;
        for (mark, count) in &summary.marks {
            *self.marks.entry(mark.clone()).or_default() += count;
        }
        for violation in expected {
            *self.expected.entry(violation.invariant.clone()).or_default() += 1;
        }
        let share = |settled: &Settled| settled.share();
        if let Some(settled) = summary.settled
            && self.worst.is_none_or(|(_, worst)| share(&worst) < share(&settled))
        {
            self.worst = Some((run.seed, settled));
        }
    }

    /// What these worlds should have reached and did not; nothing where they are too few to tell.
    pub(super) fn unreached(&self, coverage: &Coverage) -> Vec<String> {
        if self.worlds < coverage.worlds {
            return Vec::new();
        }
        let met = |cell: &String| self.faults.get(cell).is_some_and(|count| count.effective > 0);
        let cells = coverage.cells.iter().map(|(kind, site)| kind.at(*site));
        let marks =
            coverage.marks.iter().filter(|mark| self.marks.get(**mark).is_none_or(|n| *n == 0));
        cells.filter(|cell| !met(cell)).chain(marks.map(|mark| (*mark).to_owned())).collect()
    }

    /// Whether all is as it should be, where this was not reached.
    pub(super) fn is_clean(&self, unreached: &[String]) -> bool {
        self.failed.is_empty() && self.stale.is_empty() && unreached.is_empty()
    }

    /// Effective faults by kind and step: a row a kind, a column a step.
    fn matrix(&self) -> String {
        let steps = Site::ALL.map(Some).into_iter().chain([None]);
        let short = |site: Option<Site>| match site {
            Some(Site::CommitOffsets) => "offsets",
            Some(Site::Subscribe) => "subscr.",
            Some(site) => site.name(),
            None => "any",
        };
        let steps: Vec<Option<Site>> = steps
            .filter(|site| FaultKind::ALL.iter().any(|k| self.faults.contains_key(&k.at(*site))))
            .collect();
        let mut text = format!("{:<15}", "effective at");
        steps.iter().for_each(|site| text.push_str(&format!("{:>8}", short(*site))));
        text.push_str("   effective of injected\n");
        for kind in FaultKind::ALL {
            let counts: Vec<_> =
                steps.iter().map(|site| self.faults.get(&kind.at(*site))).collect();
            let (injected, effective) = counts
                .iter()
                .flatten()
                .fold((0, 0), |(i, e), count| (i + count.injected, e + count.effective));
            if injected == 0 {
                continue;
            }
            let _ = write!(text, "{:<15}", kind.name());
            for count in counts {
                let cell = count.map_or(String::new(), |count| count.effective.to_string());
                let _ = write!(text, "{cell:>8}");
            }
            let _ = writeln!(text, "{effective:>12} of {injected}");
        }
        text
    }

    fn effective(&self) -> u64 {
        self.faults.values().map(|count| count.effective).sum()
    }

    /// One line on how it goes. `of`: how many worlds there are to run, where that is known.
    pub(super) fn line(&self, of: Option<u64>, took: Duration) -> String {
        let mut text = self.worlds.to_string();
        if let Some(of) = of {
            let _ = write!(text, " of {of}");
        }
        let (worlds, effective) = (self.worlds, self.effective());
        let (worlds, effective) = (per_s(worlds, took), per_s(effective, took));
        let _ = write!(text, " worlds · {worlds:.0} worlds/s · {effective:.0} effective faults/s");
        if let Some((seed, worst)) = self.worst {
            let share = 100.0 * worst.share();
            let _ = write!(text, " · worst bound used {share:.0} % (seed {seed})");
        }
        if !self.failed.is_empty() {
            let _ = write!(text, " · {} failed", self.failed.len());
        }
        text
    }

    /// The table of faults, the marks, and what failed with the commands that show it again.
    pub(super) fn table(&self, pace: Pace) -> String {
        let mut text = self.matrix();
        let marks: Vec<String> =
            self.marks.iter().map(|(mark, count)| format!("{mark} {count}")).collect();
        let _ = writeln!(text, "reached: {}", marks.join(" · "));
        if let Some((seed, Settled { took, bound })) = self.worst {
            let (took, bound) = (took.as_secs_f64(), bound.as_secs());
            let _ = writeln!(text, "settled within {took:.1} s of {bound} s (seed {seed})");
        }
        for (invariant, count) in &self.expected {
            let _ = writeln!(text, "expected: {invariant} broken {count} times");
        }
        let runs = if pace.twice { "twice each, equal" } else { "once" };
        let (worlds, effective) = (self.worlds, self.effective());
        let _ = writeln!(
            text,
            "{worlds} worlds in {:.1} s ({:.0} worlds/s, {:.0} effective faults/s; {runs}), {} failed",
            pace.took.as_secs_f64(),
            per_s(worlds, pace.took),
            per_s(effective, pace.took),
            self.failed.len(),
        );
        for Failure { invariant, replay, .. } in &self.failed {
            let _ = writeln!(text, "  {invariant}  {replay}");
        }
        text
    }

    /// The same for programs, and what was not reached.
    pub(super) fn json(&self, pace: Pace, unreached: &[String]) -> String {
        let step = |count: &FaultCount| Step {
            injected: count.injected,
            effective: count.effective,
            masked: count.masked(),
        };
        let worst = |(seed, settled): (u64, Settled)| Worst {
            seed,
            took_ms: settled.took.as_millis() as u64,
            bound_ms: settled.bound.as_millis() as u64,
            share: settled.share(),
        };
        let summary = Summary {
            clean: self.is_clean(unreached),
            worlds: self.worlds,
            twice: pace.twice,
            took_ms: pace.took.as_millis() as u64,
            worlds_per_s: per_s(self.worlds, pace.took),
            effective_per_s: per_s(self.effective(), pace.took),
            worst_bound_used: self.worst.map(worst),
            faults: self.faults.iter().map(|(name, count)| (name.as_str(), step(count))).collect(),
            marks: &self.marks,
            expected: &self.expected,
            failures: &self.failed,
            stale: &self.stale,
            unreached,
        };
        serde_json::to_string_pretty(&summary).expect("a summary has a JSON form")
    }
}

fn per_s(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, took_s: u64) -> Run {
        let mut run = Run { seed, ..Run::default() };
        let (took, bound) = (Duration::from_secs(took_s), Duration::from_secs(200));
        run.verdict.summary.settled = Some(Settled { took, bound });
        run.verdict.summary.mark("confirmed", 3);
        run.faults.insert("slow @ commit".into(), FaultCount { injected: 3, effective: 2 });
        run
    }

    #[test]
    fn worlds_add_up_and_the_worst_is_told() {
        let mut totals = Totals::default();
        for (seed, took_s) in [(7, 20), (8, 50), (9, 10)] {
            totals.add(&run(seed, took_s), &[]);
        }
        totals.add(&Run::default(), &[Violation::new("money.known", "", "as written")]);
        let (invariant, replay) = ("money.lost".to_owned(), "cargo sim replay 9".to_owned());
        totals.failed.push(Failure { seed: 9, invariant, replay });
        let pace = Pace { took: Duration::from_secs(2), twice: true };
        let line = totals.line(Some(10), pace.took);
        let wanted = "4 of 10 worlds · 2 worlds/s · 3 effective faults/s \
                      · worst bound used 25 % (seed 8) · 1 failed";
        assert_eq!(line, wanted);
        let table = totals.table(pace);
        for part in [
            "effective at     commit   effective of injected\n\
             slow                  6           6 of 9\n",
            "reached: confirmed 9",
            "settled within 50.0 s of 200 s (seed 8)",
            "expected: money.known broken 1 times",
            "  money.lost  cargo sim replay 9",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
        let json: serde_json::Value = serde_json::from_str(&totals.json(pace, &[])).unwrap();
        assert_eq!(json["clean"], false);
        assert_eq!(json["worst_bound_used"]["took_ms"], 50_000);
        assert_eq!(json["faults"]["slow @ commit"]["masked"], 3);
        assert_eq!(json["failures"][0]["replay"], "cargo sim replay 9");
        assert_eq!(json["expected"]["money.known"], 1);
    }

    #[test]
    fn what_enough_worlds_do_not_reach_is_told() {
        let mut totals = Totals::default();
        totals.add(&run(7, 20), &[]);
        let slow = FaultKind::Slow;
        let cells = vec![(slow, Some(Site::Commit)), (slow, Some(Site::Begin))];
        let coverage = |worlds| Coverage {
            worlds,
            cells: cells.clone(),
            marks: vec!["confirmed", "cancelled: deadline"],
        };
        assert_eq!(totals.unreached(&coverage(1)), ["slow @ begin", "cancelled: deadline"]);
        assert!(totals.unreached(&coverage(2)).is_empty(), "one world is too few to tell");
        let pace = Pace { took: Duration::from_secs(2), twice: true };
        let json = |unreached: &[String]| -> serde_json::Value {
            serde_json::from_str(&totals.json(pace, unreached)).unwrap()
        };
        assert_eq!(json(&[])["clean"], true);
        let missed = json(&totals.unreached(&coverage(1)));
        assert_eq!(
            (&missed["clean"], &missed["unreached"][0]),
            (&false.into(), &"slow @ begin".into())
        );
    }
}
