//! The distributed trace: from a record's headers, or begun with it, into the headers of what follows.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::routing::get;
use bytes::Bytes;
use ports::Record;
use serde_json::{Value, json};
use shakedown_chassis::{Context, Metrics, Trace};
use tower::ServiceExt;

use crate::counter::ask;
use crate::world::{World, add, record, run};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn with(record: Record, parent: &'static [u8]) -> Record {
    let headers = vec![
        ("traceparent".into(), Bytes::from_static(parent)),
        ("tracestate".into(), Bytes::from_static(b"vendor=1")),
    ];
    Record { headers, ..record }
}

/// The trace of each row in the outbox.
fn traces(world: &World) -> Vec<Trace> {
    let one = |row: ports::OutboxRow| Trace::of_headers(&row.outgoing.headers).unwrap().unwrap();
    world.outbox().into_iter().map(one).collect()
}

#[test]
fn what_follows_from_a_record_is_in_its_trace_in_a_span_of_its_own() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.produce(vec![with(add("in", "e-1", "a", 1), PARENT.as_bytes())]).await;
        world.sleep(10).await;
        let [trace] = traces(&world).try_into().unwrap();
        let parent = Trace::parse(PARENT, Some("vendor=1")).unwrap();
        assert_eq!((trace.id(), trace.tracestate()), (parent.id(), Some("vendor=1")));
        assert_ne!(trace.traceparent(), PARENT);
    });
}

#[test]
fn a_record_without_a_trace_begins_one_and_a_malformed_one_is_counted() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.metrics = Metrics::recording()).await;
        node.app.consume(vec!["in".into()]);
        let service = node.app.finish(Router::new());
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.produce(vec![with(add("in", "e-2", "b", 1), b"00-zz-00f067aa0ba902b7-01")]).await;
        world.sleep(10).await;
        let begun = ["e-1", "e-2"].map(|id| Trace::begun_by(id).id());
        let found: Vec<String> = traces(&world).iter().map(Trace::id).collect();
        assert_eq!(found, begun);
        let text = service.scrape.look().await.text();
        let line = "traceparent_malformed_total{service=\"counters\"} 1";
        assert!(text.lines().any(|l| l == line), "{text}");
    });
}

#[test]
fn a_command_hands_its_trace_on_to_nobody_else() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(5).await;
        let mut input = ask("c-1", "a", 1);
        input.context.trace = Trace::parse(PARENT, None).ok();
        node.commands.submit(input).await.unwrap();
        world.produce(vec![record("in", "e-1", "Add", json!({ "key": "a", "by": 1 }))]).await;
        world.sleep(5).await;
        let found: Vec<String> = traces(&world).iter().map(Trace::id).collect();
        assert_eq!(found, [Trace::begun_by("e-1").id()]);
    });
}

/// The `traceparent` that a route sees.
async fn routed(router: &Router, parent: Option<&str>) -> Option<Trace> {
    let mut request = Request::builder().uri("/trace");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Trace::parse(std::str::from_utf8(&body).unwrap(), None).ok()
}

/// What was logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_rule_says_stands_in_the_span_of_its_input_unless_it_refuses_it() {
    // Of one subscriber alone another test's thread, which has none, says that nobody wants a span that it
    // meets first, for this thread too.
    let _others = [(); 2].map(|()| tracing::Dispatch::new(tracing_subscriber::registry()));
    let kept = Kept::default();
    let to = kept.clone();
    let lines = tracing_subscriber::fmt().json().flatten_event(true);
    let lines = lines.with_max_level(tracing::Level::WARN).with_writer(move || to.clone()).finish();
    let ids = ["e-1", "e-2", "e-3"].into_iter().zip([-1, 0, 1]);
    tracing::subscriber::with_default(lines, || {
        run(|world| async move {
            let _node = world.consumer("c-0").await;
            world.produce(ids.map(|(id, by)| add("in", id, "a", by)).collect()).await;
            world.sleep(10).await;
        });
    });
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: Vec<Value> = lines.filter(|line| line["message"] == "not more").collect();
    let ids: Vec<&Value> = said.iter().map(|line| &line["span"]["eventId"]).collect();
    assert_eq!(ids, ["e-1"], "{text}");
}

#[test]
fn every_request_is_in_a_trace_its_own_or_a_fresh_one() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.metrics = Metrics::recording()).await;
        let seen = async |headers: HeaderMap| {
            Context::of_request(None, &headers).trace.map_or(String::new(), |t| t.traceparent())
        };
        let service = node.app.finish(Router::new().route("/trace", get(seen)));
        let given = routed(&service.router, Some(PARENT)).await;
        assert_eq!(given, Trace::parse(PARENT, None).ok());
        let fresh = routed(&service.router, None).await.unwrap();
        let other = routed(&service.router, Some("nonsense")).await.unwrap();
        assert_ne!(fresh.id(), other.id());
        let text = service.scrape.look().await.text();
        assert!(text.contains("traceparent_malformed_total{service=\"counters\"} 1"), "{text}");
        let requests = "http_requests_total{service=\"counters\",method=\"GET\",status=\"200\"} 3";
        assert!(text.contains(requests), "{text}");
    });
}
