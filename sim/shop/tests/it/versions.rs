//! Old and new releases in one world: OrderCreated in versions 1 and 2, side by side.

use std::path::PathBuf;

use contract::{Contract, ContractError, Event};
use envelope::{Envelope, Seal};
use serde_json::{Value, json};
use sim_shop::next;

use super::holds;

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn example(path: &str) -> (Envelope, Value) {
    let bytes = std::fs::read(fixture(path)).expect("an example");
    (Envelope::read(&bytes).expect("an envelope"), serde_json::from_slice(&bytes).expect("JSON"))
}

fn again(contract: &Contract, event: &Event, of: &Envelope) -> Value {
    let Envelope { event_id, occurred_at, correlation_id, causation_id, .. } = of.clone();
    let sealed = contract.seal(event, Seal { event_id, occurred_at, correlation_id, causation_id });
    serde_json::from_slice(&sealed.to_bytes()).expect("JSON")
}

#[test]
fn each_example_of_version_1_means_the_same_by_way_of_version_2() {
    let (shipped, next) = (Contract::default(), next::contract());
    let schema = serde_json::from_str(next::SCHEMA).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    for which in ["minimal", "full"] {
        let (old, old_json) = example(&format!("events/OrderCreated.v1.{which}.json"));
        let (new, new_json) = example(&format!("events/next/OrderCreated.v2.{which}.json"));
        let event = shipped.read(&old).unwrap().unwrap();
        assert_eq!(next.read(&old), Ok(Some(event.clone())), "{which}: upcast");
        assert_eq!(next.read(&new), Ok(Some(event.clone())), "{which}: read");
        assert_eq!(again(&next, &event, &old), new_json, "{which}: written");
        assert_eq!(again(&shipped, &event, &new), old_json, "{which}: written by the old release");
        assert!(schema.is_valid(&new_json) && !schema.is_valid(&old_json), "{which}: the schema");
        let refusal =
            ContractError::UnsupportedVersion { kind: "OrderCreated", version: 2, known: 1 };
        assert_eq!(shipped.read(&new), Err(refusal), "{which}");
    }
}

#[test]
fn what_version_1_refuses_is_refused_by_way_of_version_2_as_well() {
    let mut refused = 0;
    for entry in std::fs::read_dir(fixture("events/invalid")).expect("examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with("bad_payload.OrderCreated.") || name.contains("currency") {
            continue;
        }
        let envelope = Envelope::read(&std::fs::read(&path).expect("bytes")).expect(&name);
        assert_eq!(next::contract().read(&envelope).unwrap_err().code(), "bad_payload", "{name}");
        refused += 1;
    }
    assert!(refused > 20, "{refused}");
    // A currency without an amount is refused by the old release alone, where it is no code: there
    // is nothing that it would be of.
    let (envelope, mut json) = example("events/OrderCreated.v1.minimal.json");
    json["payload"]["currency"] = json!("eur");
    let lonely = Envelope::read(json.to_string().as_bytes()).expect("an envelope");
    assert!(Contract::default().read(&lonely).is_err());
    assert_eq!(next::contract().read(&lonely), next::contract().read(&envelope));
}

#[test]
fn an_old_producer_is_understood_by_new_consumers() {
    holds("versions.old_producer_new_consumers");
}

#[test]
fn a_rolling_upgrade_of_everybody_loses_no_order() {
    let versions = holds("versions.rolling_upgrade").verdict.summary.marks;
    assert!(versions["OrderCreated v1"] > 0 && versions["OrderCreated v2"] > 0, "{versions:?}");
}

#[test]
fn what_an_old_consumer_could_not_read_is_redriven_after_its_upgrade() {
    let marks = holds("versions.new_producer_old_consumer").verdict.summary.marks;
    assert!(marks["letters of unsupported_version"] >= 4, "{marks:?}");
    assert_eq!(marks.get("OrderCreated v1"), None);
}
