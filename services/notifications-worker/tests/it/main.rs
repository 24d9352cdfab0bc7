//! Both notification services on the broker and store models, in virtual time: ends of orders in,
//! mails out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use chassis::{Ports, Service, Settings};
use contract::{
    Event, FinalStatus, OrderCancelled, OrderConfirmed, OrderId, Stream, Streams, derived_id,
};
use envelope::{CorrelationId, Seal};
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{EventLog, JobQueue, Record, Runtime};
use serde_json::{Value, json};
use shakedown_notifications_worker::mail::Mail;
use shakedown_notifications_worker::memory::{Kept, MemorySink, Passage, Passes};
use shakedown_notifications_worker::{Config, run};
use tower::ServiceExt;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    queue: QueueServer,
    sink: MemorySink,
    api: Router,
    worker: Service,
    ports: Ports,
}

impl World {
    async fn start(runtime: VirtualTime, passes: Passes) -> World {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let queue = QueueServer::new(Default::default(), clock.clone());
        let ports = |name: &str| Ports {
            log: Arc::new(log.client(name, clock.clone())),
            queue: Arc::new(queue.client(name, clock.clone())),
            store: Arc::new(
                StoreServer::new(Default::default(), clock.clone()).client(name, clock.clone()),
            ),
            runtime: clock.clone(),
        };
        let settings = Settings::new("notifications-api", "notifications-api-0");
        let config = notifications_api::Config::default();
        let api = notifications_api::run(ports("api"), settings, config).await.unwrap();
        let sink = MemorySink::new(passes);
        let ports = ports("worker");
        let worker = start_worker(&ports, &sink).await;
        World { runtime, log, queue, sink, api: api.router, worker, ports }
    }

    /// Has Orders say these, once for each mention, and gives everybody half a minute.
    async fn say(&self, events: &[Event]) {
        let client = self.log.client("orders", Arc::new(self.runtime.clone()));
        let record = |event: &Event| {
            let order = OrderId::parse(event.key()).unwrap();
            let seal = Seal {
                event_id: derived_id(&order, event.kind()),
                occurred_at: self.runtime.now(),
                correlation_id: CorrelationId::parse(event.key()).unwrap(),
                causation_id: None,
            };
            let to = Streams::default().name(event.stream());
            let payload = event.seal(seal).to_bytes();
            Record { to, key: event.key(), headers: Vec::new(), payload }
        };
        for outcome in client.produce(events.iter().map(record).collect()).await {
            outcome.unwrap();
        }
        self.rest().await;
    }

    async fn rest(&self) {
        self.runtime.sleep(Duration::from_secs(30)).await;
    }

    async fn resend(&self, order: &str, key: Option<&str>) -> (u16, Value) {
        let mut request = Request::post(format!("/notifications/{order}/resend"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        answer(&self.api, request.body(Body::empty()).unwrap()).await
    }

    async fn notifications(&self, order: &str) -> Value {
        let request = Request::get(format!("/notifications/{order}")).body(Body::empty());
        answer(&self.api, request.unwrap()).await.1
    }

    async fn mails(&self, path: &str) -> Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        answer(&self.worker.router, request).await.1["items"].clone()
    }

    fn kept(&self, id: &str) -> Option<Kept> {
        self.sink.kept().remove(&format!("{id}@shakedown.invalid"))
    }
}

async fn start_worker(ports: &Ports, sink: &MemorySink) -> Service {
    let settings = Settings::new("notifications-worker", "notifications-worker-0");
    run(ports.clone(), settings, Config::new(Arc::new(sink.clone()))).await.unwrap()
}

async fn answer(router: &Router, request: Request<Body>) -> (u16, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn confirmed(order: &str) -> Event {
    let (order_id, final_status) = (OrderId::parse(order).unwrap(), FinalStatus::Confirmed);
    Event::OrderConfirmed(OrderConfirmed { order_id, final_status })
}

fn cancelled(order: &str) -> Event {
    let (order_id, final_status) = (OrderId::parse(order).unwrap(), FinalStatus::Cancelled);
    Event::OrderCancelled(OrderCancelled { order_id, final_status, reason: None })
}

fn whole() -> Passes {
    Arc::new(|_, _| Passage::Whole)
}

#[test]
fn each_end_is_told_once_whatever_is_repeated() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime, whole()).await;
        world.say(&[confirmed("o1"), cancelled("o2"), confirmed("o1")]).await;
        world.say(&[confirmed("o1")]).await;
        let kept = world.sink.kept();
        let ids: Vec<(&str, u32)> = kept.iter().map(|(id, k)| (id.as_str(), k.copies)).collect();
        let expected =
            [("o1.confirmed.1@shakedown.invalid", 1), ("o2.cancelled.1@shakedown.invalid", 1)];
        assert_eq!(ids, expected);
        let page = world.notifications("o1").await;
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        assert_eq!(page["items"][0]["type"], "confirmed");
        let client = world.queue.client("look", world.ports.runtime.clone());
        let queue = Streams::default().name(Stream::NotificationsJobs);
        assert_eq!(client.depth(&queue).await, Ok(0));
        assert_eq!(client.depth(&format!("{queue}.dead")).await, Ok(0));
    });
}

