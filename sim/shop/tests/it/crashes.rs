//! Each service killed at each step of its own; nodes that stand still; links that are cut.

use sim_engine::Run;

use crate::{holds, meanwhile, struck, times};

/// The node was killed before and after each of these steps, at calls that the trace has so.
fn dies_around(run: &Run, node: &str, steps: &[&str]) {
    let struck = struck(run, node);
    for step in steps {
        let deaths = struck.iter().filter(|call| call.starts_with(step)).count();
        assert_eq!(deaths, 2, "{step}: {struck:#?}");
    }
}

#[test]
fn catalog_publishes_each_price_though_it_dies_at_every_step() {
    let run = holds("crashes.catalog_at_every_step");
    let steps = ["commit put products", "produce catalog.events", "commit sent"];
    dies_around(&run, "catalog#0", &steps);
}

#[test]
fn orders_decides_once_though_it_dies_at_every_step() {
    let run = holds("crashes.orders_at_every_step");
    let steps = ["commit put sagas", "produce orders.events", "commit sent", "commit_offsets"];
    dies_around(&run, "orders#0", &steps);
}

#[test]
fn orders_ends_an_order_once_though_it_dies_as_it_decides() {
    let run = holds("crashes.orders_as_it_decides");
    dies_around(&run, "orders#0", &["commit put sagas"]);
}

#[test]
fn inventory_reserves_once_though_it_dies_at_every_step() {
    let run = holds("crashes.inventory_at_every_step");
    let steps =
        ["commit put reservations", "produce inventory.events", "commit sent", "commit_offsets"];
    dies_around(&run, "inventory#0", &steps);
}

#[test]
fn payments_charges_once_though_it_dies_at_every_step() {
    let run = holds("crashes.payments_at_every_step");
    let steps = [
        "commit put payments",
        "outside",
        "produce payments.events",
        "commit sent",
        "commit_offsets",
    ];
    dies_around(&run, "payments#0", &steps);
}

#[test]
fn query_shows_what_was_said_though_it_dies_at_every_step() {
    let run = holds("crashes.query_at_every_step");
    let steps = ["commit put changes", "commit_offsets"];
    dies_around(&run, "query#0", &steps);
}

#[test]
fn a_notification_is_one_job_though_its_api_dies_at_every_step() {
    let run = holds("crashes.notifications_api_at_every_step");
    let steps =
        ["commit put notifications", "publish notifications.jobs", "commit sent", "commit_offsets"];
    dies_around(&run, "notifications-api#0", &steps);
}

#[test]
fn a_job_is_one_mail_though_the_worker_dies_at_every_step() {
    let run = holds("crashes.notifications_worker_at_every_step");
    let steps = ["commit put mails", "settle", "outside"];
    dies_around(&run, "notifications-worker#0", &steps);
}

#[test]
fn a_zombie_with_an_old_lease_sends_late_duplicates_only() {
    let run = holds("freeze.zombie_relay");
    let marks = &run.verdict.summary.marks;
    assert!(marks["leases handed over"] > 0 && marks["duplicates on the log"] > 0, "{marks:?}");
    assert!(meanwhile(&run, "orders#1", "orders#0", "produce", "orders.events") > 0);
}

#[test]
fn a_consumer_frozen_beyond_its_session_is_fenced() {
    let run = holds("freeze.fenced_consumer");
    assert!(meanwhile(&run, "payments#0", "payments#1", "commit", "put payments") > 0);
    assert_eq!(times(&run, "payments#0", "outside", ""), 0, "the other one did its work");
}

#[test]
fn an_open_transaction_of_a_frozen_node_is_nobodys_loss() {
    let run = holds("freeze.open_transaction");
    assert!(meanwhile(&run, "inventory#0", "inventory#1", "commit", "put reservations") > 0);
}

#[test]
fn a_frozen_worker_loses_its_jobs_to_another() {
    let run = holds("freeze.worker_with_a_job");
    let (frozen, other) = ("notifications-worker#0", "notifications-worker#1");
    assert!(meanwhile(&run, frozen, other, "settle", "ack 1") > 0);
}

#[test]
fn one_of_two_is_cut_from_its_database() {
    let run = holds("links.cut_from_the_database");
    assert_eq!(times(&run, "inventory#0", "commit", "put reservations"), 0);
    assert!(times(&run, "inventory#1", "commit", "put reservations") >= 3);
}

#[test]
fn a_link_cut_one_way_leaves_no_doubt_for_ever() {
    holds("links.cut_one_way");
}

#[test]
fn slow_links_delay_and_change_nothing() {
    holds("links.slow");
}

#[test]
fn a_core_recovers_while_the_others_stay_broken() {
    let run = holds("phases.core_first");
    let marks = &run.verdict.summary.marks;
    assert!(marks["a core recovered first"] == 1 && marks["memberships of the broken"] > 0);
}
