//! `fixtures/catalog.toml` against the code's table, the schemas and `docs/catalog.md`.

use std::collections::BTreeSet;
use std::fs;

use contract::{CATALOG, Service, Stream, schema};
use serde::Deserialize;
use serde_json::Value;

use crate::{json_files, root, schema_value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    envelope: Fields,
    event: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    fields: Vec<String>,
    added_fields: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    channel: String,
    topic: String,
    event: String,
    version: u32,
    producer: String,
    consumers: Vec<String>,
    added_consumers: Vec<String>,
    purpose: String,
    delivery: String,
    fields: Vec<String>,
    added_fields: Vec<String>,
}

fn catalog() -> Catalog {
    toml::from_str(&fs::read_to_string(root("fixtures/catalog.toml")).unwrap()).unwrap()
}

/// The service of this name in the owner's words.
fn service(words: &str) -> Service {
    let name = words.trim_end_matches('?').to_lowercase().replace(' ', "-");
    let known = Service::ALL.into_iter().find(|service| service.name() == name);
    known.unwrap_or_else(|| panic!("no service is called {words}"))
}

fn services(words: &[String]) -> Vec<Service> {
    words.iter().map(|words| service(words)).collect()
}

#[test]
fn the_code_has_the_same_rows() {
    let entries = catalog().event;
    assert_eq!(entries.len(), CATALOG.len());
    for (entry, row) in entries.iter().zip(&CATALOG) {
        assert_eq!(entry.event, row.event);
        assert_eq!(entry.topic, row.stream.name(), "{}", row.event);
        assert_eq!(entry.channel == "Kafka", row.stream.is_topic(), "{}", row.event);
        assert_eq!(entry.channel == "RabbitMQ", !row.stream.is_topic(), "{}", row.event);
        assert_eq!(entry.version, row.version, "{}", row.event);
        assert_eq!(service(&entry.producer), row.producer, "{}", row.event);
        assert_eq!(services(&entry.consumers), row.consumers, "{}", row.event);
        assert_eq!(services(&entry.added_consumers), row.added_consumers, "{}", row.event);
        let twice = row.consumers.iter().find(|c| row.added_consumers.contains(c));
        assert_eq!(twice, None, "{}", row.event);
    }
}

#[test]
fn every_stream_is_used_and_has_a_name_of_its_own() {
    let named: BTreeSet<&str> = Stream::ALL.iter().map(|stream| stream.name()).collect();
    assert_eq!(named.len(), Stream::ALL.len());
    let used: BTreeSet<Stream> = CATALOG.iter().map(|row| row.stream).collect();
    assert_eq!(used, BTreeSet::from(Stream::ALL));
}

#[test]
fn each_version_has_a_schema_and_there_are_no_others() {
    let mut wanted = BTreeSet::new();
    for row in CATALOG {
        assert!(schema(row.event, 0).is_none() && schema(row.event, row.version + 1).is_none());
        for version in 1..=row.version {
            let value = schema_value(row.event, version);
            assert_eq!(value["properties"]["eventType"]["const"], row.event);
            assert_eq!(value["properties"]["eventVersion"]["const"], version);
            let id = format!("urn:shakedown:event:{}.v{version}", row.event);
            assert_eq!(value["$id"], id);
            wanted.insert(format!("{}.v{version}", row.event));
        }
    }
    let files = json_files("services/contract/schemas");
    assert_eq!(files.into_keys().collect::<BTreeSet<_>>(), wanted);
    assert!(schema("OrderShipped", 1).is_none());
}

