//! The read model: what the other services said of orders and products, in rows to list and look
//! at. Never decides, never publishes, and never depends on the order in which topics are read.
#![warn(missing_docs)]

mod follow;
pub mod handler;
mod http;
pub mod meters;
pub mod rows;
pub mod rules;

use std::time::Duration;

use chassis::{App, Ports, Service, Settings};
use contract::{Contract, Profile, Stream, Streams};
use ports::{Outcome, TopicSpec};

use crate::follow::Followers;
use crate::handler::Query;

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of the topics.
    pub streams: Streams,
    /// Reads every event of either profile the same way.
    pub profile: Profile,
    /// Of each topic; fixed when it is created.
    pub partitions: i32,
    /// How changes of orders are streamed.
    pub follow: Follow,
}

/// How changes of orders are streamed to those who follow them.
#[derive(Debug, Clone)]
pub struct Follow {
    /// Streams at a time on this instance; more are answered 503.
    pub streams_max: usize,
    /// How often a stream looks for what other instances wrote.
    pub look_every: Duration,
    /// Shortest time between two looks of a stream: what changes meanwhile comes together.
    pub look_pause: Duration,
    /// Longest silence: then comes a comment, so that nobody on the way takes the stream for dead.
    pub heartbeat: Duration,
}

impl Default for Follow {
    fn default() -> Self {
        Follow {
            streams_max: 256,
            look_every: Duration::from_secs(1),
            look_pause: Duration::from_millis(100),
            heartbeat: Duration::from_secs(15),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let (contract, streams, profile) = Default::default();
        Config { contract, streams, profile, partitions: 6, follow: Follow::default() }
    }
}

/// Starts the service: declares what it reads, and projects it.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { contract, streams, profile: _, partitions, follow } = config;
    let topics = Stream::ALL.into_iter().filter(|stream| stream.is_topic());
    let topics: Vec<_> = topics.map(|stream| streams.name(stream)).collect();
    let specs: Vec<TopicSpec> =
        topics.iter().map(|name| TopicSpec { name: name.clone(), partitions }).collect();
    ports.log.declare(&specs).await?;
    let store = ports.store.clone();
    let app = App::start(ports, settings, Query { contract }).await?;
    app.consume(topics);
    let followers = Followers::new(store.clone(), app.watch(), follow);
    Ok(app.finish(http::router(store, followers)))
}
