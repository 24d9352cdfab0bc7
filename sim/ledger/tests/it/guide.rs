//! docs/simulate-your-own.md shows the ledger's own code: each of its Rust blocks stands in the sources.

use std::fmt::Write;
use std::path::Path;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Without indentation.
fn flat(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).fold(
        String::new(),
        |mut flat, line| {
            let _ = writeln!(flat, "{line}");
            flat
        },
    )
}

#[test]
fn the_guide_shows_the_ledgers_own_code() {
    let guide = Path::new(FOLDER).join("../../docs/simulate-your-own.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    let mut sources = String::new();
    for entry in std::fs::read_dir(Path::new(FOLDER).join("src")).expect("there are sources") {
        let path = entry.expect("it can be listed").path();
        sources += &flat(&std::fs::read_to_string(path).expect("a source is text"));
    }
    let blocks: Vec<&str> = guide
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a block ends"))
        .collect();
    assert_eq!(blocks.len(), 9, "the guide has its blocks");
    for block in blocks {
        assert!(sources.contains(&flat(block)), "not in the sources:\n{block}");
    }
}
