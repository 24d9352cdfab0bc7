//! The page's file: markup, style, script and data in one. Never over its limit, whatever the world.

use super::data::{Room, data};
use super::ways::Ways;
use crate::runner::run_detailed;
use crate::system::{Plan, System};

/// A page is smaller than this, bytes.
pub(super) const BYTES_MAX: usize = 2_000_000;

/// From everything to what still fits.
const ROOMS: [Room; 6] = [
    Room { text: 400, payload: 1_000, events: usize::MAX },
    Room { text: 160, payload: 300, events: usize::MAX },
    Room { text: 80, payload: 0, events: 40_000 },
    Room { text: 40, payload: 0, events: 20_000 },
    Room { text: 40, payload: 0, events: 8_000 },
    Room { text: 20, payload: 0, events: 1_000 },
];

/// The page of a plan's world: it is run once more, and looked at in detail.
pub fn page<S: System>(system: &S, plan: &Plan<S::Workload>) -> String {
    let (mut run, detail) = run_detailed(system, plan);
    // Said where it is expected, so that the page of a clean world is not red.
    let expected = system.expected(&plan.workload);
    run.verdict.violations.retain(|it| !expected.contains(&it.invariant.as_str()));
    let ways = Ways::new(&run.trace, &detail);
    let page = |room: &Room| {
        let data = data(system, plan, &run, &detail, &ways, *room);
        fill(&serde_json::to_string(&data).expect("a page's data has a JSON form"))
    };
    let mut pages = ROOMS.iter().map(page);
    pages.find(|page| page.len() < BYTES_MAX).unwrap_or_else(|| fill("null"))
}

/// Data goes into a script element: nothing in it may end that.
fn fill(data: &str) -> String {
    include_str!("page.html")
        .replacen("/*STYLE*/", include_str!("page.css"), 1)
        .replacen("/*SCRIPT*/", include_str!("page.js"), 1)
        .replacen("/*DATA*/", &data.replace('<', "\\u003c"), 1)
}
