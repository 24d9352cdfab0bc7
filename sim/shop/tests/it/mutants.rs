//! The planted bugs of `fixtures/mutants`: each can still be planted, and is reported by an invariant
//! that there is; no invariant is without one. They are planted one at a time in a copy of the tree, never here.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;
use sim_shop::invariants;

/// One bug, as it would be written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What is wrong with the changed code.
    claim: String,
    /// Where, from the root.
    file: String,
    /// Text that stands there once.
    find: String,
    /// What is put in its place.
    replace: String,
    /// Which invariants may report it.
    invariant: Vec<String>,
    /// Rare events in a row that it needs.
    depth: u32,
    /// Where such a bug was seen.
    reference: String,
}

#[test]
fn every_mutant_can_be_planted_and_every_invariant_has_one() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    // That all comes to rest is judged beside them.
    let named = invariants::ALL.iter().map(|(name, _)| *name).chain(["saga.lives"]);
    let known: BTreeSet<&str> = named.collect();
    let mut count = 0;
    let mut reported: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(format!("{root}fixtures/mutants")).expect("there are mutants") {
        let path = entry.expect("it can be listed").path();
        let name = path.display();
        let text = fs::read_to_string(&path).expect("it can be read");
        let mutant: Mutant =
            toml::from_str(&text).unwrap_or_else(|cause| panic!("{name}: {cause}"));
        let source = fs::read_to_string(format!("{root}{}", mutant.file));
        let source = source.unwrap_or_else(|cause| panic!("{name}: {}: {cause}", mutant.file));
        assert_eq!(source.matches(&mutant.find).count(), 1, "{name}: `find` stands there once");
        assert_ne!(mutant.find, mutant.replace, "{name} changes nothing");
        assert!(!mutant.claim.is_empty() && !mutant.reference.is_empty(), "{name}");
        assert!(mutant.depth > 0 && !mutant.invariant.is_empty(), "{name}");
        for invariant in &mutant.invariant {
            assert!(known.contains(invariant.as_str()), "{name}: nobody checks {invariant}");
        }
        reported.extend(mutant.invariant);
        count += 1;
    }
    assert!(count >= 18, "{count} mutants");
    let idle: Vec<&&str> = known.iter().filter(|name| !reported.contains(**name)).collect();
    assert!(idle.is_empty(), "no mutant is reported by {idle:?}");
}
