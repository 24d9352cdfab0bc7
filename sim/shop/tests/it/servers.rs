//! Servers that crash, lead elsewhere, rebalance and lock; and those outside that leave doubt.

use sim_shop::scenarios;

use crate::{holds, times};

#[test]
fn a_database_restarts_in_mid_transaction() {
    let name = "database.restarts_in_mid_transaction";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn a_log_restarts_between_append_and_reply() {
    let name = "log.restarts";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn a_queue_restarts_with_unconfirmed_jobs() {
    let name = "queue.restarts_with_unconfirmed_jobs";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn a_leader_changes_under_produce_and_offset_commit() {
    let name = "log.leader_change";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn records_are_invisible_for_a_while() {
    let name = "log.records_invisible";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn an_eager_rebalance_in_mid_batch() {
    let name = "groups.eager_rebalance_in_mid_batch";
    let scenario = scenarios::named(name);
    let run = holds(&scenario, name);
    assert!(times(&run, "payments#1", "poll", "revoked") > 0);
}

#[test]
fn a_cooperative_rebalance_in_mid_batch() {
    let name = "groups.cooperative_rebalance_in_mid_batch";
    let scenario = scenarios::named(name);
    let run = holds(&scenario, name);
    assert!(times(&run, "payments#1", "poll", "revoked") > 0);
}

#[test]
fn a_channel_is_lost_with_jobs_in_hand() {
    let name = "queue.channel_lost";
    let scenario = scenarios::named(name);
    let run = holds(&scenario, name);
    let delivered = run.trace.iter().filter(|it| it.what == "deliver");
    let again = delivered.filter(|it| !it.text.ends_with(" 0 redelivered")).count();
    assert!(again > 0, "nothing was redelivered");
}

#[test]
fn a_lock_is_waited_for_beyond_its_time_out() {
    let name = "database.lock_wait";
    let scenario = scenarios::named(name);
    let run = holds(&scenario, name);
    let batches = times(&run, "inventory#0", "begin", "lock chassis_positions 1; insert");
    assert!(batches > 4, "two facts of two orders, and {batches} batches");
}

#[test]
fn a_deadlock_is_somebodys_to_lose() {
    let name = "database.deadlock";
    let scenario = scenarios::named(name);
    let run = holds(&scenario, name);
    let batches = times(&run, "inventory#0", "begin", "lock chassis_positions 1; insert");
    assert!(batches > 4, "two facts of two orders, and {batches} batches");
}

#[test]
fn refused_calls_are_made_again() {
    let name = "ports.refused_calls";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn the_gateway_leaves_doubt() {
    let name = "payments.gateway_in_doubt";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}

#[test]
fn the_mail_server_leaves_doubt() {
    let name = "mail.server_in_doubt";
    let scenario = scenarios::named(name);
    holds(&scenario, name);
}
