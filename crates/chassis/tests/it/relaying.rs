//! The relay: in order for each key, the same bytes until they are confirmed, one holder at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ports::{Channel, Fault, Op, Outgoing, Record, Runtime, Shard};
use shakedown_chassis::Settings;

use crate::counter::ask;
use crate::faults::{Act, Call, retry};
use crate::world::{Node, World, add, run};

fn row(shard: Shard, channel: Channel, to: &str, key: &str, id: &str) -> Outgoing {
    let Record { payload, .. } = add(to, id, key, 1);
    Outgoing { shard, channel, to: to.into(), key: key.into(), headers: Vec::new(), payload }
}

/// Appends rows of a topic.
async fn append(world: &World, rows: &[(Shard, &str, &str)]) {
    let row = |(shard, key, id): &(Shard, &str, &str)| row(*shard, Channel::Topic, "out", key, id);
    world.transact(vec![Op::Append { rows: rows.iter().map(row).collect() }]).await;
}

/// A node that only relays.
async fn relay(world: &World, name: &str, change: impl FnOnce(&mut Settings)) -> Node {
    let node = world.bare(name, change).await;
    node.app.relay();
    node
}

/// The payloads that a node tried to send, by key.
fn attempts(node: &Node, mut act: impl FnMut(&Record) -> Act + Send + 'static) -> Attempts {
    let attempts = Attempts::default();
    let seen = attempts.clone();
    node.faults.set(move |call| match call {
        Call::Send(record) => {
            let mut seen = seen.lock().unwrap();
            seen.entry(record.key.to_string()).or_default().push(record.payload.clone());
            act(record)
        }
        _ => Act::Pass,
    });
    attempts
}

type Attempts = Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>;

#[test]
fn what_a_batch_appends_is_sent_at_once_and_deleted() {
    run(|world| async move {
        let node = relay(&world, "c-0", |_| ()).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(5).await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.runtime.sleep(Duration::from_millis(2)).await;
        assert_eq!(world.events("out"), ["out-e-1"]);
        assert_eq!(world.outbox(), []);
    });
}

#[test]
fn after_an_unknown_commit_the_relay_is_woken_too() {
    run(|world| async move {
        let node = relay(&world, "c-0", |settings| settings.idle = Duration::from_secs(60)).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Commit(ops) if ops.iter().any(|op| matches!(op, Op::Append { .. })) => Act::Lost,
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(2).await;
        assert_eq!(world.events("out"), ["out-e-1"]);
    });
}

#[test]
fn rows_of_a_key_leave_in_order_and_one_at_a_time() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        // The first try of every record fails: were two of a key in flight, the later would overtake.
        let mut failed = std::collections::BTreeSet::new();
        let seen = attempts(&node, move |record| {
            if failed.insert(record.payload.clone()) { retry() } else { Act::Pass }
        });
        append(&world, &[(0, "a", "1"), (0, "b", "2"), (0, "a", "3"), (0, "a", "4")]).await;
        node.app.relay();
        world.sleep(30).await;
        let order: Vec<String> = world.events("out");
        assert_eq!(order.iter().filter(|id| *id != "2").collect::<Vec<_>>(), ["1", "3", "4"]);
        assert_eq!(order.len(), 4);
        // One at a time: each is tried until it is confirmed, and only then the next one.
        let seen = seen.lock().unwrap();
        let tried: Vec<&Bytes> = seen["a"].iter().collect();
        assert_eq!(tried.len(), 6);
        assert!(tried.chunks(2).all(|pair| pair[0] == pair[1]));
    });
}

#[test]
fn a_failed_row_holds_back_its_key_and_no_other() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let seen = attempts(&node, |record| match &*record.key {
            "bad" => Act::Fail(Fault::refused("too large")),
            _ => Act::Pass,
        });
        append(&world, &[(0, "bad", "1"), (0, "a", "2"), (0, "bad", "3"), (0, "a", "4")]).await;
        node.app.relay();
        world.sleep(30).await;
        assert_eq!(world.events("out"), ["2", "4"]);
        let left: Vec<_> = world.outbox().into_iter().map(|row| row.outgoing.key).collect();
        assert_eq!(left, ["bad".into(), "bad".into()]);
        let tried = seen.lock().unwrap()["bad"].clone();
        assert!(tried.len() > 1 && tried.iter().all(|bytes| *bytes == tried[0]));
    });
}

