//! The four ports that services are written against: [`EventLog`] (Kafka's contract), [`JobQueue`]
//! (RabbitMQ's), [`Store`] (keyed rows in transactions) and [`Runtime`] (clock, tasks, choices).
//!
//! Ports carry keys, headers and bytes: nothing here knows an event, and nothing here does IO.
#![warn(missing_docs)]

pub mod columns;
mod fault;
pub mod headers;
mod log;
mod queue;
mod record;
mod runtime;
mod store;

pub use fault::{Cause, Fault, Outcome};
pub use log::{Consumer, EventLog, Fetched, Offsets, Partition, Polled, TopicSpec};
pub use queue::{Delivered, Deliveries, Delivery, JobQueue, QueueSpec};
pub use record::{Header, Key, Record};
pub use runtime::{Runtime, Task, timeout};
pub use store::{
    Channel, Op, OutboxRow, Outgoing, Range, Reply, Row, Rows, Shard, Store, Table, Tx,
};
