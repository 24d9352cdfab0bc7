//! Where events travel: four topics and a queue, under a configurable prefix. Never creates them.

use std::sync::Arc;

/// A topic or queue of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Products, keyed by productId.
    CatalogEvents,
    /// Orders' decisions, keyed by orderId.
    OrdersEvents,
    /// Reservations, keyed by orderId.
    InventoryEvents,
    /// Payments' outcomes, keyed by orderId.
    PaymentsEvents,
    /// Jobs for the Notifications Worker.
    NotificationsJobs,
}

impl Stream {
    /// All of them.
    pub const ALL: [Stream; 5] = [
        Stream::CatalogEvents,
        Stream::OrdersEvents,
        Stream::InventoryEvents,
        Stream::PaymentsEvents,
        Stream::NotificationsJobs,
    ];

    /// The name in the catalog, without prefix.
    pub fn name(self) -> &'static str {
        match self {
            Stream::CatalogEvents => "catalog.events",
            Stream::OrdersEvents => "orders.events",
            Stream::InventoryEvents => "inventory.events",
            Stream::PaymentsEvents => "payments.events",
            Stream::NotificationsJobs => "notifications.jobs",
        }
    }

    /// Whether it is a topic of the event log (else a queue).
    pub fn is_topic(self) -> bool {
        match self {
            Stream::CatalogEvents
            | Stream::OrdersEvents
            | Stream::InventoryEvents
            | Stream::PaymentsEvents => true,
            Stream::NotificationsJobs => false,
        }
    }

    /// Whether the last event of a key says all that the earlier ones said, so that a log may forget those. A
    /// product's does, and it must not be forgotten with age; the others tell a story, event by event.
    pub fn is_compacted(self) -> bool {
        match self {
            Stream::CatalogEvents => true,
            Stream::OrdersEvents
            | Stream::InventoryEvents
            | Stream::PaymentsEvents
            | Stream::NotificationsJobs => false,
        }
    }
}

/// The queue of jobs as both its sides declare it: a queue that exists with other arguments is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobsQueue {
    /// Its name on the broker.
    pub name: Arc<str>,
    /// How often a job may come back before the broker dead-letters it.
    pub delivery_limit: u32,
    /// Where the broker's dead letters go: nobody reads them.
    pub dead_letters: Arc<str>,
}

/// As high as AMQP's signed arguments go, for none: 4.0 would otherwise take 20, and 3.10 refuses -1
/// (broker-contract R15). A job comes back with every connection that breaks before anybody looked at
/// it, and must not be lost for that; the worker gives up what ends its process (docs/dead-letters.md).
const NO_DELIVERY_LIMIT: u32 = i32::MAX.unsigned_abs();

/// The streams' names under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    prefix: Arc<str>,
}

impl Streams {
    /// With this prefix, which may be empty; give the separator with it (`test.`).
    pub fn prefixed(prefix: &str) -> Self {
        Streams { prefix: prefix.into() }
    }

    /// The stream's name on the brokers.
    pub fn name(&self, stream: Stream) -> Arc<str> {
        format!("{}{}", self.prefix, stream.name()).into()
    }

    /// How [`Stream::NotificationsJobs`] is declared.
    pub fn jobs(&self) -> JobsQueue {
        let name = self.name(Stream::NotificationsJobs);
        let dead_letters = format!("{name}.dead").into();
        JobsQueue { name, delivery_limit: NO_DELIVERY_LIMIT, dead_letters }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Streams::prefixed("")
    }
}

/// Which promises the services keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Profile {
    /// The catalog with this project's additions (docs/catalog.md).
    #[default]
    Default,
    /// The owner's table as written: no amounts, payment success is final, nobody voids.
    Catalog,
}
