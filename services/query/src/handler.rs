//! Query as the chassis calls it: events to facts, facts to rows. Emits nothing, answers no command.

use std::collections::BTreeSet;

use chassis::{Decided, Handler, Input, Meter, Read, Reason, Sample, Sequence, Touched};
use chrono::{DateTime, TimeDelta, Utc};
use contract::{Contract, Event, OrderId, PaymentStatus, Profile, Reading, Service};
use envelope::Envelope;
use ports::{Key, Table};

use crate::meters;
use crate::rows::{ALL, CHANGES, Changes, LAST, ORDERS, OrderRow, PRODUCTS};
use crate::rules::{OrderFact, Payment, Product, Stock, Terminal};

/// How far ahead of this store's clock a product's `updatedAt` may be before somebody should look.
const AHEAD_MAX: TimeDelta = TimeDelta::minutes(5);

/// Everything that can happen to Query.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A product's full state.
    Product(Product),
    /// An event of an order.
    Order {
        /// Which order.
        order_id: OrderId,
        /// When it happened, as its producer says.
        at: DateTime<Utc>,
        /// What it says.
        fact: OrderFact,
    },
}

/// Query's rules over rows.
#[derive(Debug, Default)]
pub struct Query {
    /// Which versions it reads and writes.
    pub contract: Contract,
}

impl Handler for Query {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &ALL
    }

    fn event_types(&self) -> &'static [&'static str] {
        &contract::TYPES
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        let event = match self.contract.read_as(Service::Query, Profile::Default, envelope) {
            Ok(Reading::Event(event)) => event,
            Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
            Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
        };
        let (order_id, fact) = match event {
            Event::ProductUpserted(says) => {
                let event_id = envelope.event_id.clone();
                return Ok(Read::Guarded(Fact::Product(Product { says, event_id })));
            }
            Event::OrderCreated(e) => (e.order_id.clone(), OrderFact::Placed(e.into())),
            Event::StockReserved(e) => (e.order_id, OrderFact::Stock(Stock::Reserved)),
            Event::StockFailed(e) => {
                (e.order_id, OrderFact::Stock(Stock::Failed { reason: e.reason }))
            }
            Event::PaymentProcessed(e) => {
                let payment = match e.status {
                    PaymentStatus::Success => Payment::Succeeded,
                    PaymentStatus::Failure => Payment::Failed { reason: e.reason },
                };
                (e.order_id, OrderFact::Payment(payment))
            }
            Event::OrderConfirmed(e) => (e.order_id, OrderFact::Terminal(Terminal::Confirmed)),
            Event::OrderCancelled(e) => {
                (e.order_id, OrderFact::Terminal(Terminal::Cancelled { reason: e.reason }))
            }
            Event::NotificationJob(_) => return Ok(Read::Skip("not_consumed")),
        };
        Ok(Read::Fact(Fact::Order { order_id, at: envelope.occurred_at, fact }))
    }

    fn meters(&self) -> &'static [&'static Meter] {
        &meters::ALL
    }

    /// Each facet has its own events: their order does not matter.
    fn sequence(&self, _event_type: &str) -> Sequence {
        Sequence::Free
    }

    fn keys(
        &self,
        table: &'static Table,
        batch: &[Input<Fact>],
        _rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        let key = |input: &Input<Fact>| match &input.fact {
            Fact::Product(product) => (table == &PRODUCTS).then(|| product.says.product_id.key()),
            Fact::Order { .. } if table == &CHANGES => Some(LAST.into()),
            Fact::Order { order_id, .. } => (table == &ORDERS).then(|| order_id.key()),
        };
        Some(batch.iter().filter_map(key).collect())
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        match &input.fact {
            Fact::Product(product) => decide_product(product, rows, now),
            Fact::Order { order_id, at, fact } => decide_order(order_id, *at, fact, rows),
        }
        Ok(Decided::default())
    }
}

fn decide_product(product: &Product, rows: &mut Touched, now: DateTime<Utc>) {
    let product_id = &product.says.product_id;
    let key = product_id.key();
    let known = rows.get::<Product>(&key);
    if known.is_some_and(|known| !product.supersedes(&known)) {
        return;
    }
    if product.says.updated_at > now + AHEAD_MAX {
        let (product_id, updated_at) = (product_id.clone(), product.says.updated_at);
        rows.say(move || {
            tracing::warn!(%product_id, %updated_at, "a product's updatedAt lies in the future");
        });
        rows.count(Sample::new(&meters::PRODUCT_FROM_THE_FUTURE, 1.0));
    }
    rows.put(&key, product);
}

