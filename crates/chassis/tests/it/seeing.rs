//! What an operator sees: each dependency by its name, lag and age that are right though nobody moves,
//! counts that a repeat does not double.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use envelope::EventId;
use ports::{Channel, Fault, Key};
use serde_json::{Value, json};
use shakedown_chassis::http::command_id;
use shakedown_chassis::{Metrics, Service};
use tower::ServiceExt;

use crate::counter::ask;
use crate::faults::{Act, Call, Faults, retry};
use crate::world::{World, add, garbage, record, run};

/// A service with everything that can be looked at.
async fn seen(world: &World, name: &str) -> (Service, Faults) {
    let node = world.bare(name, |settings| settings.metrics = Metrics::recording()).await;
    node.app.consume(vec!["in".into(), "other".into()]);
    node.app.jobs("jobs".into(), 8);
    node.app.relay();
    node.app.reaches(Channel::Topic, "out".into());
    (node.app.finish(Router::new()), node.faults)
}

async fn get(service: &Service, path: &str) -> (u16, String) {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn ready(service: &Service) -> (u16, Value) {
    let (status, body) = get(service, "/health/ready").await;
    (status, serde_json::from_str(&body).unwrap())
}

/// The value of one series of `/metrics`; the label `service` is left out.
async fn metric(service: &Service, series: &str) -> Option<f64> {
    let (_, text) = get(service, "/metrics").await;
    let plain = text.replace("{service=\"counters\"}", "").replace("service=\"counters\",", "");
    let line = plain.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn readiness_shows_a_dependency_that_is_lost_and_back() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        world.sleep(10).await;
        let (status, body) = ready(&service).await;
        assert_eq!((status, &body["status"]), (200, &json!("ok")), "{body}");
        for name in ["store", "log", "queue", "consumer", "jobs", "relay"] {
            assert_eq!(body["checks"][name]["status"], "ok", "{body}");
        }
        assert_eq!(body["checks"]["relay"]["held"], 4);
        assert_eq!(body["checks"]["consumer"]["partitions"], 2);

        type Hit = fn(&Call) -> bool;
        let lost: [(&str, u16, Hit); 3] = [
            ("store", 503, |call| matches!(call, Call::Read(_) | Call::Begin(_))),
            ("log", 200, |call| matches!(call, Call::Ends)),
            ("queue", 200, |call| matches!(call, Call::Depth)),
        ];
        for (name, status, hit) in lost {
            for act in [Act::Slow(Duration::from_secs(10)), retry()] {
                faults.set(move |call| if hit(call) { act.clone() } else { Act::Pass });
                world.sleep(5).await;
                let (code, body) = ready(&service).await;
                assert_eq!(code, status, "{name}: {body}");
                assert_ne!(body["checks"][name]["status"], "ok", "{body}");
                assert!(body["checks"][name]["detail"].is_string(), "{body}");
                let up = format!("dependency_up{{dependency=\"{name}\"}}");
                assert_eq!(metric(&service, &up).await, Some(0.0));
            }
            faults.clear();
            world.sleep(60).await;
            let (code, body) = ready(&service).await;
            assert_eq!((code, &body["status"]), (200, &json!("ok")), "{name}: {body}");
        }
    });
}

