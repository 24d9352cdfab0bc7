//! Deterministic worlds for anybody: nodes that run code written against the ports, the broker and
//! store models behind faults, keyed choices, a plan that is data, a hashed trace, and a runner.
//! It knows no service, no envelope and no event.
#![warn(missing_docs)]

#[cfg(not(madsim))]
compile_error!(
    "your RUSTFLAGS replaced .cargo/config.toml, which sets --cfg madsim; run `env -u RUSTFLAGS cargo test`"
);

mod batch;
mod choices;
mod cluster;
mod command;
mod fault;
mod log;
mod outcome;
mod queue;
mod report;
mod runner;
mod runtime;
mod shrink;
mod store;
mod story;
mod system;
mod touch;
#[cfg(test)]
mod toy;
mod trace;

pub use choices::{Choices, Chosen};
pub use cluster::{Cluster, Leave, NodePorts, Settings, Start};
pub use command::{Command, Shard};
pub use fault::{FaultKind, FaultSpec, Server, Site, When};
pub use outcome::{FaultCount, Run, Settled, Summary, Verdict, Violation};
pub use runner::{PlanError, check, run_detailed, run_plan, run_twice, stale, unmet};
pub use runtime::NodeRuntime;
pub use shrink::{Shrunk, shrink};
pub use story::failure;
pub use system::{Coverage, Plan, Scene, Smaller, System};
pub use touch::{Detail, Touch};
pub use trace::{Trace, TraceEvent};
