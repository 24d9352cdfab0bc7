//! Payments as the chassis calls it: events to facts, facts to rows and PaymentProcessed. What is
//! decided stands in the rules; nothing is decided here, and the gateway is never called here.

use std::collections::BTreeSet;

use chassis::{Decided, Emit, Handler, Input, Meter, Read, Reason, Sequence, Touched};
use chrono::{DateTime, Utc};
use contract::{
    Contract, Event, OrderCreated, OrderId, PaymentMode, PaymentProcessed, PaymentStatus, Profile,
    Reading, Service, Streams,
};
use envelope::Envelope;
use ports::{Channel, Key, Table};

use crate::meters;
use crate::rows::ALL;
use crate::rules::{self, Happened, Order, Outcome, Payment, Retry, Terminal};

/// Something that happened to an order's payment.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Whose.
    pub order: OrderId,
    /// What.
    pub happened: Happened,
}

/// Payments' rules over rows.
pub struct Payments {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Where its events go.
    pub streams: Streams,
    /// Which promises it keeps.
    pub profile: Profile,
    /// When the gateway is asked again.
    pub retry: Retry,
}

impl Handler for Payments {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &ALL
    }

    fn event_types(&self) -> &'static [&'static str] {
        &contract::TYPES
    }

    fn meters(&self) -> &'static [&'static Meter] {
        &meters::ALL
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        let event = match self.contract.read_as(Service::Payments, self.profile, envelope) {
            Ok(Reading::Event(event)) => event,
            Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
            Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
        };
        let (order, happened) = match (event, self.profile) {
            (Event::OrderCreated(e), profile) => {
                (e.order_id.clone(), Happened::Created(order(&e, profile)))
            }
            (Event::StockReserved(e), Profile::Default) => (e.order_id, Happened::StockReserved),
            (Event::OrderConfirmed(e), Profile::Default) => {
                (e.order_id, Happened::Ended(Terminal::Confirmed))
            }
            (Event::OrderCancelled(e), Profile::Default) => {
                (e.order_id, Happened::Ended(Terminal::Cancelled))
            }
            (
                Event::StockReserved(_) | Event::OrderConfirmed(_) | Event::OrderCancelled(_),
                Profile::Catalog,
            )
            | (
                Event::ProductUpserted(_)
                | Event::StockFailed(_)
                | Event::PaymentProcessed(_)
                | Event::NotificationJob(_),
                _,
            ) => return Ok(Read::Skip("not_consumed")),
        };
        Ok(Read::Fact(Fact { order, happened }))
    }

    fn sequence(&self, event_type: &str) -> Sequence {
        if contract::ends_order(event_type) { Sequence::Final } else { Sequence::InOrder }
    }

    fn keys(
        &self,
        _table: &'static Table,
        batch: &[Input<Fact>],
        _rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        Some(batch.iter().map(|input| input.fact.order.key()).collect())
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let Fact { order, happened } = &input.fact;
        let key = order.key();
        let before = rows.get::<Payment>(&key);
        let cause = input.context.cause.as_ref();
        let after = rules::decide(before.as_ref(), order, happened, cause, now, self.retry)
            .map_err(|violation| Reason::new(violation.code(), violation.to_string()))?;
        let Some(mut after) = after else { return Ok(Decided::default()) };
        if after.cause != before.as_ref().and_then(|before| before.cause.clone()) {
            after.trace = input.context.trace.clone();
        }
        rows.put(&key, &after);
        meters::changed(before.as_ref(), &after).into_iter().for_each(|sample| rows.count(sample));
        if after.is_open_item() && !before.as_ref().is_some_and(Payment::is_open_item) {
            let (order, state, refused) = (order.clone(), after.state, after.refused.clone());
            rows.say(move || {
                tracing::error!(%order, ?state, refused,
                    "a payment is an open item: an operator has to settle it");
            });
        }
        let told = before.is_some_and(|before| before.outcome.is_some());
        let outcome = after.outcome.as_ref().filter(|_| !told);
        let emits = outcome.map(|outcome| self.emit(&after, outcome, now)).into_iter().collect();
        Ok(Decided { emits, reply: None })
    }
}

impl Payments {
    fn emit(&self, payment: &Payment, outcome: &Outcome, now: DateTime<Utc>) -> Emit {
        let (status, reason) = match outcome {
            Outcome::Success => (PaymentStatus::Success, None),
            Outcome::Failure(reason) => (PaymentStatus::Failure, Some(reason.clone())),
        };
        let order_id = payment.order_id.clone();
        let event = Event::PaymentProcessed(PaymentProcessed { order_id, status, reason });
        let (order, cause) = (&payment.order_id, payment.cause.clone());
        Emit {
            channel: Channel::Topic,
            to: self.streams.name(event.stream()),
            key: event.key(),
            envelope: self.contract.seal_derived(&event, order, self.profile, cause, now),
        }
    }
}

/// What the order says to Payments. In profile `catalog` only what the owner's table has.
fn order(event: &OrderCreated, profile: Profile) -> Order {
    match profile {
        Profile::Default => Order {
            amount: event.amount,
            mode: event.payment_mode.unwrap_or_default(),
            charge_at_once: false,
        },
        Profile::Catalog => {
            Order { amount: None, mode: PaymentMode::Parallel, charge_at_once: true }
        }
    }
}
