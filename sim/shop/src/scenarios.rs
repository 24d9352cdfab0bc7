//! The scenarios: each is a claim about the saga under misfortune, known by name to the tests that pin
//! its outcome and to the command line. Never judged here.

use contract::{PaymentMode, Service, Stream};
use sim_engine::{FaultKind, Site};

use crate::poison::Kind;
use crate::scenario::Scenario;

mod crashes;
mod races;
mod servers;

/// All of them, in no order that means anything.
pub fn all() -> Vec<Scenario> {
    [first(), crashes::all(), races::all(), servers::all()].concat()
}

fn first() -> Vec<Scenario> {
    vec![
        every_way_an_order_ends(),
        catalog_as_written_keeps_the_money(),
        the_additions_give_the_money_back(),
        a_payment_redelivered_after_a_crash_is_charged_once(),
        a_lost_commit_reply_reserves_once(),
        an_offset_commit_lost_in_a_crash_is_made_up_for(),
        mail_is_told_once_though_the_worker_crashes(),
        a_crash_between_commit_and_reply_is_one_order(),
        a_bulk_request_that_is_cut_off_is_done_once(),
        of_two_who_looked_at_a_product_one_changes_it(),
        what_is_held_is_not_written_off(),
        a_follower_misses_nothing_though_query_crashes(),
        a_rolling_restart_loses_and_doubles_nothing(),
        a_broken_record_is_a_dead_letter_and_the_partition_flows_on(),
        a_later_version_is_mended_and_what_waited_behind_it_goes_on(),
        a_redrive_whose_reply_is_lost_is_asked_again_and_happens_once(),
        an_end_passes_a_dead_letter_and_makes_it_void(),
        a_known_id_with_another_content_has_no_effect(),
        an_old_producer_is_understood_by_new_consumers(),
        a_rolling_upgrade_of_everybody_loses_no_order(),
        what_an_old_consumer_could_not_read_is_redriven_after_its_upgrade(),
    ]
}

/// The scenario of this name.
///
/// # Panics
/// Where there is none.
pub fn named(name: &str) -> Scenario {
    let found = all().into_iter().find(|scenario| scenario.name() == name);
    found.unwrap_or_else(|| panic!("no scenario is called {name}"))
}

fn every_way_an_order_ends() -> Scenario {
    let claim = "each order ends once, by its own facts";
    Scenario::new("saga.every_way_an_order_ends", claim)
        .stock("rare", Some(1))
        .stock("unknown", None)
        .order("tea", 2)
        .order("declined", 1)
        .order("rare", 2)
        .order("unknown", 1)
        .order_with("tea", 1, PaymentMode::AfterStock, None)
        .order_with("tea", 1, PaymentMode::None, None)
        .order_with("cup", 1, PaymentMode::Parallel, Some(0))
}

fn catalog_as_written_keeps_the_money() -> Scenario {
    let claim = "the catalog as written: a payment succeeds, stock fails, nobody gives it back";
    Scenario::new("money.catalog_as_written_keeps_the_money", claim)
        .as_written()
        .stock("rare", Some(0))
        .order("rare", 1)
}

fn the_additions_give_the_money_back() -> Scenario {
    let claim = "the default profile: the same order, and the held money is voided";
    Scenario::new("money.the_additions_give_the_money_back", claim)
        .stock("rare", Some(0))
        .order("rare", 1)
}

fn a_payment_redelivered_after_a_crash_is_charged_once() -> Scenario {
    let claim = "a payment redelivered after a crash is charged once";
    Scenario::new("payments.crash_between_commit_and_offset", claim)
        .order("tea", 1)
        .order("cup", 1)
        .fault(FaultKind::KillBefore, Service::Payments, Site::CommitOffsets, 1)
        .fault(FaultKind::KillAfter, Service::Payments, Site::Outside, 2)
}

