//! Stop: what is in hand is finished, what is committed is sent, and it ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use model::log::Assignor;
use ports::{Key, Row, Runtime, timeout};
use serde_json::json;
use shakedown_chassis::{Busy, Input, Outside};

use crate::counter::{Fact, answered, ask, due};
use crate::faults::{Act, Call, retry};
use crate::world::{Node, World, add, record, run, run_with};

/// Stops a node; how long it took, at most so many seconds.
async fn stop(world: &World, node: Node, longest: u64) -> Duration {
    let before = world.runtime.elapsed();
    let stop = node.stop();
    stop.ask();
    let limit = Duration::from_secs(longest);
    let ended = timeout(&world.runtime, limit, stop.ended()).await;
    assert!(ended.is_some(), "it has not ended after {longest} s");
    world.runtime.elapsed() - before
}

/// A node with everything that can run.
async fn whole(world: &World, name: &str) -> Node {
    let node = world.consumer(name).await;
    node.app.jobs("jobs".into(), 10);
    node.app.relay();
    node
}

#[test]
fn an_idle_service_ends_at_once() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        assert!(stop(&world, node, 5).await < Duration::from_millis(300));
    });
}

#[test]
fn what_is_in_hand_is_finished_and_sent() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Commit(_) => Act::Slow(Duration::from_secs(1)),
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.publish(vec![add("jobs", "j-1", "b", 1)]).await;
        world.runtime.sleep(Duration::from_millis(500)).await;
        let commands = node.commands.clone();
        let reply = Arc::new(Mutex::new(None));
        let place = reply.clone();
        let submit = async move {
            *place.lock().unwrap() = Some(commands.submit(ask("c-1", "c", 1)).await);
        };
        world.runtime.spawn("submit", Box::pin(submit));
        world.runtime.sleep(Duration::from_millis(10)).await;
        stop(&world, node, 30).await;
        assert_eq!(world.trail("a"), ["e-1"]);
        assert_eq!(world.trail("b"), ["j-1"]);
        let reply = reply.lock().unwrap().take().expect("a reply").unwrap();
        assert_eq!(reply.body, json!({ "value": 1 }));
        assert_eq!(world.outbox(), [], "what was committed was sent");
        assert_eq!(world.events("out").len(), 2);
        assert_eq!((world.offset("in"), world.depth("jobs").await), (Some(1), 0));
    });
}

#[test]
fn a_long_backlog_is_left_to_others() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.batch_max = 4).await;
        world.produce((0..400).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        world.publish((0..400).map(|n| add("jobs", &format!("j-{n}"), "b", 1)).collect()).await;
        node.faults.set(|call| match call {
            Call::Begin(_) => Act::Slow(Duration::from_millis(100)),
            _ => Act::Pass,
        });
        node.app.consume(vec!["in".into(), "other".into()]);
        node.app.jobs("jobs".into(), 4);
        world.sleep(2).await;
        assert!(stop(&world, node, 30).await < Duration::from_secs(1));
        let left = (world.counter("a").value, world.counter("b").value);
        assert!(left.0 < 400 && left.1 < 400, "{left:?}");
        let _heir = whole(&world, "c-1").await;
        world.sleep(30).await;
        assert_eq!((world.counter("a").value, world.counter("b").value), (400, 400));
    });
}

#[test]
fn a_dead_store_does_not_hold_it_up() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Begin(_) | Call::Commit(_) => retry(),
            _ => Act::Pass,
        });
        world.produce((0..400).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        world.publish(vec![add("jobs", "j-1", "b", 1)]).await;
        world.sleep(5).await;
        stop(&world, node, 15).await;
        let _heir = whole(&world, "c-1").await;
        world.sleep(60).await;
        assert_eq!((world.counter("a").value, world.counter("b").value), (400, 1));
    });
}

