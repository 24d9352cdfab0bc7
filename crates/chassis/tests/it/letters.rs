//! Dead letters: what waits behind them, and how they are settled, in order and once.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use ports::{Op, Record, Runtime};
use serde_json::{Value, json};
use shakedown_chassis::{DEAD_LETTERS, InboxRow, LetterState, Settings};
use tower::ServiceExt;

use crate::counter::{PANICS, PANICS_EARLY, ask};
use crate::faults::{Act, Call};
use crate::world::{World, add, garbage, record, run, sequenced};

async fn get(router: &Router, path: &str) -> Value {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

/// Asks for a letter to be settled; gives the status, and the state or the problem's kind.
pub async fn settle(router: &Router, id: &str, verb: &str, body: Value) -> (u16, String) {
    let request = Request::builder()
        .method("POST")
        .uri(format!("/dead-letters/{id}/{verb}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let kind = body["type"].as_str().and_then(|kind| kind.rsplit(':').next());
    (status, body["state"].as_str().or(kind).unwrap_or("?").to_owned())
}

/// The same event with another number.
fn edited(record: &Record, by: i64) -> Value {
    let mut envelope: Value = serde_json::from_slice(&record.payload).unwrap();
    envelope["payload"]["by"] = json!(by);
    json!({ "payload": envelope })
}

/// A dead event of `a`, two that wait behind it, and one of `b`.
fn blocked() -> Vec<Record> {
    vec![
        sequenced("in", "e-1", "Add", "a", 0),
        sequenced("in", "e-2", "Add", "a", 2),
        sequenced("in", "e-3", "Add", "b", 3),
        sequenced("in", "e-4", "Add", "a", 4),
    ]
}

async fn with_blocked(world: &World) -> Router {
    let node = world.consumer("c-0").await;
    world.produce(blocked()).await;
    world.sleep(10).await;
    node.router()
}

const BLOCKED: [&str; 3] =
    ["in:0:0 dead rule_broken", "in:0:1 parked parked", "in:0:3 parked parked"];

#[test]
fn behind_a_dead_letter_its_key_waits_and_others_go_on() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        assert_eq!(world.letters(), BLOCKED);
        let ids = ["in:0:0", "in:0:1", "in:0:3"].map(str::to_owned).to_vec();
        assert_eq!(world.markers(), [("a".to_owned(), ids)]);
        assert_eq!((world.trail("a"), world.trail("b")), (vec![], vec!["e-3".to_owned()]));
        assert!(matches!(world.inbox("e-2"), Some(InboxRow::Parked { .. })));
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(4)), Some(4)));
        // Redelivered it is known, and waits once.
        world.produce(blocked()).await;
        world.sleep(10).await;
        assert_eq!(world.letters(), BLOCKED);
        let letter = get(&router, "/dead-letters/in:0:0").await;
        assert_eq!((&letter["offset"], &letter["attempts"]), (&json!(0), &json!(1)));
        assert_eq!((&letter["eventType"], &letter["correlationId"]), (&json!("Add"), &json!("a")));
        let open = get(&router, "/dead-letters").await;
        assert_eq!(open["items"].as_array().map(Vec::len), Some(3));
        assert_eq!(get(&router, "/parked").await["items"][0]["key"], "a");
    });
}

#[test]
fn a_list_leaves_out_what_is_large() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let strange = |_| Record {
            key: "é".repeat(100_000).into(),
            headers: vec![("x".into(), vec![b'x'; 1_000].into())],
            payload: vec![b'x'; 300_000].into(),
            ..garbage("in")
        };
        world.produce((0..20).map(strange).collect()).await;
        world.sleep(10).await;
        let router = node.router();
        let (mut found, mut path) = (Vec::new(), "/dead-letters?limit=9".to_owned());
        loop {
            let page = get(&router, &path).await;
            assert!(page.to_string().len() < 20_000, "{}", page.to_string().len());
            for letter in page["items"].as_array().unwrap() {
                assert_eq!(letter["key"], format!("{}…", "é".repeat(256)));
                assert_eq!(letter["code"], "envelope_too_large");
                assert_eq!((letter.get("headers"), letter.get("payload")), (None, None));
                found.push(letter["id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/dead-letters?limit=9&cursor={next}");
        }
        let mut all: Vec<String> = (0..20).map(|n| format!("in:0:{n}")).collect();
        all.sort_unstable();
        assert_eq!(found, all);
        let whole = get(&router, "/dead-letters/in:0:7").await;
        assert_eq!(whole["payload"].as_str().map(str::len), Some(300_000));
        assert_eq!(whole["key"].as_str().map(str::len), Some(200_000));
        assert_eq!(whole["headers"][0][0], "x");
    });
}

