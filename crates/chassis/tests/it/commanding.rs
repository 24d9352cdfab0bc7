//! Commands: their replies, kept and passing, and when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use ports::Runtime;
use serde_json::json;
use shakedown_chassis::http::Problem;
use shakedown_chassis::{Busy, InboxRow};

use crate::counter::ask;
use crate::faults::{Act, Call, retry};
use crate::world::{add, run};

#[test]
fn the_same_id_with_another_content_is_422_in_one_batch_and_in_two() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let (first, second) = (ask("c-1", "a", 1), ask("c-1", "a", 2));
        let replies = join_all([first, second].map(|input| node.commands.submit(input))).await;
        let statuses: Vec<u16> = replies.into_iter().map(|reply| reply.unwrap().status).collect();
        assert_eq!(statuses, [200, 422]);
        let later = node.commands.submit(ask("c-1", "a", 3)).await.unwrap();
        assert_eq!(later.status, 422);
        assert_eq!(later.body["type"], "urn:shakedown:problem:idempotency-key-reused");
        assert_eq!(world.counter("a").value, 1);
        let repeat = node.commands.submit(ask("c-1", "a", 1)).await.unwrap();
        assert_eq!((repeat.status, repeat.body), (200, json!({ "value": 1 })));
    });
}

#[test]
fn twins_in_one_batch_apply_once_and_get_the_same_reply() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let twins = [ask("c-1", "a", 1), ask("c-1", "a", 1)];
        let replies = join_all(twins.map(|input| node.commands.submit(input))).await;
        assert_eq!(replies[0], replies[1]);
        assert_eq!(world.trail("a"), ["c-1"]);
    });
}

#[test]
fn a_passing_reply_leaves_no_inbox_row_alone() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let reply = node.commands.submit(ask("c-1", "a", 0)).await.unwrap();
        assert_eq!(reply.status, 404);
        assert_eq!(world.inbox_rows(), Vec::<String>::new());
        node.commands.submit(ask("c-2", "a", 1)).await.unwrap();
        let reply = node.commands.submit(ask("c-1", "a", 0)).await.unwrap();
        assert_eq!(reply.status, 200, "the same command succeeds later");
    });
}

#[test]
fn a_passing_reply_leaves_no_inbox_row_beside_other_inputs() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let batch = [ask("c-1", "a", 0), ask("c-2", "b", 1), ask("c-3", "c", 0)];
        let replies = join_all(batch.map(|input| node.commands.submit(input))).await;
        let statuses: Vec<u16> = replies.into_iter().map(|reply| reply.unwrap().status).collect();
        assert_eq!(statuses, [404, 200, 404]);
        assert_eq!(world.inbox_rows(), ["c-2"]);
    });
}

#[test]
fn a_passing_reply_does_not_use_up_the_id_within_its_batch() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let batch = [ask("c-1", "a", 0), ask("c-1", "a", 3), ask("c-1", "a", 3)];
        let replies = join_all(batch.map(|input| node.commands.submit(input))).await;
        let statuses: Vec<u16> = replies.into_iter().map(|reply| reply.unwrap().status).collect();
        assert_eq!(statuses, [404, 200, 200]);
        assert_eq!(world.trail("a"), ["c-1"]);
        let again = node.commands.submit(ask("c-1", "a", 3)).await.unwrap();
        assert_eq!((again.status, again.body), (200, json!({ "value": 3 })));
    });
}

#[test]
fn a_command_that_breaks_the_contract_gets_the_same_422_again() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let first = node.commands.submit(ask("c-1", "a", -1)).await.unwrap();
        assert_eq!(first.status, 422);
        assert!(matches!(world.inbox("c-1"), Some(InboxRow::Dead { .. })));
        let again = node.commands.submit(ask("c-1", "a", -1)).await;
        assert_eq!(again, Ok(first), "a repeat gets the stored outcome");
    });
}

#[test]
fn a_refusal_survives_an_unknown_commit() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let mut left = 1;
        node.faults.set(move |call| match call {
            Call::Commit(_) if left > 0 => {
                left -= 1;
                Act::Lost
            }
            _ => Act::Pass,
        });
        let reply = node.commands.submit(ask("c-1", "a", -1)).await;
        assert_eq!(reply.map(|reply| reply.status), Ok(422));
    });
}

#[test]
fn a_full_queue_says_so_and_a_late_reply_too() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.commands_max = 2).await;
        node.faults.set(once(Act::Slow(Duration::from_secs(20))));
        let busy = Arc::new(std::sync::Mutex::new(Vec::new()));
        for at in 0..4 {
            let (commands, busy) = (node.commands.clone(), busy.clone());
            let submit = async move {
                let ended = commands.submit(ask(&format!("c-{at}"), "a", 1)).await;
                busy.lock().unwrap().push((at, ended));
            };
            world.runtime.spawn("submit", Box::pin(submit));
            // The first one is taken into its batch before the next ones come.
            world.runtime.sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(*busy.lock().unwrap(), [(3, Err(Busy::Full))]);
        world.sleep(11).await;
        let late = busy.lock().unwrap().iter().filter(|(_, e)| *e == Err(Busy::Late)).count();
        assert_eq!(late, 3);
        // Late is not lost, and the id says how it ended.
        world.sleep(60).await;
        node.faults.clear();
        assert_eq!(world.trail("a"), ["c-0", "c-1", "c-2"]);
        let reply = node.commands.submit(ask("c-0", "a", 1)).await.unwrap();
        assert_eq!(reply.body, json!({ "value": 1 }));
    });
}