#[test]
fn a_dead_broker_does_not_hold_it_up() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Send(_) | Call::Offsets | Call::Settle => retry(),
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.publish(vec![add("jobs", "j-1", "b", 1)]).await;
        world.sleep(5).await;
        stop(&world, node, 15).await;
        let _heir = whole(&world, "c-1").await;
        world.sleep(60).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["j-1".into()]));
        assert_eq!(world.events("out").len(), 2);
    });
}

#[test]
fn what_a_broker_refused_a_moment_ago_is_tried_once_more() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Send(_) => retry(),
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        // Until its pauses are the longest.
        world.sleep(10).await;
        node.faults.clear();
        stop(&world, node, 15).await;
        assert_eq!((world.outbox(), world.events("out")), (vec![], vec!["out-e-1".to_owned()]));
    });
}

#[test]
fn other_instances_work_does_not_keep_a_leaving_relay() {
    run(|world| async move {
        let leaving = whole(&world, "c-0").await;
        world.sleep(5).await;
        let other = world.bare("c-1", |_| ()).await;
        other.app.jobs("jobs".into(), 1);
        // A send takes longer than the next one needs to come.
        leaving.faults.set(|call| match call {
            Call::Send(_) => Act::Slow(Duration::from_millis(50)),
            _ => Act::Pass,
        });
        let all = Arc::new(Mutex::new(false));
        let (done, others) = (all.clone(), world.clone());
        let traffic = async move {
            for n in 0..4000 {
                others.publish(vec![add("jobs", &format!("j-{n}"), "b", 1)]).await;
                others.runtime.sleep(Duration::from_millis(20)).await;
            }
            *done.lock().unwrap() = true;
        };
        world.runtime.spawn("traffic", Box::pin(traffic));
        world.sleep(2).await;
        stop(&world, leaving, 15).await;
        assert!(!*all.lock().unwrap());
    });
}

#[test]
fn a_leaving_relay_gives_its_leases_up() {
    run(|world| async move {
        let leaving = whole(&world, "c-0").await;
        world.sleep(5).await;
        let _other = whole(&world, "c-1").await;
        stop(&world, leaving, 5).await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(2).await;
        assert_eq!(world.events("out"), ["out-e-1"]);
    });
}

#[test]
fn a_stopped_service_takes_no_command() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        let commands = node.commands.clone();
        stop(&world, node, 5).await;
        assert_eq!(commands.submit(ask("c-1", "a", 1)).await, Err(Busy::Full));
    });
}

#[test]
fn commands_that_wait_are_answered_first() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.batch_max = 4).await;
        let commands = node.commands.clone();
        let all = (0..40).map(move |n| {
            let commands = commands.clone();
            async move { commands.submit(ask(&format!("c-{n}"), "a", 1)).await }
        });
        let ended = Arc::new(Mutex::new(Vec::new()));
        let place = ended.clone();
        let waiting = async move { *place.lock().unwrap() = join_all(all).await };
        world.runtime.spawn("waiting", Box::pin(waiting));
        world.runtime.sleep(Duration::from_millis(1)).await;
        stop(&world, node, 5).await;
        world.sleep(1).await;
        let ended = ended.lock().unwrap();
        assert!(ended.len() == 40 && ended.iter().all(Result::is_ok));
    });
}

/// An outside that takes a second.
struct Slow(Arc<dyn Runtime>);

#[async_trait]
impl Outside<Fact> for Slow {
    async fn call(&self, key: &Key, _row: &Row) -> Vec<Input<Fact>> {
        self.0.sleep(Duration::from_secs(1)).await;
        vec![answered(key)]
    }
}

#[test]
fn the_answer_to_a_call_in_flight_is_kept() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        node.app.work(due(), Slow(Arc::new(world.runtime.clone())));
        world.sleep(5).await;
        let payload = json!({ "key": "a", "by": 1, "call": true });
        world.produce(vec![record("in", "e-1", "Add", payload)]).await;
        world.runtime.sleep(Duration::from_millis(100)).await;
        stop(&world, node, 15).await;
        assert_eq!(world.trail("a"), ["e-1", "answered"]);
    });
}

