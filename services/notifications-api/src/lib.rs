//! The Notifications API: turns the ends of orders into jobs for the worker, once each, and again
//! where somebody asks for it. Never sends a mail, never decides how an order ends.
#![warn(missing_docs)]

pub mod handler;
mod http;
pub mod rows;
pub mod rules;

use chassis::{App, Ports, Service, Settings};
use contract::{Contract, JobsQueue, Profile, Stream, Streams};
use ports::{Channel, Outcome, QueueSpec, TopicSpec};

use crate::handler::NotificationsApi;

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of topics and queue.
    pub streams: Streams,
    /// Which promises it keeps.
    pub profile: Profile,
    /// Of each topic; fixed when it is created.
    pub partitions: i32,
}

impl Default for Config {
    fn default() -> Self {
        let (contract, streams, profile) = Default::default();
        Config { contract, streams, profile, partitions: 6 }
    }
}

/// Starts the service: declares its topic and queue, reads the one and relays to the other.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { contract, streams, profile, partitions } = config;
    let topic = streams.name(Stream::OrdersEvents);
    ports.log.declare(&[TopicSpec { name: topic.clone(), partitions }]).await?;
    let JobsQueue { name, delivery_limit, dead_letters } = streams.jobs();
    let jobs = QueueSpec { name, delivery_limit, dead_letters: Some(dead_letters) };
    ports.queue.declare(&jobs).await?;
    let store = ports.store.clone();
    let app = App::start(ports, settings, NotificationsApi { contract, streams, profile }).await?;
    app.consume(vec![topic]);
    app.reaches(Channel::Queue, jobs.name);
    app.relay();
    let commands = app.commands();
    Ok(app.finish(http::router(http::Api { commands, store, profile })))
}
