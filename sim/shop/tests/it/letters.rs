//! Scenarios of dead letters: what strangers send harms nobody, what waits goes on in order.

use contract::{Service, Stream};
use sim_engine::{FaultKind, Site};
use sim_shop::poison::Kind;
use sim_shop::scenario::Scenario;

use crate::holds;

#[test]
fn a_broken_record_is_a_dead_letter_and_the_partition_flows_on() {
    let name = "letters.broken_record";
    let claim = "garbage on every topic and the queue: dead letters, discarded; the order goes on";
    let mut scenario = Scenario::new(name, claim).order("tea", 1).order("cup", 1);
    for stream in Stream::ALL {
        scenario = scenario.poison(Kind::Garbage, stream, false);
    }
    holds(&scenario, name);
}

#[test]
fn a_later_version_is_mended_and_what_waited_behind_it_goes_on() {
    let name = "letters.later_version_is_mended";
    let claim = "a fact in a version of tomorrow parks its order until it is redriven as version 1";
    let scenario = Scenario::new(name, claim)
        .order_with("tea", 1, contract::PaymentMode::AfterStock, None)
        .poison(Kind::HigherVersion, Stream::InventoryEvents, true);
    holds(&scenario, name);
}

#[test]
fn a_redrive_whose_reply_is_lost_is_asked_again_and_happens_once() {
    let name = "letters.redrive_with_a_lost_reply";
    let claim = "the operator's redrive is committed, its reply lost, and asked again";
    let scenario = Scenario::new(name, claim)
        .order_with("tea", 1, contract::PaymentMode::AfterStock, None)
        .poison(Kind::HigherVersion, Stream::InventoryEvents, true)
        .fault(FaultKind::LostReply, Service::Payments, Site::Http, 1);
    holds(&scenario, name);
}

#[test]
fn an_end_passes_a_dead_letter_and_makes_it_void() {
    let name = "letters.superseded_by_the_end";
    let claim = "the end of an order passes a dead OrderCreated in Inventory and Payments and makes it void";
    let scenario = Scenario::new(name, claim)
        .order_with("tea", 1, contract::PaymentMode::Parallel, Some(300))
        .poison(Kind::HigherVersion, Stream::OrdersEvents, false);
    holds(&scenario, name);
}

#[test]
fn a_known_id_with_another_content_has_no_effect() {
    let name = "letters.reused_id";
    let claim = "the same event id with another content is a dead letter, the first one stands";
    let scenario = Scenario::new(name, claim).order("tea", 1).poison(
        Kind::ReusedId,
        Stream::PaymentsEvents,
        false,
    );
    holds(&scenario, name);
}