fn a_lost_commit_reply_reserves_once() -> Scenario {
    let claim = "a commit whose reply is lost is looked up, not done again";
    Scenario::new("inventory.lost_commit_reply", claim)
        .order("tea", 3)
        .order("tea", 2)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Commit, 12)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Produce, 1)
}

/// Seed 5 of the first sweep: the next owner read from the position, found nothing new, and left the
/// group's committed offset behind for ever.
fn an_offset_commit_lost_in_a_crash_is_made_up_for() -> Scenario {
    let claim = "the last offset commit dies with its owner; the next owner makes up for it";
    Scenario::new("offsets.crash_before_the_last_commit", claim).order("tea", 1).fault(
        FaultKind::KillBefore,
        Service::NotificationsApi,
        Site::CommitOffsets,
        2,
    )
}

fn mail_is_told_once_though_the_worker_crashes() -> Scenario {
    let claim = "a job redelivered after a crash is one mail";
    Scenario::new("mail.crash_between_commit_and_ack", claim)
        .order("tea", 1)
        .order("declined", 1)
        .fault(FaultKind::KillBefore, Service::NotificationsWorker, Site::Settle, 1)
        .fault(FaultKind::LostReply, Service::NotificationsApi, Site::Publish, 1)
}

/// RFC 9110, If-Match: whoever looked before the other one's change is refused, also where the reply to
/// that change was lost.
fn of_two_who_looked_at_a_product_one_changes_it() -> Scenario {
    let claim = "of two who look at a product and then change it, one is refused";
    Scenario::new("http.two_who_looked", claim)
        .order("tea", 1)
        .reprice_as_seen("tea", 300, 400)
        .reprice_as_seen("tea", 301, 500)
        .fault(FaultKind::LostReply, Service::Catalog, Site::Http, 6)
        .visited()
}

fn what_is_held_is_not_written_off() -> Scenario {
    let claim =
        "pieces that are held or sold are not written off, and what is written off is not sold";
    Scenario::new("stock.write_off_beside_orders", claim)
        .stock("rare", Some(3))
        .order("rare", 2)
        .write_off("rare", 150, 2)
        .write_off("rare", 160, 1)
        .order("rare", 1)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Http, 5)
        .visited()
}

/// saga-rules 17: key, effect and reply are one transaction, so that a crash behind it loses nothing.
fn a_crash_between_commit_and_reply_is_one_order() -> Scenario {
    let claim = "an order is committed, its reply dies with Orders: the repeat gets the stored one";
    Scenario::new("http.crash_between_commit_and_reply", claim)
        .order("tea", 1)
        .order("cup", 2)
        .fault(FaultKind::KillAfter, Service::Orders, Site::Commit, 6)
        .fault(FaultKind::LostReply, Service::Orders, Site::Http, 3)
}

fn a_bulk_request_that_is_cut_off_is_done_once() -> Scenario {
    let claim = "a crash in the middle of many lines: the repeat does the rest, and no line twice";
    Scenario::new("http.bulk_cut_off", claim)
        .import(50)
        .order("tea", 1)
        .fault(FaultKind::KillAfter, Service::Inventory, Site::Commit, 10)
        .fault(FaultKind::LostReply, Service::Inventory, Site::Commit, 12)
}

fn a_follower_misses_nothing_though_query_crashes() -> Scenario {
    let claim = "streams break with their instance and go on behind their cursors when it is back";
    Scenario::new("http.followed_through_crashes", claim)
        .order("tea", 1)
        .order("declined", 1)
        .order("cup", 1)
        .followed()
        .fault(FaultKind::KillAfter, Service::Query, Site::Commit, 8)
        .fault(FaultKind::KillBefore, Service::Query, Site::Read, 6)
}

fn a_rolling_restart_loses_and_doubles_nothing() -> Scenario {
    let claim = "every instance is restarted in order during orders: nothing is lost or doubled";
    let mut scenario = Scenario::new("leaving.rolling_restart", claim);
    for service in Service::ALL {
        scenario = scenario.instances(service, 2);
    }
    for n in 0..20 {
        let mode = [PaymentMode::Parallel, PaymentMode::AfterStock][n % 2];
        scenario = scenario.order_with(["tea", "cup", "declined"][n % 3], 1, mode, None);
    }
    scenario.rolling_restart(500, 300)
}