#[test]
fn a_redrive_keeps_the_order_and_happens_once() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        let early = settle(&router, "in:0:3", "redrive", json!({})).await;
        assert_eq!(early, (409, "redrive-out-of-order".to_owned()));
        let again = settle(&router, "in:0:0", "redrive", json!({})).await;
        assert_eq!(again, (422, "still-dead".to_owned()));
        assert_eq!(world.letter("in:0:0").attempts, 2);
        let wrong = settle(&router, "in:0:0", "redrive", edited(&blocked()[0], 0)).await;
        assert_eq!(wrong, (422, "still-dead".to_owned()));
        let mended = edited(&blocked()[0], 1);
        for _ in 0..2 {
            let done = settle(&router, "in:0:0", "redrive", mended.clone()).await;
            assert_eq!(done, (200, "applied".to_owned()));
            world.sleep(10).await;
            assert_eq!(world.trail("a"), ["e-1", "e-2", "e-4"]);
        }
        assert_eq!(world.counter("a").value, 7);
        assert_eq!(world.markers(), []);
        assert!(world.letters().iter().all(|letter| letter.contains("applied")));
        let sent: Vec<_> = world.outbox().iter().map(|row| row.outgoing.key.to_string()).collect();
        assert_eq!(sent, ["b", "a", "a", "a"]);
        // What was on the topic is still known, though it was applied as something else.
        world.produce(blocked()).await;
        world.sleep(10).await;
        assert_eq!((world.counter("a").value, world.letters().len()), (7, 3));
        assert_eq!(
            get(&router, "/dead-letters?state=closed").await["items"].as_array().map(Vec::len),
            Some(3)
        );
    });
}

#[test]
fn a_discard_frees_what_waits() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        let bare = settle(&router, "in:0:0", "discard", json!({ "note": " " })).await;
        assert_eq!(bare.0, 422);
        let note = json!({ "note": "the producer was mended" });
        assert_eq!(
            settle(&router, "in:0:0", "discard", note.clone()).await,
            (200, "discarded".into())
        );
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-2", "e-4"]);
        assert_eq!(world.markers(), []);
        // Too late.
        let late = settle(&router, "in:0:0", "redrive", edited(&blocked()[0], 1)).await;
        assert_eq!(late, (200, "discarded".to_owned()));
        assert_eq!(world.counter("a").value, 6);
        assert_eq!(settle(&router, "in:0:9", "discard", note).await, (404, "not-found".into()));
    });
}

#[test]
fn a_final_event_passes_and_makes_what_died_before_it_void() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        world.produce(vec![sequenced("other", "e-5", "Close", "a", 5)]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-5", "e-2", "e-4"]);
        assert_eq!(world.letter("in:0:0").state, LetterState::Superseded);
        assert_eq!(world.markers(), []);
        let late = settle(&router, "in:0:0", "redrive", edited(&blocked()[0], 1)).await;
        assert_eq!((late, world.counter("a").value), ((200, "superseded".to_owned()), 11));
    });
}

#[test]
fn a_final_event_that_was_dead_itself_makes_void_what_died_before_it() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        let end = sequenced("other", "e-5", "Close", "a", 0);
        world.produce(vec![end.clone()]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), Vec::<String>::new());
        let done = settle(&router, "other:0:0", "redrive", edited(&end, 5)).await;
        assert_eq!(done, (200, "applied".to_owned()));
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-5", "e-2", "e-4"]);
        assert_eq!(world.letter("in:0:0").state, LetterState::Superseded);
        assert_eq!(world.markers(), []);
    });
}

#[test]
fn a_final_event_in_the_batch_of_a_dead_one_makes_it_void_too() {
    run(|world| async move {
        let mut batch = blocked();
        batch.push(sequenced("in", "e-5", "Close", "a", 5));
        world.produce(batch).await;
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-5", "e-2", "e-4"]);
        assert_eq!(
            (world.letter("in:0:0").state, world.markers().len()),
            (LetterState::Superseded, 0)
        );
    });
}

#[test]
fn a_foreign_record_under_a_key_that_it_does_not_belong_to_holds_nobody_up() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        let foreign = add("in", "e-1", "a", 0);
        world.produce(vec![foreign, sequenced("in", "e-2", "Add", "a", 2)]).await;
        world.sleep(10).await;
        assert_eq!((world.trail("a"), world.markers()), (vec!["e-2".to_owned()], vec![]));
        assert_eq!(world.letters(), ["in:0:0 dead rule_broken"]);
    });
}

