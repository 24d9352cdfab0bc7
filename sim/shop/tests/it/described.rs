//! docs/scenarios.md names every scenario and none that is not there, and says no more of each than
//! its plan does.

use std::collections::BTreeSet;

use contract::Service;
use sim_engine::{FaultKind, Site};
use sim_shop::scenario::Scenario;
use sim_shop::scenarios;

/// The steps of a service whose effect outlives it.
fn steps(service: Service) -> &'static [Site] {
    match service {
        Service::Catalog => &[Site::Commit, Site::Produce],
        Service::Orders | Service::Inventory => &[Site::Commit, Site::Produce, Site::CommitOffsets],
        Service::Payments => &[Site::Commit, Site::Produce, Site::CommitOffsets, Site::Outside],
        Service::Query => &[Site::Commit, Site::CommitOffsets],
        Service::NotificationsApi => &[Site::Commit, Site::Publish, Site::CommitOffsets],
        Service::NotificationsWorker => &[Site::Commit, Site::Settle, Site::Outside],
    }
}

/// The rows of the table below this heading: first its cells but the last, then the names in that.
fn rows(heading: &str) -> Vec<(Vec<&'static str>, Vec<Scenario>)> {
    let text = include_str!("../../../../docs/scenarios.md");
    let (_, below) = text.split_once(&format!("\n## {heading}\n")).expect("a heading");
    let table = below.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let row = |line: &'static str| {
        let mut cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells.pop().expect("a row has cells").split('`').skip(1).step_by(2);
        (cells, names.map(scenarios::named).collect())
    };
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn every_decision_and_every_scenario_is_in_the_tables() {
    let decisions = rows("What each decision of the saga looks like");
    for (number, (cells, _)) in (1..).zip(&decisions) {
        assert!(cells[0].starts_with(&format!("{number}. ")), "{cells:?}");
    }
    assert_eq!(decisions.len(), 18);
    let all = [rows("Where each service is killed"), rows("What each fault looks like")].concat();
    let named = decisions.into_iter().chain(all).flat_map(|(_, scenarios)| scenarios);
    let named: BTreeSet<&str> = named.map(|scenario| scenario.name()).collect();
    let there: BTreeSet<&str> = scenarios::all().iter().map(Scenario::name).collect();
    assert_eq!(named, there);
}

#[test]
fn every_step_of_every_service_is_a_crash_point() {
    let mut described = BTreeSet::new();
    for (cells, scenarios) in rows("Where each service is killed") {
        let node = format!("{}#0", cells[0]);
        for scenario in scenarios {
            for kind in [FaultKind::KillBefore, FaultKind::KillAfter] {
                let mut faults = scenario.plan().faults.iter().filter(|it| it.node == node);
                let met = faults.any(|it| {
                    it.kind == kind && it.when.site().is_some_and(|site| site.name() == cells[1])
                });
                assert!(met, "{cells:?}: {} has no {}", scenario.name(), kind.name());
            }
        }
        described.insert((cells[0], cells[1]));
    }
    let all = Service::ALL
        .into_iter()
        .flat_map(|service| steps(service).iter().map(move |site| (service.name(), site.name())));
    assert_eq!(described, all.collect());
}

#[test]
fn every_fault_is_in_the_scenarios_that_it_is_said_to_be_in() {
    let table = rows("What each fault looks like");
    let kinds: Vec<&str> = table.iter().map(|(cells, _)| cells[0]).collect();
    assert_eq!(kinds, FaultKind::ALL.map(FaultKind::name));
    for (cells, scenarios) in &table {
        for scenario in scenarios {
            let met = scenario.plan().faults.iter().any(|it| it.kind.name() == cells[0]);
            assert!(met, "{} has no {}", scenario.name(), cells[0]);
        }
    }
}
