//! Stored histories: those a monitor must accept, and mutated ones with the rule that must reject
//! them. Never written by a run.

use serde::de::DeserializeOwned;

/// A stored history.
#[derive(Debug)]
pub struct Entry<E> {
    /// The rule that rejects it; none for an unmutated one.
    pub rule: Option<String>,
    /// What was mutated.
    pub title: String,
    /// The history.
    pub history: Vec<E>,
}

/// Reads `== accepted: TITLE` or `== RULE: TITLE`, then one event a line, as JSON. Panics where the
/// text is none of these: it is a file of this repository.
pub fn entries<E: DeserializeOwned>(text: &str) -> Vec<Entry<E>> {
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
