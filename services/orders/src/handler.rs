//! Orders as the chassis calls it: what an event means here, which rows it needs, what is
//! published. Never decides by itself: the rules do.

use std::collections::BTreeSet;
use std::time::Duration;

use chassis::http::Problem;
use chassis::{
    Context, Decided, Emit, Handler, Input, Meter, Read, Reason, Reply, Sample, Sequence, Touched,
};
use chrono::{DateTime, TimeDelta, Utc};
use contract::{
    CartId, Contract, Event, FinalStatus, Line, OrderCancelled, OrderConfirmed, OrderCreated,
    OrderId, PaymentMode, PaymentStatus, ProductId, ProductUpserted, Profile, Reading, Service,
    Streams,
};
use envelope::{Envelope, Payload};
use ports::{Channel, Key, Op, Table};
use serde_json::json;

use crate::meters;
use crate::rows::{PRICES, SAGAS, TABLES};
use crate::rules::{
    Action, Fact, Placed, Price, Saga, Stamp, Terminal, Unpriced, decide, newer, price,
};

/// A product whose `updatedAt` is further ahead of the store's clock than this is reported.
const AHEAD_MAX: TimeDelta = TimeDelta::minutes(5);

/// Everything that can happen to Orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A customer orders; not priced yet.
    Place(Order),
    /// Something happened to an order.
    Saga {
        /// Which order.
        order_id: OrderId,
        /// What.
        fact: Fact,
    },
    /// A product's price.
    PriceKnown {
        /// Which product.
        product_id: ProductId,
        /// Its price, and since when.
        price: Price,
    },
}

/// What a customer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A fresh id.
    pub order_id: OrderId,
    /// The cart it comes from.
    pub cart_id: Option<CartId>,
    /// Without prices.
    pub lines: Vec<Line>,
    /// How it is paid.
    pub mode: PaymentMode,
}

/// The handler of Orders.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Names of the topics.
    pub streams: Streams,
    /// With or without the additions.
    pub profile: Profile,
    /// ISO 4217 code of every amount.
    pub currency: String,
    /// From the order to its deadline.
    pub deadline: Duration,
}

impl Handler for Orders {
    type Fact = Incoming;

