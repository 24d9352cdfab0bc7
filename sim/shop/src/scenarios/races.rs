//! Facts that meet: deadlines, cancels, late successes, prices and stock out of order, clocks that are
//! wrong. Never a crash.

use contract::{PaymentMode, Service, Stream};
use sim_engine::FaultKind::{
    ClockAhead, ClockBack, Duplicated, Freeze, Hidden, LateEffect, LostReply, LostRequest, Slow,
};
use sim_engine::Site::{Commit, CommitOffsets, Http, Poll, Produce};

use crate::poison::Kind;
use crate::scenario::{Mishap, Scenario};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        a_payment_that_comes_after_the_deadline_is_voided(),
        a_late_success_within_the_deadline_is_captured(),
        a_deadline_and_a_payment_meet(),
        a_cancel_wins_over_a_payment_on_its_way(),
        a_cancel_after_the_end_is_refused(),
        a_cancel_that_comes_first_leaves_a_tombstone(),
        payment_waits_for_stock_in_whatever_order_they_come(),
        an_old_price_that_comes_late_does_not_come_back(),
        a_price_that_is_not_known_yet_is_waited_for(),
        the_last_piece_goes_to_one_order(),
        clocks_that_jump_end_no_order_early(),
        the_same_fact_under_another_id_has_one_effect(),
        poison_of_every_sort_is_settled(),
        a_swept_inbox_lets_nothing_happen_again(),
    ]
}

fn a_payment_that_comes_after_the_deadline_is_voided() -> Scenario {
    let claim = "the gateway answers after a minute, the deadline is 3 s: cancelled, then voided";
    Scenario::new("deadline.late_success_is_voided", claim)
        .priced("late", 1_077)
        .deadline_ms(3_000)
        .order("late", 1)
}

fn a_late_success_within_the_deadline_is_captured() -> Scenario {
    let claim = "the gateway answers after a minute, within the deadline: one charge, captured";
    Scenario::new("payments.late_success_is_captured", claim).priced("late", 1_077).order("late", 1)
}

fn a_deadline_and_a_payment_meet() -> Scenario {
    let claim = "Orders wakes behind a deadline with the payment before its eyes: one end";
    Scenario::new("deadline.meets_the_payment", claim)
        .deadline_ms(3_000)
        .order("tea", 1)
        .order("cup", 1)
        .with(Mishap::of(Freeze, Service::Orders, Poll, "payments.events").for_ms(4_000))
}

fn a_cancel_wins_over_a_payment_on_its_way() -> Scenario {
    let claim = "a customer cancels while the payment is on its way: cancelled, voided, released";
    Scenario::new("cancel.wins_over_a_payment_on_its_way", claim)
        .order_with("tea", 1, PaymentMode::Parallel, Some(500))
        .with(Mishap::of(Slow, Service::Payments, Produce, "payments.events").for_ms(1_800))
}

fn a_cancel_after_the_end_is_refused() -> Scenario {
    let claim = "a customer cancels what is confirmed: 409, asked twice, and nothing is undone";
    Scenario::new("cancel.after_the_end_is_refused", claim)
        .order_with("tea", 1, PaymentMode::Parallel, Some(2_000))
        .with(Mishap::of(Duplicated, Service::Payments, Produce, "payments.events"))
        .with(Mishap::of(LostReply, Service::Orders, Http, "POST").nth(2))
}

fn a_cancel_that_comes_first_leaves_a_tombstone() -> Scenario {
    let claim =
        "OrderCreated is not readable yet, OrderCancelled is: nothing is reserved or charged";
    Scenario::new("cancel.leaves_a_tombstone", claim)
        .next_release(Service::Orders)
        .next_release(Service::Query)
        .upgrade(Service::Inventory, 0, 4_000)
        .upgrade(Service::Payments, 0, 4_000)
        .order_with("tea", 1, PaymentMode::Parallel, Some(500))
}