#[test]
fn commands_get_through_beside_a_long_backlog() {
    run(|world| async move {
        let backlog = (0..400).map(|n| add("in", &format!("e-{n}"), "a", 1));
        world.produce(backlog.collect()).await;
        let jobs = (0..400).map(|n| add("jobs", &format!("j-{n}"), "a", 1));
        world.publish(jobs.collect()).await;
        let node = world.bare("c-0", |settings| settings.batch_max = 4).await;
        // A tenth of a second a batch: the backlog takes long. Three that consume always have
        // something waiting.
        node.faults.set(|call| match call {
            Call::Begin(_) => Act::Slow(Duration::from_millis(100)),
            _ => Act::Pass,
        });
        node.app.consume(vec!["in".into()]);
        node.app.jobs("jobs".into(), 4);
        node.app.jobs("jobs".into(), 4);
        world.sleep(2).await;
        let commands = (0..40).map(|n| node.commands.submit(ask(&format!("c-{n}"), "b", 1)));
        let before = world.runtime.elapsed();
        assert!(join_all(commands).await.iter().all(Result::is_ok));
        let took = world.runtime.elapsed() - before;
        assert!(took < Duration::from_millis(2500), "40 commands took {took:?}");
        assert!(world.counter("a").value < 800, "the backlog is still there");
        world.sleep(60).await;
        assert_eq!(world.counter("a").value, 800);
    });
}

#[test]
fn records_get_through_beside_a_flood_of_commands() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.batch_max = 4).await;
        node.faults.set(|call| match call {
            Call::Begin(_) => Act::Slow(Duration::from_millis(100)),
            _ => Act::Pass,
        });
        node.app.consume(vec!["in".into()]);
        world.sleep(2).await;
        world.produce((0..8).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        let commands = node.commands.clone();
        let flood = async move {
            let flood = (0..200).map(|n| commands.submit(ask(&format!("c-{n}"), "b", 1)));
            join_all(flood).await;
        };
        world.runtime.spawn("flood", Box::pin(flood));
        world.sleep(2).await;
        assert_eq!(world.counter("a").value, 8);
        assert!(world.counter("b").value < 200, "the flood is still there");
    });
}

#[test]
fn a_twin_waits_a_while_and_is_then_told_to_come_again() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.faults.set(once(Act::Slow(Duration::from_secs(7))));
        let submit = || node.commands.submit(ask("c-1", "a", 1));
        let at = world.runtime.elapsed();
        let (first, (twin, waited)) = join(submit(), async {
            world.sleep(1).await;
            (submit().await, world.runtime.elapsed() - at)
        })
        .await;
        assert_eq!((twin, waited), (Err(Busy::Twin), Duration::from_secs(6)));
        let problem = Problem::from(Busy::Twin);
        assert_eq!((problem.status, problem.retry_after_s), (409, Some(1)));
        assert_eq!(submit().await, first, "later it gets the stored reply");
        assert_eq!(world.trail("a"), ["c-1"]);
        let other = node.commands.submit(ask("c-2", "a", 1)).await;
        assert_eq!(other.map(|reply| reply.status), Ok(200), "no id stays in flight");
    });
}

#[test]
fn whoever_was_not_answered_in_time_is_the_twin_of_itself() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.faults.set(once(Act::Slow(Duration::from_secs(20))));
        let submit = || node.commands.submit(ask("c-1", "a", 1));
        assert_eq!(submit().await, Err(Busy::Late));
        assert_eq!(submit().await, Err(Busy::Twin), "it is still in flight");
        world.sleep(10).await;
        assert_eq!(submit().await.map(|reply| reply.status), Ok(200));
        assert_eq!(world.trail("a"), ["c-1"]);
    });
}

#[test]
fn a_twin_on_another_instance_waits_at_the_inbox_row() {
    run(|world| async move {
        let (one, other) = (world.bare("c-0", |_| ()).await, world.bare("c-1", |_| ()).await);
        one.faults.set(|call| match call {
            Call::Commit(_) => Act::Slow(Duration::from_secs(1)),
            _ => Act::Pass,
        });
        let twins = [&one, &other].map(|node| node.commands.submit(ask("c-1", "a", 1)));
        let replies = join_all(twins).await;
        assert_eq!(replies[0], replies[1]);
        assert_eq!(replies[0].as_ref().map(|reply| reply.status), Ok(200));
        assert_eq!(world.trail("a"), ["c-1"]);
    });
}

#[test]
fn a_store_that_is_away_is_asked_less_and_less_often() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let begun = Arc::new(AtomicU32::new(0));
        let seen = begun.clone();
        node.faults.set(move |call| match call {
            Call::Begin(_) => {
                seen.fetch_add(1, Ordering::Relaxed);
                retry()
            }
            _ => Act::Pass,
        });
        assert_eq!(node.commands.submit(ask("c-1", "a", 1)).await, Err(Busy::Late));
        world.sleep(50).await;
        // Seven until the longest pause is reached, and one for each of those: 1 to 2 s.
        let begun = begun.load(Ordering::Relaxed);
        assert!((20..80).contains(&begun), "{begun} times in a minute");
    });
}

/// The first transaction begins like this.
fn once(act: Act) -> impl FnMut(&Call) -> Act {
    let mut act = Some(act);
    move |call| match call {
        Call::Begin(_) => act.take().unwrap_or(Act::Pass),
        _ => Act::Pass,
    }
}
