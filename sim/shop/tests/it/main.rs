//! Scenarios: each is a claim, and its outcome is pinned in `snapshots/`. Worlds by seed as well.

mod crashes;
mod described;
mod failure;
mod leaving;
mod letters;
mod metered;
mod mutants;
mod published;
mod races;
mod servers;
mod tidy;
mod versions;
mod worlds;

use sim_engine::{Run, TraceEvent};
use sim_shop::scenarios;

fn pin(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs the scenario of this name, pins it, and insists that every fault met its step.
fn holds(name: &str) -> Run {
    let (run, text) = scenarios::named(name).run();
    pin(name, &text);
    assert!(run.verdict.is_clean(), "{text}");
    for (step, count) in &run.faults {
        assert_eq!(count.masked(), 0, "{step} met nothing:\n{text}");
    }
    run
}

/// The calls of a node that a fault met, in the words of the trace.
fn struck(run: &Run, node: &str) -> Vec<String> {
    let events: Vec<&TraceEvent> = run.trace.iter().filter(|it| &*it.node == node).collect();
    let met = events.windows(2).filter(|pair| pair[1].what == "fault");
    met.map(|pair| format!("{} {}", pair[0].what, pair[0].text)).collect()
}

/// How often a node did this, and the trace says so in words that begin with these.
fn times(run: &Run, node: &str, what: &str, text: &str) -> usize {
    let of_node = run.trace.iter().filter(|it| &*it.node == node && it.what == what);
    of_node.filter(|it| it.text.starts_with(text)).count()
}

/// How often a node did this while another stood still.
fn meanwhile(run: &Run, frozen: &str, node: &str, what: &str, text: &str) -> usize {
    let of_frozen =
        |what: &str| run.trace.iter().position(|it| &*it.node == frozen && it.what == what);
    let from = of_frozen("frozen").expect("it stood still");
    let to = of_frozen("thawed").expect("it went on");
    let between = run.trace[from..to].iter().filter(|it| &*it.node == node && it.what == what);
    between.filter(|it| it.text.starts_with(text)).count()
}

#[test]
fn every_way_an_order_ends() {
    holds("saga.every_way_an_order_ends");
}

#[test]
fn catalog_as_written_keeps_the_money() {
    let name = "money.catalog_as_written_keeps_the_money";
    let (run, text) = scenarios::named(name).run();
    pin(name, &text);
    let broken: Vec<&str> = run.verdict.violations.iter().map(|v| v.invariant.as_str()).collect();
    assert_eq!(broken, ["money.cancelled_holds_nothing"], "{text}");
}

#[test]
fn the_additions_give_the_money_back() {
    holds("money.the_additions_give_the_money_back");
}

#[test]
fn a_payment_redelivered_after_a_crash_is_charged_once() {
    holds("payments.crash_between_commit_and_offset");
}

#[test]
fn a_lost_commit_reply_reserves_once() {
    holds("inventory.lost_commit_reply");
}

/// Seed 5 of the first sweep: the next owner read from the position, found nothing new, and left the
/// group's committed offset behind for ever.
#[test]
fn an_offset_commit_lost_in_a_crash_is_made_up_for() {
    holds("offsets.crash_before_the_last_commit");
}

#[test]
fn mail_is_told_once_though_the_worker_crashes() {
    holds("mail.crash_between_commit_and_ack");
}

/// saga-rules 17: key, effect and reply are one transaction, so that a crash behind it loses nothing.
#[test]
fn a_crash_between_commit_and_reply_is_one_order() {
    let run = holds("http.crash_between_commit_and_reply");
    assert!(times(&run, "orders#0", "http", "") >= 4, "two orders, and each was asked for again");
}

#[test]
fn a_bulk_request_that_is_cut_off_is_done_once() {
    holds("http.bulk_cut_off");
}

#[test]
fn of_two_who_looked_at_a_product_one_changes_it() {
    holds("http.two_who_looked");
}

#[test]
fn what_is_held_is_not_written_off() {
    holds("stock.write_off_beside_orders");
}

#[test]
fn a_follower_misses_nothing_though_query_crashes() {
    holds("http.followed_through_crashes");
}

#[test]
fn a_rolling_restart_loses_and_doubles_nothing() {
    let run = holds("leaving.rolling_restart");
    let marks = &run.verdict.summary.marks;
    assert_eq!(marks["left in order"], 14, "{marks:?}");
    assert_eq!(marks["duplicates on the log"], 0, "{marks:?}");
    assert!(marks["leases handed over"] > 0, "{marks:?}");
}
