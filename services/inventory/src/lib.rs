//! The Inventory service: it holds stock for orders, all lines or none, sells it when the order is
//! confirmed and frees it when the order is cancelled. It never decides about an order.
#![warn(missing_docs)]

pub mod handler;
pub mod http;
pub mod meters;
pub mod rows;
pub mod rules;

use chassis::{App, Ports, Service, Settings};
use contract::{Contract, Profile, Stream, Streams};
use ports::{Outcome, TopicSpec};

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of topics.
    pub streams: Streams,
    /// Which promises it keeps.
    pub profile: Profile,
    /// Partitions of topics that do not exist yet.
    pub partitions: i32,
}

impl Default for Config {
    fn default() -> Self {
        let (contract, streams, profile) = Default::default();
        Config { contract, streams, profile, partitions: 6 }
    }
}

/// Starts the service on these ports.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let topic = |stream| config.streams.name(stream);
    let topics = [Stream::OrdersEvents, Stream::InventoryEvents];
    let specs = topics.map(|s| TopicSpec { name: topic(s), partitions: config.partitions });
    ports.log.declare(&specs).await?;
    let Config { contract, streams, profile, .. } = config.clone();
    let handler = handler::Inventory { contract, streams, profile };
    let app = App::start(ports, settings, handler).await?;
    app.consume(vec![topic(Stream::OrdersEvents)]);
    app.relay();
    let api = http::Api { commands: app.commands(), store: app.ports().store.clone() };
    Ok(app.finish(http::router(api)))
}
