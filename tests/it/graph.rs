//! The dependency graph keeps the promises of the layout: what the product links, what the simulation
//! engine knows, what the toolkit does not know, which licences there are. It builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::SERVICES;

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        // Only what this machine builds was fetched; cargo deny looks at the other targets too.
        .other_options(["--offline", "--filter-platform", "host-tuple"].map(str::to_owned))
        .exec()
        .expect("cargo metadata answers")
});

const TOOLKIT: [&str; 5] = ["ports", "model", "envelope", "chassis", "conformance"];
const ADAPTERS: [&str; 4] = ["kafka", "rabbit", "postgres", "local"];

fn ours(folder: &str) -> String {
    format!("shakedown-{folder}")
}

fn package(name: &str) -> &'static Package {
    let found = METADATA.packages.iter().find(|package| package.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no package {name}"))
}

/// What a package depends on itself, tests and build scripts left out.
fn direct(name: &str) -> BTreeSet<&'static str> {
    let dependencies = package(name).dependencies.iter();
    dependencies.filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.as_str()).collect()
}

/// Names of all packages that are linked into this one, itself included.
fn linked(name: &str) -> BTreeSet<&'static str> {
    let resolve = METADATA.resolve.as_ref().expect("metadata with dependencies");
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut todo = vec![&package(name).id];
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dep in &nodes[id].deps {
            if dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
                todo.push(&dep.pkg);
            }
        }
    }
    let packages = METADATA.packages.iter().filter(|package| seen.contains(&package.id));
    packages.map(|package| package.name.as_str()).collect()
}

fn assert_apart<'a>(whose: &str, graph: &BTreeSet<&str>, never: impl IntoIterator<Item = &'a str>) {
    for name in never {
        assert!(!graph.contains(name), "{whose} must not depend on {name}");
    }
}

#[test]
fn the_product_has_no_simulator() {
    let graph = linked("shakedown");
    assert!(graph.contains("tokio") && graph.contains("shakedown-orders"), "the walk works");
    assert_apart("shakedown", &graph, ["madsim", "shakedown-sim-engine", "shakedown-sim-shop"]);
    for service in SERVICES.map(ours).iter().chain(&TOOLKIT.map(ours)).chain(&ADAPTERS.map(ours)) {
        assert_apart(service, &linked(service), ["madsim", "shakedown-sim-engine"]);
    }
}

#[test]
fn the_simulation_engine_knows_no_shop() {
    let graph = linked("shakedown-sim-engine");
    assert!(graph.contains("madsim"), "the walk works");
    for never in ["contract", "envelope", "chassis", "sim-shop"].iter().chain(&SERVICES) {
        assert_apart("sim-engine", &graph, [ours(never).as_str()]);
    }
}

/// What a stranger would have: neither chassis nor anything of this shop.
#[test]
fn the_ledger_stands_on_ports_and_engine_alone() {
    let graph = linked("shakedown-sim-ledger");
    assert!(graph.contains("shakedown-sim-engine"), "the walk works");
    for never in ["contract", "envelope", "chassis", "sim-shop"].iter().chain(&SERVICES) {
        assert_apart("sim-ledger", &graph, [ours(never).as_str()]);
    }
}

#[test]
fn the_toolkit_knows_no_event_of_the_shop() {
    for toolkit in TOOLKIT.map(ours) {
        assert_apart(&toolkit, &linked(&toolkit), ["shakedown-contract", "shakedown"]);
    }
    for adapter in ADAPTERS.map(ours) {
        assert_apart(&adapter, &linked(&adapter), ["shakedown-contract", "shakedown-chassis"]);
    }
}

#[test]
fn dependencies_point_inwards() {
    let of_ours = |name: &str| -> BTreeSet<&str> {
        direct(name).into_iter().filter(|n| n.starts_with("shakedown")).collect()
    };
    assert_eq!(of_ours("shakedown-ports"), BTreeSet::new());
    assert_eq!(of_ours("shakedown-envelope"), BTreeSet::new());
    assert_eq!(of_ours("shakedown-model"), BTreeSet::from(["shakedown-ports"]));
    assert_eq!(
        of_ours("shakedown-chassis"),
        BTreeSet::from(["shakedown-envelope", "shakedown-ports"])
    );
    assert_eq!(of_ours("shakedown-contract"), BTreeSet::from(["shakedown-envelope"]));
    let inner = ["contract", "chassis", "envelope", "ports"].map(ours);
    for service in SERVICES.map(ours) {
        for dependency in of_ours(&service) {
            assert!(inner.iter().any(|n| n == dependency), "{service} depends on {dependency}");
        }
    }
}

