//! The registry of versions, with a made-up history of StockFailed: version 1 says `why`, version 2
//! `reason`, version 3 `reason` and `by`.

use contract::{
    CATALOG, Contract, ContractError, Event, OrderId, Profile, Reading, Service, StockFailed,
    Upcast, Versions, WritePayload,
};
use envelope::{CorrelationId, Envelope, EventId, Seal, parse_time};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

fn reason_for_why(mut payload: Value) -> Result<Value, String> {
    let fields = payload.as_object_mut().ok_or("no object")?;
    let why = fields.remove("why").ok_or("why is missing")?;
    fields.insert("reason".to_owned(), why);
    Ok(payload)
}

fn by_inventory(mut payload: Value) -> Result<Value, String> {
    payload["by"] = json!("inventory");
    Ok(payload)
}

fn read(payload: &RawValue) -> Result<Event, String> {
    let payload: Value = serde_json::from_str(payload.get()).map_err(|e| e.to_string())?;
    if payload["by"] != "inventory" {
        return Err("by is missing".to_owned());
    }
    let order_id =
        OrderId::parse(payload["orderId"].as_str().unwrap_or("")).map_err(|e| e.to_string())?;
    let reason = payload["reason"].as_str().map(str::to_owned);
    Ok(Event::StockFailed(StockFailed { order_id, reason }))
}

fn write(event: &Event) -> Option<Box<RawValue>> {
    let Event::StockFailed(e) = event else { return None };
    to_raw_value(&json!({ "orderId": e.order_id, "reason": e.reason, "by": "inventory" })).ok()
}

fn write_second(event: &Event) -> Option<Box<RawValue>> {
    let Event::StockFailed(e) = event else { return None };
    to_raw_value(&json!({ "orderId": e.order_id, "reason": e.reason })).ok()
}

fn contract(written: u32, write: WritePayload) -> Contract {
    let upcasts: Vec<Upcast> = vec![reason_for_why, by_inventory];
    Contract::default().with("StockFailed", Versions { upcasts, read, written, write })
}

fn envelope(kind: &str, version: u32, payload: Value) -> Envelope {
    Envelope::seal_raw(seal(), kind, version, to_raw_value(&payload).unwrap())
}

fn seal() -> Seal {
    Seal {
        event_id: EventId::parse("e-1").unwrap(),
        occurred_at: parse_time("2026-01-02T03:04:05.678Z").unwrap(),
        correlation_id: CorrelationId::parse("o-1").unwrap(),
        causation_id: None,
    }
}

fn failed(reason: &str) -> Event {
    let order_id = OrderId::parse("o-1").unwrap();
    Event::StockFailed(StockFailed { order_id, reason: Some(reason.to_owned()) })
}

#[test]
fn every_version_is_read_as_the_newest() {
    let contract = contract(3, write);
    for (version, payload) in [
        (1, json!({ "orderId": "o-1", "why": "none left" })),
        (2, json!({ "orderId": "o-1", "reason": "none left" })),
        (3, json!({ "orderId": "o-1", "reason": "none left", "by": "inventory" })),
    ] {
        let read = contract.read(&envelope("StockFailed", version, payload));
        assert_eq!(read, Ok(Some(failed("none left"))), "version {version}");
    }
}

#[test]
fn what_no_step_can_take_on_is_a_bad_payload_and_a_higher_version_is_unsupported() {
    let contract = contract(3, write);
    for (version, payload) in [
        (1, json!({ "orderId": "o-1" })),
        (1, json!([])),
        (1, json!({ "orderId": "", "why": "x" })),
        (2, json!({ "orderId": "o-1", "reason": "a\0" })),
        (3, json!({ "orderId": "o-1", "reason": "by is missing" })),
    ] {
        let error = contract.read(&envelope("StockFailed", version, payload.clone())).unwrap_err();
        assert_eq!(error.code(), "bad_payload", "version {version} {payload}");
    }
    let error = contract.read(&envelope("StockFailed", 4, json!({}))).unwrap_err();
    let kind = "StockFailed";
    assert_eq!(error, ContractError::UnsupportedVersion { kind, version: 4, known: 3 });
    assert_eq!(error.code(), "unsupported_version");
}

#[test]
fn a_release_may_read_a_version_before_it_writes_it() {
    let contract = contract(2, write_second);
    let sealed = contract.seal(&failed("none left"), seal());
    assert_eq!((sealed.event_type.as_str(), sealed.event_version), ("StockFailed", 2));
    assert_eq!(contract.read(&sealed), Ok(Some(failed("none left"))));
    let others = OrderId::parse("o-1").unwrap();
    let others = Event::StockReserved(contract::StockReserved { order_id: others });
    assert_eq!(contract.seal(&others, seal()).event_version, 1, "other types are as they ship");
}

#[test]
fn a_service_reads_what_it_consumes_and_skips_the_rest_unread() {
    let shipped = Contract::default();
    for row in CATALOG {
        let broken = envelope(row.event, row.version + 1, json!("nothing of the sort"));
        for profile in [Profile::Default, Profile::Catalog] {
            for service in Service::ALL {
                let read = shipped.read_as(service, profile, &broken);
                match row.consumers_in(profile).any(|consumer| consumer == service) {
                    true => assert_eq!(read.unwrap_err().code(), "unsupported_version"),
                    false => assert_eq!(read, Ok(Reading::Skip("not_consumed"))),
                }
            }
        }
    }
    let unknown = envelope("OrderShipped", 1, json!({}));
    let read = shipped.read_as(Service::Query, Profile::Default, &unknown);
    assert_eq!(read, Ok(Reading::Skip("unknown_type")));
    let known = envelope("StockFailed", 1, json!({ "orderId": "o-1", "reason": "x" }));
    let read = shipped.read_as(Service::Query, Profile::Default, &known);
    assert_eq!(read, Ok(Reading::Event(failed("x"))));
}

#[test]
#[should_panic(expected = "4 is not in 1 to 3")]
fn what_is_written_must_be_read() {
    contract(4, write);
}

#[test]
#[should_panic(expected = "the catalog has no OrderShipped")]
fn only_types_of_the_catalog_have_versions() {
    Contract::default()
        .with("OrderShipped", Versions { upcasts: Vec::new(), read, written: 1, write });
}