#[test]
fn a_waiting_event_that_dies_in_its_turn_holds_up_what_is_behind_it() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let numbers = [(1, 0), (2, 2), (3, 0), (4, 4)];
        let batch = numbers.map(|(id, by)| sequenced("in", &format!("e-{id}"), "Add", "a", by));
        world.produce(batch.into()).await;
        world.sleep(10).await;
        let router = node.router();
        settle(&router, "in:0:0", "discard", json!({ "note": "n" })).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-2"]);
        let ids = ["in:0:2", "in:0:3"].map(str::to_owned).to_vec();
        assert_eq!(world.markers(), [("a".to_owned(), ids)]);
        let letter = world.letter("in:0:2");
        assert_eq!(
            (letter.state, letter.attempts, &*letter.code),
            (LetterState::Dead, 1, "rule_broken")
        );
    });
}

#[test]
fn redrives_from_two_nodes_and_with_a_lost_reply_apply_once() {
    run(|world| async move {
        let first = with_blocked(&world).await;
        let second = world.bare("c-1", |_| ()).await;
        let commits = Arc::new(std::sync::Mutex::new(0));
        second.faults.set(move |call| match call {
            Call::Commit(ops) if ops.iter().any(|op| matches!(op, Op::Append { .. })) => {
                let mut seen = commits.lock().unwrap();
                *seen += 1;
                if *seen == 1 { Act::Lost } else { Act::Pass }
            }
            _ => Act::Pass,
        });
        let second = second.router();
        let mended = edited(&blocked()[0], 1);
        let both = futures_util::future::join(
            settle(&second, "in:0:0", "redrive", mended.clone()),
            settle(&first, "in:0:0", "redrive", mended.clone()),
        );
        let (one, other) = both.await;
        assert_eq!([one, other], [(); 2].map(|()| (200, "applied".to_owned())));
        world.sleep(60).await;
        assert_eq!(world.trail("a"), ["e-1", "e-2", "e-4"]);
        assert_eq!(world.outbox().len(), 4);
    });
}

#[test]
fn what_a_dead_instance_left_to_drain_another_drains() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        // Nothing rings for this one: it looks now and then.
        let _other = world.bare("c-1", |_| ()).await;
        world.produce(blocked()).await;
        world.sleep(10).await;
        let faults = node.faults.clone();
        let router = node.router();
        // It dies after the discard: what waits is not drained by it.
        faults.set(|call| match call {
            Call::Commit(ops) if ops.iter().any(|op| matches!(op, Op::Append { .. })) => Act::Hang,
            _ => Act::Pass,
        });
        settle(&router, "in:0:0", "discard", json!({ "note": "n" })).await;
        world.sleep(5).await;
        assert_eq!(world.trail("a"), Vec::<String>::new());
        // Its locks go with it, as a server drops them with the session.
        world.store.disconnect("c-0");
        // It had taken the turn of the first one.
        let Settings { idle, lease, .. } = Settings::new("", "");
        world.runtime.sleep(lease + idle * 41).await;
        assert_eq!(world.trail("a"), ["e-2", "e-4"]);
    });
}

#[test]
fn a_letter_that_never_was_an_envelope_can_be_mended() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let broken = crate::world::garbage("in");
        world.produce(vec![broken]).await;
        world.sleep(10).await;
        let router = node.router();
        let letter = get(&router, "/dead-letters/in:0:0").await;
        assert_eq!(letter["payload"], "hex:ff00206e6f20656e76656c6f7065");
        assert_eq!(settle(&router, "in:0:0", "redrive", json!({})).await.0, 422);
        let mended = edited(&add("in", "e-1", "a", 0), 1);
        assert_eq!(settle(&router, "in:0:0", "redrive", mended).await, (200, "applied".into()));
        assert_eq!(world.trail("a"), ["e-1"]);
        // The real one comes after all: it is known.
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!((world.trail("a").len(), world.letters().len()), (1, 1));
    });
}

#[test]
fn an_id_used_for_two_things_stays_dead_until_it_gets_another_one() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.produce(vec![add("in", "e-1", "a", 5), add("in", "e-1", "a", 6)]).await;
        world.sleep(10).await;
        let router = node.router();
        assert_eq!(settle(&router, "in:0:1", "redrive", json!({})).await.0, 422);
        assert_eq!(world.counter("a").value, 5);
        let renamed = json!({ "payload": String::from_utf8(add("in", "e-2", "a", 6).payload.to_vec()).unwrap() });
        assert_eq!(settle(&router, "in:0:1", "redrive", renamed).await.0, 200);
        assert_eq!((world.counter("a").value, world.trail("a").len()), (11, 2));
    });
}

