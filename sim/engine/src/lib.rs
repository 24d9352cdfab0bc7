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
mod fault;
mod log;
mod outcome;
mod queue;
mod runner;
mod runtime;
mod store;
mod trace;

pub use choices::Choices;
pub use cluster::{Cluster, Leave, NodePorts, Settings, Start};
pub use fault::{FaultKind, FaultSpec, Site, When};
pub use outcome::{FaultCount, Run, Summary, Verdict, Violation};
pub use runner::{Plan, PlanError, System, check, run_plan, run_twice};
pub use runtime::NodeRuntime;
pub use trace::{Trace, TraceEvent};
