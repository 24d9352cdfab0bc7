//! Retention: what has expired goes, in small bites, and what has not stays what it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use ports::{Op, Runtime};
use shakedown_chassis::{INBOX, LetterState, Settings};

use crate::counter::ask;
use crate::faults::{Act, Call};
use crate::world::{Node, World, add, run, sequenced};

fn short(settings: &mut Settings) {
    settings.keep_events = Duration::from_secs(100);
    settings.keep_commands = Duration::from_secs(40);
    settings.keep_letters = Duration::from_secs(200);
    settings.sweep = Duration::from_secs(4);
}

async fn node(world: &World, name: &str) -> Node {
    let node = world.bare(name, short).await;
    node.app.consume(vec!["in".into(), "other".into()]);
    node
}

#[test]
fn outcomes_go_when_their_time_is_over_and_not_before() {
    run(|world| async move {
        let node = node(&world, "c-0").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        node.commands.submit(ask("c-1", "a", 1)).await.unwrap();
        world.sleep(35).await;
        assert_eq!(world.inbox_rows(), ["c-1", "e-1"]);
        // Inside the window a repeat is a repeat.
        node.commands.submit(ask("c-1", "a", 1)).await.unwrap();
        assert_eq!(world.counter("a").value, 2);
        world.sleep(15).await;
        assert_eq!(world.inbox_rows(), ["e-1"]);
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(40).await;
        assert_eq!(world.counter("a").value, 2);
        assert_eq!(world.inbox_rows(), ["e-1"], "kept since it was first seen");
        world.sleep(20).await;
        assert_eq!(world.inbox_rows(), Vec::<String>::new());
        // Behind it the same id is another command.
        node.commands.submit(ask("c-1", "a", 1)).await.unwrap();
        assert_eq!(world.counter("a").value, 3);
    });
}

#[test]
fn whoever_sweeps_goes_by_the_stores_clock() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.sweep = Duration::from_secs(600)).await;
        let _ahead = world.skewed("c-1", TimeDelta::days(30), short).await;
        node.commands.submit(ask("c-1", "a", 1)).await.unwrap();
        world.produce(vec![sequenced("in", "e-1", "Add", "a", 0)]).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(10).await;
        let router = node.router();
        crate::letters::settle(&router, "in:0:0", "discard", serde_json::json!({ "note": "x" }))
            .await;
        world.sleep(100).await;
        assert_eq!(world.inbox_rows(), ["c-1", "e-1"]);
        assert_eq!(world.letters().len(), 1);
    });
}

#[test]
fn letters_go_so_long_after_they_were_closed_and_open_ones_stay() {
    run(|world| async move {
        let node = node(&world, "c-0").await;
        world.produce(vec![sequenced("in", "e-1", "Add", "a", 0)]).await;
        world.produce(vec![sequenced("in", "e-2", "Add", "b", 0)]).await;
        world.sleep(300).await;
        assert_eq!(world.letters().len(), 2, "open, however old");
        let router = node.router();
        crate::letters::settle(&router, "in:0:0", "discard", serde_json::json!({ "note": "x" }))
            .await;
        world.sleep(190).await;
        assert_eq!(world.letters().len(), 2);
        world.sleep(20).await;
        assert_eq!(world.letters(), [format!("in:0:1 {} rule_broken", LetterState::Dead.name())]);
    });
}

#[test]
fn it_takes_small_bites_with_pauses_and_two_do_not_hinder_each_other() {
    run(|world| async move {
        let bites: Arc<Mutex<Vec<usize>>> = Arc::default();
        for name in ["c-0", "c-1"] {
            let few = |settings: &mut Settings| {
                short(settings);
                (settings.sweep_max, settings.sweep) = (10, Duration::from_secs(60));
            };
            let node = world.bare(name, few).await;
            let seen = bites.clone();
            node.faults.set(move |call| {
                if let Call::Commit(ops) = call {
                    let gone = ops.iter().filter_map(|op| match op {
                        Op::Delete { table, keys } if table.name == INBOX.name => Some(keys.len()),
                        _ => None,
                    });
                    seen.lock().unwrap().extend(gone);
                }
                // Slow enough to meet the other one.
                Act::Slow(Duration::from_millis(20))
            });
            if name == "c-0" {
                node.app.consume(vec!["in".into()]);
            }
        }
        world.produce((0..95).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        world.sleep(90).await;
        assert_eq!(world.inbox_rows().len(), 95);
        // Time for one sweep of each, or two: as many bites as it takes.
        world.sleep(75).await;
        assert_eq!(world.inbox_rows().len(), 0);
        let bites = bites.lock().unwrap();
        assert_eq!(bites.iter().sum::<usize>(), 95, "each row by one of them");
        assert!(bites.len() >= 10 && bites.iter().all(|rows| *rows <= 10), "{bites:?}");
    });
}

#[test]
fn a_batch_waits_for_no_sweep() {
    run(|world| async move {
        let node = node(&world, "c-0").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(60).await;
        node.faults.set(|call| match call {
            Call::Commit(ops) if matches!(ops.first(), Some(Op::Delete { .. })) => Act::Hang,
            _ => Act::Pass,
        });
        world.sleep(60).await;
        // The sweep sits on its claim.
        let before = world.runtime.elapsed();
        node.commands.submit(ask("c-2", "a", 1)).await.unwrap();
        world.produce(vec![add("in", "e-2", "a", 1)]).await;
        world.runtime.sleep(Duration::from_millis(50)).await;
        assert_eq!(world.counter("a").value, 3);
        let took = world.runtime.elapsed() - before;
        assert!(took < Duration::from_millis(100), "{took:?}");
    });
}