#[test]
fn a_look_is_bounded_in_time_and_shared_for_a_second() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        world.sleep(10).await;
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        faults.set(move |call| match call {
            Call::Ends => {
                count.fetch_add(1, Ordering::Relaxed);
                Act::Hang
            }
            Call::Depth => Act::Hang,
            _ => Act::Pass,
        });
        let begun = ports::Runtime::elapsed(&world.runtime);
        for path in ["/health/ready", "/health", "/metrics"] {
            assert_eq!(get(&service, path).await.0, 200, "{path}");
        }
        let took = ports::Runtime::elapsed(&world.runtime) - begun;
        assert!(took.as_millis() <= 3_000, "{took:?}");
        // Two topics for each look.
        assert!(asked.load(Ordering::Relaxed) <= 6, "{asked:?}");
        // Who asks together waits for one look, not one after the other.
        world.sleep(2).await;
        let begun = ports::Runtime::elapsed(&world.runtime);
        futures_util::future::join_all((0..10).map(|_| ready(&service))).await;
        let took = ports::Runtime::elapsed(&world.runtime) - begun;
        assert!(took.as_millis() <= 1_500, "{took:?}");
        faults.set({
            let asked = asked.clone();
            asked.store(0, Ordering::Relaxed);
            move |call| {
                asked.fetch_add(u32::from(matches!(call, Call::Ends)), Ordering::Relaxed);
                Act::Pass
            }
        });
        world.sleep(2).await;
        for _ in 0..10 {
            ready(&service).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "one look for all who ask at once");
    });
}

#[test]
fn alive_is_not_ready_and_leaving_is_neither_served_nor_dead() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        faults.set(|call| if matches!(call, Call::Read(_)) { Act::Hang } else { Act::Pass });
        assert_eq!(get(&service, "/health/live").await.0, 200);
        assert_eq!(get(&service, "/health/ready").await.0, 503);
        faults.clear();
        world.sleep(10).await;
        assert_eq!(get(&service, "/health/ready").await.0, 200);
        service.stop.ask();
        let (status, body) = ready(&service).await;
        assert_eq!((status, &body["checks"]["leaving"]["status"]), (503, &json!("unavailable")));
        assert_eq!(get(&service, "/health/live").await.0, 200);
    });
}

#[test]
fn a_stuck_relay_shows_by_the_age_of_what_waits() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        world.sleep(10).await;
        assert_eq!(metric(&service, "outbox_oldest_age_seconds").await, Some(0.0));
        faults.set(|call| if matches!(call, Call::Send(_)) { Act::Hang } else { Act::Pass });
        world.produce(vec![add("in", "e-1", "a", 1), add("in", "e-2", "b", 1)]).await;
        world.sleep(100).await;
        assert_eq!(metric(&service, "outbox_unsent").await, Some(2.0));
        let age = metric(&service, "outbox_oldest_age_seconds").await.unwrap();
        assert!((99.0..=101.0).contains(&age), "{age}");
        let (status, body) = ready(&service).await;
        assert_eq!(
            (status, &body["checks"]["relay"]["status"]),
            (200, &json!("degraded")),
            "{body}"
        );
    });
}

#[test]
fn what_was_refused_and_sent_again_is_counted_and_its_age_measured() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        world.sleep(10).await;
        let mut tries = 0;
        faults.set(move |call| match call {
            Call::Send(_) => {
                tries += 1;
                match tries {
                    1 => retry(),
                    2 => Act::Fail(Fault::unknown("a test says so")),
                    3 => Act::Fail(Fault::refused("a test says so")),
                    _ => Act::Pass,
                }
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(20).await;
        for result in ["retry", "unknown", "refused", "confirmed"] {
            let series = format!("outbox_publish_total{{result=\"{result}\"}}");
            assert_eq!(metric(&service, &series).await, Some(1.0), "{result}");
        }
        assert_eq!(metric(&service, "outbox_commit_to_ack_seconds_count").await, Some(1.0));
        assert_eq!(metric(&service, "outbox_unsent").await, Some(0.0));
        assert_eq!(metric(&service, "lease_held").await, Some(4.0));
    });
}

