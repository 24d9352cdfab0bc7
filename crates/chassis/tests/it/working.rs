//! Jobs and what is due: acked after the commit, called again after a crash, under the same key.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use ports::{Fault, Key, Op, Record, Row, Runtime};
use serde_json::json;
use shakedown_chassis::{Input, Outside, Timer};

use crate::counter::{CLAIM, Fact, answered, due};
use crate::faults::{Act, Call, retry};
use crate::world::{World, add, garbage, record, run};

/// When and with which key the outside was called.
type Calls = Arc<Mutex<Vec<(Duration, String)>>>;

struct Mailer {
    calls: Calls,
    runtime: Arc<dyn Runtime>,
    /// So many of its first calls never return.
    hangs: Mutex<u32>,
}

#[async_trait]
impl Outside<Fact> for Mailer {
    async fn call(&self, key: &Key, _row: &Row) -> Vec<Input<Fact>> {
        self.calls.lock().unwrap().push((self.runtime.elapsed(), key.to_string()));
        let hangs = {
            let mut left = self.hangs.lock().unwrap();
            let hangs = *left > 0;
            *left = left.saturating_sub(1);
            hangs
        };
        if hangs { pending().await } else { vec![answered(key)] }
    }
}

fn mailer(world: &World, calls: &Calls, hangs: u32) -> Mailer {
    let runtime = Arc::new(world.runtime.clone());
    Mailer { calls: calls.clone(), runtime, hangs: Mutex::new(hangs) }
}

fn due_event(id: &str, key: &str) -> ports::Record {
    record("in", id, "Add", json!({ "key": key, "by": 1, "call": true }))
}

#[test]
fn a_job_is_acked_after_its_commit_only() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.app.jobs("jobs".into(), 10);
        node.faults.set(|call| match call {
            Call::Commit(_) => Act::Slow(Duration::from_secs(3)),
            Call::Settle => panic!("settled before the commit"),
            _ => Act::Pass,
        });
        world.publish(vec![add("jobs", "j-1", "a", 1), garbage("jobs")]).await;
        world.sleep(2).await;
        assert_eq!(world.counters(), 0);
        node.faults.clear();
        world.sleep(5).await;
        assert_eq!(world.trail("a"), ["j-1"]);
        assert_eq!(world.dead().len(), 1, "a malformed job is a dead letter");
        world.queue.disconnect("c-0");
        assert_eq!(world.depth("jobs").await, 0, "both are settled");
    });
}

#[test]
fn a_lost_channel_brings_jobs_again_and_they_apply_once() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.app.jobs("jobs".into(), 10);
        let mut left = 1;
        let (queue, store) = (world.queue.clone(), world.store.clone());
        node.faults.set(move |call| match call {
            Call::Settle if left > 0 => {
                left -= 1;
                assert_eq!(store.with(|db| db.rows(&crate::counter::COUNTERS).count()), 2);
                queue.disconnect("c-0");
                Act::Pass
            }
            _ => Act::Pass,
        });
        world.publish(vec![add("jobs", "j-1", "a", 1), add("jobs", "j-2", "b", 1)]).await;
        world.sleep(10).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["j-1".into()], vec!["j-2".into()]));
        world.queue.disconnect("c-0");
        assert_eq!(world.depth("jobs").await, 0);
    });
}

#[test]
fn an_ack_that_fails_brings_the_job_again() {
    for act in [retry(), Act::Lost, Act::Fail(Fault::unknown("lost"))] {
        run(move |world| async move {
            let node = world.bare("c-0", |_| ()).await;
            node.app.jobs("jobs".into(), 10);
            let mut left = 2;
            node.faults.set(move |call| match call {
                Call::Settle if left > 0 => {
                    left -= 1;
                    act.clone()
                }
                _ => Act::Pass,
            });
            world.publish(vec![add("jobs", "j-1", "a", 1), add("jobs", "j-1", "a", 1)]).await;
            world.sleep(10).await;
            assert_eq!(world.trail("a"), ["j-1"]);
            world.queue.disconnect("c-0");
            assert_eq!(world.depth("jobs").await, 0);
        });
    }
}