fn a_broken_record_is_a_dead_letter_and_the_partition_flows_on() -> Scenario {
    let claim = "garbage on every topic and the queue: dead letters, discarded; the order goes on";
    let mut scenario =
        Scenario::new("letters.broken_record", claim).order("tea", 1).order("cup", 1);
    for stream in Stream::ALL {
        scenario = scenario.poison(Kind::Garbage, stream, false);
    }
    scenario
}

fn a_later_version_is_mended_and_what_waited_behind_it_goes_on() -> Scenario {
    let claim = "a fact in a version of tomorrow parks its order until it is redriven as version 1";
    Scenario::new("letters.later_version_is_mended", claim)
        .order_with("tea", 1, PaymentMode::AfterStock, None)
        .poison(Kind::HigherVersion, Stream::InventoryEvents, true)
}

fn a_redrive_whose_reply_is_lost_is_asked_again_and_happens_once() -> Scenario {
    let claim = "the operator's redrive is committed, its reply lost, and asked again";
    Scenario::new("letters.redrive_with_a_lost_reply", claim)
        .order_with("tea", 1, PaymentMode::AfterStock, None)
        .poison(Kind::HigherVersion, Stream::InventoryEvents, true)
        .fault(FaultKind::LostReply, Service::Payments, Site::Http, 1)
}

fn an_end_passes_a_dead_letter_and_makes_it_void() -> Scenario {
    let claim = "the end of an order passes a dead OrderCreated in Inventory and Payments and makes it void";
    Scenario::new("letters.superseded_by_the_end", claim)
        .order_with("tea", 1, PaymentMode::Parallel, Some(300))
        .poison(Kind::HigherVersion, Stream::OrdersEvents, false)
}

fn a_known_id_with_another_content_has_no_effect() -> Scenario {
    let claim = "the same event id with another content is a dead letter, the first one stands";
    Scenario::new("letters.reused_id", claim).order("tea", 1).poison(
        Kind::ReusedId,
        Stream::PaymentsEvents,
        false,
    )
}

fn an_old_producer_is_understood_by_new_consumers() -> Scenario {
    let claim = "old Orders write version 1; new Inventory, Payments and Query read it upcast";
    Scenario::new("versions.old_producer_new_consumers", claim)
        .next_release(Service::Inventory)
        .next_release(Service::Payments)
        .next_release(Service::Query)
        .stock("rare", Some(1))
        .order("tea", 2)
        .order("declined", 1)
        .order("rare", 2)
}

fn a_rolling_upgrade_of_everybody_loses_no_order() -> Scenario {
    let claim = "readers first, then Orders one instance after the other: both versions in one log";
    let mut scenario = Scenario::new("versions.rolling_upgrade", claim)
        .instances(Service::Orders, 2)
        .upgrade(Service::Inventory, 0, 100)
        .upgrade(Service::Query, 0, 200)
        .upgrade(Service::Payments, 0, 300)
        .upgrade(Service::Orders, 1, 900)
        .upgrade(Service::Orders, 0, 1_500);
    for _ in 0..10 {
        scenario = scenario.order("tea", 1);
    }
    scenario
}

fn what_an_old_consumer_could_not_read_is_redriven_after_its_upgrade() -> Scenario {
    let claim = "new Orders, old Payments: dead letters, then an upgrade and a redrive apply them";
    let mut scenario = Scenario::new("versions.new_producer_old_consumer", claim)
        .next_release(Service::Orders)
        .next_release(Service::Inventory)
        .next_release(Service::Query)
        .upgrade(Service::Payments, 0, 4_000);
    for product in ["tea", "declined", "cup", "tea"] {
        scenario = scenario.order(product, 1);
    }
    scenario
}
