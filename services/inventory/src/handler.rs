//! Inventory as the chassis calls it: events and commands to facts, facts to rows and events. What
//! is decided stands in the rules; nothing is decided here.

use std::collections::BTreeSet;

use chassis::http::Problem;
use chassis::{
    Decided, Emit, Handler, Input, Meter, Read, Reason, Reply, Sample, Sequence, Touched,
};
use chrono::{DateTime, Utc};
use contract::{
    Contract, Event, OrderId, ProductId, Profile, Reading, Service, StockFailed, StockReserved,
    Streams,
};
use envelope::Envelope;
use ports::{Channel, Key, Table};
use serde_json::json;

use crate::meters;
use crate::rows::{ADJUSTMENTS, ALL, AdjustmentRow, RESERVATIONS, ReservationRow, StockRow};
use crate::rules::{self, AdjustError, OrderFact, Outcome, Stock};

/// Everything that can happen to Inventory.
#[derive(Debug, Clone)]
pub enum Fact {
    /// Pieces came or went, by command.
    Adjust(Adjust),
    /// Many adjustments follow, each a command of its own: stands for their request as a whole.
    Import,
    /// An event of the order.
    Order(OrderId, OrderFact),
}

/// The command to adjust a product's stock.
#[derive(Debug, Clone)]
pub struct Adjust {
    /// The command's id: an adjustment is made once.
    pub id: Key,
    /// Which product; it becomes known with its first adjustment.
    pub product_id: ProductId,
    /// Pieces, negative for less.
    pub delta: i64,
    /// Why, for the books.
    pub reason: Option<String>,
}

/// Inventory's rules over rows.
pub struct Inventory {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Where its events go.
    pub streams: Streams,
    /// Which promises it keeps: in profile `catalog` events say no cause.
    pub profile: Profile,
}

impl Handler for Inventory {
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
        let event = match self.contract.read_as(Service::Inventory, self.profile, envelope) {
            Ok(Reading::Event(event)) => event,
            Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
            Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
        };
        let fact = match event {
            Event::OrderCreated(e) => {
                let lines = rules::merge(&e.lines).map_err(violation)?;
                Fact::Order(e.order_id, OrderFact::Created(lines))
            }
            Event::OrderConfirmed(e) => Fact::Order(e.order_id, OrderFact::Confirmed),
            Event::OrderCancelled(e) => Fact::Order(e.order_id, OrderFact::Cancelled),
            Event::ProductUpserted(_)
            | Event::StockReserved(_)
            | Event::StockFailed(_)
            | Event::PaymentProcessed(_)
            | Event::NotificationJob(_) => return Ok(Read::Skip("not_consumed")),
        };
        Ok(Read::Fact(fact))
    }

    fn sequence(&self, event_type: &str) -> Sequence {
        if contract::ends_order(event_type) { Sequence::Final } else { Sequence::InOrder }
    }

    fn keys(
        &self,
        table: &'static Table,
        batch: &[Input<Fact>],
        rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        let facts = batch.iter().map(|input| &input.fact);
        if table == &RESERVATIONS {
            let order = |fact: &Fact| match fact {
                Fact::Order(order, _) => Some(order.key()),
                Fact::Adjust(_) | Fact::Import => None,
            };
            return Some(facts.filter_map(order).collect());
        }
        if table == &ADJUSTMENTS {
            let command = |fact: &Fact| match fact {
                Fact::Adjust(adjust) => Some(adjust.id.clone()),
                Fact::Order(..) | Fact::Import => None,
            };
            return Some(facts.filter_map(command).collect());
        }
        let mut products = BTreeSet::new();
        for fact in facts {
            match fact {
                Fact::Import => {}
                Fact::Adjust(adjust) => {
                    products.insert(adjust.product_id.key());
                }
                Fact::Order(_, OrderFact::Created(lines)) => {
                    products.extend(lines.keys().map(ProductId::key));
                }
                // An order that ends names its products in its reservation, or in an OrderCreated
                // that stands earlier in this batch.
                Fact::Order(order, OrderFact::Confirmed | OrderFact::Cancelled) => {
                    if !rows.holds(&RESERVATIONS, order.as_str()) {
                        return None;
                    }
                    let row = rows.get::<ReservationRow>(order.as_str());
                    let lines = row.and_then(|row| row.reservation.lines).unwrap_or_default();
                    products.extend(lines.keys().map(ProductId::key));
                }
            }
        }
        Some(products)
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        match &input.fact {
            Fact::Import => {
                let reply = Some(Reply::kept(200, json!({})));
                Ok(Decided { emits: Vec::new(), reply })
            }
            Fact::Adjust(adjust) => {
                Ok(Decided { emits: Vec::new(), reply: Some(decide_adjust(adjust, rows, now)) })
            }
            Fact::Order(order, fact) => {
                let emits = self.decide_order(input, order, fact, rows, now)?;
                Ok(Decided { emits, reply: None })
            }
        }
    }
}

