//! Any event or job of the shop, read from and put into an envelope. Never says what it is good for.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use envelope::{CorrelationId, Envelope, EventId, Object, Payload, Seal, printable};

use crate::{
    CATALOG, FinalStatus, NotificationJob, OrderCancelled, OrderConfirmed, OrderCreated, OrderId,
    PaymentProcessed, ProductUpserted, Profile, Row, StockFailed, StockReserved, Stream,
    derived_id,
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

fn payload<P: Payload>(envelope: &Envelope) -> Result<P, ContractError> {
    match serde_json::from_str::<Object<P>>(envelope.payload.get()) {
        Ok(Object(payload)) => Ok(payload),
        Err(e) => Err(ContractError::Payload { kind: P::TYPE, cause: printable(&e) }),
    }
}

impl Event {
    /// The event in the envelope; `None` where the type is unknown (skip and count, saga-rules 14).
    /// Each version has an arm of its own: when a type gets a version 2, version 1 reads its old
    /// payload there and converts it to the new one.
    pub fn read(envelope: &Envelope) -> Result<Option<Event>, ContractError> {
        let event = match (envelope.event_type.as_str(), envelope.event_version) {
            (ProductUpserted::TYPE, 1) => Event::ProductUpserted(payload(envelope)?),
            (OrderCreated::TYPE, 1) => Event::OrderCreated(payload(envelope)?),
            (StockReserved::TYPE, 1) => Event::StockReserved(payload(envelope)?),
            (StockFailed::TYPE, 1) => Event::StockFailed(payload(envelope)?),
            (PaymentProcessed::TYPE, 1) => Event::PaymentProcessed(payload(envelope)?),
            (OrderConfirmed::TYPE, 1) => Event::OrderConfirmed(payload(envelope)?),
            (OrderCancelled::TYPE, 1) => Event::OrderCancelled(payload(envelope)?),
            (NotificationJob::TYPE, 1) => Event::NotificationJob(payload(envelope)?),
            (kind, version) => {
                return match CATALOG.iter().find(|row| row.event == kind) {
                    Some(&Row { event: kind, version: known, .. }) => {
                        Err(ContractError::UnsupportedVersion { kind, version, known })
                    }
                    None => Ok(None),
                };
            }
        };
        match event.check() {
            Ok(()) => Ok(Some(event)),
            Err(cause) => {
                Err(ContractError::Payload { kind: event.kind(), cause: cause.to_owned() })
            }
        }
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), &'static str> {
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

    /// Wraps it.
    ///
    /// # Panics
    /// Where every reader would refuse it: whoever makes an event has checked what it is made of.
    pub fn seal(&self, seal: Seal) -> Envelope {
        if let Err(cause) = self.check() {
            panic!("{} breaks its own contract: {cause}", self.kind());
        }
        match self {
            Event::ProductUpserted(e) => Envelope::seal(seal, e),
            Event::OrderCreated(e) => Envelope::seal(seal, e),
            Event::StockReserved(e) => Envelope::seal(seal, e),
            Event::StockFailed(e) => Envelope::seal(seal, e),
            Event::PaymentProcessed(e) => Envelope::seal(seal, e),
            Event::OrderConfirmed(e) => Envelope::seal(seal, e),
            Event::OrderCancelled(e) => Envelope::seal(seal, e),
            Event::NotificationJob(e) => Envelope::seal(seal, e),
        }
    }

    /// Wraps what an order can have once: whoever tells it again derives the same event id
    /// (saga-rules 8). Profile `catalog` says no cause.
    ///
    /// # Panics
    /// As [`Event::seal`].
    pub fn seal_derived(
        &self,
        order: &OrderId,
        profile: Profile,
        cause: Option<EventId>,
        now: DateTime<Utc>,
    ) -> Envelope {
        let correlation_id = CorrelationId::parse(order.as_str());
        self.seal(Seal {
            event_id: derived_id(order, self.kind()),
            occurred_at: now,
            correlation_id: correlation_id.expect("an order's id is an id"),
            causation_id: match profile {
                Profile::Default => cause,
                Profile::Catalog => None,
            },
        })
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
