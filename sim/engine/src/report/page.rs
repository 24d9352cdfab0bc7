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

/// The page of a plan's world: it is run once more, and looked at in detail. `again`: the command that
/// replays it. `None`: it did not come to its end, and there is nothing to show.
pub fn page<S: System>(system: &S, plan: &Plan<S::Workload>, again: &str) -> Option<String> {
    let (mut run, detail) = run_detailed(system, plan);
    if !run.ended() {
        return None;
    }
    let expected = system.expected(&plan.workload);
    run.verdict.violations.sort_by_key(|it| expected.contains(&it.invariant.as_str()));
    let ways = Ways::new(&run.trace, &detail);
    let page = |room: &Room| {
        let data = data(system, plan, again, &run, &detail, &ways, *room);
        fill(&serde_json::to_string(&data).expect("a page's data has a JSON form"))
    };
    let mut pages = ROOMS.iter().map(page);
    Some(pages.find(|page| page.len() < BYTES_MAX).unwrap_or_else(|| fill("null")))
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fault::{FaultKind, FaultSpec, Site, When};
    use crate::runner::run_plan;
    use crate::system::System;
    use crate::toy::Toy;

    /// The data of a page, as a browser reads it.
    fn data_of(page: &str) -> Value {
        let (_, rest) = page.split_once("<script id=\"data\" type=\"text/plain\">").unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        let deflated = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        serde_json::from_slice(&miniz_oxide::inflate::decompress_to_vec(&deflated).unwrap())
            .unwrap()
    }

    #[test]
    fn a_page_holds_its_world_and_needs_nothing_else() {
        let plan = Toy.plan(6);
        let page = page(&Toy, &plan, "cargo sim replay 6").unwrap();
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let data = data_of(&page);
        let run = run_plan(&Toy, &plan);
        assert_eq!(data["hash"], format!("{:032x}", run.hash), "a look changes nothing");
        assert_eq!(data["at"].as_array().unwrap().len(), run.trace.len());
        assert_eq!(data["violations"][0]["invariant"], "numbers.kept");
        let lanes: Vec<_> = data["lanes"].as_array().unwrap().iter().map(|l| &l["name"]).collect();
        assert_eq!(lanes, ["reader", "world", "writer", "numbers/0"]);
        let band = &data["bands"][0];
        let lasts = band["to"].as_u64().unwrap() - band["from"].as_u64().unwrap();
        assert_eq!((&band["lane"], lasts), (&2.into(), 30_000));
        let label = data["records"][0]["label"].as_u64().unwrap() as usize;
        assert_eq!(data["strings"][label], "a number on numbers");
        assert_eq!(data["records"][0]["places"][0][1], 0, "its offset");
        let steps = |number: usize| {
            let steps = data["records"][number]["steps"].as_array().unwrap();
            let names = steps.iter().skip(1).step_by(2);
            let names: Vec<&str> = names
                .map(|step| data["steps"][step.as_u64().unwrap() as usize].as_str().unwrap())
                .collect();
            names.join(" ")
        };
        assert_eq!(steps(0), "sent read inbox effect offset");
        assert!(steps(3).starts_with("sent read"), "{}", steps(3));
        assert!(!steps(3).contains("effect"), "the lost one has none");
    }

    #[test]
    fn a_commit_that_a_fault_kept_from_its_effect_is_told_apart() {
        let plan = Toy.plan(0);
        let fault = |kind, nth| FaultSpec {
            kind,
            node: "reader".to_owned(),
            when: When::Call { site: Site::Commit, nth },
            for_ms: 30,
        };
        let faults = vec![fault(FaultKind::Slow, 1), fault(FaultKind::LostRequest, 2)];
        let data = data_of(&page(&Toy, &Plan { faults, ..plan }, "cargo sim replay 0").unwrap());
        let what = |event: usize| {
            let what = data["what"][event].as_u64().unwrap() as usize;
            data["strings"][what].as_str().unwrap()
        };
        let events = 0..data["what"].as_array().unwrap().len();
        let commits: Vec<usize> = events.filter(|event| what(*event) == "commit").collect();
        assert_eq!(data["without_effect"], serde_json::json!([commits[1]]));
    }

    #[test]
    fn a_page_of_a_long_world_stays_under_its_limit() {
        let mut plan = Toy.plan(0);
        plan.workload.numbers = (0..6_000).collect();
        let page = page(&Toy, &plan, "cargo sim replay 6").unwrap();
        let data = data_of(&page);
        assert!(data["at"].as_array().unwrap().len() > 20_000);
        assert_eq!(data["left_out"], 0);
        assert!(page.len() < BYTES_MAX, "{}", page.len());
    }
}
