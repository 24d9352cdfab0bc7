//! docs/http.md against the code: every route and every kind of problem is listed, and nothing else. And
//! every test that a page names is there.
//! It reads sources as text and builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::SERVICES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All sources below a folder, without their tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut todo = vec![root().join(folder)];
    let mut sources = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.file_name().unwrap().to_str().unwrap().ends_with("tests.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            sources.push((path, code));
        }
    }
    sources
}

/// What stands between the quotes with which the text begins.
fn literal(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// `GET /path` for each method of each `.route(...)` below a folder.
fn routes(folder: &str) -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for (path, code) in sources(folder) {
        for call in code.split(".route(").skip(1) {
            let at = literal(call).unwrap_or_else(|| panic!("{}: a route", path.display()));
            let call = &call[..end(call)];
            for method in ["get", "post", "put", "patch", "delete"] {
                if call.contains(&format!("{method}(")) {
                    routes.insert(format!("{} {at}", method.to_uppercase()));
                }
            }
        }
    }
    routes
}

/// Where the bracket that is open at the beginning of the text closes.
fn end(text: &str) -> usize {
    let mut open = 1;
    let close = text.char_indices().find(|(_, letter)| {
        open += i32::from(*letter == '(') - i32::from(*letter == ')');
        open == 0
    });
    close.map_or(text.len(), |(at, _)| at)
}

/// The page's lines by heading, and in each line what stands between backquotes.
fn page() -> BTreeMap<String, Vec<Vec<String>>> {
    let text = std::fs::read_to_string(root().join("docs/http.md")).unwrap();
    let mut page: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix('#') {
            title.trim_start_matches('#').trim().clone_into(&mut heading);
        } else if line.starts_with('|') {
            let words = line.split('`').skip(1).step_by(2).map(str::to_owned);
            let status = line.split('|').nth(2).unwrap_or("").trim().to_owned();
            page.entry(heading.clone()).or_default().push(words.chain([status]).collect());
        }
    }
    page
}

fn section<'a>(
    page: &'a BTreeMap<String, Vec<Vec<String>>>,
    name: &str,
) -> impl Iterator<Item = &'a Vec<String>> {
    let heading = page.keys().find(|heading| heading.split(" (").next() == Some(name));
    let heading = heading.unwrap_or_else(|| panic!("docs/http.md has no section {name}"));
    page[heading].iter().filter(|words| words.len() > 1)
}

#[test]
fn every_route_is_listed_and_no_other() {
    let page = page();
    let listed = |name: &str| -> BTreeSet<String> {
        let rows = section(&page, name).map(|words| words[0].clone());
        rows.filter(|word| word.contains(" /")).collect()
    };
    for service in SERVICES {
        assert_eq!(listed(service), routes(&format!("services/{service}/src")), "{service}");
    }
    let all = listed("All services");
    assert_eq!(all, routes("crates/chassis/src"), "routes of the chassis");
    let own: BTreeSet<String> = routes("src").difference(&all).cloned().collect();
    assert_eq!(listed("The shop as a whole"), own, "routes of no service");
}

#[test]
fn every_kind_of_problem_is_listed_and_no_other() {
    let mut kinds = BTreeSet::new();
    let folders = SERVICES.map(|service| format!("services/{service}/src"));
    for folder in folders.iter().map(String::as_str).chain(["crates/chassis/src", "src"]) {
        for (path, code) in sources(folder) {
            for call in code.split("Problem::new(").skip(1) {
                let (status, rest) = call.split_once(',').unwrap();
                let kind = literal(rest).unwrap_or_else(|| {
                    panic!("{}: give the kind of a problem as a literal", path.display())
                });
                kinds.insert(format!("{kind} {}", status.trim()));
            }
        }
    }
    let page = page();
    let listed = section(&page, "Kinds of problems")
        .map(|words| format!("{} {}", words[0], words.last().unwrap()));
    assert_eq!(listed.collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let mut homes: Vec<PathBuf> = crates.map(|entry| entry.unwrap().path()).collect();
    homes.push(root().to_owned());
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut named = 0;
    for page in pages.filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let words = text.split('`').skip(1).step_by(2);
        for path in words.filter(|word| word.starts_with("tests/") && !word.contains(' ')) {
            let found = homes.iter().any(|home| home.join(path).exists());
            assert!(found, "{} names {path}", page.display());
            named += 1;
        }
    }
    assert!(named > 3, "only {named} were found");
}
