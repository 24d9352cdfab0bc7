//! The handler on locked rows: what is read, what is published, what is answered.

use chrono::DateTime;
use contract::{
    Event, OrderCancelled, PaymentProcessed, ProductUpserted, StockFailed, StockReserved,
    derived_id,
};
use envelope::{CorrelationId, EventId, Seal};
use ports::Rows;
use serde_json::Value;

use super::*;

fn orders(profile: Profile) -> Orders {
    Orders {
        contract: contract::Contract::default(),
        streams: Streams::prefixed("t."),
        profile,
        currency: "EUR".to_owned(),
        deadline: Duration::from_secs(900),
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
}

fn o(id: &str) -> OrderId {
    OrderId::parse(id).unwrap()
}

fn input(fact: Incoming) -> Input<Incoming> {
    let cause = Some(EventId::parse("cause-1").unwrap());
    let context = Context { cause, ..Context::default() };
    Input { id: Some("i".into()), fingerprint: String::new(), context, fact }
}

fn order(mode: PaymentMode) -> Incoming {
    let line = |id: &str, qty| Line { product_id: p(id), qty, unit_price: None };
    let lines = vec![line("tea", 2), line("cup", 1), line("tea", 1)];
    Incoming::Place(Order { order_id: o("o-1"), cart_id: None, lines, mode })
}

fn p(id: &str) -> ProductId {
    ProductId::parse(id).unwrap()
}

fn known(product: &str, price: Option<i64>, version: u64) -> Incoming {
    let event_id = EventId::parse(format!("{product}-{version}")).unwrap();
    let stamp = Stamp { version: Some(version), updated_at: now(), event_id };
    Incoming::PriceKnown { product_id: p(product), price: Price { price, stamp } }
}

fn fact(fact: Fact) -> Incoming {
    Incoming::Saga { order_id: o("o-1"), fact }
}

/// Locks what the handler asks for, as the chassis does, and decides in order.
fn told(orders: &Orders, facts: Vec<Incoming>) -> (Vec<Decided>, Touched) {
    let batch: Vec<_> = facts.into_iter().map(input).collect();
    let mut rows = Touched::new();
    for table in orders.tables().iter().copied() {
        let keys = orders.keys(table, &batch, &rows).unwrap();
        rows.add(table, keys.into_iter().map(|key| (key, Default::default())).collect::<Rows>());
    }
    let decided = batch.iter().map(|i| orders.decide(i, &mut rows, now()).unwrap()).collect();
    (decided, rows)
}

fn payload(emit: &Emit) -> Value {
    serde_json::from_str(emit.envelope.payload.get()).unwrap()
}

fn status(decided: &Decided) -> Option<u16> {
    decided.reply.as_ref().map(|reply| reply.status)
}

#[test]
fn an_order_is_priced_published_and_answered() {
    let facts = vec![
        known("tea", Some(350), 1),
        known("cup", Some(1_000), 2),
        known("cup", Some(1), 1),
        order(PaymentMode::AfterStock),
    ];
    let (decided, rows) = told(&orders(Profile::Default), facts);
    let [emit] = decided[3].emits.as_slice() else { panic!("{decided:?}") };
    assert_eq!((&*emit.to, &*emit.key), ("t.orders.events", "o-1"));
    let envelope = &emit.envelope;
    assert_eq!(envelope.event_id, derived_id(&o("o-1"), "OrderCreated"));
    assert_eq!(envelope.correlation_id.as_str(), "o-1");
    assert_eq!(envelope.causation_id.as_ref().map(EventId::as_str), Some("cause-1"));
    assert_eq!(
        payload(emit),
        json!({
            "orderId": "o-1",
            "lines": [
                { "productId": "tea", "qty": 2, "unitPrice": 350 },
                { "productId": "cup", "qty": 1, "unitPrice": 1000 },
                { "productId": "tea", "qty": 1, "unitPrice": 350 },
            ],
            "amount": 2050,
            "currency": "EUR",
            "paymentMode": "after_stock",
        })
    );
    let reply = decided[3].reply.as_ref().unwrap();
    let body = json!({ "orderId": "o-1", "status": "pending", "amount": 2050, "currency": "EUR" });
    assert_eq!((reply.status, &reply.body, reply.kept), (201, &body, true));
    assert_eq!(reply.location.as_deref(), Some("orders/o-1"));
    let saga: Saga = rows.get("o-1").unwrap();
    assert_eq!(saga.deadline, Some(now() + TimeDelta::minutes(15)));
}

#[test]
fn an_order_without_a_price_leaves_no_trace() {
    let facts = vec![
        known("tea", Some(350), 1),
        known("cup", Some(5), 1),
        known("cup", None, 2),
        order(PaymentMode::Parallel),
    ];
    let (decided, rows) = told(&orders(Profile::Default), facts);
    assert!(decided[3].emits.is_empty());
    let reply = decided[3].reply.as_ref().unwrap();
    assert_eq!((reply.status, reply.kept, reply.retry_after_s), (422, false, Some(1)));
    assert_eq!(reply.body["type"], "urn:shakedown:problem:price-unavailable");
    assert!(rows.get::<Saga>("o-1").is_none());
    let facts = vec![known("tea", Some(i64::MAX), 1), known("cup", Some(5), 1)];
    let facts = facts.into_iter().chain([order(PaymentMode::Parallel)]).collect();
    let (decided, rows) = told(&orders(Profile::Default), facts);
    let reply = decided[2].reply.as_ref().unwrap();
    assert_eq!(reply.body["type"], "urn:shakedown:problem:amount-too-large");
    assert!(rows.get::<Saga>("o-1").is_none());
}

#[test]
fn profile_catalog_sends_nothing_of_the_additions() {
    let orders = orders(Profile::Catalog);
    let facts = vec![
        order(PaymentMode::Parallel),
        fact(Fact::PaymentOk),
        fact(Fact::StockFailed { reason: Some("why".to_owned()) }),
    ];
    let (decided, _) = told(&orders, facts);
    let created = &decided[0].emits[0];
    let lines = json!([{ "productId": "tea", "qty": 2 }, { "productId": "cup", "qty": 1 },
        { "productId": "tea", "qty": 1 }]);
    assert_eq!(payload(created), json!({ "orderId": "o-1", "lines": lines }));
    assert_eq!(created.envelope.causation_id, None);
    let body = json!({ "orderId": "o-1", "status": "pending" });
    assert_eq!(decided[0].reply.as_ref().unwrap().body, body);
    let cancelled = &decided[2].emits[0];
    assert_eq!(payload(cancelled), json!({ "orderId": "o-1", "finalStatus": "cancelled" }));
    assert_eq!(cancelled.envelope.causation_id, None);
}

#[test]
fn a_cancel_is_answered_by_the_order_as_it_was() {
    let start = [known("tea", Some(1), 1), known("cup", Some(1), 1), order(PaymentMode::None)];
    let with = |facts: &[Incoming]| [&start[..], facts].concat();
    let orders = orders(Profile::Default);
    let (decided, _) = told(&orders, with(&[fact(Fact::Cancel), fact(Fact::Cancel)]));
    assert_eq!((status(&decided[3]), status(&decided[4])), (Some(202), Some(200)));
    let [emit] = decided[3].emits.as_slice() else { panic!("{decided:?}") };
    assert_eq!(emit.envelope.event_id, derived_id(&o("o-1"), "OrderCancelled"));
    assert_eq!(payload(emit)["reason"], "customer_request");
    assert!(decided[4].emits.is_empty());
    let (decided, _) = told(&orders, with(&[fact(Fact::StockReserved), fact(Fact::Cancel)]));
    assert_eq!(decided[3].emits[0].envelope.event_type, "OrderConfirmed");
    assert_eq!(status(&decided[4]), Some(409));
    let (decided, rows) = told(&orders, vec![fact(Fact::Cancel)]);
    assert_eq!(status(&decided[0]), Some(404));
    assert!(rows.get::<Saga>("o-1").is_none());
}

#[test]
fn a_stub_is_kept_and_its_id_is_taken() {
    let facts = vec![
        fact(Fact::StockReserved),
        known("tea", Some(1), 1),
        known("cup", Some(1), 1),
        order(PaymentMode::None),
        fact(Fact::Cancel),
    ];
    let (decided, rows) = told(&orders(Profile::Default), facts);
    assert!(decided.iter().all(|decided| decided.emits.is_empty()));
    assert_eq!((status(&decided[3]), status(&decided[4])), (Some(503), Some(404)));
    let saga: Saga = rows.get("o-1").unwrap();
    assert!(saga.placed.is_none());
    let index = chassis::Document::index(&saga);
    assert_eq!(index, [None, Some("2023-11-14T22:13:20.123Z".to_owned()), None]);
}

#[test]
fn only_open_orders_have_a_deadline_in_the_index() {
    let start = [known("tea", Some(1), 1), known("cup", Some(1), 1), order(PaymentMode::None)];
    let orders = orders(Profile::Default);
    let (_, rows) = told(&orders, start.to_vec());
    let index = chassis::Document::index(&rows.get::<Saga>("o-1").unwrap());
    let created = Some("2023-11-14T22:13:20.123Z".to_owned());
    assert_eq!(index, [Some("2023-11-14T22:28:20.123Z".to_owned()), None, created.clone()]);
    let ended = [&start[..], &[fact(Fact::StockReserved)]].concat();
    let (_, rows) = told(&orders, ended);
    let index = chassis::Document::index(&rows.get::<Saga>("o-1").unwrap());
    assert_eq!(index, [None, None, created]);
}

fn read(profile: Profile, event: &Event) -> Read<Incoming> {
    let seal = Seal {
        event_id: EventId::parse("e-1").unwrap(),
        occurred_at: now(),
        correlation_id: CorrelationId::parse("o-1").unwrap(),
        causation_id: None,
    };
    orders(profile).read(&event.seal(seal)).unwrap()
}

#[test]
fn events_mean_what_they_say() {
    let order_id = o("o-1");
    let why = Some("why".to_owned());
    let payment = |status| {
        let (order_id, reason) = (o("o-1"), Some("why".to_owned()));
        Event::PaymentProcessed(PaymentProcessed { order_id, status, reason })
    };
    let facts = [
        (Event::StockReserved(StockReserved { order_id: order_id.clone() }), Fact::StockReserved),
        (
            Event::StockFailed(StockFailed { order_id: order_id.clone(), reason: why.clone() }),
            Fact::StockFailed { reason: why.clone() },
        ),
        (payment(PaymentStatus::Success), Fact::PaymentOk),
        (payment(PaymentStatus::Failure), Fact::PaymentFailed { reason: why }),
    ];
    for (event, meant) in facts {
        for profile in [Profile::Default, Profile::Catalog] {
            let Read::Fact(Incoming::Saga { fact, .. }) = read(profile, &event) else {
                panic!("{event:?}")
            };
            assert_eq!(fact, meant);
        }
    }
    let final_status = FinalStatus::Cancelled;
    let own = Event::OrderCancelled(OrderCancelled { order_id, final_status, reason: None });
    assert!(matches!(read(Profile::Default, &own), Read::Skip("not_consumed")));
}

#[test]
fn products_are_guarded_by_their_version_and_not_read_in_profile_catalog() {
    let product = Event::ProductUpserted(ProductUpserted {
        product_id: p("tea"),
        name: "Tea".to_owned(),
        category_id: contract::CategoryId::parse("drinks").unwrap(),
        price: Some(350),
        updated_at: now(),
        product_version: Some(7),
    });
    let Read::Guarded(Incoming::PriceKnown { product_id, price }) =
        read(Profile::Default, &product)
    else {
        panic!("a product is guarded")
    };
    assert_eq!((product_id, price.price, price.stamp.version), (p("tea"), Some(350), Some(7)));
    assert!(matches!(read(Profile::Catalog, &product), Read::Skip("not_consumed")));
}

#[test]
fn what_breaks_the_contract_is_refused_with_its_code() {
    let text = |kind: &str, version: u32, payload: &str| {
        let text = format!(
            r#"{{"eventId":"e","eventType":"{kind}","eventVersion":{version},
            "occurredAt":"2026-01-02T03:04:05.678Z","correlationId":"c","payload":{payload}}}"#
        );
        orders(Profile::Default).read(&Envelope::read(text.as_bytes()).unwrap())
    };
    assert!(matches!(text("Surprise", 1, "{}"), Ok(Read::Skip("unknown_type"))));
    assert_eq!(text("StockReserved", 2, "{}").unwrap_err().code, "unsupported_version");
    assert_eq!(text("StockReserved", 1, "{}").unwrap_err().code, "bad_payload");
}

#[test]
fn prices_wait_for_nothing_and_facts_of_an_order_keep_their_order() {
    let orders = orders(Profile::Default);
    for event_type in contract::TYPES {
        let free = orders.sequence(event_type) == Sequence::Free;
        assert_eq!(free, event_type == ProductUpserted::TYPE, "{event_type}");
    }
}
