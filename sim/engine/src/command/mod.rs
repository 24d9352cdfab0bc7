//! The command line of any [`System`](crate::System): run, replay, list, plan, report. Never a world's
//! own doing: it stands outside of worlds, in real time.

mod args;
mod find;
mod keep;
mod list;
mod output;
mod progress;
mod replay;
mod sweep;
#[cfg(test)]
mod tests;
mod totals;

pub use args::{Command, Shard};
