//! Who produces and who consumes what, as the code has it; a test holds it against
//! `fixtures/catalog.toml`. Nothing subscribes or routes by it.

use crate::{Profile, Stream};

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Products and prices.
    Catalog,
    /// The saga's one decider.
    Orders,
    /// Stock and reservations.
    Inventory,
    /// Authorise, capture, void.
    Payments,
    /// The read model.
    Query,
    /// Turns final orders into jobs.
    NotificationsApi,
    /// Sends.
    NotificationsWorker,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 7] = [
        Service::Catalog,
        Service::Orders,
        Service::Inventory,
        Service::Payments,
        Service::Query,
        Service::NotificationsApi,
        Service::NotificationsWorker,
    ];

    /// The service of this name.
    pub fn named(name: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.name() == name)
    }

    /// Its name: consumer group, database and node.
    pub fn name(self) -> &'static str {
        match self {
            Service::Catalog => "catalog",
            Service::Orders => "orders",
            Service::Inventory => "inventory",
            Service::Payments => "payments",
            Service::Query => "query",
            Service::NotificationsApi => "notifications-api",
            Service::NotificationsWorker => "notifications-worker",
        }
    }
}

/// A row of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where it travels.
    pub stream: Stream,
    /// `eventType`.
    pub event: &'static str,
    /// The highest version.
    pub version: u32,
    /// Who makes it.
    pub producer: Service,
    /// Who reads it by the owner's table.
    pub consumers: &'static [Service],
    /// Who reads it besides (docs/catalog.md).
    pub added_consumers: &'static [Service],
}

impl Row {
    /// Who reads it in this profile.
    pub fn consumers_in(&self, profile: Profile) -> impl Iterator<Item = Service> {
        let added = match profile {
            Profile::Default => self.added_consumers,
            Profile::Catalog => &[],
        };
        self.consumers.iter().chain(added).copied()
    }
}

use Service::{Catalog, Inventory, NotificationsApi, NotificationsWorker, Orders, Payments, Query};

const fn row(
    stream: Stream,
    event: &'static str,
    producer: Service,
    consumers: &'static [Service],
    added_consumers: &'static [Service],
) -> Row {
    Row { stream, event, version: 1, producer, consumers, added_consumers }
}

/// The whole catalog.
pub const CATALOG: [Row; 8] = [
    row(Stream::CatalogEvents, "ProductUpserted", Catalog, &[Query], &[Orders]),
    row(Stream::OrdersEvents, "OrderCreated", Orders, &[Inventory, Payments, Query], &[]),
    row(Stream::InventoryEvents, "StockReserved", Inventory, &[Orders, Query], &[Payments]),
    row(Stream::InventoryEvents, "StockFailed", Inventory, &[Orders, Query], &[]),
    row(Stream::PaymentsEvents, "PaymentProcessed", Payments, &[Orders, Query], &[]),
    row(
        Stream::OrdersEvents,
        "OrderConfirmed",
        Orders,
        &[Inventory, NotificationsApi, Query],
        &[Payments],
    ),
    row(
        Stream::OrdersEvents,
        "OrderCancelled",
        Orders,
        &[Inventory, NotificationsApi, Query],
        &[Payments],
    ),
    row(
        Stream::NotificationsJobs,
        "NotificationJob",
        NotificationsApi,
        &[NotificationsWorker],
        &[],
    ),
];