impl Inventory {
    fn decide_order(
        &self,
        input: &Input<Fact>,
        order_id: &OrderId,
        fact: &OrderFact,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Vec<Emit>, Reason> {
        let key = order_id.key();
        let before = rows.get::<ReservationRow>(&key).map(|row| row.reservation);
        let stock =
            |product: &ProductId| rows.get::<StockRow>(product.as_str()).map(|row| row.stock);
        let step = rules::decide(before.as_ref(), fact, &stock).map_err(violation)?;
        for (product_id, stock) in step.stock {
            let key = product_id.key();
            rows.put(&key, &StockRow { product_id, stock });
        }
        if let Some(reservation) = step.reservation {
            if reservation.is_open_item() {
                rows.count(Sample::new(&meters::STOCK_OVERSELL, 1.0));
                let (order_id, reason) = (order_id.clone(), reservation.reason.clone());
                rows.say(move || {
                    tracing::error!(%order_id, reason,
                        "a confirmed order has no stock: an operator has to settle it");
                });
            }
            rows.put(&key, &ReservationRow { order_id: order_id.clone(), reservation });
        }
        let event = step.outcome.map(|outcome| match outcome {
            Outcome::Reserved => Event::StockReserved(StockReserved { order_id: order_id.clone() }),
            Outcome::Failed(reason) => {
                let (order_id, reason) = (order_id.clone(), Some(reason.to_owned()));
                Event::StockFailed(StockFailed { order_id, reason })
            }
        });
        Ok(event.map(|event| self.emit(order_id, &event, input, now)).into_iter().collect())
    }

    fn emit(
        &self,
        order: &OrderId,
        event: &Event,
        input: &Input<Fact>,
        now: DateTime<Utc>,
    ) -> Emit {
        let cause = input.context.cause.clone();
        Emit {
            channel: Channel::Topic,
            to: self.streams.name(event.stream()),
            key: event.key(),
            envelope: self.contract.seal_derived(event, order, self.profile, cause, now),
        }
    }
}

/// A relative change of a product's stock, once for each command id, for as long as the books are
/// kept.
fn decide_adjust(adjust: &Adjust, rows: &mut Touched, now: DateTime<Utc>) -> Reply {
    if let Some(done) = rows.get::<AdjustmentRow>(&adjust.id) {
        if (&done.product_id, done.delta) == (&adjust.product_id, adjust.delta) {
            return stock_reply(&adjust.product_id, done.after);
        }
        let detail = "this Idempotency-Key adjusted stock before, with another request";
        let title = "The Idempotency-Key was used for another request";
        return Reply::passing(Problem::new(422, "idempotency-key-reused", title, detail));
    }
    let key = adjust.product_id.key();
    let before = rows.get::<StockRow>(&key).map(|row| row.stock);
    match before.unwrap_or_default().adjust(adjust.delta) {
        Ok(after) => {
            let product_id = adjust.product_id.clone();
            rows.put(&key, &StockRow { product_id: product_id.clone(), stock: after });
            let (delta, reason) = (adjust.delta, adjust.reason.clone());
            let row = AdjustmentRow { product_id, delta, reason, at: now, after };
            rows.put(&adjust.id, &row);
            stock_reply(&adjust.product_id, after)
        }
        Err(error @ AdjustError::Insufficient { .. }) => {
            let title = "Not enough stock is available";
            let detail = format!("{}: {error}", adjust.product_id);
            Problem::new(409, "insufficient-stock", title, detail).into_reply()
        }
        Err(error @ AdjustError::Overflow) => Problem::invalid(error.to_string()).into_reply(),
    }
}

fn stock_reply(product: &ProductId, stock: Stock) -> Reply {
    let body = json!({
        "productId": product,
        "onHand": stock.on_hand(),
        "available": stock.available(),
        "reserved": stock.reserved(),
        "committed": stock.committed(),
    });
    Reply::kept(200, body)
}

fn violation(violation: rules::Violation) -> Reason {
    Reason::new(violation.code(), violation.to_string())
}
