//! Statements of the broker contract as cases, run from one source against every backend.
//! Never names a backend.
#![warn(missing_docs)]

mod case;
pub mod document;
pub mod log;
pub mod programs;
pub mod queue;
mod report;
pub mod store;

pub use case::{Case, NotApplicable, Observed, Release, Unseen, Verdict, Waiver, run, run_release};
pub use report::{Column, Section};
