//! Whether a schema may take another's place: a comparison of the small part of JSON Schema that ours
//! are written in. Pure; it reads no file and knows no event.
//!
//! Within a version old and new producers and readers live side by side, so a change must be good in
//! both directions: every event that was written must still fit, and every event that will be written
//! must be one that old readers take. What is left is a new optional field (readers ignore what they do
//! not know) and words for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// Who is hurt by a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurt {
    /// New readers, by events that were written before.
    NewReaders,
    /// Old readers, by events that are written from now on.
    OldReaders,
    /// Both.
    Both,
}

/// A change that needs a new version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where, as in `payload.lines[].qty`.
    pub path: String,
    /// What, in words.
    pub what: String,
    /// Whom it hurts.
    pub hurt: Hurt,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match self.hurt {
            Hurt::NewReaders => "new readers would refuse events that were written before",
            Hurt::OldReaders => "old readers would refuse events that are written from now on",
            Hurt::Both => "old and new releases would not understand each other",
        };
        write!(f, "{}: {}; {whom}", self.path, self.what)
    }
}

/// What to do about breaking changes.
pub fn advice(event: &str, version: u32, changes: &[Change]) -> String {
    let changes: Vec<String> = changes.iter().map(|change| format!("  {change}")).collect();
    format!(
        "{event}.v{version}.json is not what was released:\n{}\nadd {event} v{} with an upcaster, \
         and leave v{version} as it is: docs/catalog.md#versions-how-to-change-an-event",
        changes.join("\n"),
        version + 1
    )
}

/// Words for people, and names of definitions: they say nothing about values.
const SILENT: [&str; 6] = ["$schema", "$id", "$defs", "$comment", "title", "description"];
/// Everything else that our schemas are written with.
const KNOWN: [&str; 15] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "enum",
    "const",
];

/// Every change from one schema to another that needs a new version, in order of their paths.
///
/// # Panics
/// At a keyword that it does not know, and a reference that leads nowhere.
pub fn breaking(old: &Value, new: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    Pair { old_root: old, new_root: new, found: &mut found }.compare(old, new, "");
    found.sort();
    found
}

struct Pair<'a> {
    old_root: &'a Value,
    new_root: &'a Value,
    found: &'a mut Vec<Change>,
}

/// What a schema demands, references followed.
fn keywords(root: &Value, schema: &Value) -> BTreeMap<String, Value> {
    let fields = schema.as_object().unwrap_or_else(|| panic!("not a schema: {schema}"));
    let mut all = BTreeMap::new();
    for (name, value) in fields {
        match name.as_str() {
            "$ref" => {
                let to = value.as_str().and_then(|text| text.strip_prefix('#')).unwrap_or("?");
                let target = root.pointer(to).unwrap_or_else(|| panic!("{value} leads nowhere"));
                all.extend(keywords(root, target));
            }
            name if SILENT.contains(&name) => {}
            name if KNOWN.contains(&name) => {
                all.insert(name.to_owned(), value.clone());
            }
            name => panic!("this comparison does not know \"{name}\": teach it, or do without"),
        }
    }
    // The only value is an enumeration of one.
    if let Some(only) = all.remove("const") {
        all.insert("enum".to_owned(), Value::Array(vec![only]));
    }
    all
}

fn names(keywords: &BTreeMap<String, Value>, of: &str) -> BTreeSet<String> {
    let list = keywords.get(of).and_then(Value::as_array).into_iter().flatten();
    list.map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned)).collect()
}

