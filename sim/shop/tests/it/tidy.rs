//! Snapshots that nobody reviewed, and snapshots that no test pins any more, fail here.

use std::collections::BTreeSet;

#[test]
fn snapshots_are_reviewed_and_none_is_an_orphan() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots");
    let pinned: BTreeSet<String> = [
        include_str!("main.rs"),
        include_str!("crashes.rs"),
        include_str!("failure.rs"),
        include_str!("letters.rs"),
        include_str!("published.rs"),
        include_str!("races.rs"),
        include_str!("servers.rs"),
        include_str!("versions.rs"),
    ]
    .iter()
    .flat_map(|source| source.lines())
    .filter_map(|line| {
        let rest = |head| line.split_once(head).map(|(_, rest)| rest);
        let (name, _) = rest("let name = \"").or_else(|| rest("holds(\""))?.split_once('"')?;
        Some(format!("{name}.snap"))
    })
    .collect();
    let there: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("snapshots/ is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".gitattributes")
        .collect();
    let pending: Vec<&String> = there.iter().filter(|name| name.ends_with(".snap.new")).collect();
    assert!(pending.is_empty(), "review with `cargo insta review`: {pending:?}");
    let orphans: Vec<&String> = there.difference(&pinned).collect();
    assert!(orphans.is_empty(), "no test pins these; delete them: {orphans:?}");
    let missing: Vec<&String> = pinned.difference(&there).collect();
    assert!(missing.is_empty(), "pinned, but not there: {missing:?}");
}

#[test]
fn every_wrong_event_is_planted_in_worlds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/events/invalid");
    let there: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    let planted = sim_shop::forms::ALL.iter().map(|form| format!("{}.json", form.name));
    assert_eq!(there, planted.collect(), "mend the list in sim/shop/src/forms.rs");
}
