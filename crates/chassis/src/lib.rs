//! The chassis of a service: records, commands, timers and results of outside calls come in as
//! inputs; a batch of them becomes one transaction (inbox, locks, pure rule, rows, outbox); then
//! offsets are committed, replies given and the relay woken. It knows four ports and the envelope,
//! and no event of any shop. Nobody publishes but the relay; nobody awaits inside a transaction
//! but the batch.
#![warn(missing_docs)]

mod app;
mod batch;
mod commands;
mod consume;
mod fresh;
mod handler;
pub mod http;
mod jobs;
pub mod page;
mod relay;
mod settings;
mod stop;
mod tables;
mod touched;
mod transaction;
mod work;

pub use app::{App, Ports, Service};
pub use commands::{Busy, Commands};
pub use fresh::fresh_id;
pub use handler::{Context, Decided, Emit, Handler, Input, Read, Reason, Reply};
pub use settings::Settings;
pub use stop::Stop;
pub use tables::{
    DEAD_LETTERS, DeadLetter, INBOX, InboxRow, LEASES, Lease, POSITIONS, Position, StoredReply,
};
pub use touched::{Document, Touched, document};
pub use work::{Due, Outside, Timer};