#[test]
fn a_malformed_job_whose_id_no_database_can_keep_is_a_dead_letter_all_the_same() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.app.jobs("jobs".into(), 10);
        let mut foreign = garbage("jobs");
        foreign.key = "zero\0byte".into();
        world.publish(vec![foreign]).await;
        world.sleep(10).await;
        let dead = world.dead();
        assert_eq!(dead.len(), 1);
        assert!(!dead[0].0.contains('\0'), "PostgreSQL refuses NUL in text: {:?}", dead[0].0);
    });
}

#[test]
fn what_is_due_is_called_once_and_its_answer_applied() {
    run(|world| async move {
        let calls = Calls::default();
        let node = world.consumer("c-0").await;
        node.app.work(due(), mailer(&world, &calls, 0));
        world.sleep(5).await;
        world
            .produce((0..9).map(|n| due_event(&format!("e-{n}"), &format!("k-{n}"))).collect())
            .await;
        world.sleep(30).await;
        let mut keys: Vec<_> = calls.lock().unwrap().iter().map(|call| call.1.clone()).collect();
        keys.sort();
        assert_eq!(keys, (0..9).map(|n| format!("k-{n}")).collect::<Vec<_>>());
        assert_eq!(world.trail("k-8"), ["e-8", "answered"]);
    });
}

#[test]
fn a_timer_fires_by_itself() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        node.app.work(due(), Timer(|key: &Key, _: &Row| answered(key)));
        world.sleep(5).await;
        world.produce(vec![due_event("e-1", "a")]).await;
        world.sleep(1).await;
        assert_eq!(world.trail("a"), ["e-1", "answered"]);
    });
}

#[test]
fn a_crash_between_claim_and_answer_repeats_the_call_with_the_same_key_when_the_claim_ends() {
    run(|world| async move {
        let calls = Calls::default();
        let crashing = world.consumer("c-0").await;
        crashing.app.work(due(), mailer(&world, &calls, 1));
        world.sleep(5).await;
        world.produce(vec![due_event("e-1", "a")]).await;
        world.sleep(1).await;
        crashing.faults.set(|_| Act::Hang);
        let second = world.bare("c-1", |_| ()).await;
        second.app.work(due(), mailer(&world, &calls, 0));
        world.sleep(30).await;
        let calls = calls.lock().unwrap().clone();
        let [(first, first_key), (again, again_key)] = calls.as_slice() else {
            panic!("{calls:?}")
        };
        assert_eq!(first_key, again_key);
        assert!(*again - *first >= CLAIM, "called again after {:?}", *again - *first);
        assert_eq!(world.trail("a"), ["e-1", "answered"]);
    });
}

#[test]
fn two_workers_never_claim_the_same_row() {
    run(|world| async move {
        let calls = Calls::default();
        let (one, two) = (world.consumer("c-0").await, world.bare("c-1", |_| ()).await);
        for node in [&one, &two] {
            node.app.work(due(), mailer(&world, &calls, 0));
            // Claims stay open for a while, side by side.
            node.faults.set(|call| match call {
                Call::Commit(_) => Act::Slow(Duration::from_millis(300)),
                _ => Act::Pass,
            });
        }
        world.sleep(5).await;
        world
            .produce((0..9).map(|n| due_event(&format!("e-{n}"), &format!("k-{n}"))).collect())
            .await;
        world.sleep(60).await;
        let mut keys: Vec<_> = calls.lock().unwrap().iter().map(|call| call.1.clone()).collect();
        keys.sort();
        assert_eq!(keys, (0..9).map(|n| format!("k-{n}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_claim_that_fails_or_whose_reply_is_lost_is_made_again() {
    for (act, longest) in [(retry(), 2), (Act::Lost, 12), (Act::Fail(Fault::unknown("lost")), 2)] {
        run(move |world| async move {
            let calls = Calls::default();
            let node = world.consumer("c-0").await;
            world.sleep(5).await;
            world.produce(vec![due_event("e-1", "a")]).await;
            world.sleep(1).await;
            let mut left = 1;
            node.faults.set(move |call| match call {
                Call::Commit(_) if left > 0 => {
                    left -= 1;
                    act.clone()
                }
                _ => Act::Pass,
            });
            node.app.work(due(), mailer(&world, &calls, 0));
            world.sleep(longest).await;
            assert_eq!(calls.lock().unwrap().len(), 1);
            assert_eq!(world.trail("a"), ["e-1", "answered"]);
        });
    }
}

#[test]
fn a_call_that_hangs_takes_up_its_own_place_only() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let calls = Calls::default();
        node.app.work(due(), mailer(&world, &calls, 1));
        world.sleep(5).await;
        world.produce(vec![due_event("e-0", "first")]).await;
        world.sleep(1).await;
        world
            .produce((1..9).map(|n| due_event(&format!("e-{n}"), &format!("k{n}"))).collect())
            .await;
        world.sleep(2).await;
        assert_eq!(calls.lock().unwrap().len(), 9, "the others are called beside it");
        assert_eq!(world.trail("first"), ["e-0"]);
        world.sleep(CLAIM.as_secs()).await;
        assert_eq!(world.trail("first"), ["e-0", "answered"], "due again when its claim ends");
    });
}

#[test]
fn calls_that_hang_give_their_places_back_when_their_claims_end() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let calls = Calls::default();
        let places = due().parallel as u32;
        node.app.work(due(), mailer(&world, &calls, places));
        world.sleep(5).await;
        let keys: Vec<String> = (0..=places).map(|n| format!("k{n}")).collect();
        world.produce(keys.iter().map(|key| due_event(&format!("e-{key}"), key)).collect()).await;
        world.sleep(3 * CLAIM.as_secs()).await;
        for key in keys {
            assert_eq!(world.trail(&key), [format!("e-{key}"), "answered".to_owned()]);
        }
    });
}

