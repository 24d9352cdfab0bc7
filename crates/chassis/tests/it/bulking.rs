//! Bulk requests: room, order, and what is done again after they were cut off.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::future::join_all;
use serde_json::{Value, json};
use shakedown_chassis::Commands;
use shakedown_chassis::http::{Bulk, Lines, Problem};

use crate::counter::{Fact, ask};
use crate::faults::{Act, Call, retry};
use crate::world::run;

#[derive(serde::Deserialize)]
struct Line {
    by: i64,
}

/// Lines that each add their number to counter `a`; 0 is a wrong line.
async fn bulk(commands: &Commands<Fact>, key: &str, lines: &[i64]) -> Result<Value, Problem> {
    let body: String = lines.iter().map(|by| format!("{{\"by\":{by}}}\n")).collect();
    let request = Request::post("/").header(header::CONTENT_TYPE, "application/x-ndjson");
    let body = Lines::<Line>::from_request(request.body(Body::from(body)).unwrap(), &()).await?;
    let began = ask("began", "began", 1).fact;
    let bulk = Bulk::new("bulk", "/", &key.into(), body, began, |line, id| match line.by {
        0 => Err(Problem::invalid("0 is nothing")),
        by => Ok(ask(id, "a", by).fact),
    });
    let response = bulk.carry_out(commands).await?;
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    Ok(serde_json::from_slice(&bytes).unwrap())
}

/// The first commits pass, and this becomes of each behind them.
fn behind(first: u32, act: Act) -> impl FnMut(&Call) -> Act {
    let mut commits = 0;
    move |call| match call {
        Call::Commit(_) if commits == first => act.clone(),
        Call::Commit(_) => {
            commits += 1;
            Act::Pass
        }
        _ => Act::Pass,
    }
}

fn statuses(answer: &Value) -> Vec<u64> {
    let lines = answer["lines"].as_array().unwrap().iter();
    lines.map(|line| line["status"].as_u64().unwrap()).collect()
}

#[test]
fn lines_are_decided_in_their_order_and_answered_in_it() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        let answer = bulk(&node.commands, "k", &[1, 0, 2, 3]).await.unwrap();
        assert_eq!(statuses(&answer), [200, 422, 200, 200]);
        let values: Vec<_> =
            answer["lines"].as_array().unwrap().iter().map(|l| &l["result"]["value"]).collect();
        assert_eq!(values, [&json!(1), &Value::Null, &json!(3), &json!(6)]);
        assert_eq!(world.trail("a"), ["bulk k 1", "bulk k 3", "bulk k 4"]);
    });
}

#[test]
fn a_queue_that_is_smaller_than_the_window_is_used_in_turns() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.commands_max = 4).await;
        let answer = bulk(&node.commands, "k", &[1; 50]).await.unwrap();
        assert_eq!((&answer["done"], &answer["failed"]), (&json!(50), &json!(0)));
    });
}

#[test]
fn one_more_than_may_run_at_a_time_is_refused_as_a_whole() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.bulks_max = 2).await;
        let answers = ["k-1", "k-2", "k-3"].map(|key| bulk(&node.commands, key, &[1; 5]));
        let statuses: Vec<u16> = join_all(answers)
            .await
            .iter()
            .map(|answer| answer.as_ref().map_or_else(|problem| problem.status, |_| 200))
            .collect();
        assert_eq!((statuses, world.counter("a").value), (vec![200, 200, 503], 10));
        // There is room again.
        assert_eq!(bulk(&node.commands, "k-3", &[1; 5]).await.unwrap()["done"], 5);
    });
}

#[test]
fn a_refused_request_makes_room() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.bulks_max = 1).await;
        bulk(&node.commands, "k-1", &[1]).await.unwrap();
        let reused = bulk(&node.commands, "k-1", &[2]).await.unwrap();
        assert_eq!(reused["status"], 422, "{reused}");
        assert_eq!(bulk(&node.commands, "k-2", &[3]).await.unwrap()["done"], 1);
    });
}

#[test]
fn behind_a_line_that_was_not_answered_none_is_tried() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.batch_max = 8).await;
        node.faults.set(behind(2, Act::Slow(Duration::from_secs(3))));
        // More lines than are in flight at a time. The second one's are twins of the first one's.
        let twins = [(); 2].map(|()| bulk(&node.commands, "k", &[1; 40]));
        let answers = join_all(twins).await.into_iter().map(Result::unwrap);
        let answers: Vec<Vec<u64>> = answers.map(|answer| statuses(&answer)).collect();
        let gap = answers[1].iter().position(|status| *status != 200).expect("a gap");
        assert_eq!((answers[1][gap], answers[1][39]), (409, 503), "{answers:?}");
    });
}

#[test]
fn what_a_cut_off_request_did_is_not_done_again() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.batch_max = 8).await;
        // The store takes the request and two batches of lines, then nothing for a long time.
        node.faults.set(behind(3, retry()));
        let answer = bulk(&node.commands, "k", &[1; 60]).await.unwrap();
        let done = statuses(&answer).iter().filter(|status| **status == 200).count();
        assert_eq!((done, &answer["failed"]), (16, &json!(44)));
        let said = |line: usize| answer["lines"][line]["problem"]["detail"].as_str().unwrap();
        assert!(said(16).contains("may still be carried out"), "{}", said(16));
        assert!(said(59).contains("not tried"), "{}", said(59));
        // Another instance, which knows nothing of the first one but the database.
        let other = world.bare("c-1", |_| ()).await;
        let again = bulk(&other.commands, "k", &[1; 60]).await.unwrap();
        assert_eq!(again["done"], 60);
        node.faults.clear();
        world.sleep(30).await;
        assert_eq!(world.counter("a").value, 60);
        assert_eq!(bulk(&node.commands, "k", &[1; 60]).await.unwrap(), again);
        let other = bulk(&node.commands, "k", &[2; 60]).await.unwrap();
        assert_eq!(other["type"], "urn:shakedown:problem:idempotency-key-reused");
    });
}
