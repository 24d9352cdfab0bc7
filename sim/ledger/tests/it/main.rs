//! The ledger's worlds: it bites, it is deterministic, and its failures survive harmless edits.

mod demo;
mod determinism;
mod edits;
mod guide;
mod stability;