#[test]
fn a_hung_store_does_not_hold_it_up() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        node.app.work(due(), Slow(Arc::new(world.runtime.clone())));
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Begin(_) | Call::Commit(_) | Call::Read(_) => Act::Hang,
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.publish(vec![add("jobs", "j-1", "b", 1)]).await;
        world.sleep(5).await;
        assert!(stop(&world, node, 10).await <= Duration::from_secs(4), "longer than the drain");
        let _heir = whole(&world, "c-1").await;
        // No session time-out: it said goodbye with its batch in hand.
        world.sleep(2).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["j-1".into()]));
    });
}

#[test]
fn a_hung_broker_does_not_hold_up_the_leases() {
    run(|world| async move {
        let node = whole(&world, "c-0").await;
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Send(_) => Act::Hang,
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(2).await;
        assert!(stop(&world, node, 10).await <= Duration::from_secs(4), "longer than the drain");
        let _heir = whole(&world, "c-1").await;
        world.sleep(1).await;
        assert_eq!(world.events("out"), ["out-e-1"], "the lease was given up, it did not run out");
    });
}

/// Slows one node's batches down; which ones is for the rule to say.
fn slow_batches(node: &Node, act: impl Fn() -> Act + Send + 'static) {
    node.faults.set(move |call| match call {
        Call::Begin(ops) if ops.iter().any(|op| matches!(op, ports::Op::Insert { .. })) => act(),
        _ => Act::Pass,
    });
}

#[test]
fn a_revocation_lets_the_batch_in_hand_finish() {
    run(|world| async move {
        let first = world.consumer("c-0").await;
        world.sleep(5).await;
        slow_batches(&first, || Act::Slow(Duration::from_secs(3)));
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        world.runtime.sleep(Duration::from_millis(100)).await;
        let _second = world.consumer("c-1").await;
        world.sleep(2).await;
        assert_eq!(world.counters(), 0, "still in hand");
        // The group waited for the batch, and for no longer.
        world.sleep(2).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["e-2".into()]));
        assert_eq!((world.offset("in"), world.offset("other")), (Some(1), Some(1)));
        first.faults.clear();
        world.produce(vec![add("in", "e-3", "a", 1), add("other", "e-4", "b", 1)]).await;
        world.sleep(1).await;
        assert_eq!((world.counter("a").value, world.counter("b").value), (2, 2));
    });
}

#[test]
fn a_batch_that_hangs_is_left_behind_and_fenced() {
    run_with(Assignor::CooperativeSticky, |world| async move {
        let first = world.consumer("c-0").await;
        world.sleep(5).await;
        slow_batches(&first, || Act::Slow(Duration::from_secs(60)));
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        world.runtime.sleep(Duration::from_millis(100)).await;
        let _second = world.consumer("c-1").await;
        // Patience, a drain, and a rebalance: not the five minutes that the group has patience.
        world.sleep(10).await;
        let done = world.counters();
        assert_eq!(done, 1, "what moved to the second one is done");
        world.sleep(60).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["e-2".into()]));
        assert_eq!((world.position("in").1, world.position("other").1), (Some(1), Some(1)));
        assert_eq!((world.offset("in"), world.offset("other")), (Some(1), Some(1)));
    });
}

/// Offsets of a partition that stays ours are committed though a commit was refused for its
/// generation: no later claim would make up for it.
#[test]
fn a_commit_refused_in_a_rebalance_is_made_up_for() {
    run_with(Assignor::CooperativeSticky, |world| async move {
        let first = world.consumer("c-0").await;
        world.sleep(5).await;
        let mut refused = false;
        first.faults.set(move |call| match call {
            Call::Offsets if !std::mem::replace(&mut refused, true) => {
                Act::Fail(ports::Fault::refused("ILLEGAL_GENERATION"))
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        world.sleep(1).await;
        assert_eq!((world.offset("in"), world.offset("other")), (Some(1), Some(1)));
        assert_eq!((world.position("in").0, world.position("other").0), (1, 1), "no new claim");
    });
}
