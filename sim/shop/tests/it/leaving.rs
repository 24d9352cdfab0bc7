//! Times that the invariants over leases, offsets and memberships are derived from.

use std::time::Duration;

use sim_engine::TraceEvent;
use sim_shop::leaving;

#[test]
fn what_befell_a_node_is_over_some_time_after_it_ended() {
    let over = |text: &str| {
        let at = Duration::from_secs(1);
        leaving::over(&TraceEvent { at, node: "n".into(), what: "fault", text: text.to_owned() })
    };
    assert_eq!(over("restart after n @ subscribe 1 for 8524 ms"), Duration::from_millis(20_524));
    assert_eq!(over("Log for 500 ms"), Duration::from_millis(12_500));
    assert_eq!(over("orders#0.1"), Duration::from_secs(12));
}

#[test]
fn attempts_come_at_doubling_pauses_and_then_one_a_second() {
    let within = |ms| leaving::attempts_within(Duration::from_millis(ms));
    // By the shortest pauses: after 10, 30, 70, 150 and 310 ms, ...
    assert_eq!([9, 10, 297, 310, 1_270, 2_269, 2_270].map(within), [0, 1, 4, 5, 7, 7, 8]);
}