/// Holds the fields of one level (`prefix` "" or "lines[].") against an object's schema: required are
/// the owner's fields without `?`, and what was added says so.
fn same_fields(object: &Value, fields: &[String], added: &[String], prefix: &str, what: &str) {
    let level = |names: &[String]| -> BTreeSet<String> {
        let names = names.iter().filter_map(|name| name.strip_prefix(prefix));
        names.filter(|name| !name.contains('.')).map(str::to_owned).collect()
    };
    let (owners, added) = (level(fields), level(added));
    assert!(added.iter().all(|name| !name.ends_with('?')), "{what}: added is optional anyway");
    assert_eq!(object["additionalProperties"], false, "{what} is open");

    let properties = object["properties"].as_object().unwrap();
    let names: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> =
        owners.union(&added).map(|name| name.trim_end_matches('?')).collect();
    assert_eq!(names, wanted, "{what}");

    let required = object["required"].as_array().unwrap().iter();
    let required: BTreeSet<String> = required.map(|n| n.as_str().unwrap().to_owned()).collect();
    let owed: BTreeSet<String> = owners.iter().filter(|n| !n.ends_with('?')).cloned().collect();
    assert_eq!(required, owed, "{what}: required");

    let marked = properties.iter().filter(|(_, schema)| schema.get("$comment").is_some());
    let marked: BTreeSet<String> = marked.map(|(name, _)| name.clone()).collect();
    assert_eq!(marked, added, "{what}: marked as additions");
}

#[test]
fn the_schemas_have_the_same_fields_and_are_closed() {
    let catalog = catalog();
    for entry in &catalog.event {
        let schema = schema_value(&entry.event, entry.version);
        let around = &catalog.envelope;
        same_fields(&schema, &around.fields, &around.added_fields, "", "envelope");
        let payload = &schema["properties"]["payload"];
        same_fields(payload, &entry.fields, &entry.added_fields, "", &entry.event);
        let line = payload["properties"]["lines"].get("items");
        let nested = entry.fields.iter().any(|name| name.starts_with("lines[]."));
        assert_eq!(line.is_some(), nested, "{}", entry.event);
        if let Some(line) = line {
            same_fields(line, &entry.fields, &entry.added_fields, "lines[].", "a line");
        }
    }
}

/// The cells of the documentation's only table row with these first cells.
fn table_row(docs: &str, first: &[&str], cells: usize) -> Vec<String> {
    let rows = docs.lines().filter(|line| line.starts_with('|')).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let mut rows = rows.filter(|row| row.len() == cells && row[..first.len()] == *first);
    let row = rows.next().unwrap_or_else(|| panic!("docs/catalog.md has no row {first:?}"));
    assert!(rows.next().is_none(), "docs/catalog.md has two rows {first:?}");
    row
}

fn ticked(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[test]
fn the_documentation_tells_every_event_field_consumer_and_addition() {
    let docs = fs::read_to_string(root("docs/catalog.md")).unwrap();
    let catalog = catalog();
    for entry in &catalog.event {
        let (topic, event) = (format!("`{}`", entry.topic), format!("`{}`", entry.event));
        let consumers = entry.consumers.iter().map(|name| match name.strip_suffix('?') {
            Some(name) => format!("({name} optional)"),
            None => name.clone(),
        });
        let consumers = consumers.collect::<Vec<_>>().join(", ");
        let row = table_row(&docs, &[&entry.channel, &topic, &event], 7);
        assert_eq!(row[3..], [&*entry.producer, &consumers, &entry.purpose, &entry.delivery]);

        let fields = [ticked(&entry.fields), ticked(&entry.added_fields)];
        assert_eq!(table_row(&docs, &[&event, &fields[0]], 3)[2], fields[1], "{event}");
        let added_fields = entry.added_fields.iter().map(|name| format!("`{name}`"));
        for added in entry.added_consumers.iter().cloned().chain(added_fields) {
            assert!(!table_row(&docs, &[&event, &added], 3)[2].is_empty(), "{event} {added}");
        }
    }
    for name in &catalog.envelope.fields {
        assert!(docs.contains(&format!("`{name}`")), "{name}");
    }
    for name in &catalog.envelope.added_fields {
        table_row(&docs, &["envelope", &format!("`{name}`")], 3);
    }
}

#[test]
fn the_documentation_has_no_addition_that_the_table_lacks() {
    let docs = fs::read_to_string(root("docs/catalog.md")).unwrap();
    let (_, additions) = docs.split_once("## Additions and their reasons").unwrap();
    let additions = additions.split("\n## ").next().unwrap();
    let told = additions.lines().filter(|line| line.starts_with("| `")).count()
        + additions.lines().filter(|line| line.starts_with("| envelope")).count();
    let catalog = catalog();
    let marked: usize =
        catalog.event.iter().map(|e| e.added_consumers.len() + e.added_fields.len()).sum();
    assert_eq!(told, marked + catalog.envelope.added_fields.len());
}
