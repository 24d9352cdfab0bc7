//! The examples of `fixtures/events`: what is read, what is refused under which code, what is
//! tolerated.

use std::collections::{BTreeMap, BTreeSet};

use contract::{CATALOG, Event, NotificationChannel, NotificationType};
use envelope::{Envelope, Seal};
use serde_json::{Value, json};

use crate::{assert_fits, json_files, schema_value, validators};

/// The event in these bytes, `None` where its type is unknown, or the code of the dead letter.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Envelope, Event)>, &'static str> {
    let envelope = Envelope::read(bytes).map_err(|e| e.code())?;
    let event = Event::read(&envelope).map_err(|e| e.code())?;
    Ok(event.map(|event| (envelope, event)))
}

pub(crate) fn goldens() -> BTreeMap<String, Value> {
    let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).unwrap();
    json_files("fixtures/events").into_iter().map(|(name, b)| (name, parse(b))).collect()
}

pub(crate) fn golden(name: &str) -> Value {
    goldens().remove(name).unwrap_or_else(|| panic!("no golden example {name}"))
}

pub(crate) fn seal_of(envelope: &Envelope) -> Seal {
    Seal {
        event_id: envelope.event_id.clone(),
        occurred_at: envelope.occurred_at,
        correlation_id: envelope.correlation_id.clone(),
        causation_id: envelope.causation_id.clone(),
    }
}

