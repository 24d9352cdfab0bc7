//! Scenarios: each is a claim, and its outcome is pinned in `snapshots/`. Worlds by seed as well.

mod failure;
mod letters;
mod metered;
mod mutants;
mod published;
mod tidy;
mod versions;
mod worlds;

use contract::{PaymentMode, Service};
use sim_engine::{FaultKind, Run, Site};
use sim_shop::scenario::Scenario;

fn pin(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs it, pins it, and insists that every fault met its step.
fn holds(scenario: &Scenario, name: &str) -> Run {
    let (run, text) = scenario.run();
    pin(name, &text);
    assert!(run.verdict.is_clean(), "{text}");
    for (step, count) in &run.faults {
        assert_eq!(count.masked(), 0, "{step} met nothing:\n{text}");
    }
    run
}

#[test]
fn every_way_an_order_ends() {
    let name = "saga.every_way_an_order_ends";
    let scenario = Scenario::new(name, "each order ends once, by its own facts")
        .stock("rare", Some(1))
        .stock("unknown", None)
        .order("tea", 2)
        .order("declined", 1)
        .order("rare", 2)
        .order("unknown", 1)
        .order_with("tea", 1, PaymentMode::AfterStock, None)
        .order_with("tea", 1, PaymentMode::None, None)
        .order_with("cup", 1, PaymentMode::Parallel, Some(0));
    holds(&scenario, name);
}

#[test]
fn catalog_as_written_keeps_the_money() {
    let name = "money.catalog_as_written_keeps_the_money";
    let claim = "the catalog as written: a payment succeeds, stock fails, nobody gives it back";
    let scenario = Scenario::new(name, claim).as_written().stock("rare", Some(0)).order("rare", 1);
    let (run, text) = scenario.run();
    pin(name, &text);
    let broken: Vec<&str> = run.verdict.violations.iter().map(|v| v.invariant.as_str()).collect();
    assert_eq!(broken, ["money.cancelled_holds_nothing"], "{text}");
}

#[test]
fn the_additions_give_the_money_back() {
    let name = "money.the_additions_give_the_money_back";
    let claim = "the default profile: the same order, and the held money is voided";
    let scenario = Scenario::new(name, claim).stock("rare", Some(0)).order("rare", 1);
    holds(&scenario, name);
}

#[test]
fn a_payment_redelivered_after_a_crash_is_charged_once() {
    let name = "payments.crash_between_commit_and_offset";
    let claim = "a payment redelivered after a crash is charged once";
    let scenario = Scenario::new(name, claim)
        .order("tea", 1)
        .order("cup", 1)
        .fault(FaultKind::KillBefore, Service::Payments, Site::CommitOffsets, 1)
        .fault(FaultKind::KillAfter, Service::Payments, Site::Outside, 1);
    holds(&scenario, name);
}

#[test]
fn a_lost_commit_reply_reserves_once() {
    let name = "inventory.lost_commit_reply";
    let claim = "a commit whose reply is lost is looked up, not done again";
    let scenario = Scenario::new(name, claim)
        .order("tea", 3)
        .order("tea", 2)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Commit, 12)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Produce, 1);
    holds(&scenario, name);
}

/// Seed 5 of the first sweep: the next owner read from the position, found nothing new, and left the
/// group's committed offset behind for ever.
#[test]
fn an_offset_commit_lost_in_a_crash_is_made_up_for() {
    let name = "offsets.crash_before_the_last_commit";
    let claim = "the last offset commit dies with its owner; the next owner makes up for it";
    let scenario = Scenario::new(name, claim).order("tea", 1).fault(
        FaultKind::KillBefore,
        Service::NotificationsApi,
        Site::CommitOffsets,
        2,
    );
    holds(&scenario, name);
}

#[test]
fn mail_is_told_once_though_the_worker_crashes() {
    let name = "mail.crash_between_commit_and_ack";
    let claim = "a job redelivered after a crash is one mail";
    let scenario = Scenario::new(name, claim)
        .order("tea", 1)
        .order("declined", 1)
        .fault(FaultKind::KillBefore, Service::NotificationsWorker, Site::Settle, 1)
        .fault(FaultKind::LostReply, Service::NotificationsApi, Site::Publish, 1);
    holds(&scenario, name);
}

/// saga-rules 17: key, effect and reply are one transaction, so that a crash behind it loses nothing.
#[test]
fn a_crash_between_commit_and_reply_is_one_order() {
    let name = "http.crash_between_commit_and_reply";
    let claim = "an order is committed, its reply dies with Orders: the repeat gets the stored one";
    let scenario = Scenario::new(name, claim)
        .order("tea", 1)
        .order("cup", 2)
        .fault(FaultKind::KillAfter, Service::Orders, Site::Commit, 6)
        .fault(FaultKind::LostReply, Service::Orders, Site::Http, 3);
    let (run, _) = scenario.run();
    let placing =
        run.trace.iter().filter(|event| event.what == "http" && &*event.node == "orders#0");
    assert!(placing.count() >= 4, "two orders, and each was asked for again");
    holds(&scenario, name);
}

#[test]
fn a_bulk_request_that_is_cut_off_is_done_once() {
    let name = "http.bulk_cut_off";
    let claim = "a crash in the middle of many lines: the repeat does the rest, and no line twice";
    let scenario = Scenario::new(name, claim)
        .import(50)
        .order("tea", 1)
        .fault(FaultKind::KillAfter, Service::Inventory, Site::Commit, 10)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Commit, 12);
    holds(&scenario, name);
}

#[test]
fn a_follower_misses_nothing_though_query_crashes() {
    let name = "http.followed_through_crashes";
    let claim = "streams break with their instance and go on behind their cursors when it is back";
    let scenario = Scenario::new(name, claim)
        .order("tea", 1)
        .order("declined", 1)
        .order("cup", 1)
        .followed()
        .fault(FaultKind::KillAfter, Service::Query, Site::Commit, 8)
        .fault(FaultKind::KillBefore, Service::Query, Site::Read, 6);
    holds(&scenario, name);
}

#[test]
fn a_rolling_restart_loses_and_doubles_nothing() {
    let name = "leaving.rolling_restart";
    let claim = "every instance is restarted in order during orders: nothing is lost or doubled";
    let mut scenario = Scenario::new(name, claim);
    for service in Service::ALL {
        scenario = scenario.instances(service, 2);
    }
    for n in 0..20 {
        let mode = [PaymentMode::Parallel, PaymentMode::AfterStock][n % 2];
        scenario = scenario.order_with(["tea", "cup", "declined"][n % 3], 1, mode, None);
    }
    let scenario = scenario.rolling_restart(500, 300);
    holds(&scenario, name);
    let (run, text) = scenario.run();
    let marks = &run.verdict.summary.marks;
    assert_eq!(marks["left in order"], 14, "{text}");
    assert_eq!(marks["duplicates on the log"], 0, "{text}");
    assert!(marks["leases handed over"] > 0, "{text}");
}
