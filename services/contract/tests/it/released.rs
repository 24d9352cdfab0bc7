//! The schemas as they are against the schemas as they were released (`fixtures/schemas/released`), the
//! examples of every version against every later one, and the code against the edges of its schemas.

use std::collections::BTreeSet;

use contract::{CATALOG, Contract, Event};
use envelope::Envelope;
use serde_json::{Value, json};

use crate::compat::{Change, Hurt, advice, breaking};
use crate::examples::{golden, goldens, read, seal_of};
use crate::{assert_fits, json_files, schema_value, validators};

/// Event and version in a name like `OrderCreated.v1`.
fn parts(name: &str) -> (&str, u32) {
    let (event, version) = name.split_once(".v").unwrap_or_else(|| panic!("{name}?"));
    (event, version.parse().unwrap())
}

#[test]
fn nothing_that_was_released_is_broken() {
    let released = json_files("fixtures/schemas/released");
    for (name, bytes) in &released {
        let (event, version) = parts(name);
        let now = contract::schema(event, version);
        let now = now.unwrap_or_else(|| panic!("{name} was released, and its schema is gone"));
        let was: Value = serde_json::from_slice(bytes).unwrap();
        let changes = breaking(&was, &serde_json::from_str(now).unwrap());
        assert!(changes.is_empty(), "{}", advice(event, version, &changes));
    }
    // A version is released with its first release: until then nobody can hold us to it.
    let events: BTreeSet<&str> = released.keys().map(|name| parts(name).0).collect();
    let catalog: BTreeSet<&str> = CATALOG.iter().map(|row| row.event).collect();
    assert_eq!(events, catalog);
}

#[test]
fn every_version_of_every_example_is_read_in_the_newest() {
    let contract = Contract::default();
    let validators = validators();
    for (name, value) in goldens() {
        let envelope = Envelope::read(value.to_string().as_bytes()).unwrap();
        let event = contract.read(&envelope).unwrap_or_else(|e| panic!("{name}: {e}")).unwrap();
        let row = CATALOG.iter().find(|row| row.event == event.kind()).unwrap();
        let versions = contract.versions(row.event).unwrap();
        assert_eq!((versions.newest(), versions.written), (row.version, row.version), "{name}");
        let again = contract.seal(&event, seal_of(&envelope)).to_bytes();
        let again: Value = serde_json::from_slice(&again).unwrap();
        assert_fits(&validators[row.event], &again, &name);
    }
}

/// Reads the value, and panics where the code refuses what its schema allows.
fn allowed(value: &Value, what: &str) -> Event {
    let (envelope, event) = read(value.to_string().as_bytes())
        .unwrap_or_else(|code| panic!("{what} fits its schema and is refused: {code}"))
        .unwrap_or_else(|| panic!("{what} is of an unknown type"));
    let again: Value = serde_json::from_slice(&event.seal(seal_of(&envelope)).to_bytes()).unwrap();
    assert_eq!(&again, value, "{what} is written otherwise than it was read");
    event
}

#[test]
fn each_optional_field_may_be_absent_or_there_on_its_own() {
    let mut tried = 0;
    for row in CATALOG {
        let named = |which: &str| golden(&format!("{}.v{}.{which}", row.event, row.version));
        let (minimal, full) = (named("minimal"), named("full"));
        for at in ["", "/payload", "/payload/lines/0"] {
            let (Some(few), Some(all)) = (minimal.pointer(at), full.pointer(at)) else { continue };
            let (few, all) = (few.as_object().unwrap(), all.as_object().unwrap());
            for (name, field) in all.iter().filter(|(name, _)| !few.contains_key(*name)) {
                let mut with = minimal.clone();
                with.pointer_mut(at).unwrap()[name] = field.clone();
                allowed(&with, &format!("{} with {name} alone", row.event));
                let mut without = full.clone();
                without.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(name);
                allowed(&without, &format!("{} without {name}", row.event));
                tried += 1;
            }
        }
    }
    assert!(tried >= 15, "{tried}");
}