#[test]
fn each_row_has_a_minimal_and_a_full_example_and_there_are_no_others() {
    let wanted: BTreeSet<String> = CATALOG
        .iter()
        .flat_map(|row| ["minimal", "full"].map(|n| format!("{}.v{}.{n}", row.event, row.version)))
        .collect();
    assert_eq!(goldens().into_keys().collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn golden_examples_fit_their_schema_and_come_back_the_same() {
    let validators = validators();
    for (name, value) in goldens() {
        let kind = name.split('.').next().unwrap();
        assert_fits(&validators[kind], &value, &name);
        let (envelope, event) = read(value.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(event.kind(), kind);
        let sealed = event.seal(seal_of(&envelope)).to_bytes();
        assert_eq!(serde_json::from_slice::<Value>(&sealed).unwrap(), value, "{name}");
    }
}

/// Paths of all fields of a value: `eventId`, `payload.lines[].qty`.
fn paths(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{prefix}{name}");
                paths(field, &format!("{path}."), found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            let prefix = format!("{}[].", prefix.trim_end_matches('.'));
            items.iter().for_each(|item| paths(item, &prefix, found));
        }
        _ => {}
    }
}

/// Paths of all fields of a schema, or of the required ones alone.
fn schema_paths(schema: &Value, all: bool, prefix: &str, found: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        schema_paths(items, all, &format!("{}[].", prefix.trim_end_matches('.')), found);
    }
    let Some(properties) = schema.get("properties") else { return };
    let required = schema["required"].as_array().unwrap();
    for (name, property) in properties.as_object().unwrap() {
        if all || required.contains(&json!(name)) {
            found.insert(format!("{prefix}{name}"));
            schema_paths(property, all, &format!("{prefix}{name}."), found);
        }
    }
}

#[test]
fn minimal_examples_have_the_required_fields_alone_and_full_ones_every_field() {
    for row in CATALOG {
        for (example, all) in [("minimal", false), ("full", true)] {
            let (mut has, mut must) = (BTreeSet::new(), BTreeSet::new());
            paths(&golden(&format!("{}.v{}.{example}", row.event, row.version)), "", &mut has);
            schema_paths(&schema_value(row.event, row.version), all, "", &mut must);
            assert_eq!(has, must, "{} {example}", row.event);
        }
    }
}

#[test]
fn invalid_examples_fit_no_schema_and_are_refused_under_the_code_in_their_name() {
    let validators = validators();
    let mut seen = BTreeMap::<String, usize>::new();
    for (name, bytes) in json_files("fixtures/events/invalid") {
        let [code, kind, _what] = name.split('.').collect::<Vec<_>>()[..] else {
            panic!("{name}: not <code>.<event>.<what>")
        };
        assert_eq!(read(&bytes).unwrap_err(), code, "{name}");
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(!validators[kind].is_valid(&value), "{name} fits the schema");
        *seen.entry(code.to_owned()).or_default() += 1;
    }
    let codes: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(codes, ["bad_envelope", "bad_payload", "unsupported_version"]);
    assert_eq!(seen["unsupported_version"], CATALOG.len());
}

#[test]
fn a_cut_or_oversized_record_is_refused() {
    let good = golden("OrderCreated.v1.full").to_string();
    for cut in 0..good.len() {
        assert_eq!(read(&good.as_bytes()[..cut]).unwrap_err(), "bad_envelope", "{cut}");
    }
    let padded = format!("{good}{}", " ".repeat(envelope::ENVELOPE_BYTES_MAX));
    assert_eq!(read(padded.as_bytes()).unwrap_err(), "envelope_too_large");
}

#[test]
fn an_unknown_type_is_skipped_at_any_version() {
    for version in [1, 2] {
        let mut value = golden("OrderCreated.v1.full");
        value["eventType"] = json!("OrderShipped");
        value["eventVersion"] = json!(version);
        assert!(read(value.to_string().as_bytes()).unwrap().is_none());
    }
}

#[test]
fn readers_tolerate_more_than_producers_may_write() {
    let validators = validators();
    let line = json!({"productId": "27479", "qty": u32::MAX});
    let cases = [
        ("OrderCreated.v1.minimal", "/payload", "shop", json!("Berlin")),
        ("OrderCreated.v1.minimal", "", "traceparent", json!("00-1")),
        ("OrderCreated.v1.minimal", "/payload", "amount", Value::Null),
        ("OrderCreated.v1.full", "/payload/lines/0", "weight", json!(1.5)),
        ("OrderCreated.v1.minimal", "", "causationId", Value::Null),
        ("OrderCreated.v1.minimal", "", "occurredAt", json!("2026-01-02T05:04:05+02:00")),
        ("StockReserved.v1.minimal", "/payload", "reason", json!("none")),
        ("StockFailed.v1.minimal", "/payload", "reason", Value::Null),
        ("StockFailed.v1.minimal", "/payload", "reason", json!("x".repeat(5_000))),
        ("ProductUpserted.v1.minimal", "/payload", "name", json!("two\nlines")),
    ];
    for (name, at, field, given) in cases {
        let mut value = golden(name);
        value.pointer_mut(at).unwrap()[field] = given;
        let (_, event) = read(value.to_string().as_bytes()).unwrap().unwrap();
        assert!(!validators[event.kind()].is_valid(&value), "{name} {field} is no extra");
    }
    let mut value = golden("OrderCreated.v1.minimal");
    value["payload"]["lines"] = json!(vec![line; 5_000]);
    assert_fits(&validators["OrderCreated"], &value, "5,000 lines");
    let (_, event) = read(value.to_string().as_bytes()).unwrap().unwrap();
    let Event::OrderCreated(order) = event else { panic!("another event") };
    assert_eq!(order.lines.len(), 5_000);
}

#[test]
fn what_a_refusal_quotes_is_fit_to_be_stored() {
    let mut value = golden("PaymentProcessed.v1.minimal");
    value["payload"]["status"] = json!("\0".repeat(10_000));
    let envelope = Envelope::read(value.to_string().as_bytes()).unwrap();
    let text = Event::read(&envelope).unwrap_err().to_string();
    assert!(!text.contains(char::is_control) && text.len() < 2_000, "{text}");
}

#[test]
#[should_panic(expected = "breaks its own contract")]
fn sealing_what_every_reader_refuses_panics() {
    let (envelope, event) =
        read(golden("OrderCreated.v1.full").to_string().as_bytes()).unwrap().unwrap();
    let Event::OrderCreated(mut order) = event else { panic!("another event") };
    order.lines[0].qty = 0;
    Event::OrderCreated(order).seal(seal_of(&envelope));
}

#[test]
fn names_are_those_of_the_wire() {
    for kind in [NotificationType::Confirmed, NotificationType::Cancelled] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    let channel = NotificationChannel::Email;
    assert_eq!(serde_json::to_value(channel).unwrap(), channel.name());
}