#[test]
fn services_have_no_clock_no_tasks_and_no_adapters() {
    let pure = ["ports", "model", "envelope", "chassis", "contract"];
    for name in SERVICES.iter().chain(&pure).map(|name| ours(name)) {
        let adapters = ADAPTERS.map(ours);
        let clients = ["rdkafka", "lapin", "tokio-postgres", "rusqlite", "rand", "getrandom"];
        let never = adapters.iter().map(String::as_str).chain(clients);
        assert_apart(&name, &direct(&name), never);
        let dependencies = package(&name).dependencies.iter();
        for tokio in dependencies.filter(|d| d.kind == DependencyKind::Normal && d.name == "tokio")
        {
            assert_eq!(tokio.features, ["sync"], "{name} may use tokio's sync alone");
            assert!(!tokio.uses_default_features, "{name}: tokio without its defaults");
        }
        for dependency in package(&name).dependencies.iter() {
            let features = &dependency.features;
            let never = match dependency.name.as_str() {
                "chrono" => ["clock", "now"],
                "uuid" => ["v4", "v7"],
                _ => continue,
            };
            let own = !features.iter().any(|f| never.contains(&f.as_str()));
            assert!(own, "{name}: {} has a clock or chance of its own", dependency.name);
        }
    }
}

#[test]
fn no_tls_library_of_the_system() {
    let all: BTreeSet<&str> = METADATA.packages.iter().map(|p| p.name.as_str()).collect();
    assert_apart("the workspace", &all, ["openssl", "openssl-sys", "native-tls"]);
}

#[test]
fn every_licence_is_allowed() {
    let deny: toml::Table = include_str!("../../deny.toml").parse().expect("deny.toml is TOML");
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        let list = value.as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("a string").to_owned()).collect()
    };
    let allowed = strings(&deny["licenses"]["allow"]);
    assert!(allowed.len() > 3, "{allowed:?}");
    let exceptions: BTreeMap<&str, BTreeSet<String>> = deny["licenses"]["exceptions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| (e["crate"].as_str().expect("a crate's name"), strings(&e["allow"])))
        .collect();
    for package in &METADATA.packages {
        let name = package.name.as_str();
        let licence = package.license.as_deref();
        let licence = licence.unwrap_or_else(|| panic!("{name} names no licence"));
        let more = exceptions.get(name);
        let one = |id: &str| allowed.contains(id) || more.is_some_and(|more| more.contains(id));
        assert!(satisfied(licence, &one), "{name}: {licence}");
    }
}

/// Whether an SPDX expression (AND, OR, WITH, brackets; `/` for OR as in old manifests) can be met.
/// A licence with an exception is at least as free as without it.
fn satisfied(expression: &str, one: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any_of(&tokens, &mut at, one);
    assert_eq!(at, tokens.len(), "{expression}");
    met
}

fn any_of(tokens: &[&str], at: &mut usize, one: &dyn Fn(&str) -> bool) -> bool {
    let mut met = all_of(tokens, at, one);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(tokens, at, one);
    }
    met
}

fn all_of(tokens: &[&str], at: &mut usize, one: &dyn Fn(&str) -> bool) -> bool {
    let mut met = single(tokens, at, one);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= single(tokens, at, one);
    }
    met
}

fn single(tokens: &[&str], at: &mut usize, one: &dyn Fn(&str) -> bool) -> bool {
    let token = tokens[*at];
    *at += 1;
    if token == "(" {
        let met = any_of(tokens, at, one);
        assert_eq!(tokens.get(*at), Some(&")"));
        *at += 1;
        return met;
    }
    if tokens.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    one(token)
}

#[test]
fn licence_expressions_are_read_right() {
    let mit = |id: &str| id == "MIT";
    assert!(satisfied("MIT OR GPL-3.0", &mit));
    assert!(satisfied("(GPL-3.0 OR MIT) AND MIT", &mit));
    assert!(satisfied("GPL-3.0/MIT", &mit));
    assert!(!satisfied("MIT AND GPL-3.0", &mit));
    assert!(!satisfied("MIT AND (GPL-3.0 OR Unicode-3.0)", &mit));
    assert!(!satisfied("Apache-2.0 WITH LLVM-exception", &mit));
}