#[test]
fn an_id_used_for_two_things_is_that_of_the_first_also_while_it_is_dead() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let first = add("in", "e-1", "a", 0);
        world.produce(vec![first.clone(), add("in", "e-1", "a", 6)]).await;
        world.sleep(10).await;
        assert_eq!(world.letters(), ["in:0:0 dead rule_broken", "in:0:1 dead event_id_reused"]);
        let router = node.router();
        let other = settle(&router, "in:0:1", "redrive", json!({})).await;
        assert_eq!(other, (422, "still-dead".to_owned()));
        let mended = settle(&router, "in:0:0", "redrive", edited(&first, 1)).await;
        assert_eq!(mended, (200, "applied".to_owned()));
        assert_eq!((world.counter("a").value, world.trail("a").len()), (1, 1));
    });
}

#[test]
fn what_a_letter_is_redriven_as_changes_neither_its_turn_nor_what_waits_behind_it() {
    run(|world| async move {
        let router = with_blocked(&world).await;
        let elsewhere = |record: &Record, by: i64| {
            let mut body = edited(record, by);
            body["payload"]["correlationId"] = json!("elsewhere");
            body
        };
        let early = settle(&router, "in:0:1", "redrive", elsewhere(&blocked()[1], 2)).await;
        assert_eq!(early, (409, "redrive-out-of-order".to_owned()));
        let done = settle(&router, "in:0:0", "redrive", elsewhere(&blocked()[0], 1)).await;
        assert_eq!(done, (200, "applied".to_owned()));
        world.sleep(10).await;
        assert_eq!(
            (world.trail("a"), world.markers()),
            (vec!["e-1".into(), "e-2".into(), "e-4".into()], vec![])
        );
    });
}

#[test]
fn what_another_letter_says_is_not_applied_for_it() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let dead = add("in", "e-1", "a", 0);
        world.produce(vec![crate::world::garbage("in"), dead.clone()]).await;
        world.sleep(10).await;
        let router = node.router();
        let twin = json!({ "payload": String::from_utf8(dead.payload.to_vec()).unwrap() });
        let told = settle(&router, "in:0:0", "redrive", twin).await;
        assert_eq!((told, world.trail("a")), ((422, "still-dead".to_owned()), vec![]));
        let mended = settle(&router, "in:0:1", "redrive", edited(&dead, 1)).await;
        assert_eq!((mended.0, world.trail("a")), (200, vec!["e-1".to_owned()]));
    });
}

#[test]
fn what_is_mended_into_a_sequence_waits_its_turn() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let broken = Record { key: "a".into(), ..crate::world::garbage("in") };
        let [first, second, third] = [("e-1", 0), ("e-2", 2), ("e-3", 4)]
            .map(|(id, by)| sequenced("in", id, "Add", "a", by));
        world.produce(vec![first.clone(), broken, third]).await;
        world.sleep(10).await;
        let router = node.router();
        let body = json!({ "payload": String::from_utf8(second.payload.to_vec()).unwrap() });
        let early = settle(&router, "in:0:1", "redrive", body.clone()).await;
        assert_eq!(early, (409, "redrive-out-of-order".to_owned()));
        settle(&router, "in:0:0", "redrive", edited(&first, 1)).await;
        world.sleep(10).await;
        assert_eq!(settle(&router, "in:0:1", "redrive", body).await.0, 200);
        assert_eq!(world.trail("a"), ["e-1", "e-3", "e-2"]);
    });
}

#[test]
fn a_letter_that_died_in_its_turn_is_not_drained_again_by_another_instance() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let other = world.bare("c-1", |_| ()).await;
        let batch = [("e-1", 0), ("e-2", 0)].map(|(id, by)| sequenced("in", id, "Add", "a", by));
        world.produce(batch.into()).await;
        world.sleep(10).await;
        // Both have read it as parked before either tries it.
        for (faults, ms) in [(&node.faults, 12_000), (&other.faults, 25_000)] {
            let mut discards = 1;
            faults.set(move |call| match call {
                Call::Begin(ops)
                    if ops.iter().any(
                        |op| matches!(op, Op::Lock { table, .. } if *table == &DEAD_LETTERS),
                    ) =>
                {
                    discards -= 1;
                    if discards >= 0 && ms == 12_000 {
                        Act::Pass
                    } else {
                        Act::Slow(Duration::from_millis(ms))
                    }
                }
                _ => Act::Pass,
            });
        }
        settle(&node.router(), "in:0:0", "discard", json!({ "note": "n" })).await;
        world.sleep(60).await;
        assert_eq!(world.letter("in:0:1").attempts, 1);
    });
}

