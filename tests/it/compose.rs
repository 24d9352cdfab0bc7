//! Holds docker-compose.yml to the Compose Specification's schema and to the rules of this repository: images
//! pinned to a full version, health checks, named volumes, no port open beyond this machine, each service of the
//! shop once or twice; and the Dockerfile to its own: the toolchain of the repository, no root.
//! It never starts a container; the hosted workflow does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::SERVICES;

const SERVERS: [&str; 3] = ["kafka", "postgres", "rabbitmq"];

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

/// Those that this profile starts; none is what starts without one.
fn profile(compose: &Value, name: Option<&str>) -> BTreeSet<String> {
    let started = |service: &Value| match (service["profiles"].as_array(), name) {
        (None, _) => true,
        (Some(profiles), Some(name)) => profiles.iter().any(|profile| profile == name),
        (Some(_), None) => false,
    };
    services(compose).filter(|(_, s)| started(s)).map(|(name, _)| name.clone()).collect()
}

/// The servers alone.
fn servers(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    services(compose).filter(|(name, _)| SERVERS.contains(&name.as_str()))
}

/// The shop's own: its services and the gateway.
fn shop(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    services(compose).filter(|(name, _)| !SERVERS.contains(&name.as_str()))
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
fn profiles_start_the_servers_each_service_or_two_of_each() {
    let compose = compose();
    let mut expected: BTreeSet<String> = SERVERS.map(str::to_owned).into();
    assert_eq!(profile(&compose, None), expected);
    expected.extend(SERVICES.map(str::to_owned));
    expected.insert("gateway".to_owned());
    assert_eq!(profile(&compose, Some("services")), expected);
    expected.extend(SERVICES.map(|name| format!("{name}-2")));
    assert_eq!(profile(&compose, Some("two")), expected);
    assert_eq!(services(&compose).count(), expected.len(), "a service of no profile");
}

#[test]
fn each_process_runs_its_service_at_a_port_of_its_own_on_loopback() {
    let compose = compose();
    let mut ports = BTreeSet::new();
    for (name, service) in shop(&compose) {
        let settings = &service["environment"];
        let listen = settings["SHAKEDOWN_LISTEN"].as_str().unwrap_or_default();
        let port = listen.strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
        assert!(port.is_some_and(|port| ports.insert(port)), "{name}: {listen}");
        let command = strings(service, "command");
        if name == "gateway" {
            assert_eq!(command, ["gateway", "--listen", listen, "--data-dir", "/data"]);
            let url = format!("http://{listen}");
            for (_, other) in shop(&compose).filter(|(other, _)| *other != name) {
                assert_eq!(other["environment"]["SHAKEDOWN_PAYMENTS_GATEWAY"], url.as_str());
            }
        } else {
            assert_eq!(command, ["serve", "--only", name.trim_end_matches("-2")]);
            for (_, server) in servers(&compose) {
                let port = strings(server, "ports")[0].rsplit_once(':').unwrap().0.to_owned();
                let addresses = settings.as_object().unwrap().values();
                let reached = addresses.filter(|a| a.as_str().unwrap().contains(&port)).count();
                assert_eq!(reached, 1, "{name}: an address with {port}");
            }
        }
        // It listens on the loopback of the host, and nowhere else.
        assert_eq!(service["network_mode"], "host", "{name}");
        assert!(service["ports"].is_null(), "{name}: ports do nothing on the host's network");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
    }
}

#[test]
fn the_shop_waits_for_what_it_needs() {
    let compose = compose();
    for (name, service) in shop(&compose).filter(|(name, _)| *name != "gateway") {
        let needs = service["depends_on"].as_object().unwrap_or_else(|| panic!("{name}"));
        let names: BTreeSet<&str> = needs.keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["gateway", "kafka", "postgres", "rabbitmq"]), "{name}");
        assert!(needs.values().all(|need| need["condition"] == "service_healthy"), "{name}");
    }
}

#[test]
fn one_builds_the_image_and_the_others_never_pull_it() {
    for (name, service) in shop(&compose()) {
        assert_eq!(service["image"], concat!("shakedown:", env!("CARGO_PKG_VERSION")), "{name}");
        let (build, pull) = match name.as_str() {
            "gateway" => (Value::from("."), "build"),
            _ => (Value::Null, "never"),
        };
        assert_eq!(service["build"], build, "{name}");
        assert_eq!(service["pull_policy"], pull, "{name}");
    }
}

/// The image is built by the repository's toolchain, runs on a pinned Debian, and not as root.
#[test]
fn the_image_is_built_as_the_repository_is() {
    let file = read("Dockerfile");
    let lines: Vec<&str> = file.lines().collect();
    let words = |word: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
    };
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().expect("TOML");
    let channel = toolchain["toolchain"]["channel"].as_str().expect("a channel");
    let [build, run] = words("FROM ")[..] else { panic!("two stages: {:?}", words("FROM ")) };
    assert_eq!(build, format!("rust:{channel}-bookworm AS build"));
    assert!(run.starts_with("debian:12.") && run.ends_with("-slim"), "{run}: bookworm, too");
    assert_eq!(words("RUN cargo"), ["build --locked --release --package shakedown --features tls"]);
    let at = |start: &str| {
        let found = lines.iter().rposition(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in the Dockerfile"))
    };
    assert_eq!(words("USER "), ["10001:10001"], "no root, by number");
    assert!(at("RUN ") < at("USER ") && at("USER ") < at("ENTRYPOINT "), "and to the end");
    assert_eq!(words("ENTRYPOINT "), [r#"["shakedown"]"#]);
    assert_eq!(words("HEALTHCHECK ").len(), 1);
    assert!(words("ARG ").is_empty() && words("ADD ").is_empty(), "nothing that stays in a layer");
}

#[test]
fn images_are_pinned_to_a_full_version() {
    for (name, service) in servers(&compose()) {
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
    for (name, service) in servers(&compose) {
        for volume in strings(service, "volumes") {
            let source = volume.split(':').next().unwrap_or_default();
            assert!(declared.contains_key(source), "{name}: {volume} is no named volume");
            assert!(used.insert(source), "{name}: {source} belongs to another service too");
        }
    }
    // Mails and the gateway's journal, of all together.
    for (name, service) in shop(&compose) {
        assert_eq!(strings(service, "volumes"), ["shop-data:/data"], "{name}");
    }
    assert!(used.insert("shop-data"), "a server writes into the shop's volume");
    let declared: BTreeSet<&str> = declared.keys().map(String::as_str).collect();
    assert_eq!(used, declared, "each that is declared is used");
}

#[test]
fn ports_are_open_to_this_machine_alone() {
    for (name, service) in servers(&compose()) {
        for port in strings(service, "ports") {
            let parts: Vec<&str> = port.split(':').collect();
            assert!(
                matches!(parts.as_slice(), ["127.0.0.1", host, container] if host == container),
                "{name}: {port} is not 127.0.0.1 with the server's own port"
            );
        }
    }
}
