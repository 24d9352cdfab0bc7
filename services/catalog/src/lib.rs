//! Catalog: products, their versions and prices. Never asks another service, never consumes an
//! event.
#![warn(missing_docs)]

pub mod handler;
pub mod http;
pub mod rows;
pub mod rules;

use chassis::{App, Ports, Service, Settings};
use contract::{Contract, Profile, Stream, Streams};
use ports::{Channel, Outcome, TopicSpec};

use handler::Catalog;
use http::Shelf;

/// How Catalog is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of the topics.
    pub streams: Streams,
    /// With or without the additions.
    pub profile: Profile,
    /// Of each topic, fixed at its creation.
    pub partitions: i32,
}

impl Default for Config {
    fn default() -> Self {
        let (contract, streams, profile) = Default::default();
        Config { contract, streams, profile, partitions: 6 }
    }
}

/// Starts Catalog.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { contract, streams, profile, partitions } = config;
    let name = streams.name(Stream::CatalogEvents);
    ports.log.declare(&[TopicSpec { name: name.clone(), partitions }]).await?;
    let instance = settings.instance.as_str().into();
    let app = App::start(ports, settings, Catalog { contract, streams, profile }).await?;
    app.reaches(Channel::Topic, name);
    app.relay();
    let store = app.ports().store.clone();
    let router = http::router(Shelf { commands: app.commands(), store, instance });
    Ok(app.finish(router))
}