#[test]
fn an_end_sees_the_letter_of_whoever_had_its_rows_before() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let other = world.bare("c-1", |_| ()).await;
        other.app.jobs("jobs".into(), 4);
        world.sleep(5).await;
        node.faults.set(|call| match call {
            Call::Commit(ops)
                if ops
                    .iter()
                    .any(|op| matches!(op, Op::Put { table, .. } if *table == &DEAD_LETTERS)) =>
            {
                Act::Slow(Duration::from_secs(1))
            }
            _ => Act::Pass,
        });
        world.produce(vec![sequenced("in", "e-1", "Add", "a", 0)]).await;
        world.runtime.sleep(Duration::from_millis(700)).await;
        assert_eq!(world.letters(), Vec::<String>::new(), "on its way");
        world.publish(vec![sequenced("jobs", "e-5", "Close", "a", 5)]).await;
        world.sleep(20).await;
        assert_eq!(world.trail("a"), ["e-5"]);
        assert_eq!(world.letter("in:0:0").state, LetterState::Superseded);
        assert_eq!(world.markers(), []);
    });
}

#[test]
fn a_key_that_is_written_down_otherwise_is_drained_too() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let batch =
            [("e-1", 0), ("e-2", 2)].map(|(id, by)| sequenced("in", id, "Add", "hex:a", by));
        world.produce(batch.into()).await;
        world.sleep(10).await;
        assert_eq!(world.letter("in:0:0").key, "hex:6865783a61");
        settle(&node.router(), "in:0:0", "discard", json!({ "note": "n" })).await;
        world.sleep(10).await;
        assert_eq!((world.trail("hex:a"), world.markers()), (vec!["e-2".into()], vec![]));
    });
}

#[test]
fn a_panic_of_a_rule_is_the_error_of_its_input_alone() {
    run(|world| async move {
        let batch = vec![
            add("in", "e-1", "a", 1),
            add("in", "e-2", "a", PANICS),
            record("in", "e-3", "Unreadable", json!({ "key": "a", "by": 1 })),
            add("in", "e-4", "a", 4),
            add("in", "e-5", "a", PANICS_EARLY),
            add("in", "e-6", "a", 6),
        ];
        world.produce(batch).await;
        let node = world.consumer("c-0").await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1", "e-4", "e-6"]);
        let dead = ["in:0:1 dead panic", "in:0:2 dead panic", "in:0:4 dead panic"];
        assert_eq!(world.letters(), dead);
        // A command that meets a defect leaves no trace, and may come again.
        for _ in 0..2 {
            let reply = node.commands.submit(ask("c-1", "a", PANICS)).await.unwrap();
            assert_eq!((reply.status, reply.kept), (500, false));
        }
        assert_eq!(world.inbox("c-1"), None);
        assert_eq!(node.commands.submit(ask("c-1", "a", 1)).await.unwrap().status, 200);
    });
}

#[test]
fn beyond_the_bound_what_waits_dies_and_is_not_lost() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        let by = |n: u32| i64::from(n > 0);
        let batch = (0..1_003).map(|n| sequenced("in", &format!("e-{n}"), "Add", "a", by(n)));
        world.produce(batch.collect()).await;
        world.sleep(60).await;
        assert_eq!(world.markers()[0].1.len(), 1_000);
        let over = world.letter("in:0:1002");
        assert_eq!((over.state, &*over.code), (LetterState::Dead, "parked_overflow"));
        let router = node.router();
        let early = settle(&router, "in:0:1002", "redrive", json!({})).await;
        assert_eq!(early, (409, "redrive-out-of-order".to_owned()));
        settle(&router, "in:0:0", "discard", json!({ "note": "n" })).await;
        world.sleep(600).await;
        assert_eq!((world.trail("a").len(), world.markers().len()), (999, 0));
        for offset in 1_000..1_003 {
            let done = settle(&router, &format!("in:0:{offset}"), "redrive", json!({})).await;
            assert_eq!(done.0, 200);
        }
        assert_eq!(world.trail("a").len(), 1_002);
    });
}