#[test]
fn a_claim_ends_by_the_stores_clock() {
    run(|world| async move {
        let calls = Calls::default();
        let _node = world.consumer("c-0").await;
        let behind = world.skewed("c-1", TimeDelta::hours(-1), |_| ()).await;
        behind.app.work(due(), mailer(&world, &calls, 1));
        world.sleep(5).await;
        world.produce(vec![due_event("e-1", "a")]).await;
        world.sleep(CLAIM.as_secs() - 1).await;
        assert_eq!(calls.lock().unwrap().len(), 1, "its claim holds");
        world.sleep(5).await;
        assert_eq!(world.trail("a"), ["e-1", "answered"]);
    });
}

#[test]
fn answers_wait_for_room_where_commands_are_many() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.commands_max = 1).await;
        node.app.consume(vec!["in".into()]);
        let calls = Calls::default();
        node.app.work(due(), mailer(&world, &calls, 0));
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Begin(_) => Act::Slow(Duration::from_millis(100)),
            _ => Act::Pass,
        });
        world
            .produce((0..9).map(|n| due_event(&format!("e-{n}"), &format!("k{n}"))).collect())
            .await;
        world.sleep(60).await;
        assert_eq!(calls.lock().unwrap().len(), 9, "each once");
        assert_eq!(world.trail("k8"), ["e-8", "answered"]);
    });
}

#[test]
fn jobs_of_many_bytes_do_not_share_a_transaction() {
    run(|world| async move {
        const LARGE: usize = 6 * 1024 * 1024;
        let large = |n: u8| Record {
            to: "jobs".into(),
            key: format!("k-{n}").into(),
            headers: Vec::new(),
            payload: vec![0xf0 + n; LARGE].into(),
        };
        let mut jobs: Vec<Record> = (0..5).map(large).collect();
        jobs.push(add("jobs", "e-1", "a", 1));
        world.publish(jobs).await;
        let node = world.bare("c", |_| ()).await;
        let most = Arc::new(AtomicUsize::new(0));
        let seen = most.clone();
        node.faults.set(move |call| {
            if let Call::Commit(ops) = call {
                let rows = ops.iter().filter_map(|op| match op {
                    Op::Put { rows, .. } => Some(rows.values()),
                    _ => None,
                });
                let bytes = rows.flatten().map(|row| row.body.len()).sum();
                seen.fetch_max(bytes, Ordering::Relaxed);
            }
            Act::Pass
        });
        node.app.jobs("jobs".into(), 64);
        world.sleep(30).await;
        assert_eq!((world.dead().len(), world.trail("a")), (5, vec!["e-1".to_owned()]));
        let most = most.load(Ordering::Relaxed);
        assert!(
            most > 4 * LARGE && most < 5 * LARGE,
            "two of them in hexadecimal digits, not {most}"
        );
    });
}
