//! The Payments service: it has money held when an order is created, taken when the order is
//! confirmed and given back when the order is cancelled. It never decides about an order, and never
//! calls the gateway inside a transaction.
#![warn(missing_docs)]

pub mod gateway;
pub mod handler;
pub mod http;
pub mod meters;
pub mod rows;
pub mod rules;
pub mod simulated;

use std::sync::Arc;
use std::time::Duration;

use chassis::{App, Due, Ports, Service, Settings};
use chrono::TimeDelta;
use contract::{Contract, Profile, Stream, Streams};
use ports::{Outcome, TopicSpec};

use crate::gateway::{Calls, Gateway};
use crate::rules::Retry;

/// How the service is set up.
#[derive(Clone)]
pub struct Config {
    /// Which versions of events it reads and writes.
    pub contract: Contract,
    /// Names of topics.
    pub streams: Streams,
    /// Which promises it keeps.
    pub profile: Profile,
    /// Partitions of topics that do not exist yet.
    pub partitions: i32,
    /// Whom to have money held and taken by.
    pub gateway: Arc<dyn Gateway>,
    /// After this a call to it counts as unknown.
    pub gateway_timeout: Duration,
    /// When it is asked again after an unknown answer.
    pub retry: Retry,
    /// Calls to it at the same time.
    pub parallel: usize,
}

impl Config {
    /// The defaults, with this gateway.
    pub fn new(gateway: Arc<dyn Gateway>) -> Self {
        Config {
            contract: Contract::default(),
            streams: Streams::default(),
            profile: Profile::Default,
            partitions: 6,
            gateway,
            gateway_timeout: Duration::from_secs(5),
            retry: Retry { first: TimeDelta::milliseconds(500), max: TimeDelta::seconds(60) },
            parallel: 64,
        }
    }
}

/// Starts the service on these ports.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { contract, streams, profile, partitions, gateway, .. } = config;
    let Config { gateway_timeout, retry, parallel, .. } = config;
    let consumed: &[Stream] = match profile {
        Profile::Default => &[Stream::OrdersEvents, Stream::InventoryEvents],
        Profile::Catalog => &[Stream::OrdersEvents],
    };
    let topics: Vec<Arc<str>> = consumed.iter().map(|stream| streams.name(*stream)).collect();
    let produced = streams.name(Stream::PaymentsEvents);
    let names = topics.iter().cloned().chain([produced]);
    let specs: Vec<TopicSpec> = names.map(|name| TopicSpec { name, partitions }).collect();
    ports.log.declare(&specs).await?;
    let app = App::start(ports, settings, handler::Payments { contract, streams, profile, retry })
        .await?;
    app.consume(topics);
    app.relay();
    let runtime = app.ports().runtime.clone();
    let outside = Calls { gateway, runtime, limit: gateway_timeout };
    // A claim outlives the call, and a slow commit of its answer.
    let claim = gateway_timeout * 2 + Duration::from_secs(1);
    app.work(Due { table: &rows::PAYMENTS, column: rows::DUE, parallel, claim }, outside);
    let api = http::Api { store: app.ports().store.clone() };
    Ok(app.finish(http::router(api)))
}
