//! Any event or job of the shop, read from and put into an envelope.

use std::sync::Arc;

use envelope::{Envelope, Payload, Seal};

use crate::{
    FinalStatus, NotificationJob, OrderCancelled, OrderConfirmed, OrderCreated, PaymentProcessed,
    ProductUpserted, StockFailed, StockReserved, Stream,
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
    if envelope.event_version > P::VERSION {
        let (version, known) = (envelope.event_version, P::VERSION);
        return Err(ContractError::UnsupportedVersion { kind: P::TYPE, version, known });
    }
    serde_json::from_str(envelope.payload.get())
        .map_err(|e| ContractError::Payload { kind: P::TYPE, cause: e.to_string() })
}

impl Event {
    /// The event in the envelope; `None` where the type is unknown (skip and count, saga-rules 14).
    pub fn read(envelope: &Envelope) -> Result<Option<Event>, ContractError> {
        let event = match envelope.event_type.as_str() {
            ProductUpserted::TYPE => Event::ProductUpserted(payload(envelope)?),
            OrderCreated::TYPE => Event::OrderCreated(payload(envelope)?),
            StockReserved::TYPE => Event::StockReserved(payload(envelope)?),
            StockFailed::TYPE => Event::StockFailed(payload(envelope)?),
            PaymentProcessed::TYPE => Event::PaymentProcessed(payload(envelope)?),
            OrderConfirmed::TYPE => Event::OrderConfirmed(payload(envelope)?),
            OrderCancelled::TYPE => Event::OrderCancelled(payload(envelope)?),
            NotificationJob::TYPE => Event::NotificationJob(payload(envelope)?),
            _ => return Ok(None),
        };
        event.check().map_err(|cause| ContractError::Payload { kind: event.kind(), cause })?;
        Ok(Some(event))
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), String> {
        match self {
            Event::ProductUpserted(e) => match e.price {
                Some(price) if price < 0 => Err("price is negative".to_owned()),
                _ => Ok(()),
            },
            Event::OrderCreated(e) => {
                if e.lines.is_empty() {
                    return Err("no lines".to_owned());
                }
                if e.lines.iter().any(|l| l.qty == 0 || l.unit_price.is_some_and(|p| p < 0)) {
                    return Err("a line with qty 0 or a negative unitPrice".to_owned());
                }
                match e.amount {
                    Some(amount) if amount < 0 => Err("amount is negative".to_owned()),
                    _ => Ok(()),
                }
            }
            Event::OrderConfirmed(e) => final_status(e.final_status, FinalStatus::Confirmed),
            Event::OrderCancelled(e) => final_status(e.final_status, FinalStatus::Cancelled),
            Event::NotificationJob(e) => match e.revision {
                Some(0) => Err("revision starts at 1".to_owned()),
                _ => Ok(()),
            },
            Event::StockReserved(_) | Event::StockFailed(_) | Event::PaymentProcessed(_) => Ok(()),
        }
    }

    /// Wraps it.
    pub fn seal(&self, seal: Seal) -> Envelope {
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

fn final_status(says: FinalStatus, must: FinalStatus) -> Result<(), String> {
    if says == must { Ok(()) } else { Err("finalStatus contradicts the eventType".to_owned()) }
}
