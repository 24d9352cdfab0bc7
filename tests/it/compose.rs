//! Holds docker-compose.yml to the Compose Specification's schema and to the rules of this repository: images
//! pinned to a full version, health checks, named volumes, no port open beyond this machine.
//! It never starts a container; the hosted workflow does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().expect("a mapping of services").iter()
}

/// The strings of a list; an entry in the long form is none and fails the test that asked.
fn strings<'a>(service: &'a Value, field: &str) -> Vec<&'a str> {
    let list = service[field].as_array().unwrap_or_else(|| panic!("no list of {field}"));
    assert!(!list.is_empty(), "an empty list of {field}");
    list.iter()
        .map(|entry| entry.as_str().unwrap_or_else(|| panic!("{field}: {entry} is no string")))
        .collect()
}

/// A tag that names one release: `4.3.1`, `4.0.9-management`, `15.17` (PostgreSQL's versions have two parts).
fn is_full_version(image: &str) -> bool {
    let Some((name, tag)) = image.rsplit_once(':') else { return false };
    let version = tag.split_once('-').map_or(tag, |(version, _variant)| version);
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() >= if name == "postgres" { 2 } else { 3 }
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[test]
fn follows_the_compose_specification() {
    let schema: Value = serde_json::from_str(&read("fixtures/compose-spec.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(&compose())
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "docker-compose.yml:\n{}", errors.join("\n"));

    let mut misspelt = compose();
    misspelt["services"]["kafka"]["healtcheck"] = Value::Bool(true);
    assert!(!validator.is_valid(&misspelt), "the schema must refuse an unknown key");
}

#[test]
fn runs_the_three_servers() {
    let compose = compose();
    let names: BTreeSet<&str> = services(&compose).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["kafka", "postgres", "rabbitmq"]));
}

#[test]
fn images_are_pinned_to_a_full_version() {
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().unwrap_or_default();
        assert!(is_full_version(image), "{name}: image {image:?} is not pinned to one release");
    }
    for loose in
        ["kafka", "apache/kafka:latest", "apache/kafka:4.3", "postgres:15", "rabbitmq:4-management"]
    {
        assert!(!is_full_version(loose), "{loose}");
    }
}

#[test]
fn each_service_has_a_health_check() {
    for (name, service) in services(&compose()) {
        let check = &service["healthcheck"];
        let test = strings(check, "test");
        assert!(matches!(test[0], "CMD" | "CMD-SHELL") && test.len() > 1, "{name}: {test:?}");
        for field in ["interval", "timeout", "retries"] {
            assert!(!check[field].is_null(), "{name}: its health check has no {field}");
        }
    }
}

#[test]
fn data_lies_in_named_volumes() {
    let compose = compose();
    let declared = compose["volumes"].as_object().expect("named volumes");
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        for volume in strings(service, "volumes") {
            let source = volume.split(':').next().unwrap_or_default();
            assert!(declared.contains_key(source), "{name}: {volume} is no named volume");
            assert!(used.insert(source), "{name}: {source} belongs to another service too");
        }
    }
    assert_eq!(used.len(), declared.len(), "a declared volume is unused");
}

#[test]
fn ports_are_open_to_this_machine_alone() {
    for (name, service) in services(&compose()) {
        for port in strings(service, "ports") {
            let parts: Vec<&str> = port.split(':').collect();
            assert!(
                matches!(parts.as_slice(), ["127.0.0.1", host, container] if host == container),
                "{name}: {port} is not 127.0.0.1 with the server's own port"
            );
        }
    }
}