/// Values at the edges of what a schema allows for one field.
fn edges(root: &Value, schema: &Value) -> Vec<Value> {
    let to = schema.get("$ref").and_then(Value::as_str).map(|to| to.trim_start_matches('#'));
    if let Some(target) = to.and_then(|to| root.pointer(to)) {
        return edges(root, target);
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => vec![schema["minimum"].clone(), schema["maximum"].clone()],
        // Times have one form, and lists are tried as a whole elsewhere.
        Some("string") if schema.get("format").is_none() => {
            let chars = |bound: &str| schema.get(bound).and_then(Value::as_u64).unwrap_or(0);
            ["minLength", "maxLength"].map(|b| json!("A".repeat(chars(b) as usize))).to_vec()
        }
        _ => Vec::new(),
    }
}

#[test]
fn the_code_reads_and_writes_to_the_edges_of_its_schemas() {
    let validators = validators();
    let mut tried = 0;
    for row in CATALOG {
        let schema = schema_value(row.event, row.version);
        let full = golden(&format!("{}.v{}.full", row.event, row.version));
        for (at, fields) in [
            ("", "/properties"),
            ("/payload", "/properties/payload/properties"),
            ("/payload/lines/0", "/properties/payload/properties/lines/items/properties"),
        ] {
            let Some(fields) = schema.pointer(fields).and_then(Value::as_object) else { continue };
            for (name, field) in fields.iter().filter(|(name, _)| *name != "payload") {
                for edge in edges(&schema, field) {
                    let mut value = full.clone();
                    value.pointer_mut(at).unwrap()[name] = edge.clone();
                    let what = format!("{} with {name} {edge}", row.event);
                    assert_fits(&validators[row.event], &value, &what);
                    allowed(&value, &what);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 80, "{tried}");
}

fn plant(at: &str, name: &str, value: Value) -> Value {
    let mut schema = small();
    schema.pointer_mut(at).unwrap()[name] = value;
    schema
}

fn cut(at: &str, name: &str) -> Value {
    let mut schema = small();
    schema.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    schema
}

/// A schema with one of everything.
fn small() -> Value {
    json!({
        "title": "Packed", "type": "object", "additionalProperties": false,
        "required": ["id", "lines", "kind"],
        "properties": {
            "id": { "$ref": "#/$defs/id" },
            "kind": { "enum": ["a", "b"] },
            "note": { "type": "string", "maxLength": 10 },
            "version": { "const": 1 },
            "lines": {
                "type": "array", "minItems": 1, "maxItems": 9,
                "items": {
                    "type": "object", "additionalProperties": false, "required": ["qty"],
                    "properties": {
                        "qty": { "type": "integer", "minimum": 1, "maximum": 100 },
                        "price": { "type": "integer", "minimum": 0 }
                    }
                }
            }
        },
        "$defs": { "id": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^x" } }
    })
}

#[test]
fn compatible_changes_are_none() {
    let line = "/properties/lines/items/properties";
    let inlined =
        json!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^x", "title": "t" });
    let cases = [
        ("nothing", small()),
        ("a new optional field", plant("/properties", "colour", json!({ "type": "string" }))),
        ("a new optional field in a line", plant(line, "weight", json!({ "type": "number" }))),
        ("other words", plant("", "description", json!("for people"))),
        ("a comment", plant("/properties/note", "$comment", json!("an addition"))),
        ("another title", plant("", "title", json!("PackedThing"))),
        ("choices in another order", plant("/properties/kind", "enum", json!(["b", "a"]))),
        ("a definition written out", plant("/properties", "id", inlined)),
        ("a definition nobody uses", plant("/$defs", "spare", json!({ "type": "object" }))),
        (
            "the only value as an enumeration",
            plant("/properties", "version", json!({ "enum": [1] })),
        ),
        ("a bound that was there unsaid", plant("/properties/note", "minLength", json!(0))),
        ("required in another order", plant("", "required", json!(["kind", "lines", "id"]))),
    ];
    for (name, new) in cases {
        assert_eq!(breaking(&small(), &new), [], "{name}");
        assert!(!breaking(&new, &plant("", "required", json!(["id"]))).is_empty(), "{name}");
    }
}

#[test]
fn breaking_changes_are_found_and_say_whom_they_hurt() {
    use Hurt::{Both, NewReaders, OldReaders};
    let (items, line) = ("/properties/lines/items", "/properties/lines/items/properties");
    let mut renamed = cut(line, "price");
    renamed.pointer_mut(line).unwrap()["unitPrice"] = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    let mut new_required = plant("", "required", json!(["id", "lines", "kind", "colour"]));
    new_required["properties"]["colour"] = text.clone();
    let bound = |name: &str, n: u64| plant(&format!("{line}/qty"), name, json!(n));
    let cases = [
        ("a field removed", cut("/properties", "note"), "note", Both),
        ("a field of a line removed", cut(line, "price"), "lines[].price", Both),
        ("a field renamed", renamed, "lines[].price", Both),
        ("a field retyped", plant(line, "qty", text.clone()), "lines[].qty", Both),
        (
            "an object for an integer",
            plant(line, "price", json!({ "type": "object" })),
            "lines[].price",
            Both,
        ),
        ("a new required field", new_required, "colour", NewReaders),
        (
            "optional made required",
            plant(items, "required", json!(["qty", "price"])),
            "lines[].price",
            NewReaders,
        ),
        (
            "required made optional",
            plant("", "required", json!(["id", "lines"])),
            "kind",
            OldReaders,
        ),
        ("a minimum raised", bound("minimum", 2), "lines[].qty", NewReaders),
        ("a minimum lowered", bound("minimum", 0), "lines[].qty", OldReaders),
        ("a maximum lowered", bound("maximum", 99), "lines[].qty", NewReaders),
        ("a maximum raised", bound("maximum", 101), "lines[].qty", OldReaders),
        ("a maximum taken away", cut(&format!("{line}/qty"), "maximum"), "lines[].qty", OldReaders),
        (
            "a maximum set",
            plant(&format!("{line}/price"), "maximum", json!(5)),
            "lines[].price",
            NewReaders,
        ),
        (
            "a choice taken away",
            plant("/properties/kind", "enum", json!(["a"])),
            "kind",
            NewReaders,
        ),
        (
            "a choice added",
            plant("/properties/kind", "enum", json!(["a", "b", "c"])),
            "kind",
            OldReaders,
        ),
        ("choices opened", plant("/properties", "kind", json!({ "type": "string" })), "kind", Both),
        (
            "another only value",
            plant("/properties", "version", json!({ "const": 2 })),
            "version",
            NewReaders,
        ),
        (
            "a text cut shorter",
            plant("/properties/note", "maxLength", json!(9)),
            "note",
            NewReaders,
        ),
        (
            "a text let longer",
            plant("/properties/note", "maxLength", json!(11)),
            "note",
            OldReaders,
        ),
        ("an empty text allowed", plant("/$defs/id", "minLength", json!(0)), "id", OldReaders),
        (
            "another pattern behind a reference",
            plant("/$defs/id", "pattern", json!("^y")),
            "id",
            Both,
        ),
        ("a format", plant("/properties/note", "format", json!("date-time")), "note", Both),
        (
            "an empty list allowed",
            plant("/properties/lines", "minItems", json!(0)),
            "lines",
            OldReaders,
        ),
        (
            "a list cut shorter",
            plant("/properties/lines", "maxItems", json!(8)),
            "lines",
            NewReaders,
        ),
        ("a list opened to anything", cut("/properties/lines", "items"), "lines", Both),
        ("an object opened", cut("", "additionalProperties"), "the whole", Both),
        ("a line opened", plant(items, "additionalProperties", json!(true)), "lines[]", Both),
    ];
    for (name, new, path, hurt) in cases {
        let changes = breaking(&small(), &new);
        let first = changes.first().unwrap_or_else(|| panic!("{name} was not found"));
        assert_eq!((first.path.as_str(), first.hurt), (path, hurt), "{name}: {changes:?}");
    }
}

#[test]
fn the_message_says_what_to_do() {
    let what = "the field is gone, or has another name".to_owned();
    let change = Change { path: "payload.lines".to_owned(), what, hurt: Hurt::Both };
    assert_eq!(
        advice("OrderCreated", 1, &[change]),
        "OrderCreated.v1.json is not what was released:\n  payload.lines: the field is gone, or has \
         another name; old and new releases would not understand each other\nadd OrderCreated v2 with \
         an upcaster, and leave v1 as it is: docs/catalog.md#versions-how-to-change-an-event"
    );
}

#[test]
#[should_panic(expected = "does not know \"oneOf\"")]
fn a_keyword_that_the_comparison_does_not_know_is_an_error() {
    breaking(&small(), &plant("/properties/note", "oneOf", json!([])));
}
