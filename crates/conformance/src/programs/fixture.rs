//! Stored histories: those a monitor must accept, and mutated ones with the rule that must reject
//! them. Never written by a run.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::Judgement;

/// A stored history.
#[derive(Debug)]
struct Entry<E> {
    /// The rule that rejects it; none for an unmutated one.
    rule: Option<String>,
    /// What was mutated.
    title: String,
    /// The history.
    history: Vec<E>,
}

/// Reads `== accepted: TITLE` or `== RULE: TITLE`, then one event a line, as JSON. Panics where the
/// text is none of these: it is a file of this repository.
fn entries<E: DeserializeOwned>(text: &str) -> Vec<Entry<E>> {
    let mut entries: Vec<Entry<E>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix("== ") {
            let (rule, title) = header.split_once(": ").expect("RULE: TITLE");
            let rule = (rule != "accepted").then(|| rule.to_owned());
            entries.push(Entry { rule, title: title.to_owned(), history: Vec::new() });
        } else {
            let event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            entries.last_mut().expect("a header first").history.push(event);
        }
    }
    entries
}

/// Panics unless each mutated history is rejected by its rule, the others are accepted, and each rule has
/// three to reject.
pub(super) fn check<E: DeserializeOwned>(
    text: &str,
    rules: &[&str],
    judge: impl Fn(&[E]) -> Judgement,
) {
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries::<E>(text) {
        let judged = judge(&entry.history);
        match (&entry.rule, &judged) {
            (None, Judgement::Agrees) => {}
            (Some(rule), Judgement::Differs(breach)) if breach.rule == rule => {}
            _ => panic!("{:?}, {}: {judged:?}", entry.rule, entry.title),
        }
        *met.entry(entry.rule.unwrap_or_else(|| "accepted".to_owned())).or_default() += 1;
    }
    let wanted = rules.iter().chain(&["accepted"]);
    let few: Vec<_> = wanted.filter(|rule| met.get(**rule).is_none_or(|n| *n < 3)).collect();
    assert!(few.is_empty(), "fewer than three histories: {few:?}");
}
