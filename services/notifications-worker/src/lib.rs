//! The Notifications Worker: jobs become intents in its own table, and from there they are sent until
//! the answer is definite. At least once, with a Message-ID that a sink can dedupe by. Never sends
//! inside a transaction, never loses a mail silently.
#![warn(missing_docs)]

pub mod eml;
pub mod handler;
mod http;
pub mod mail;
pub mod memory;
pub mod meters;
pub mod rows;
pub mod rules;
pub mod sink;

use std::sync::Arc;
use std::time::Duration;

use chassis::{App, Due, Ports, Service, Settings};
use chrono::TimeDelta;
use contract::{Contract, JobsQueue, Profile, Streams};
use ports::{Outcome, QueueSpec};

use crate::handler::NotificationsWorker;
use crate::rules::Retry;
use crate::sink::{MailSink, Sends};

/// Jobs in hand that are not acked.
const PREFETCH: u16 = 64;

/// How the service is set up.
#[derive(Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of topics and queue.
    pub streams: Streams,
    /// Reads the jobs of either profile the same way.
    pub profile: Profile,
    /// Of each topic; it reads none.
    pub partitions: i32,
    /// Where mails go.
    pub sink: Arc<dyn MailSink>,
    /// After this a send counts as unknown.
    pub send_timeout: Duration,
    /// When a mail is sent again after an unknown answer.
    pub retry: Retry,
    /// Sends at the same time.
    pub parallel: usize,
}

impl Config {
    /// The defaults, with this sink.
    pub fn new(sink: Arc<dyn MailSink>) -> Self {
        Config {
            contract: Contract::default(),
            streams: Streams::default(),
            profile: Profile::default(),
            partitions: 6,
            sink,
            send_timeout: Duration::from_secs(10),
            retry: Retry { first: TimeDelta::seconds(1), max: TimeDelta::minutes(5) },
            parallel: 64,
        }
    }
}

/// Starts the service: declares its queue, takes jobs from it, sends what is due.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { contract, streams, sink, send_timeout, retry, parallel, .. } = config;
    let JobsQueue { name, delivery_limit, dead_letters } = streams.jobs();
    let dead_letters = Some(dead_letters);
    let jobs = QueueSpec { name: name.clone(), delivery_limit, dead_letters };
    ports.queue.declare(&jobs).await?;
    let (runtime, store) = (ports.runtime.clone(), ports.store.clone());
    let app = App::start(ports, settings, NotificationsWorker { contract, retry }).await?;
    app.jobs(name, PREFETCH);
    // A claim outlives the send, and a slow commit of its answer.
    let claim = send_timeout * 2 + Duration::from_secs(1);
    let due = Due { table: &rows::MAILS, column: rows::DUE, parallel, claim };
    app.work(due, Sends { sink, runtime, limit: send_timeout });
    Ok(app.finish(http::router(store)))
}