#[test]
fn unknown_is_sent_again_with_the_same_bytes() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let mut left = 2;
        let seen = attempts(&node, move |_| {
            left -= 1;
            match left {
                1 => Act::Lost,
                0 => Act::Fail(Fault::unknown("the request was lost")),
                _ => Act::Pass,
            }
        });
        append(&world, &[(0, "a", "1"), (0, "a", "2")]).await;
        node.app.relay();
        world.sleep(30).await;
        // The first try took effect; a duplicate is the broker's right (K5, R3).
        assert_eq!(world.events("out"), ["1", "1", "2"]);
        let seen = seen.lock().unwrap();
        assert!(seen["a"][..3].iter().all(|bytes| *bytes == seen["a"][0]));
        assert_eq!(world.outbox(), []);
    });
}

#[test]
fn only_what_is_confirmed_is_deleted() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let _ = attempts(&node, |record| if &*record.key == "a" { Act::Pass } else { Act::Lost });
        append(&world, &[(0, "a", "1"), (1, "b", "2")]).await;
        node.app.relay();
        world.sleep(5).await;
        let left: Vec<_> = world.outbox().into_iter().map(|row| row.outgoing.key).collect();
        assert_eq!(left, ["b".into()]);
    });
}

#[test]
fn a_lost_reply_to_the_deletion_only_costs_a_look() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        // A deletion that fails is tried once more at once: the first row's reply is lost, the second's
        // deletion happens neither time.
        let mut acts = [Some(false), None, Some(true), Some(true), None].into_iter();
        node.faults.set(move |call| match call {
            Call::Commit(ops) if ops.iter().any(|op| matches!(op, Op::Sent { .. })) => {
                match acts.next().flatten() {
                    Some(true) => Act::Fail(Fault::unknown("lost")),
                    Some(false) => Act::Lost,
                    None => Act::Pass,
                }
            }
            _ => Act::Pass,
        });
        append(&world, &[(0, "a", "1"), (0, "a", "2"), (0, "a", "3")]).await;
        node.app.relay();
        world.sleep(5).await;
        // The second deletion did not happen: that row is sent again.
        assert_eq!(world.events("out"), ["1", "2", "2", "3"]);
        assert_eq!(world.outbox(), []);
    });
}

#[test]
fn jobs_and_records_go_their_own_ways() {
    run(|world| async move {
        let rows = vec![
            row(0, Channel::Queue, "mail", "a", "1"),
            row(0, Channel::Topic, "out", "a", "2"),
            row(0, Channel::Queue, "nowhere", "a", "3"),
        ];
        world.bare("c-1", |_| ()).await;
        world.transact(vec![Op::Append { rows }]).await;
        let _node = relay(&world, "c-0", |_| ()).await;
        world.sleep(5).await;
        assert_eq!((world.depth("mail").await, world.events("out")), (1, vec!["2".into()]));
        assert_eq!(world.outbox().len(), 1, "an unroutable job stays");
    });
}

#[test]
fn a_second_instance_takes_the_leases_after_they_ran_out_and_not_before() {
    run(|world| async move {
        let first = relay(&world, "c-0", |_| ()).await;
        world.sleep(5).await;
        first.faults.set(|_| Act::Hang);
        let second = world.bare("c-1", |_| ()).await;
        let seen = attempts(&second, |_| Act::Pass);
        second.app.relay();
        append(&world, &[(0, "a", "1"), (1, "b", "2")]).await;
        world.sleep(4).await;
        assert!(seen.lock().unwrap().is_empty(), "the leases are another's");
        world.sleep(8).await;
        assert_eq!(world.events("out").len(), 2);
        assert_eq!(world.outbox(), []);
    });
}

