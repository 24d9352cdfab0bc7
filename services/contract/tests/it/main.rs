//! The contract against its schemas, examples, table and documentation.

extern crate shakedown_contract as contract;

mod catalog;
mod compat;
mod examples;
mod generated;
mod released;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use contract::{CATALOG, schema};
use jsonschema::Validator;
use serde_json::Value;

/// A path from the root of the repository.
fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Names and contents of the JSON files of a folder.
fn json_files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file()).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let stem = name.strip_suffix(".json").unwrap_or_else(|| panic!("{folder}/{name}?"));
        (stem.to_owned(), fs::read(&path).unwrap())
    });
    files.collect()
}

/// A schema as a value.
fn schema_value(event: &str, version: u32) -> Value {
    let text = schema(event, version).unwrap_or_else(|| panic!("no schema of {event}"));
    serde_json::from_str(text).unwrap()
}

/// The validators of all current versions, formats of times included.
fn validators() -> BTreeMap<&'static str, Validator> {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    let compile = |event, version| options.build(&schema_value(event, version)).unwrap();
    CATALOG.iter().map(|row| (row.event, compile(row.event, row.version))).collect()
}

/// Panics with everything that the value does against the schema.
fn assert_fits(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}
