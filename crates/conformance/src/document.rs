//! The tables in docs/conformance.md. Never lets the document say what the last run did not show: each run holds
//! its tables against it, or writes them there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::report::Section;

/// With the value `write` the tables are written, not held against what is there.
const VARIABLE: &str = "SHAKEDOWN_CONFORMANCE_DOC";

/// Holds what was seen against the block of this name, which lies between `<!-- seen NAME -->` and
/// `<!-- /seen -->`. `Err` says what to do.
pub fn check(name: &str, sections: &[Section]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let document = std::fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
    let renewed = renewed(&document, name, sections)?;
    if renewed == document {
        return Ok(());
    }
    if std::env::var(VARIABLE).is_ok_and(|value| value == "write") {
        return std::fs::write(&path, renewed).map_err(|error| format!("{path:?}: {error}"));
    }
    Err(format!(
        "docs/conformance.md, {name}: not what was seen; run `scripts/conformance --write` and review \
         the difference ({VARIABLE}=write is what it sets)"
    ))
}

/// The document with this block as it was seen.
fn renewed(document: &str, name: &str, sections: &[Section]) -> Result<String, String> {
    let (begin, end) = (format!("<!-- seen {name} -->\n"), "<!-- /seen -->");
    let missing = || format!("docs/conformance.md has no block {name}");
    let (before, rest) = document.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(end).ok_or_else(missing)?;
    let tables: Vec<String> = sections.iter().map(ToString::to_string).collect();
    let tables = tables.join("\n");
    Ok(format!("{before}{begin}{}\n\n```\n{tables}```\n{end}{after}", summary(sections)))
}

/// How many statements and cases, and how often each outcome.
fn summary(sections: &[Section]) -> String {
    let mut numbers: BTreeSet<&str> = BTreeSet::new();
    let (mut cases, mut promises) = (0, 0);
    for id in sections.iter().flat_map(Section::ids) {
        cases += 1;
        if id.is_empty() {
            promises += 1;
        } else {
            numbers.insert(id);
        }
    }
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in sections.iter().flat_map(Section::outcomes) {
        *outcomes.entry(outcome).or_default() += 1;
    }
    let outcomes: String =
        outcomes.iter().map(|(outcome, count)| format!(" {count} × {outcome}.")).collect();
    format!(
        "{cases} cases: {} statements by number, and {promises} promises of the ports that have \
         none.{outcomes}",
        numbers.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Verdict};
    use crate::report::Column;

    fn section(verdict: Verdict) -> Section {
        let case = |id| Case::<()>::new(id, "it holds", "all", |_: &()| Box::pin(async { Ok(()) }));
        let cases = [case("K1"), case("K1"), case("")];
        let verdicts = vec![Verdict::Agrees, Verdict::Agrees, verdict];
        Section::new("EventLog", &cases, vec![Column { name: "model".to_owned(), verdicts }])
    }

    #[test]
    fn only_the_block_of_its_name_is_what_was_seen() {
        let old = "a\n<!-- seen one -->\nstale\n<!-- /seen -->\nb\n<!-- seen two -->\nx\n<!-- /seen -->\n";
        let seen = [section(Verdict::Agrees)];
        let new = renewed(old, "one", &seen).unwrap();
        assert!(new.starts_with("a\n<!-- seen one -->\n3 cases: 1 statements by number, and 1 "));
        assert!(new.contains(&seen[0].to_string()) && !new.contains("stale"), "{new}");
        assert!(new.ends_with("<!-- /seen -->\nb\n<!-- seen two -->\nx\n<!-- /seen -->\n"));
        assert_eq!(renewed(&new, "one", &seen).unwrap(), new);
        let other = [section(Verdict::NotApplicable("why".to_owned()))];
        assert_ne!(renewed(&new, "one", &other).unwrap(), new);
        assert!(renewed(old, "three", &seen).is_err());
    }
}