#[test]
fn a_holder_that_slept_through_its_lease_deletes_nothing() {
    run(|world| async move {
        let first = world.bare("c-0", |_| ()).await;
        let mut slow = true;
        let _ = attempts(&first, move |_| {
            if std::mem::take(&mut slow) { Act::Slow(Duration::from_secs(60)) } else { Act::Pass }
        });
        append(&world, &[(0, "a", "1"), (0, "a", "2")]).await;
        first.app.relay();
        world.sleep(1).await;
        let _second = relay(&world, "c-1", |_| ()).await;
        world.sleep(30).await;
        assert_eq!(world.events("out"), ["1", "2"], "the second one sends");
        world.sleep(40).await;
        append(&world, &[(0, "a", "3")]).await;
        world.sleep(5).await;
        // The sleeper's copy is late, and first occurrences are in order.
        assert_eq!(world.events("out"), ["1", "2", "1", "3"]);
    });
}

#[test]
fn leases_are_renewed_while_one_shard_alone_is_busy() {
    run(|world| async move {
        let _first = relay(&world, "c-0", |_| ()).await;
        let second = world.bare("c-1", |_| ()).await;
        let seen = attempts(&second, |_| Act::Pass);
        second.app.relay();
        for n in 0..60 {
            append(&world, &[(0, "a", &format!("{n}"))]).await;
            world.sleep(1).await;
        }
        append(&world, &[(3, "b", "last")]).await;
        world.sleep(1).await;
        assert_eq!(world.events("out").len(), 61);
        assert!(seen.lock().unwrap().is_empty(), "the first one held all leases all the time");
    });
}

#[test]
fn a_busy_shard_does_not_starve_the_others() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.relay_max = 4).await;
        let _ = attempts(
            &node,
            |record| if record.key.starts_with("bad") { retry() } else { Act::Pass },
        );
        let bad: Vec<String> = (0..8).map(|n| format!("bad-{n}")).collect();
        let rows: Vec<_> = bad.iter().map(|key| (0, key.as_str(), key.as_str())).collect();
        append(&world, &rows).await;
        append(&world, &[(1, "a", "1"), (3, "b", "2")]).await;
        node.app.relay();
        world.sleep(30).await;
        assert_eq!(world.events("out"), ["1", "2"]);
    });
}

#[test]
fn a_blocked_key_with_many_rows_does_not_block_its_shard() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.relay_max = 4).await;
        let _ = attempts(&node, |record| if &*record.key == "bad" { retry() } else { Act::Pass });
        append(&world, &[(0, "bad", "0"); 10]).await;
        append(&world, &[(0, "a", "1"), (0, "b", "2")]).await;
        node.app.relay();
        world.sleep(30).await;
        assert_eq!(world.events("out"), ["1", "2"]);
        assert_eq!(world.outbox().len(), 10);
    });
}

#[test]
fn a_key_with_many_rows_does_not_hold_up_its_shard() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.relay_max = 16).await;
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let rows: Vec<_> = many.iter().map(|n| (0, "many", n.as_str())).collect();
        append(&world, &rows).await;
        append(&world, &[(0, "a", "behind")]).await;
        node.app.relay();
        world.sleep(30).await;
        let sent = world.events("out");
        assert_eq!(sent.len(), 101);
        let at = sent.iter().position(|it| it == "behind").unwrap();
        assert!(at < 10, "behind {at} of the others");
    });
}

#[test]
fn many_blocked_keys_do_not_block_their_shard() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.relay_max = 4).await;
        let _ = attempts(
            &node,
            |record| if record.key.starts_with("bad") { retry() } else { Act::Pass },
        );
        let bad: Vec<String> = (0..10).map(|n| format!("bad-{n}")).collect();
        let rows: Vec<_> = bad.iter().map(|key| (0, key.as_str(), key.as_str())).collect();
        append(&world, &rows).await;
        append(&world, &[(0, "a", "1"), (0, "b", "2")]).await;
        node.app.relay();
        world.sleep(30).await;
        assert_eq!(world.events("out"), ["1", "2"]);
        node.faults.clear();
        world.sleep(30).await;
        assert_eq!(world.outbox(), [], "what was blocked is sent once it can be");
    });
}

