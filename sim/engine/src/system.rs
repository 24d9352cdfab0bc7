//! What a system under test says about itself. One method runs a world; the rest has defaults and makes
//! the command line, shrinking and the page say more. Never anything about how worlds are run.

use std::path::PathBuf;

use ports::Record;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::choices::Chosen;
use crate::cluster::{Cluster, Settings};
use crate::fault::{FaultKind, FaultSpec, Site};
use crate::outcome::Verdict;

/// A world as data: it can be stored, shrunk and written by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan<W> {
    /// The seed of every choice that the plan does not make.
    pub seed: u64,
    /// What the system under test is asked to do.
    pub workload: W,
    /// What goes wrong.
    pub faults: Vec<FaultSpec>,
    /// Single choices that are made here and not by the seed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Chosen>,
}

/// A world that somebody wrote and named.
#[derive(Debug, Clone)]
pub struct Scene<W> {
    /// Its stable name, `<area>.<claim>`.
    pub name: String,
    /// What it shows, in one line.
    pub claim: String,
    /// The world.
    pub plan: Plan<W>,
    /// The file that pins its outcome, from the root of the repository.
    pub snapshot: PathBuf,
}

/// A workload with something left out.
#[derive(Debug, Clone)]
pub struct Smaller<W> {
    /// What was left out, as `order A7`.
    pub without: String,
    /// What is left.
    pub workload: W,
}

/// What so many worlds reach: where they do not, the harness does less than it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// From so many worlds in one run on, it is looked at.
    pub worlds: u64,
    /// Faults that meet this step; `None`: an instant without a call.
    pub cells: Vec<(FaultKind, Option<Site>)>,
    /// Marks that are set.
    pub marks: Vec<&'static str>,
}

/// A system under test.
pub trait System: Clone + Send + Sync + 'static {
    /// What it can be asked to do.
    type Workload: Clone + Send + Sync + Serialize + DeserializeOwned + 'static;

    /// The world of this seed.
    fn plan(&self, seed: u64) -> Plan<Self::Workload>;

    /// How its servers behave under this workload.
    fn settings(&self, workload: &Self::Workload) -> Settings;

    /// Builds the nodes, does the workload, heals, waits until all is quiet, and judges.
    fn run(
        &self,
        workload: Self::Workload,
        cluster: Cluster,
    ) -> impl Future<Output = Verdict> + Send;

    /// How it is called on the command line; messages say it.
    fn program(&self) -> &'static str {
        "cargo sim"
    }

    /// The sorts of worlds that can be drawn; the first is the one that is meant without a name.
    fn profiles(&self) -> Vec<&'static str> {
        vec!["default"]
    }

    /// The world of this seed in one of the [profiles](System::profiles).
    fn plan_in(&self, _profile: &str, seed: u64) -> Plan<Self::Workload> {
        self.plan(seed)
    }

    /// Invariants that this workload is known to break: they are counted, and fail nothing.
    fn expected(&self, _workload: &Self::Workload) -> Vec<&'static str> {
        Vec::new()
    }

    /// Worlds written by hand, which `replay` and `report` know by name.
    fn scenarios(&self) -> Vec<Scene<Self::Workload>> {
        Vec::new()
    }

    /// The names of all invariants that a verdict is about.
    fn invariants(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The coverage marks that worlds can reach, and what each says.
    fn marks(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// What many worlds have to reach. None: nothing is promised.
    fn coverage(&self) -> Option<Coverage> {
        None
    }

    /// The folder of stored plans, from the root of the repository.
    fn plans(&self) -> PathBuf {
        PathBuf::from("fixtures/plans")
    }

    /// The folder where plan, trace and page of a failure are left.
    fn failures(&self) -> PathBuf {
        PathBuf::from("target/sim-failures")
    }

    /// Ways to make a workload smaller by one part, those first that take away most. None: it cannot
    /// be made smaller, and only faults are left out of a failing plan.
    fn smaller(&self, _workload: &Self::Workload) -> Vec<Smaller<Self::Workload>> {
        Vec::new()
    }

    /// A few words that say what a record is; the page shows its key otherwise.
    fn label(&self, _record: &Record) -> Option<String> {
        None
    }
}
