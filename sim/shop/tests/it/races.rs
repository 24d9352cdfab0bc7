//! Facts that meet, in whatever order they come.

use crate::{holds, times};

#[test]
fn a_payment_that_comes_after_the_deadline_is_voided() {
    holds("deadline.late_success_is_voided");
}

#[test]
fn a_late_success_within_the_deadline_is_captured() {
    holds("payments.late_success_is_captured");
}

#[test]
fn a_deadline_and_a_payment_meet() {
    let run = holds("deadline.meets_the_payment");
    assert!(times(&run, "orders#0", "begin", "claim sagas") > 0, "the deadline had passed");
}

#[test]
fn a_cancel_wins_over_a_payment_on_its_way() {
    holds("cancel.wins_over_a_payment_on_its_way");
}

#[test]
fn a_cancel_after_the_end_is_refused() {
    let run = holds("cancel.after_the_end_is_refused");
    let cancels = run.trace.iter().filter(|it| it.what == "http" && it.text.contains("/cancel"));
    assert_eq!(cancels.count(), 2, "its reply was lost once");
}

#[test]
fn a_cancel_that_comes_first_leaves_a_tombstone() {
    holds("cancel.leaves_a_tombstone");
}

#[test]
fn payment_waits_for_stock_in_whatever_order_they_come() {
    holds("payments.after_stock_in_any_order");
}

#[test]
fn an_old_price_that_comes_late_does_not_come_back() {
    let run = holds("catalog.updates_out_of_order");
    assert_eq!(run.verdict.summary.marks["duplicates on the log"], 2);
}

#[test]
fn a_price_that_is_not_known_yet_is_waited_for() {
    let run = holds("orders.price_not_known_yet");
    assert!(times(&run, "orders#0", "http", "POST /orders A1") > 3, "422, again and again");
}

#[test]
fn the_last_piece_goes_to_one_order() {
    holds("inventory.last_piece");
}

#[test]
fn clocks_that_jump_end_no_order_early() {
    holds("clocks.jump_ends_nothing_early");
}

#[test]
fn the_same_fact_under_another_id_has_one_effect() {
    let run = holds("letters.same_fact_under_another_id");
    assert_eq!(run.verdict.summary.marks["planted"], 3);
}

#[test]
fn poison_of_every_sort_is_settled() {
    let run = holds("letters.of_every_sort");
    assert_eq!(run.verdict.summary.marks["planted"], 3);
}

#[test]
fn a_swept_inbox_lets_nothing_happen_again() {
    let run = holds("inbox.swept_while_orders_run");
    assert!(run.verdict.summary.marks["old rows swept"] >= 700);
}