fn decide_order(order_id: &OrderId, at: DateTime<Utc>, fact: &OrderFact, rows: &mut Touched) {
    let key = order_id.key();
    let known = rows.get::<OrderRow>(&key).map(|row| row.order);
    let order = known.clone().unwrap_or_default().join(fact.clone(), at);
    if known.as_ref() != Some(&order) {
        let changed = rows.get::<Changes>(LAST).unwrap_or_default().last + 1;
        rows.put(&LAST.into(), &Changes { last: changed });
        rows.put(&key, &OrderRow { order_id: order_id.clone(), order, changed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::{Context, Document};
    use contract::{
        CategoryId, FinalStatus, Line, OrderCancelled, OrderConfirmed, OrderCreated, PaymentMode,
        PaymentProcessed, ProductId, ProductUpserted, StockFailed, StockReserved, derived_id,
    };
    use envelope::{CorrelationId, EventId, Seal, parse_time};
    use ports::{Row, Rows};
    use proptest::prelude::*;

    fn at(second: u32) -> DateTime<Utc> {
        parse_time(&format!("2026-01-02T03:04:{second:02}Z")).unwrap()
    }

    fn seal(event: &Event, event_id: EventId, second: u32) -> Envelope {
        let correlation_id = CorrelationId::parse(event.key()).unwrap();
        let occurred_at = at(second);
        event.seal(Seal { event_id, occurred_at, correlation_id, causation_id: None })
    }

    fn fact(envelope: &Envelope) -> Fact {
        match Query::default().read(envelope).unwrap() {
            Read::Fact(fact) | Read::Guarded(fact) => fact,
            Read::Skip(reason) => panic!("skipped: {reason}"),
        }
    }

    /// What the rows of an order and a product are after these events.
    fn project(envelopes: &[Envelope]) -> (Option<OrderRow>, Option<Product>) {
        let inputs: Vec<Input<Fact>> = envelopes.iter().map(input).collect();
        let mut rows = Touched::new();
        for table in ALL {
            let keys = Query::default().keys(table, &inputs, &rows).unwrap();
            let absent: Rows = keys.into_iter().map(|key| (key, Row::default())).collect();
            rows.add(table, absent);
        }
        for input in &inputs {
            Query::default().decide(input, &mut rows, at(0)).unwrap();
        }
        let order = rows.holds(&ORDERS, "o1").then(|| rows.get::<OrderRow>("o1"));
        let product = rows.holds(Product::TABLE, "p1").then(|| rows.get::<Product>("p1"));
        (order.flatten(), product.flatten())
    }

    fn input(envelope: &Envelope) -> Input<Fact> {
        let fact = fact(envelope);
        Input { id: None, fingerprint: envelope.fingerprint(), context: Context::default(), fact }
    }

    fn order() -> OrderId {
        OrderId::parse("o1").unwrap()
    }

    fn created(payment_mode: Option<PaymentMode>) -> Event {
        let product_id = ProductId::parse("p1").unwrap();
        Event::OrderCreated(OrderCreated {
            order_id: order(),
            cart_id: None,
            lines: vec![Line { product_id, qty: 2, unit_price: Some(150) }],
            amount: Some(300),
            currency: Some("EUR".to_owned()),
            payment_mode,
        })
    }

    fn product(version: Option<u64>, name: &str) -> Event {
        Event::ProductUpserted(ProductUpserted {
            product_id: ProductId::parse("p1").unwrap(),
            name: name.to_owned(),
            category_id: CategoryId::parse("c1").unwrap(),
            price: version.map(|v| v as i64),
            updated_at: at(7),
            product_version: version,
        })
    }

    fn cancelled(reason: Option<&str>) -> Event {
        Event::OrderCancelled(OrderCancelled {
            order_id: order(),
            final_status: FinalStatus::Cancelled,
            reason: reason.map(str::to_owned),
        })
    }

    /// All that can be said of an order and a product, the contradictions too.
    fn everything() -> Vec<Event> {
        let order_id = order();
        let failed = |reason: Option<&str>| {
            let (order_id, reason) = (order(), reason.map(str::to_owned));
            Event::StockFailed(StockFailed { order_id, reason })
        };
        let payment = |status, reason: Option<&str>| {
            let (order_id, reason) = (order(), reason.map(str::to_owned));
            Event::PaymentProcessed(PaymentProcessed { order_id, status, reason })
        };
        let final_status = FinalStatus::Confirmed;
        vec![
            created(None),
            created(Some(PaymentMode::None)),
            Event::StockReserved(StockReserved { order_id: order() }),
            failed(None),
            failed(Some("insufficient_stock")),
            payment(PaymentStatus::Success, None),
            payment(PaymentStatus::Failure, Some("declined")),
            Event::OrderConfirmed(OrderConfirmed { order_id, final_status }),
            cancelled(None),
            cancelled(Some("deadline")),
            product(None, "tea"),
            product(Some(1), "green tea"),
            product(Some(2), "black tea"),
            product(Some(2), "red tea"),
        ]
    }

    /// Some of the events, some of them more than once and with other ids and times, in an order;
    /// and the same ones in another order with further duplicates.
    fn two_interleavings() -> impl Strategy<Value = (Vec<Envelope>, Vec<Envelope>)> {
        let events = everything();
        let one = (0..events.len(), 0_u32..3).prop_map(move |(i, second)| {
            let id = EventId::parse(format!("e{i}-{second}")).unwrap();
            seal(&events[i], id, second)
        });
        prop::collection::vec(one, 1..12).prop_flat_map(|envelopes| {
            let again = prop::sample::subsequence(envelopes.clone(), 0..=envelopes.len());
            let other = (Just(envelopes.clone()), again)
                .prop_map(|(all, again)| [all, again].concat())
                .prop_shuffle();
            (Just(envelopes), other)
        })
    }

    /// Without the number of its last change, which counts the steps of one way.
    fn unnumbered(row: Option<OrderRow>) -> Option<OrderRow> {
        row.map(|row| OrderRow { changed: 0, ..row })
    }

    fn stored<D: Document>(row: Option<D>) -> Option<(String, Vec<Option<String>>)> {
        row.map(|row| (serde_json::to_string(&row).unwrap(), row.index()))
    }

    proptest! {
        #[test]
        fn every_interleaving_gives_the_same_bytes((one, other) in two_interleavings()) {
            let ((order, product), (order_again, product_again)) = (project(&one), project(&other));
            prop_assert_eq!(stored(unnumbered(order)), stored(unnumbered(order_again)));
            prop_assert_eq!(stored(product), stored(product_again));
        }
    }

    #[test]
    fn an_order_without_its_creation_stays_out_of_lists() {
        let end = seal(&cancelled(None), derived_id(&order(), "OrderCancelled"), 3);
        let (row, _) = project(std::slice::from_ref(&end));
        assert_eq!(row.unwrap().index(), vec![None, None, Some(OrderRow::number(1))]);
        let start = seal(&created(None), derived_id(&order(), "OrderCreated"), 1);
        let (row, _) = project(&[end, start]);
        let time = "2026-01-02T03:04:01.000Z";
        let changed = Some("00000000000000000002".to_owned());
        let listed = vec![Some(time.to_owned()), Some(format!("cancelled|{time}")), changed];
        assert_eq!(row.unwrap().index(), listed);
    }

    #[test]
    fn a_repeated_event_leaves_the_row_untouched() {
        let start = seal(&created(None), derived_id(&order(), "OrderCreated"), 1);
        let once = project(std::slice::from_ref(&start));
        assert_eq!(once, project(&[start.clone(), start]));
    }

    #[test]
    fn events_of_others_are_skipped_and_broken_ones_are_dead() {
        let with = |kind: &str, payload: &str| {
            let text = format!(
                r#"{{"eventId":"e","eventType":"{kind}","eventVersion":1,"correlationId":"o1",
                "occurredAt":"2026-01-02T03:04:05Z","payload":{payload}}}"#
            );
            Query::default().read(&Envelope::read(text.as_bytes()).unwrap())
        };
        assert!(matches!(with("CartEmptied", "{}"), Ok(Read::Skip("unknown_type"))));
        let job = r#"{"orderId":"o1","type":"confirmed","channel":"email"}"#;
        assert!(matches!(with("NotificationJob", job), Ok(Read::Skip("not_consumed"))));
        assert_eq!(with("StockReserved", "{}").unwrap_err().code, "bad_payload");
        let tolerant = r#"{"orderId":"o1","warehouse":7}"#;
        assert!(matches!(with("StockReserved", tolerant), Ok(Read::Fact(_))));
    }
}
