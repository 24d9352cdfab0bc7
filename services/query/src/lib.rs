//! The read model: what the other services said of orders and products, in rows to list and look
//! at. Never decides, never publishes, and never depends on the order in which topics are read.
#![warn(missing_docs)]

pub mod handler;
mod http;
pub mod rows;
pub mod rules;

use chassis::{App, Ports, Service, Settings};
use contract::{Profile, Stream, Streams};
use ports::{Outcome, TopicSpec};

use crate::handler::Query;

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names of the topics.
    pub streams: Streams,
    /// Reads every event of either profile the same way.
    pub profile: Profile,
    /// Of each topic; fixed when it is created.
    pub partitions: i32,
}

impl Default for Config {
    fn default() -> Self {
        let (streams, profile) = (Streams::default(), Profile::default());
        Config { streams, profile, partitions: 6 }
    }
}

/// Starts the service: declares what it reads, and projects it.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { streams, profile: _, partitions } = config;
    let topics = Stream::ALL.into_iter().filter(|stream| stream.is_topic());
    let topics: Vec<_> = topics.map(|stream| streams.name(stream)).collect();
    let specs: Vec<TopicSpec> =
        topics.iter().map(|name| TopicSpec { name: name.clone(), partitions }).collect();
    ports.log.declare(&specs).await?;
    let store = ports.store.clone();
    let app = App::start(ports, settings, Query).await?;
    app.consume(topics);
    Ok(app.finish(http::router(store)))
}
