//! The form of a failure is pinned too.

use std::time::Duration;

use sim_engine::{Run, TraceEvent, Violation};
use sim_shop::story;

#[test]
fn a_failure_reads_like_a_story_and_ends_with_what_to_do() {
    let event = |at_ms: u64, node: &str, what: &'static str, text: &str| TraceEvent {
        at: Duration::from_millis(at_ms),
        node: node.into(),
        what,
        text: text.to_owned(),
    };
    let violation =
        Violation::new("money.at_most_one_charge", "5f2c", "charged 2 times (2598 in all)");
    let run = Run {
        seed: 4711,
        verdict: violation.into(),
        trace: vec![
            event(12_402, "payments#1", "outside", "5f2c:authorise"),
            event(12_403, "payments#1", "fault", "lost reply payments#1 @ outside 1 for 500 ms"),
            event(12_500, "orders#0", "produce", "orders.events[77aa]"),
            event(12_611, "payments#2", "outside", "5f2c:authorise"),
        ],
        ..Run::default()
    };
    let name = "sim.a_failure_reads_like_a_story";
    super::pin(name, &story::failure(&run, "world 213 of 1000", None));
}
