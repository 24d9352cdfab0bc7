//! The chassis of a service: records, commands, timers and results of outside calls come in as
//! inputs; a batch of them becomes one transaction (inbox, locks, pure rule, rows, outbox); then
//! offsets are committed, replies given and the relay woken. It knows four ports and the envelope,
//! and no event of any shop. Nobody publishes but the relay; nobody awaits inside a transaction
//! but the batch.
#![warn(missing_docs)]

mod app;
mod batch;
mod claim;
mod commands;
mod consume;
mod deciding;
mod drain;
mod fresh;
mod handler;
mod health;
pub mod http;
mod inputs;
mod jobs;
mod letters;
mod letters_http;
mod look;
pub mod meters;
mod metrics;
pub mod page;
mod relay;
mod requests;
mod retention;
mod settings;
mod shards;
mod slot;
mod stop;
mod subject;
mod tables;
mod touched;
mod trace;
mod transaction;
mod trial;
mod vitals;
mod watch;
mod work;

pub use app::{App, Ports, Scrape, Service};
pub use commands::{Busy, Commands};
pub use fresh::fresh_id;
pub use handler::{Context, Decided, Emit, Handler, Input, Read, Reason, Reply, Sequence};
pub use letters::{
    DEAD_LETTERS, DeadLetter, LetterStanding, LetterState, LetterText, Marker, PARKED, Tried,
    Waiting,
};
pub use metrics::{Exposition, Kind, Meter, Metrics, Sample, TEXT_FORMAT};
pub use settings::Settings;
pub use shards::{SHARDS_MAX, known_shards};
pub use stop::Stop;
pub use tables::{
    ALL as TABLES, INBOX, InboxOutcome, InboxRow, JOB_MARKS, LEASES, Lease, POSITIONS, Position,
    StoredReply, lease_key, position_key,
};
pub use touched::{Document, Touched, document};
pub use trace::{Malformed, TRACEPARENT, TRACESTATE, Trace};
pub use trial::Trial;
pub use watch::{Heard, Watch, Woken};
pub use work::{Due, Outside, Timer};