#[test]
fn a_blocked_key_does_not_delay_what_a_batch_appends() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let _ = attempts(&node, |record| if &*record.key == "bad" { retry() } else { Act::Pass });
        append(&world, &[(0, "bad", "0")]).await;
        node.app.relay();
        node.app.consume(vec!["in".into()]);
        world.sleep(60).await;
        let mut worst = Duration::ZERO;
        for n in 0..20 {
            world.produce(vec![add("in", &format!("e-{n}"), "a", 1)]).await;
            let before = world.runtime.elapsed();
            while world.events("out").len() <= n {
                world.runtime.sleep(Duration::from_millis(5)).await;
            }
            worst = worst.max(world.runtime.elapsed() - before);
            world.runtime.sleep(Duration::from_millis(170)).await;
        }
        assert!(worst <= Duration::from_millis(100), "it took {worst:?}");
        let reply = node.commands.submit(ask("c-1", "b", 1)).await;
        assert!(reply.is_ok());
    });
}

/// The round trips of a relay: a look at the leases when it begins, a transaction each third of a lease, and
/// for a sending a read and one transaction. It does not look for more where there was no more.
#[test]
fn a_renewal_is_one_round_trip() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.idle = Duration::from_secs(60)).await;
        let trips = Arc::new(Mutex::new((0, 0, 0)));
        let seen = trips.clone();
        node.faults.set(move |call| {
            let mut seen = seen.lock().unwrap();
            match call {
                Call::Begin(_) => seen.0 += 1,
                Call::Commit(_) => seen.1 += 1,
                // The other loops of the service look at lists.
                Call::Read(ops) if matches!(ops.last(), Some(Op::List { .. })) => {}
                Call::Read(_) => seen.2 += 1,
                _ => {}
            }
            Act::Pass
        });
        append(&world, &[(0, "a", "1")]).await;
        node.app.relay();
        world.sleep(1).await;
        assert_eq!(world.outbox(), []);
        // Leases: one look, one renewal. Rows: one look that finds all there is, and its deletion.
        assert_eq!(*trips.lock().unwrap(), (0, 2, 2));
        world.sleep(60).await;
        // The idle pause is over, and the lease: it is put anew over what is known of it.
        assert_eq!(*trips.lock().unwrap(), (0, 3, 3));
    });
}

#[test]
fn a_slow_look_at_the_outbox_sends_nothing_under_a_lease_that_ran_out() {
    run(|world| async move {
        let first = relay(&world, "c-0", |_| ()).await;
        world.sleep(5).await;
        let first_sent = attempts(&first, |_| Act::Pass);
        let sends = first_sent.clone();
        // The look takes longer than the lease, and is answered with what stands there then.
        let mut once = true;
        first.faults.set(move |call| match call {
            Call::Read(ops) if matches!(ops[0], Op::Unsent { .. }) && std::mem::take(&mut once) => {
                Act::Slow(Duration::from_secs(20))
            }
            Call::Send(record) => {
                let mut sends = sends.lock().unwrap();
                sends.entry(record.key.to_string()).or_default().push(record.payload.clone());
                Act::Pass
            }
            _ => Act::Pass,
        });
        world.sleep(1).await;
        let second = world.bare("c-1", |_| ()).await;
        // The second one holds the lease by then, and its own sending is on its way.
        second.faults.set(|call| match call {
            Call::Send(_) => Act::Slow(Duration::from_secs(3)),
            _ => Act::Pass,
        });
        second.app.relay();
        world.sleep(18).await;
        append(&world, &[(0, "a", "1")]).await;
        world.sleep(10).await;
        assert_eq!(world.events("out"), ["1"], "one holder, one copy");
        assert!(first_sent.lock().unwrap().is_empty());
    });
}

