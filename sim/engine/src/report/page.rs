//! The page's file: markup, style, script and data in one. Never over its limit, whatever the world.

use base64::Engine;

use super::data::{Room, data};
use super::ways::Ways;
use crate::runner::run_detailed;
use crate::system::{Plan, System};

/// A page is smaller than this, bytes.
pub(super) const BYTES_MAX: usize = 2_000_000;

/// How hard to compress, of 10.
const DEFLATE: u8 = 6;

/// From everything to what still fits.
const ROOMS: [Room; 4] = [
    Room { text: 400, payload: 2_000, events: usize::MAX },
    Room { text: 160, payload: 300, events: usize::MAX },
    Room { text: 80, payload: 0, events: 60_000 },
    Room { text: 40, payload: 0, events: 10_000 },
];

/// The page of a plan's world: it is run once more, and looked at in detail.
pub fn page<S: System>(system: &S, plan: &Plan<S::Workload>) -> String {
    let (mut run, detail) = run_detailed(system, plan);
    let expected = system.expected(&plan.workload);
    run.verdict.violations.sort_by_key(|it| expected.contains(&it.invariant.as_str()));
    let ways = Ways::new(&run.trace, &detail);
    let page = |room: &Room| {
        let data = data(system, plan, &run, &detail, &ways, *room);
        fill(&serde_json::to_string(&data).expect("a page's data has a JSON form"))
    };
    let mut pages = ROOMS.iter().map(page);
    pages.find(|page| page.len() < BYTES_MAX).unwrap_or_else(|| fill("null"))
}

/// Data goes in deflated, as letters that mean nothing to HTML.
fn fill(data: &str) -> String {
    let deflated = miniz_oxide::deflate::compress_to_vec(data.as_bytes(), DEFLATE);
    let data = base64::engine::general_purpose::STANDARD.encode(deflated);
    include_str!("page.html")
        .replacen("/*STYLE*/", include_str!("page.css"), 1)
        .replacen("/*SCRIPT*/", include_str!("page.js"), 1)
        .replacen("/*DATA*/", &data, 1)
}