    fn tables(&self) -> &'static [&'static Table] {
        &TABLES
    }

    fn event_types(&self) -> &'static [&'static str] {
        &contract::TYPES
    }

    fn meters(&self) -> &'static [&'static Meter] {
        &meters::ALL
    }

    /// A price has an order of its own (saga-rules 11), and waits for none that is dead.
    fn sequence(&self, event_type: &str) -> Sequence {
        if event_type == ProductUpserted::TYPE { Sequence::Free } else { Sequence::InOrder }
    }

    fn gauge_reads(&self) -> Vec<Op> {
        meters::reads()
    }

    fn gauges(&self, read: Vec<ports::Reply>, now: DateTime<Utc>) -> Vec<Sample> {
        meters::gauges(read, now)
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Incoming>, Reason> {
        let event = match self.contract.read_as(Service::Orders, self.profile, envelope) {
            Ok(Reading::Event(event)) => event,
            Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
            Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
        };
        let saga = |order_id, fact| Ok(Read::Fact(Incoming::Saga { order_id, fact }));
        match event {
            Event::StockReserved(e) => saga(e.order_id, Fact::StockReserved),
            Event::StockFailed(e) => saga(e.order_id, Fact::StockFailed { reason: e.reason }),
            Event::PaymentProcessed(e) => match e.status {
                PaymentStatus::Success => saga(e.order_id, Fact::PaymentOk),
                PaymentStatus::Failure => {
                    saga(e.order_id, Fact::PaymentFailed { reason: e.reason })
                }
            },
            Event::ProductUpserted(e) if self.profile == Profile::Default => {
                let stamp = Stamp {
                    version: e.product_version,
                    updated_at: e.updated_at,
                    event_id: envelope.event_id.clone(),
                };
                let price = Price { price: e.price, stamp };
                Ok(Read::Guarded(Incoming::PriceKnown { product_id: e.product_id, price }))
            }
            Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::OrderConfirmed(_)
            | Event::OrderCancelled(_)
            | Event::NotificationJob(_) => Ok(Read::Skip("not_consumed")),
        }
    }

    fn keys(
        &self,
        table: &'static Table,
        batch: &[Input<Incoming>],
        _rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        let facts = batch.iter().map(|input| &input.fact);
        let mut keys = BTreeSet::new();
        for fact in facts {
            match fact {
                Incoming::Place(order) if table.name == SAGAS.name => {
                    keys.insert(order.order_id.key());
                }
                Incoming::Place(order) if self.profile == Profile::Default => {
                    keys.extend(order.lines.iter().map(|line| line.product_id.key()));
                }
                Incoming::Saga { order_id, .. } if table.name == SAGAS.name => {
                    keys.insert(order_id.key());
                }
                Incoming::PriceKnown { product_id, .. } if table.name == PRICES.name => {
                    keys.insert(product_id.key());
                }
                Incoming::Place(_) | Incoming::Saga { .. } | Incoming::PriceKnown { .. } => {}
            }
        }
        Some(keys)
    }

    fn decide(
        &self,
        input: &Input<Incoming>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        Ok(match &input.fact {
            Incoming::Place(order) => self.place(order, &input.context, rows, now),
            Incoming::Saga { order_id, fact } => {
                let (before, emits) = self.apply(order_id, fact, &input.context, rows, now);
                let reply = match fact {
                    Fact::Cancel => Some(cancel_reply(&before)),
                    Fact::Place { .. }
                    | Fact::StockReserved
                    | Fact::StockFailed { .. }
                    | Fact::PaymentOk
                    | Fact::PaymentFailed { .. }
                    | Fact::DeadlinePassed => None,
                };
                Decided { emits, reply }
            }
            Incoming::PriceKnown { product_id, price } => {
                let known: Option<Price> = rows.get(product_id.as_str());
                if !newer(known.as_ref(), price) {
                    return Ok(Decided::default());
                }
                if price.stamp.updated_at > now + AHEAD_MAX {
                    let (product_id, updated_at) = (product_id.clone(), price.stamp.updated_at);
                    rows.say(move || {
                        tracing::warn!(%product_id, %updated_at, "a product from the future");
                    });
                    rows.count(Sample::new(&meters::PRICE_FROM_THE_FUTURE, 1.0));
                }
                rows.put(&product_id.key(), price);
                Decided::default()
            }
        })
    }
}

