//! Statements of the broker contract as cases, run from one source against every backend.

pub mod store;