fn payment_waits_for_stock_in_whatever_order_they_come() -> Scenario {
    let claim = "after_stock: charged once both facts are there, whichever comes first";
    Scenario::new("payments.after_stock_in_any_order", claim)
        .stock("rare", Some(0))
        .order_with("tea", 1, PaymentMode::AfterStock, None)
        .order_with("rare", 1, PaymentMode::AfterStock, None)
        .order_with("cup", 1, PaymentMode::AfterStock, None)
        .with(Mishap::of(Hidden, Service::Payments, Poll, "orders.events").for_ms(2_000))
}

fn an_old_price_that_comes_late_does_not_come_back() -> Scenario {
    let claim = "a price comes late and twice, behind the next one: the higher version stays";
    Scenario::new("catalog.updates_out_of_order", claim)
        .reprice("tea", 100, 400)
        .reprice("tea", 200, 450)
        .order("cup", 1)
        .with(Mishap::of(LateEffect, Service::Catalog, Produce, "").nth(4).for_ms(2_000))
        .with(Mishap::of(Duplicated, Service::Catalog, Produce, "").nth(5))
}

fn a_price_that_is_not_known_yet_is_waited_for() -> Scenario {
    let claim = "Orders has not seen a price: 422, nothing stored, and the repeat is accepted";
    Scenario::new("orders.price_not_known_yet", claim)
        .order("declined", 1)
        .order("tea", 1)
        .with(Mishap::of(Hidden, Service::Orders, Poll, "catalog.events").for_ms(3_000))
}

fn the_last_piece_goes_to_one_order() -> Scenario {
    let claim = "three orders want the last piece, two Inventories serve them: one gets it";
    Scenario::new("inventory.last_piece", claim)
        .instances(Service::Inventory, 2)
        .stock("rare", Some(1))
        .order("rare", 1)
        .order("rare", 1)
        .order("rare", 1)
        .with(
            Mishap::of(Slow, Service::Inventory, Commit, "put")
                .on(Service::Inventory, 1)
                .nth(5)
                .for_ms(1_000),
        )
}

fn clocks_that_jump_end_no_order_early() -> Scenario {
    let claim =
        "clocks jump by an hour each way: deadlines are the database's, no order ends early";
    Scenario::new("clocks.jump_ends_nothing_early", claim)
        .priced("late", 1_077)
        .order("late", 1)
        .order("tea", 1)
        .heal_ms(80_000)
        .with(Mishap::of(ClockAhead, Service::Orders, Produce, "").for_ms(3_600_000))
        .with(Mishap::of(ClockBack, Service::Payments, Commit, "put").nth(3).for_ms(3_600_000))
}

fn the_same_fact_under_another_id_has_one_effect() -> Scenario {
    let claim = "the same facts come again under other ids: business keys stop them";
    let mut scenario =
        Scenario::new("letters.same_fact_under_another_id", claim).order("tea", 1).order("cup", 1);
    for stream in [Stream::OrdersEvents, Stream::InventoryEvents, Stream::PaymentsEvents] {
        scenario = scenario.poison(Kind::SameFact, stream, false);
    }
    scenario
}

fn poison_of_every_sort_is_settled() -> Scenario {
    let claim = "an unknown type is skipped; what is too large or misses a field is a dead letter";
    let mut scenario = Scenario::new("letters.of_every_sort", claim).order("tea", 1);
    for kind in [Kind::UnknownType, Kind::TooLarge, Kind::BadPayload] {
        scenario = scenario.poison(kind, Stream::OrdersEvents, false);
    }
    scenario
}

fn a_swept_inbox_lets_nothing_happen_again() -> Scenario {
    let claim = "inboxes are swept while offset commits are lost: positions stop the replay";
    Scenario::new("inbox.swept_while_orders_run", claim)
        .swept()
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(Duplicated, Service::Inventory, Produce, ""))
        .with(Mishap::of(LostRequest, Service::Payments, CommitOffsets, "orders.events"))
}
