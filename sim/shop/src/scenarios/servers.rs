//! Servers that crash, lead elsewhere, show records late, rebalance, close channels and keep rows
//! locked; and those outside that leave doubt. Never a node that dies.

use contract::Service;
use sim_engine::FaultKind::{
    ChannelLost, Deadlock, Duplicated, Hidden, LateEffect, LeaderChange, Locked, LostReply,
    LostRequest, Rebalance, Rejected, RestartAfter, RestartBefore, Slow,
};
use sim_engine::Site::{
    Begin, Commit, CommitOffsets, Deliver, Outside, Poll, Produce, Publish, Run, Settle,
};

use crate::scenario::{Mishap, Scenario};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        a_database_restarts_in_mid_transaction(),
        a_log_restarts_between_append_and_reply(),
        a_queue_restarts_with_unconfirmed_jobs(),
        a_leader_changes_under_produce_and_offset_commit(),
        records_are_invisible_for_a_while(),
        an_eager_rebalance_in_mid_batch(),
        a_cooperative_rebalance_in_mid_batch(),
        a_channel_is_lost_with_jobs_in_hand(),
        a_lock_is_waited_for_beyond_its_time_out(),
        a_deadlock_is_somebodys_to_lose(),
        refused_calls_are_made_again(),
        the_gateway_leaves_doubt(),
        the_mail_server_leaves_doubt(),
    ]
}

fn a_database_restarts_in_mid_transaction() -> Scenario {
    let claim = "databases restart before and after a commit: done once, or not at all and again";
    Scenario::new("database.restarts_in_mid_transaction", claim)
        .order("tea", 2)
        .order("declined", 1)
        .with(Mishap::of(RestartBefore, Service::Inventory, Commit, "put").nth(7))
        .with(Mishap::of(RestartAfter, Service::Payments, Commit, "put").nth(4))
        .with(Mishap::of(RestartAfter, Service::Orders, Commit, "put").nth(10))
}

fn a_log_restarts_between_append_and_reply() -> Scenario {
    let claim = "the log restarts around an append and an offset commit: late duplicates at most";
    Scenario::new("log.restarts", claim)
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(RestartAfter, Service::Orders, Produce, "orders.events"))
        .with(Mishap::of(RestartBefore, Service::Payments, Produce, "payments.events"))
        .with(Mishap::of(RestartAfter, Service::Query, CommitOffsets, "payments.events"))
}

fn a_queue_restarts_with_unconfirmed_jobs() -> Scenario {
    let claim =
        "RabbitMQ restarts before and after it took a job, and before its ack: one mail each";
    Scenario::new("queue.restarts_with_unconfirmed_jobs", claim)
        .order("tea", 1)
        .order("declined", 1)
        .order("cup", 1)
        .with(Mishap::of(RestartBefore, Service::NotificationsApi, Publish, "").for_ms(60))
        .with(Mishap::of(RestartAfter, Service::NotificationsApi, Publish, "").nth(3))
        .with(Mishap::of(RestartBefore, Service::NotificationsWorker, Settle, ""))
}

fn a_leader_changes_under_produce_and_offset_commit() -> Scenario {
    let claim = "partition and coordinator are without a leader for a while: nothing is lost";
    Scenario::new("log.leader_change", claim)
        .order("tea", 1)
        .order("cup", 1)
        .with(Mishap::of(LeaderChange, Service::Orders, Produce, "").for_ms(2_000))
        .with(Mishap::of(LeaderChange, Service::Inventory, CommitOffsets, "").for_ms(2_000))
}

fn records_are_invisible_for_a_while() -> Scenario {
    let claim = "new records stay below nobody's eyes for 3 s: they are late, and none is skipped";
    Scenario::new("log.records_invisible", claim)
        .order("tea", 1)
        .order("tea", 1)
        .with(Mishap::of(Hidden, Service::Inventory, Poll, "orders.events").for_ms(3_000))
        .with(Mishap::of(Hidden, Service::Orders, Poll, "payments.events").for_ms(3_000))
}