#[test]
fn unknown_sends_are_repeated_and_refusals_stay_visible() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let passes = |mail: &Mail, earlier| match (mail.to.starts_with("bad"), earlier) {
            (true, _) => Passage::Refused("no such\r\nmailbox".to_owned()),
            (false, 0) => Passage::LostBefore,
            (false, 1) => Passage::LostAfter,
            (false, _) => Passage::Whole,
        };
        let world = World::start(runtime, Arc::new(passes)).await;
        world.say(&[confirmed("o1"), cancelled("bad")]).await;
        let kept = world.kept("o1.confirmed.1").unwrap();
        assert_eq!((kept.sends, kept.copies, kept.unknown, kept.altered), (3, 2, 2, 0));
        let mails = world.mails("/mails/o1").await;
        assert_eq!((&mails[0]["state"], &mails[0]["unknown"]), (&json!("sent"), &json!(2)));
        let open = world.mails("/mails?state=undeliverable").await;
        assert_eq!(open.as_array().unwrap().len(), 1);
        assert_eq!(open[0]["orderId"], "bad");
        assert_eq!(open[0]["reason"], "no such\\r\\nmailbox");
        assert_eq!(world.kept("bad.cancelled.1").unwrap().sends, 1);
    });
}

#[test]
fn a_resend_is_one_more_revision_for_each_key() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime, whole()).await;
        let (status, early) = world.resend("o1", Some("k0")).await;
        assert_eq!(
            (status, &early["type"]),
            (409, &json!("urn:shakedown:problem:order-not-final"))
        );
        world.say(&[confirmed("o1"), confirmed("o2")]).await;
        assert_eq!(world.resend("o1", None).await.0, 400);
        let first = world.resend("o1", Some("k0")).await;
        assert_eq!((first.0, &first.1["revision"]), (202, &json!(2)), "a refusal left no trace");
        assert_eq!(world.resend("o1", Some("k0")).await, first);
        assert_eq!(world.resend("o2", Some("k0")).await.0, 422);
        assert_eq!(world.resend("o1", Some("k1")).await.1["revision"], 3);
        world.rest().await;
        let copies = [1, 2, 3].map(|n| world.kept(&format!("o1.confirmed.{n}")).unwrap().copies);
        assert_eq!(copies, [1, 1, 1]);
        assert_eq!(world.kept("o2.confirmed.2"), None);
        assert_eq!(world.notifications("o1").await["items"][2]["revision"], 3);
    });
}

#[test]
fn a_worker_that_starts_anew_goes_on_from_its_table() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Arc::new(|_, _| Passage::LostBefore)).await;
        world.say(&[confirmed("o1")]).await;
        world.worker.stop.ask();
        world.rest().await;
        let before = world.kept("o1.confirmed.1").unwrap();
        assert_eq!(before.copies, 0);
        world.sink.steer(None);
        world.worker = start_worker(&world.ports, &world.sink).await;
        world.runtime.sleep(Duration::from_secs(300)).await;
        let after = world.kept("o1.confirmed.1").unwrap();
        assert_eq!((after.copies, after.unknown), (1, before.unknown));
        let mails = world.mails("/mails/o1").await;
        assert_eq!(
            (&mails[0]["state"], &mails[0]["attempts"]),
            (&json!("sent"), &json!(after.sends))
        );
    });
}