/// Each way in which a holder ends: it leaves, it is killed, it is slow. What was appended goes out in
/// order; a new holder is there at once, or when the lease has run out.
#[test]
fn leases_change_hands_without_gap_or_double_send() {
    run(|world| async move {
        let mut nodes = BTreeMap::new();
        for name in ["c-0", "c-1", "c-2", "c-3"] {
            nodes.insert(name.to_owned(), relay(&world, name, |_| ()).await);
        }
        world.sleep(2).await;
        let holder = nodes.remove(&world.lease_holder(0)).expect("one of them holds it");
        append(&world, &[(0, "a", "1")]).await;
        world.sleep(1).await;
        assert_eq!(world.events("out"), ["1"]);

        let stop = holder.stop();
        stop.ask();
        stop.ended().await;
        append(&world, &[(0, "a", "2")]).await;
        world.sleep(1).await;
        assert_eq!(world.events("out"), ["1", "2"], "no gap after a goodbye");

        let killed = nodes.remove(&world.lease_holder(0)).expect("another one holds it");
        killed.faults.set(|_| Act::Hang);
        append(&world, &[(0, "a", "3")]).await;
        world.sleep(5).await;
        assert_eq!(world.events("out").len(), 2, "the lease is the dead one's");
        world.sleep(6).await;
        assert_eq!(world.events("out"), ["1", "2", "3"], "and has run out");

        let slow = nodes.remove(&world.lease_holder(0)).expect("a third one holds it");
        slow.faults.set(|call| match call {
            Call::Send(_) => Act::Slow(Duration::from_secs(15)),
            _ => Act::Pass,
        });
        append(&world, &[(0, "a", "4"), (0, "a", "5")]).await;
        world.sleep(11).await;
        assert_eq!(world.events("out").len(), 5, "the fourth one sends beside the zombie");
        world.sleep(10).await;
        // The zombie's copy came late; it deleted nothing and sent nothing behind it.
        assert_eq!(world.events("out"), ["1", "2", "3", "4", "5", "4"]);
        assert_eq!(world.outbox(), []);
    });
}

/// A commit rings the bell of its own instance only. What another one appended waits for the holder's
/// next look: at most [`Settings::idle`].
#[test]
fn a_row_of_another_instance_goes_out_within_an_idle() {
    run(|world| async move {
        let _holder = relay(&world, "c-0", |_| ()).await;
        world.sleep(5).await;
        let other = relay(&world, "c-1", |_| ()).await;
        other.app.consume(vec!["in".into()]);
        world.sleep(5).await;
        let mut waits = Vec::new();
        for n in 0..50 {
            world.produce(vec![add("in", &format!("e-{n}"), &format!("k{n}"), 1)]).await;
            let before = world.runtime.elapsed();
            while world.events("out").len() <= n {
                world.runtime.sleep(Duration::from_millis(1)).await;
            }
            waits.push(world.runtime.elapsed() - before);
            world.runtime.sleep(Duration::from_millis(137)).await;
        }
        assert_eq!(world.lease_holder(0), "c-0");
        let longest = waits.iter().max().unwrap();
        assert!(*longest <= Duration::from_millis(510), "{longest:?}");
    });
}

#[test]
fn what_is_confirmed_goes_though_another_send_outlives_the_lease() {
    run(|world| async move {
        for name in ["c-0", "c-1"] {
            let node = relay(&world, name, |_| ()).await;
            // As where one partition has no leader: the batch waits for it longer than a lease.
            node.faults.set(|call| match call {
                Call::Send(record) if &*record.key == "stuck" => Act::Slow(Duration::from_secs(15)),
                _ => Act::Pass,
            });
        }
        let rows = [(0, "a", "1"), (0, "stuck", "s-1"), (0, "a", "2"), (0, "stuck", "s-2")];
        append(&world, &rows).await;
        world.sleep(90).await;
        let mut events = world.events("out");
        events.sort();
        events.dedup();
        assert_eq!(
            (events, world.outbox()),
            (["1", "2", "s-1", "s-2"].map(str::to_owned).into(), vec![])
        );
    });
}