fn rebalanced(scenario: Scenario) -> Scenario {
    scenario
        .instances(Service::Payments, 2)
        .order("tea", 1)
        .order("cup", 1)
        .order("declined", 1)
        .heal_ms(30_000)
        .with(
            Mishap::of(Rebalance, Service::Payments, Begin, "lock")
                .on(Service::Payments, 1)
                .nth(2)
                .for_ms(2_000),
        )
        .with(Mishap::of(Rebalance, Service::Inventory, Commit, "put").nth(7).for_ms(2_000))
        .with(Mishap::of(Rebalance, Service::Orders, CommitOffsets, "").for_ms(2_000))
}

fn an_eager_rebalance_in_mid_batch() -> Scenario {
    let claim = "groups rebalance eagerly in mid-batch: everything is revoked, nothing done twice";
    rebalanced(Scenario::new("groups.eager_rebalance_in_mid_batch", claim).eager())
}

fn a_cooperative_rebalance_in_mid_batch() -> Scenario {
    let claim = "groups rebalance cooperatively in mid-batch: some is revoked, nothing done twice";
    rebalanced(Scenario::new("groups.cooperative_rebalance_in_mid_batch", claim))
}

fn a_channel_is_lost_with_jobs_in_hand() -> Scenario {
    let claim =
        "the channel closes with a job in hand and before an ack: redelivered, one mail each";
    Scenario::new("queue.channel_lost", claim)
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(ChannelLost, Service::NotificationsWorker, Deliver, "").nth(2))
        .with(Mishap::of(ChannelLost, Service::NotificationsWorker, Settle, ""))
}

fn a_lock_is_waited_for_beyond_its_time_out() -> Scenario {
    let claim = "somebody holds the rows longer than a batch waits: it is aborted, and made again";
    Scenario::new("database.lock_wait", claim)
        .order("tea", 1)
        .order("tea", 2)
        .heal_ms(30_000)
        .with(Mishap::of(Locked, Service::Inventory, Begin, "lock").nth(2).for_ms(9_000))
        .with(Mishap::of(Locked, Service::Orders, Begin, "insert").for_ms(6_000))
}

fn a_deadlock_is_somebodys_to_lose() -> Scenario {
    let claim = "a transaction is aborted for a deadlock: its batch is made again, and once";
    Scenario::new("database.deadlock", claim).order("tea", 2).order("cup", 1).with(Mishap::of(
        Deadlock,
        Service::Inventory,
        Run,
        "lock",
    ))
}

fn refused_calls_are_made_again() -> Scenario {
    let claim = "commits, produces and publishes are refused, or lost on the way: made again";
    Scenario::new("ports.refused_calls", claim)
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(Rejected, Service::Inventory, Commit, "put").nth(7))
        .with(Mishap::of(LostRequest, Service::Payments, Commit, "put").nth(4))
        .with(Mishap::of(Rejected, Service::Orders, Produce, ""))
        .with(Mishap::of(LostRequest, Service::NotificationsApi, Publish, ""))
}

fn the_gateway_leaves_doubt() -> Scenario {
    let claim = "the gateway's replies are lost, late or doubled: the same key, and one charge";
    Scenario::new("payments.gateway_in_doubt", claim)
        .order("tea", 1)
        .order("cup", 1)
        .order("declined", 1)
        .with(Mishap::of(LostReply, Service::Payments, Outside, ""))
        .with(Mishap::of(LateEffect, Service::Payments, Outside, "").nth(2).for_ms(2_500))
        .with(Mishap::of(Duplicated, Service::Payments, Outside, "").nth(3))
}

fn the_mail_server_leaves_doubt() -> Scenario {
    let claim = "the mail server refuses, stays silent and is slow: one Message-ID an end";
    Scenario::new("mail.server_in_doubt", claim)
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(Rejected, Service::NotificationsWorker, Outside, ""))
        .with(Mishap::of(LostReply, Service::NotificationsWorker, Outside, "").nth(2))
        .with(Mishap::of(Slow, Service::NotificationsWorker, Outside, "").nth(3).for_ms(3_000))
}
