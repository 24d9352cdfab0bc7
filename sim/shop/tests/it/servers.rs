//! Servers that crash, lead elsewhere, rebalance and lock; and those outside that leave doubt.

use crate::{holds, times};

#[test]
fn a_database_restarts_in_mid_transaction() {
    holds("database.restarts_in_mid_transaction");
}

#[test]
fn a_log_restarts_between_append_and_reply() {
    holds("log.restarts");
}

#[test]
fn a_queue_restarts_with_unconfirmed_jobs() {
    holds("queue.restarts_with_unconfirmed_jobs");
}

#[test]
fn a_leader_changes_under_produce_and_offset_commit() {
    holds("log.leader_change");
}

#[test]
fn records_are_invisible_for_a_while() {
    holds("log.records_invisible");
}

#[test]
fn an_eager_rebalance_in_mid_batch() {
    let run = holds("groups.eager_rebalance_in_mid_batch");
    assert!(times(&run, "payments#1", "poll", "revoked") > 0);
}

#[test]
fn a_cooperative_rebalance_in_mid_batch() {
    let run = holds("groups.cooperative_rebalance_in_mid_batch");
    assert!(times(&run, "payments#1", "poll", "revoked") > 0);
}

#[test]
fn a_channel_is_lost_with_jobs_in_hand() {
    let run = holds("queue.channel_lost");
    let delivered = run.trace.iter().filter(|it| it.what == "deliver");
    let again = delivered.filter(|it| !it.text.ends_with(" 0 redelivered")).count();
    assert!(again > 0, "nothing was redelivered");
}

#[test]
fn a_lock_is_waited_for_beyond_its_time_out() {
    let run = holds("database.lock_wait");
    let batches = times(&run, "inventory#0", "begin", "lock chassis_positions 1; insert");
    assert!(batches > 4, "two facts of two orders, and {batches} batches");
}

#[test]
fn a_deadlock_is_somebodys_to_lose() {
    let run = holds("database.deadlock");
    let batches = times(&run, "inventory#0", "begin", "lock chassis_positions 1; insert");
    assert!(batches > 4, "two facts of two orders, and {batches} batches");
}

#[test]
fn refused_calls_are_made_again() {
    holds("ports.refused_calls");
}

#[test]
fn the_gateway_leaves_doubt() {
    holds("payments.gateway_in_doubt");
}

#[test]
fn the_mail_server_leaves_doubt() {
    holds("mail.server_in_doubt");
}
