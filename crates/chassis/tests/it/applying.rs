//! What becomes of inputs: once, dead, skipped, refused, unknown.

use ports::{Fault, Op};
use serde_json::json;
use shakedown_chassis::InboxRow;

use crate::counter::ask;
use crate::faults::{Act, Call, retry};
use crate::world::{add, garbage, record, run};

/// Whether a commit is that of a batch over this topic.
fn moves(ops: &[Op], topic: &str) -> bool {
    ops.iter().any(|op| match op {
        Op::Put { table, rows } => {
            table.name == "chassis_positions"
                && rows.keys().any(|key| key.starts_with(topic))
                && rows.values().any(|row| !row.body.contains("\"next\":null"))
        }
        _ => false,
    })
}

/// Whether a commit writes counters.
fn counts(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Put { table, .. } if table.name == "counters"))
}

fn fingerprint(row: Option<InboxRow>) -> String {
    row.expect("an inbox row").fingerprint().to_owned()
}

#[test]
fn a_repeated_event_applies_once_in_one_batch_and_in_two() {
    run(|world| async move {
        world.produce(vec![add("in", "e-1", "a", 5), add("in", "e-1", "a", 5)]).await;
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        world.produce(vec![add("in", "e-1", "a", 5), add("other", "e-1", "a", 5)]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1"]);
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(3)), Some(3)));
        assert_eq!(world.outbox().len(), 1);
        assert_eq!(world.dead(), []);
    });
}

#[test]
fn an_id_with_another_content_is_a_dead_letter() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.produce(vec![add("in", "e-1", "a", 5)]).await;
        world.sleep(10).await;
        world.produce(vec![add("in", "e-1", "a", 6), add("in", "e-2", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.dead(), [("in:0:1".into(), "event_id_reused".into())]);
        assert_eq!(world.trail("a"), ["e-1", "e-2"]);
        assert_eq!(world.counter("a").value, 6);
    });
}

#[test]
fn of_two_contents_in_one_batch_the_first_is_applied_and_remembered() {
    run(|world| async move {
        let first = add("in", "e-1", "a", 5);
        world.produce(vec![first.clone(), add("in", "e-1", "a", 6)]).await;
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        assert_eq!(world.counter("a").value, 5);
        assert_eq!(world.dead(), [("in:0:1".into(), "event_id_reused".into())]);
        let said = envelope::Envelope::read(&first.payload).unwrap().fingerprint();
        assert_eq!(fingerprint(world.inbox("e-1")), said);
        // A redelivery of the first is a repeat, not another dead letter.
        world.produce(vec![first]).await;
        world.sleep(10).await;
        assert_eq!(world.dead().len(), 1);
    });
}

#[test]
fn bad_records_end_in_dead_letters_and_unknown_types_nowhere_and_the_partition_flows_on() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        let batch = vec![
            garbage("in"),
            record("in", "e-1", "Unheard", json!({ "key": "a", "by": 1 })),
            record("in", "e-2", "Add", json!({ "key": "a" })),
            add("in", "e-3", "a", 1),
        ];
        world.produce(batch).await;
        world.sleep(10).await;
        let dead = [("in:0:0", "bad_envelope"), ("in:0:2", "bad_payload")];
        assert_eq!(world.dead(), dead.map(|(at, code)| (at.to_owned(), code.to_owned())));
        assert_eq!(world.trail("a"), ["e-3"]);
        assert_eq!(world.inbox("e-1"), None);
        assert!(matches!(world.inbox("e-2"), Some(InboxRow::Dead { .. })));
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(4)), Some(4)));
    });
}

#[test]
fn a_skipped_record_alone_moves_position_and_offset() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.produce(vec![record("in", "e-1", "Unheard", json!({ "key": "a", "by": 1 }))]).await;
        world.sleep(10).await;
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(1)), Some(1)));
        assert_eq!(world.inbox_rows(), Vec::<String>::new());
    });
}

#[test]
fn a_rule_error_undoes_its_own_rows_and_no_others() {
    run(|world| async move {
        let batch = ["e-1", "e-2", "e-3"].map(|id| {
            let by = i64::from(id != "e-2");
            add("in", id, "a", by)
        });
        world.produce(batch.into()).await;
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1", "e-3"]);
        assert_eq!(world.dead(), [("in:0:1".into(), "rule_broken".into())]);
        assert_eq!(world.outbox().len(), 2);
        assert!(matches!(world.inbox("e-2"), Some(InboxRow::Dead { .. })));
    });
}

#[test]
fn what_the_store_refuses_is_found_one_by_one() {
    run(|world| async move {
        world.produce(["e-1", "e-2", "e-3"].map(|id| add("in", id, "a", 1)).into()).await;
        let node = world.bare("c-0", |_| ()).await;
        node.faults.set(|call| match call {
            Call::Commit(ops) if ops.iter().any(|op| format!("{op:?}").contains("out-e-2")) => {
                Act::Fail(Fault::refused("22021"))
            }
            _ => Act::Pass,
        });
        node.app.consume(vec!["in".into()]);
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1", "e-3"]);
        assert_eq!(world.dead(), [("in:0:1".into(), "store_refused".into())]);
        assert!(matches!(world.inbox("e-2"), Some(InboxRow::Dead { .. })));
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(3)), Some(3)));
        // The culprit again: it is known.
        world.produce(vec![add("in", "e-2", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.dead().len(), 1);
        assert_eq!(world.position("in"), (1, Some(4)));
    });
}

/// A job and a record whose batch commits with a lost request or a lost reply.
fn unknown_commit(effect: bool) {
    run(move |world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(5).await;
        let mut left = 2;
        node.faults.set(move |call| match call {
            Call::Commit(ops) if left > 0 && (moves(ops, "in") || counts(ops)) => {
                left -= 1;
                if effect { Act::Lost } else { Act::Fail(Fault::unknown("the request was lost")) }
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 5)]).await;
        let reply = node.commands.submit(ask("c-1", "b", 7)).await.unwrap();
        assert_eq!((reply.status, reply.body), (200, json!({ "value": 7 })));
        world.sleep(10).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["c-1".into()]));
        assert_eq!(world.outbox().len(), 1);
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(1)), Some(1)));
        let again = node.commands.submit(ask("c-1", "b", 7)).await.unwrap();
        assert_eq!((again.status, again.body), (200, json!({ "value": 7 })));
        assert_eq!(world.counter("b").value, 7);
    });
}

#[test]
fn an_unknown_commit_with_effect_applies_once_and_answers_the_stored_reply() {
    unknown_commit(true);
}

#[test]
fn an_unknown_commit_without_effect_applies_once_and_answers() {
    unknown_commit(false);
}

#[test]
fn retries_on_begin_and_commit_go_on_until_it_is_done() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(5).await;
        let mut calls = 0;
        node.faults.set(move |call| match call {
            Call::Begin(_) | Call::Commit(_) => {
                calls += 1;
                // Begins and commits fail in turn; two that follow each other pass at times.
                if [0, 1, 4].contains(&(calls % 8)) { Act::Pass } else { retry() }
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 5), garbage("in")]).await;
        world.sleep(200).await;
        assert_eq!(world.trail("a"), ["e-1"]);
        assert_eq!(world.dead().len(), 1);
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(2)), Some(2)));
    });
}

#[test]
fn a_guarded_record_leaves_no_inbox_row() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        let guarded = record("in", "e-1", "AddGuarded", json!({ "key": "a", "by": 1 }));
        world.produce(vec![guarded]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1"]);
        assert_eq!(world.inbox_rows(), Vec::<String>::new());
    });
}
