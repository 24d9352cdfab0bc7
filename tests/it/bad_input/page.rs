//! Both tables as a page: docs/bad-input.md.

use std::collections::{BTreeMap, BTreeSet};

use super::poison::Fate;
use super::{records, requests};

/// Set to write the page instead of comparing it.
const WRITE: &str = "SHAKEDOWN_WRITE_DOCS";

const HEAD: &str = "# Bad input

What becomes of requests, records and jobs that are not as they should be. This page is printed by the
suite that tries each of them against all seven services on the broker and store models
(`tests/it/bad_input`), and held by it; after a change of the tables write it anew:
`SHAKEDOWN_WRITE_DOCS=1 cargo test --test it bad_input::page`.

After each case the suite looks at the whole shop: nobody answered 500, no row and no event was left
behind by what was refused, a dead letter holds the very bytes, a good event behind it in the same
partition was applied, and every order that was ever placed is confirmed.
";

/// Joins the places of equal rows, in the order in which the rows come.
fn joined(rows: impl IntoIterator<Item = (String, String, String)>) -> Vec<[String; 3]> {
    let mut order = Vec::new();
    let mut places: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (what, place, fate) in rows {
        let key = (what, fate);
        let there = places.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        if !there.contains(&place) {
            there.push(place);
        }
    }
    let row = |key: (String, String)| {
        let place = places[&key].join(", ");
        [key.0, place, key.1]
    };
    order.into_iter().map(row).collect()
}

fn table(head: [&str; 3], rows: Vec<[String; 3]>) -> String {
    let mut text = format!("| {} |\n|---|---|---|\n", head.join(" | "));
    for row in rows {
        let cells = row.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

fn page() -> String {
    let requests = requests::cases();
    let records = records::cases();
    let (asked, sent) = (requests.len(), records.len());
    let requests = joined(requests.into_iter().map(|case| {
        // A path with a bad id or query in it says what its name says already.
        let path = match requests::ROUTES.iter().find(|(_, route)| same(route, &case.path)) {
            Some((_, route)) => (*route).to_owned(),
            None => case.path,
        };
        let method = if case.status == 405 { "" } else { case.method };
        (
            case.name,
            format!("`{}`", format!("{method} {path}").trim()),
            format!("{} `{}`", case.status, case.problem),
        )
    }));
    let records = joined(records.into_iter().map(|case| {
        let (place, what) = case.name.split_once(": ").expect("a place and what is wrong");
        let fate = match case.fate {
            Fate::Dead(code, _) => format!("dead letter `{code}`"),
            Fate::Skipped => "skipped, counted".to_owned(),
            Fate::Applied => "applied".to_owned(),
        };
        (what.to_owned(), format!("`{place}`"), fate)
    }));
    format!(
        "{HEAD}\n## Requests\n\n{asked} cases. The answer is a problem document (RFC 9457) whose `type` ends in \
         this word; `detail` says what was wrong.\n\n{}\n## Records and jobs\n\n{sent} cases. A dead letter is \
         made by each service that consumes the event, or, where nobody can tell what it is, by all that \
         read the topic. Another partition key than the order's own is no violation: the payload says whom \
         it is about, and nothing depends on an order across keys.\n\n{}",
        table(["input", "where", "answer"], requests),
        table(["input", "where", "what becomes of it"], records),
    )
}

/// Whether a path is of this route, its query aside.
fn same(route: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    let (route, path) = (route.split('/'), path.split('/'));
    route.clone().count() == path.clone().count()
        && route.zip(path).all(|(wanted, given)| wanted == "{id}" || wanted == given)
}

#[test]
fn the_page_tells_both_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bad-input.md");
    let wanted = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, &wanted).expect("docs/ can be written");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == wanted, "docs/bad-input.md is not what the suite tries: {WRITE}=1 writes it");
}

#[test]
fn every_case_has_a_name_of_its_own_and_every_route_topic_and_queue_has_cases() {
    let (requests, records) = (requests::cases(), records::cases());
    assert!(requests.len() + records.len() >= 120);
    let names = requests.iter().map(|case| (case.method, case.path.as_str(), case.name.as_str()));
    assert_eq!(names.collect::<BTreeSet<_>>().len(), requests.len(), "two requests are one");
    let names: BTreeSet<&str> = records.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), records.len(), "two records have one name");
    for (method, route) in requests::ROUTES {
        let tried = requests.iter().filter(|case| same(route, &case.path));
        // A route without id, query and body can be asked in one wrong way: by another method.
        assert!(tried.clone().count() >= 2, "{method} {route}");
    }
    for stream in contract::Stream::ALL {
        assert!(records.iter().filter(|case| case.stream == stream).count() > 20, "{stream:?}");
    }
}
