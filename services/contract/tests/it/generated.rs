//! Any event that our types can say within the producers' bounds.

use chrono::{DateTime, Utc};
use contract::{
    CATALOG, CartId, CategoryId, Event, FinalStatus, Line, NotificationChannel, NotificationJob,
    NotificationType, OrderCancelled, OrderConfirmed, OrderCreated, OrderId, PaymentMode,
    PaymentProcessed, PaymentStatus, ProductId, ProductUpserted, StockFailed, StockReserved,
};
use envelope::{CorrelationId, Envelope, EventId, Seal};
use proptest::option;
use proptest::prelude::*;

use crate::{assert_fits, validators};

const ID: &str = "[!-~]{1,64}";
const TEXT: &str = "\\PC{0,512}";

fn order_id() -> impl Strategy<Value = OrderId> {
    ID.prop_map(|text| OrderId::parse(text).unwrap())
}

fn product_id() -> impl Strategy<Value = ProductId> {
    ID.prop_map(|text| ProductId::parse(text).unwrap())
}

fn time() -> impl Strategy<Value = DateTime<Utc>> {
    // The years 0 to 9999.
    (-62_167_219_200_000i64..253_402_300_800_000)
        .prop_map(|ms| DateTime::from_timestamp_millis(ms).unwrap())
}

fn minor() -> impl Strategy<Value = Option<i64>> {
    option::of(prop_oneof![0..=i64::MAX, Just(0), Just(i64::MAX)])
}

fn product() -> impl Strategy<Value = Event> {
    (product_id(), TEXT, ID, minor(), time(), option::of(1..=i64::MAX as u64)).prop_map(
        |(product_id, name, category, price, updated_at, product_version)| {
            let category_id = CategoryId::parse(category).unwrap();
            Event::ProductUpserted(ProductUpserted {
                product_id,
                name,
                category_id,
                price,
                updated_at,
                product_version,
            })
        },
    )
}

fn line() -> impl Strategy<Value = Line> {
    (product_id(), 1..=u32::MAX, minor()).prop_map(|(product_id, qty, unit_price)| Line {
        product_id,
        qty,
        unit_price,
    })
}

fn order() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![
        Just(PaymentMode::Parallel),
        Just(PaymentMode::AfterStock),
        Just(PaymentMode::None)
    ];
    let cart = option::of(ID.prop_map(|text| CartId::parse(text).unwrap()));
    let lines = prop::collection::vec(line(), 1..20);
    (order_id(), cart, lines, minor(), option::of("[A-Z]{3}"), option::of(mode)).prop_map(
        |(order_id, cart_id, lines, amount, currency, payment_mode)| {
            Event::OrderCreated(OrderCreated {
                order_id,
                cart_id,
                lines,
                amount,
                currency,
                payment_mode,
            })
        },
    )
}

fn outcome() -> impl Strategy<Value = Event> {
    let status = prop_oneof![Just(PaymentStatus::Success), Just(PaymentStatus::Failure)];
    (order_id(), status, option::of(TEXT)).prop_map(|(order_id, status, reason)| {
        Event::PaymentProcessed(PaymentProcessed { order_id, status, reason })
    })
}

fn job() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![Just(NotificationType::Confirmed), Just(NotificationType::Cancelled)];
    (order_id(), kind, option::of(1..=u32::MAX)).prop_map(|(order_id, kind, revision)| {
        let channel = NotificationChannel::Email;
        Event::NotificationJob(NotificationJob { order_id, kind, channel, revision })
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        product(),
        order(),
        order_id().prop_map(|order_id| Event::StockReserved(StockReserved { order_id })),
        (order_id(), TEXT).prop_map(|(order_id, reason)| {
            Event::StockFailed(StockFailed { order_id, reason: Some(reason) })
        }),
        outcome(),
        order_id().prop_map(|order_id| {
            let final_status = FinalStatus::Confirmed;
            Event::OrderConfirmed(OrderConfirmed { order_id, final_status })
        }),
        (order_id(), option::of(TEXT)).prop_map(|(order_id, reason)| {
            let final_status = FinalStatus::Cancelled;
            Event::OrderCancelled(OrderCancelled { order_id, final_status, reason })
        }),
        job(),
    ]
}

fn seal() -> impl Strategy<Value = Seal> {
    (ID, time(), ID, option::of(ID)).prop_map(|(id, occurred_at, correlation, causation)| Seal {
        event_id: EventId::parse(id).unwrap(),
        occurred_at,
        correlation_id: CorrelationId::parse(correlation).unwrap(),
        causation_id: causation.map(|id| EventId::parse(id).unwrap()),
    })
}

#[test]
fn any_event_fits_its_schema_and_comes_back_equal() {
    let validators = validators();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) };
    proptest!(config, |(event in event(), seal in seal())| {
        let sent = event.seal(seal);
        let bytes = sent.to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap();
        assert_fits(&validators[event.kind()], &value, event.kind());

        let row = CATALOG.iter().find(|row| row.event == event.kind()).unwrap();
        prop_assert_eq!(row.stream, event.stream());
        prop_assert_eq!(row.version, sent.event_version);
        let key = if row.event == "ProductUpserted" { "productId" } else { "orderId" };
        prop_assert_eq!(&value["payload"][key], &*event.key());

        let back = Envelope::read(&bytes).unwrap();
        prop_assert_eq!(back.fingerprint(), sent.fingerprint());
        prop_assert_eq!(back.event_id, sent.event_id);
        prop_assert_eq!(back.occurred_at, sent.occurred_at);
        prop_assert_eq!(back.correlation_id, sent.correlation_id);
        prop_assert_eq!(back.causation_id, sent.causation_id);
        let again = Envelope::read(&bytes).unwrap();
        prop_assert_eq!(Event::read(&again).unwrap(), Some(event));
    });
}

#[test]
fn a_damaged_event_is_refused_or_can_be_sealed_again() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(event in event(), seal in seal(), at in any::<usize>(), byte in b' '..b'~')| {
        let mut bytes = event.seal(seal).to_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(envelope) = Envelope::read(&bytes)
            && let Ok(Some(event)) = Event::read(&envelope)
        {
            let seal = Seal {
                event_id: envelope.event_id,
                occurred_at: envelope.occurred_at,
                correlation_id: envelope.correlation_id,
                causation_id: envelope.causation_id,
            };
            let again = Envelope::read(&event.seal(seal).to_bytes()).unwrap();
            prop_assert_eq!(Event::read(&again).unwrap(), Some(event));
        }
    });
}
