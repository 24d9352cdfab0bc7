//! Kafka's log and consumer groups as a pure state machine ([`Log`]), a member's own side of the
//! protocol ([`Reader`]), and the ports over both in one process ([`LogServer`], [`LogClient`]).
//!
//! Never models replicas, transactions or the wire: the simulator adds lost replies, delays and cuts
//! around the port calls.

mod assignor;
mod client;
mod group;
mod partitioner;
mod reader;
mod state;
mod topics;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod cooperative_tests;
#[cfg(test)]
mod group_tests;

pub use assignor::Assignor;
pub use client::{LogClient, LogConsumer, LogServer};
pub use group::{CommitError, MemberId, Step};
pub use partitioner::{murmur2, partition_of};
pub use reader::Reader;
pub use state::{Log, Settings};
pub use topics::{AppendError, DeclareError};