impl Orders {
    fn place(
        &self,
        order: &Order,
        context: &Context,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Decided {
        let refuse = |problem| Decided { emits: Vec::new(), reply: Some(Reply::passing(problem)) };
        if rows.get::<Saga>(order.order_id.as_str()).is_some() {
            // A stub, or chance: the next attempt gets another id.
            return refuse(Problem::unavailable("the order got an id that is taken; try again"));
        }
        let placed = match self.priced(order, rows) {
            Ok(placed) => placed,
            Err(unpriced) => return refuse(price_problem(&unpriced)),
        };
        let mut body = json!({ "orderId": order.order_id, "status": "pending" });
        if let (Some(amount), Some(currency)) = (placed.amount, &placed.currency) {
            body["amount"] = json!(amount);
            body["currency"] = json!(currency);
        }
        let wait = TimeDelta::from_std(self.deadline).unwrap_or(TimeDelta::days(365));
        let fact = Fact::Place { placed, wait };
        let (_, emits) = self.apply(&order.order_id, &fact, context, rows, now);
        // Relative to `/orders`, so that it holds under any prefix.
        let location = Some(format!("orders/{}", order.order_id));
        Decided { emits, reply: Some(Reply { location, ..Reply::kept(201, body) }) }
    }

    fn priced(&self, order: &Order, rows: &Touched) -> Result<Placed, Unpriced> {
        let (lines, amount, currency) = match self.profile {
            Profile::Catalog => (order.lines.clone(), None, None),
            Profile::Default => {
                let (lines, amount) = price(&order.lines, |product| {
                    rows.get::<Price>(product.as_str()).and_then(|known| known.price)
                })?;
                (lines, Some(amount), Some(self.currency.clone()))
            }
        };
        Ok(Placed { cart_id: order.cart_id.clone(), lines, amount, currency, mode: order.mode })
    }

    /// Decides, writes the row where it changed, and seals what follows. Gives the row as it was.
    fn apply(
        &self,
        order_id: &OrderId,
        fact: &Fact,
        context: &Context,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> (Saga, Vec<Emit>) {
        let before = rows
            .get::<Saga>(order_id.as_str())
            .unwrap_or_else(|| Saga::unknown(order_id.clone(), now));
        let (mut after, actions) = decide(&before, fact, now);
        if after.version != before.version {
            if before.placed.is_none() && after.placed.is_some() {
                after.trace = context.trace.clone();
            }
            meters::changed(&before, &after, now).into_iter().for_each(|sample| rows.count(sample));
            rows.put(&order_id.key(), &after);
        }
        let emits =
            actions.into_iter().map(|action| self.emit(action, &after, context, now)).collect();
        (before, emits)
    }

    fn emit(&self, action: Action, saga: &Saga, context: &Context, now: DateTime<Utc>) -> Emit {
        let event = self.event(action, saga);
        let (order, cause) = (&saga.order_id, context.cause.clone());
        Emit {
            channel: Channel::Topic,
            to: self.streams.name(event.stream()),
            key: event.key(),
            envelope: self.contract.seal_derived(&event, order, self.profile, cause, now),
        }
    }

    fn event(&self, action: Action, saga: &Saga) -> Event {
        let order_id = saga.order_id.clone();
        match (action, &saga.placed) {
            (Action::Create, Some(placed)) => Event::OrderCreated(OrderCreated {
                order_id,
                cart_id: placed.cart_id.clone(),
                lines: placed.lines.clone(),
                amount: placed.amount,
                currency: placed.currency.clone(),
                payment_mode: match self.profile {
                    Profile::Default => Some(placed.mode),
                    Profile::Catalog => None,
                },
            }),
            (Action::Create, None) => unreachable!("a stub is never published"),
            (Action::Confirm, _) => {
                let final_status = FinalStatus::Confirmed;
                Event::OrderConfirmed(OrderConfirmed { order_id, final_status })
            }
            (Action::Cancel, _) => {
                let final_status = FinalStatus::Cancelled;
                let reason = match self.profile {
                    Profile::Default => saga.reason.clone(),
                    Profile::Catalog => None,
                };
                Event::OrderCancelled(OrderCancelled { order_id, final_status, reason })
            }
        }
    }
}

/// The answer to a cancel, by the order as it was before (saga-rules 17).
fn cancel_reply(before: &Saga) -> Reply {
    let order_id = &before.order_id;
    if before.placed.is_none() {
        return Reply::passing(Problem::not_found("order", order_id.as_str()));
    }
    let cancelled = json!({ "orderId": order_id, "status": "cancelled" });
    match before.terminal {
        Terminal::None => Reply::kept(202, cancelled),
        Terminal::Cancelled => Reply::kept(200, cancelled),
        Terminal::Confirmed => {
            let title = "The order is confirmed";
            let detail = format!("order {order_id} is confirmed and cannot be cancelled any more");
            Problem::new(409, "order-confirmed", title, detail).into_reply()
        }
    }
}

fn price_problem(unpriced: &Unpriced) -> Problem {
    match unpriced {
        Unpriced::Unknown(_) => {
            let detail = format!("{unpriced}; it may only be late: try again");
            let title = "A price is unavailable";
            let problem = Problem::new(422, "price-unavailable", title, detail);
            Problem { retry_after_s: Some(1), ..problem }
        }
        Unpriced::TooLarge => {
            let title = "The amount is too large";
            Problem::new(422, "amount-too-large", title, "order less, or in several orders")
        }
    }
}

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