#[test]
fn a_stuck_consumer_shows_by_its_lag_and_by_its_silence() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        let lag = "consumer_lag{group=\"counters\",partition=\"0\",topic=\"in\"}";
        assert_eq!(metric(&service, lag).await, Some(0.0));
        faults.set(|call| if matches!(call, Call::Commit(_)) { retry() } else { Act::Pass });
        world.produce((2..7).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        world.sleep(100).await;
        assert_eq!(metric(&service, lag).await, Some(5.0), "read, and not handled");
        let age = metric(&service, "consumer_last_message_age_seconds").await.unwrap();
        assert!(age > 90.0, "{age}");
        let (_, body) = ready(&service).await;
        assert_eq!(body["checks"]["consumer"]["status"], "degraded", "{body}");
        faults.clear();
        world.sleep(20).await;
        assert_eq!(metric(&service, lag).await, Some(0.0));
        assert_eq!(ready(&service).await.1["status"], "ok");
    });
}

#[test]
fn lag_counts_from_the_beginning_where_nobody_ever_read() {
    run(|world| async move {
        world.produce((0..3).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        let node = world.bare("c-0", |_| ()).await;
        node.faults.set(|call| if matches!(call, Call::Begin(_)) { Act::Hang } else { Act::Pass });
        node.app.consume(vec!["in".into()]);
        let service = node.app.finish(Router::new());
        world.sleep(5).await;
        let lag = "consumer_lag{group=\"counters\",partition=\"0\",topic=\"in\"}";
        assert_eq!(metric(&service, lag).await, Some(3.0));
    });
}

#[test]
fn ends_are_counted_by_type_and_a_strange_type_is_no_label() {
    run(|world| async move {
        let (service, faults) = seen(&world, "c-0").await;
        let mut fails = 2;
        faults.set(move |call| match call {
            Call::Commit(ops) if fails > 0 && ops.len() > 1 => {
                fails -= 1;
                retry()
            }
            _ => Act::Pass,
        });
        world.sleep(10).await;
        let strange = record("in", "e-2", "Strange-4711", json!({ "key": "a", "by": 1 }));
        let broken = record("in", "e-3", "Add", json!({ "key": "a", "by": 0 }));
        let twice = add("in", "e-1", "a", 5);
        world.produce(vec![twice.clone(), twice, strange, broken, garbage("in")]).await;
        world.sleep(20).await;
        for (kind, result, count) in [
            ("Add", "applied", 1.0),
            ("Add", "repeated", 1.0),
            ("Add", "dead", 1.0),
            ("unknown", "skipped", 1.0),
            ("unknown", "dead", 1.0),
        ] {
            let series = format!("event_handled_total{{result=\"{result}\",type=\"{kind}\"}}");
            assert_eq!(metric(&service, &series).await, Some(count), "{series}");
        }
        assert_eq!(
            metric(&service, "added_total").await,
            Some(5.0),
            "once, not for the broken one"
        );
        assert_eq!(metric(&service, "inbox_duplicates_total").await, Some(1.0));
        let skipped = "event_skipped_total{reason=\"unknown_type\"}";
        assert_eq!(metric(&service, skipped).await, Some(1.0));
        for reason in ["rule_broken", "bad_envelope"] {
            let series = format!("dead_letters{{reason=\"{reason}\",state=\"dead\"}}");
            assert_eq!(metric(&service, &series).await, Some(1.0), "{reason}");
        }
        let (_, text) = get(&service, "/metrics").await;
        assert!(!text.contains("4711"), "{text}");
    });
}

#[test]
fn idempotency_keys_are_counted_by_what_they_met() {
    run(|world| async move {
        let node = world.bare("c-0", |settings| settings.metrics = Metrics::recording()).await;
        let commands = node.commands.clone();
        let service = node.app.finish(Router::new());
        let request = EventId::parse("r-1").unwrap();
        let id = |key: Option<&Key>| command_id("place", key, &request);
        for by in [1, 1, 2] {
            commands.submit(ask(&id(Some(&"k-1".into())), "a", by)).await.unwrap();
        }
        commands.submit(ask(&id(None), "a", 1)).await.unwrap();
        for result in ["new", "repeated", "reused"] {
            let series = format!("http_idempotency_total{{result=\"{result}\"}}");
            assert_eq!(metric(&service, &series).await, Some(1.0), "{result}");
        }
    });
}