impl Pair<'_> {
    fn change(&mut self, path: &str, what: impl Into<String>, hurt: Hurt) {
        let path = if path.is_empty() { "the whole" } else { path };
        self.found.push(Change { path: path.to_owned(), what: what.into(), hurt });
    }

    fn compare(&mut self, old: &Value, new: &Value, path: &str) {
        let (old, new) = (keywords(self.old_root, old), keywords(self.new_root, new));
        if old.get("type") != new.get("type") {
            let name =
                |k: &BTreeMap<_, Value>| k.get("type").map_or("any".into(), Value::to_string);
            self.change(path, format!("{} became {}", name(&old), name(&new)), Hurt::Both);
            return;
        }
        self.bounds(&old, &new, path);
        self.choices(&old, &new, path);
        for exact in ["pattern", "format", "additionalProperties"] {
            if old.get(exact) != new.get(exact) {
                let word =
                    |k: &BTreeMap<_, Value>| k.get(exact).map_or("none".into(), Value::to_string);
                let what = format!("{exact} {} became {}", word(&old), word(&new));
                self.change(path, what, Hurt::Both);
            }
        }
        self.fields(&old, &new, path);
        match (old.get("items"), new.get("items")) {
            (Some(old), Some(new)) => self.compare(old, new, &format!("{path}[]")),
            (None, None) => {}
            _ => self.change(path, "what the list holds is said on one side alone", Hurt::Both),
        }
    }

    /// Numbers that bound a value. Narrower: an old value may not fit. Wider: a new one may not.
    fn bounds(&mut self, old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>, path: &str) {
        let lowest = [("minimum", i128::MIN), ("minLength", 0), ("minItems", 0)];
        let highest = [("maximum", i128::MAX), ("maxLength", i128::MAX), ("maxItems", i128::MAX)];
        let sides = lowest.map(|b| (b, true)).into_iter().chain(highest.map(|b| (b, false)));
        for ((name, open), low) in sides {
            let value = |k: &BTreeMap<String, Value>| match k.get(name) {
                None => open,
                Some(n) => {
                    let whole = n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
                    whole.unwrap_or_else(|| panic!("{path}: {name} is {n}"))
                }
            };
            let (before, after) = (value(old), value(new));
            if before == after {
                continue;
            }
            let narrower = if low { after > before } else { after < before };
            let (word, hurt) = match narrower {
                true => ("narrowed", Hurt::NewReaders),
                false => ("widened", Hurt::OldReaders),
            };
            let say = |n: i128| if n == open { "none".to_owned() } else { n.to_string() };
            self.change(
                path,
                format!("{name} {word} from {} to {}", say(before), say(after)),
                hurt,
            );
        }
    }

    /// Enumerations. One value fewer: an old event may have it. One more: old readers do not know it.
    fn choices(
        &mut self,
        old: &BTreeMap<String, Value>,
        new: &BTreeMap<String, Value>,
        path: &str,
    ) {
        if old.contains_key("enum") != new.contains_key("enum") {
            self.change(path, "the choice of values is closed on one side alone", Hurt::Both);
            return;
        }
        let (before, after) = (names(old, "enum"), names(new, "enum"));
        for gone in before.difference(&after) {
            self.change(path, format!("the value {gone} is gone"), Hurt::NewReaders);
        }
        for added in after.difference(&before) {
            self.change(path, format!("the value {added} is new"), Hurt::OldReaders);
        }
    }

    fn fields(&mut self, old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>, path: &str) {
        let none = serde_json::Map::new();
        let fields = |k| -> serde_json::Map<String, Value> {
            let k: &BTreeMap<String, Value> = k;
            k.get("properties").and_then(Value::as_object).unwrap_or(&none).clone()
        };
        let (before, after) = (fields(old), fields(new));
        let (owed, owes) = (names(old, "required"), names(new, "required"));
        let at = |name: &String| match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        for (name, field) in &before {
            match after.get(name) {
                Some(now) => self.compare(field, now, &at(name)),
                None => {
                    self.change(&at(name), "the field is gone, or has another name", Hurt::Both)
                }
            }
        }
        for name in owes.difference(&owed) {
            let what = match before.contains_key(name) {
                true => "the field was optional and is required",
                false => "the field is new and required",
            };
            self.change(&at(name), what, Hurt::NewReaders);
        }
        for name in owed.difference(&owes).filter(|name| after.contains_key(*name)) {
            self.change(&at(name), "the field was required and is optional", Hurt::OldReaders);
        }
    }
}
