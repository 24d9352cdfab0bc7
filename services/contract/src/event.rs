//! Any event or job of the shop, read from and put into an envelope. Never says what it is good for.

use std::sync::Arc;

use envelope::{Envelope, Payload, Seal};

use crate::{
    Contract, FinalStatus, NotificationJob, OrderCancelled, OrderConfirmed, OrderCreated,
    PaymentProcessed, ProductUpserted, StockFailed, StockReserved, Stream,
};

/// Every event and job of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// catalog.events
    ProductUpserted(ProductUpserted),
    /// orders.events
    OrderCreated(OrderCreated),
    /// inventory.events
    StockReserved(StockReserved),
    /// inventory.events
    StockFailed(StockFailed),
    /// payments.events
    PaymentProcessed(PaymentProcessed),
    /// orders.events
    OrderConfirmed(OrderConfirmed),
    /// orders.events
    OrderCancelled(OrderCancelled),
    /// notifications.jobs
    NotificationJob(NotificationJob),
}

/// Every `eventType` of the catalog: whoever counts by type counts by these, since a type from the wire
/// may be anything.
pub const TYPES: [&str; 8] = [
    ProductUpserted::TYPE,
    OrderCreated::TYPE,
    StockReserved::TYPE,
    StockFailed::TYPE,
    PaymentProcessed::TYPE,
    OrderConfirmed::TYPE,
    OrderCancelled::TYPE,
    NotificationJob::TYPE,
];

/// Why an envelope of a known type is not this contract's. A dead letter, no retry (saga-rules 13, 14).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// A version this build cannot read; redriven after the upgrade.
    #[error("{kind} version {version} is not supported (highest known: {known})")]
    UnsupportedVersion {
        /// The event's type.
        kind: &'static str,
        /// Its version.
        version: u32,
        /// The highest version that is read here.
        known: u32,
    },
    /// A required field is missing or a value is out of its range.
    #[error("{kind} payload: {cause}")]
    Payload {
        /// The event's type.
        kind: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl ContractError {
    /// The stable reason code of its dead letter.
    pub fn code(&self) -> &'static str {
        match self {
            ContractError::UnsupportedVersion { .. } => "unsupported_version",
            ContractError::Payload { .. } => "bad_payload",
        }
    }
}

impl Event {
    /// The event in the envelope by the contract that ships: [`Contract::read`]. A service reads by
    /// the contract that it was given.
    pub fn read(envelope: &Envelope) -> Result<Option<Event>, ContractError> {
        Contract::default().read(envelope)
    }

    /// What the types alone do not say.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            Event::ProductUpserted(e) => {
                stored(Some(&e.name))?;
                demand(e.price.is_none_or(|price| price >= 0), "price is negative")?;
                let known = e.product_version.is_none_or(|v| (1..=i64::MAX as u64).contains(&v));
                demand(known, "productVersion is out of 1 to 2^63 - 1")
            }
            Event::OrderCreated(e) => {
                demand(!e.lines.is_empty(), "no lines")?;
                for line in &e.lines {
                    demand(line.qty > 0, "a line has qty 0")?;
                    let priced = line.unit_price.is_none_or(|price| price >= 0);
                    demand(priced, "a line has a negative unitPrice")?;
                }
                demand(e.amount.is_none_or(|amount| amount >= 0), "amount is negative")?;
                let code = e.currency.as_ref().is_none_or(|c| {
                    c.len() == 3 && c.bytes().all(|letter| letter.is_ascii_uppercase())
                });
                demand(code, "currency is not three capital letters")
            }
            Event::StockReserved(_) => Ok(()),
            Event::StockFailed(e) => stored(e.reason.as_ref()),
            Event::PaymentProcessed(e) => stored(e.reason.as_ref()),
            Event::OrderConfirmed(e) => final_status(e.final_status, FinalStatus::Confirmed),
            Event::OrderCancelled(e) => {
                stored(e.reason.as_ref())?;
                final_status(e.final_status, FinalStatus::Cancelled)
            }
            Event::NotificationJob(e) => demand(e.revision != Some(0), "revision starts at 1"),
        }
    }

    /// Wraps it by the contract that ships: [`Contract::seal`], as a service does by its own.
    ///
    /// # Panics
    /// As [`Contract::seal`].
    pub fn seal(&self, seal: Seal) -> Envelope {
        Contract::default().seal(self, seal)
    }

    /// `eventType` on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::ProductUpserted(_) => ProductUpserted::TYPE,
            Event::OrderCreated(_) => OrderCreated::TYPE,
            Event::StockReserved(_) => StockReserved::TYPE,
            Event::StockFailed(_) => StockFailed::TYPE,
            Event::PaymentProcessed(_) => PaymentProcessed::TYPE,
            Event::OrderConfirmed(_) => OrderConfirmed::TYPE,
            Event::OrderCancelled(_) => OrderCancelled::TYPE,
            Event::NotificationJob(_) => NotificationJob::TYPE,
        }
    }

    /// Where it travels.
    pub fn stream(&self) -> Stream {
        match self {
            Event::ProductUpserted(_) => Stream::CatalogEvents,
            Event::OrderCreated(_) | Event::OrderConfirmed(_) | Event::OrderCancelled(_) => {
                Stream::OrdersEvents
            }
            Event::StockReserved(_) | Event::StockFailed(_) => Stream::InventoryEvents,
            Event::PaymentProcessed(_) => Stream::PaymentsEvents,
            Event::NotificationJob(_) => Stream::NotificationsJobs,
        }
    }

    /// Its partition key: productId on catalog.events, orderId elsewhere (saga-rules 10).
    pub fn key(&self) -> Arc<str> {
        match self {
            Event::ProductUpserted(e) => e.product_id.key(),
            Event::OrderCreated(e) => e.order_id.key(),
            Event::StockReserved(e) => e.order_id.key(),
            Event::StockFailed(e) => e.order_id.key(),
            Event::PaymentProcessed(e) => e.order_id.key(),
            Event::OrderConfirmed(e) => e.order_id.key(),
            Event::OrderCancelled(e) => e.order_id.key(),
            Event::NotificationJob(e) => e.order_id.key(),
        }
    }
}

/// Whether an event of this type ends an order: what died of the order before it is void then.
pub fn ends_order(event_type: &str) -> bool {
    [OrderConfirmed::TYPE, OrderCancelled::TYPE].contains(&event_type)
}

fn demand(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn stored(text: Option<&String>) -> Result<(), &'static str> {
    demand(text.is_none_or(|text| !text.contains('\0')), "a text has U+0000, which no store keeps")
}

fn final_status(says: FinalStatus, must: FinalStatus) -> Result<(), &'static str> {
    demand(says == must, "finalStatus contradicts the eventType")
}
