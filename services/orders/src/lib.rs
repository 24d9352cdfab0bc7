//! Orders: places orders at known prices and is the one decider of the saga. Never reserves, never
//! charges, never asks another service.
#![warn(missing_docs)]

pub mod handler;
pub mod http;
pub mod meters;
pub mod rows;
pub mod rules;

use std::sync::Arc;
use std::time::Duration;

use chassis::{App, Context, Due, Input, Ports, Service, Settings, Timer, document};
use contract::{Contract, OrderId, Profile, Stream, Streams};
use envelope::CorrelationId;
use ports::{Key, Outcome, Row, TopicSpec};

use handler::{Incoming, Orders};
use http::Shop;
use rows::{DEADLINE, SAGAS};
use rules::{Fact, Saga};

/// How Orders is set up.
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
    /// From an order to its deadline (saga-rules 16).
    pub deadline: Duration,
    /// ISO 4217 code of every amount.
    pub currency: String,
    /// Whether a POST without Idempotency-Key is refused (saga-rules 17).
    pub key_required: bool,
    /// Timers that fire at the same time.
    pub timers: usize,
    /// How long a fired timer has until it fires again.
    pub timer_claim: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            contract: Contract::default(),
            streams: Streams::default(),
            profile: Profile::default(),
            partitions: 6,
            deadline: Duration::from_secs(15 * 60),
            currency: "EUR".to_owned(),
            key_required: false,
            timers: 64,
            timer_claim: Duration::from_secs(30),
        }
    }
}

/// What Orders reads in this profile.
fn consumed(profile: Profile) -> Vec<Stream> {
    let mut streams = vec![Stream::InventoryEvents, Stream::PaymentsEvents];
    match profile {
        Profile::Default => streams.push(Stream::CatalogEvents),
        Profile::Catalog => {}
    }
    streams
}

/// Starts Orders.
pub async fn run(ports: Ports, settings: Settings, config: Config) -> Outcome<Service> {
    let Config { streams, profile, .. } = &config;
    let topics: Vec<Arc<str>> = consumed(*profile).into_iter().map(|s| streams.name(s)).collect();
    let own = streams.name(Stream::OrdersEvents);
    let specs: Vec<TopicSpec> = topics
        .iter()
        .chain([&own])
        .map(|name| TopicSpec { name: name.clone(), partitions: config.partitions })
        .collect();
    ports.log.declare(&specs).await?;
    let instance = settings.instance.as_str().into();
    let handler = Orders {
        contract: config.contract.clone(),
        streams: config.streams.clone(),
        profile: config.profile,
        currency: config.currency,
        deadline: config.deadline,
    };
    let app = App::start(ports, settings, handler).await?;
    app.consume(topics);
    app.relay();
    let due =
        Due { table: &SAGAS, column: DEADLINE, parallel: config.timers, claim: config.timer_claim };
    app.work(due, Timer(deadline_passed));
    let router = http::router(Shop {
        commands: app.commands(),
        store: app.ports().store.clone(),
        profile: config.profile,
        key_required: config.key_required,
        instance,
    });
    Ok(app.finish(router))
}

/// A timer's input. The row itself guards against repeats, so it has no inbox id.
fn deadline_passed(key: &Key, row: &Row) -> Input<Incoming> {
    let order_id = OrderId::parse(key).expect("a saga's key is an order's id");
    let context = Context {
        correlation: CorrelationId::parse(key).ok(),
        trace: document::<Saga>(row).and_then(|saga| saga.trace),
        ..Context::default()
    };
    Input {
        id: None,
        fingerprint: String::new(),
        context,
        fact: Incoming::Saga { order_id, fact: Fact::DeadlinePassed },
    }
}
