//! The whole service on the broker and store models, in virtual time: HTTP in, events in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chassis::{Ports, Settings};
use contract::{
    Event, FinalStatus, Line, OrderCancelled, OrderConfirmed, OrderCreated, OrderId, ProductId,
    Stream,
};
use envelope::{CorrelationId, Envelope, EventId, Seal};
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{EventLog, Record, Runtime};
use serde_json::{Value, json};
use shakedown_inventory::Config;
use tower::ServiceExt;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    router: Router,
    events: u32,
}

impl World {
    async fn start(runtime: VirtualTime) -> World {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let ports = Ports {
            log: Arc::new(log.client("inventory", clock.clone())),
            queue: Arc::new(
                QueueServer::new(Default::default(), clock.clone())
                    .client("inventory", clock.clone()),
            ),
            store: Arc::new(
                StoreServer::new(Default::default(), clock.clone())
                    .client("inventory", clock.clone()),
            ),
            runtime: clock,
        };
        let settings = Settings::new("inventory", "inventory-0");
        let service = shakedown_inventory::run(ports, settings, Config::default()).await.unwrap();
        World { runtime, log, router: service.router, events: 0 }
    }

    async fn http(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let sort = if path == "/stock" { "application/x-ndjson" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::CONTENT_TYPE, sort);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        self.http("GET", path, None, "").await.1
    }

    /// Has Orders say these, and waits until they are handled.
    async fn say(&mut self, events: &[Event]) {
        let client = self.log.client("orders", Arc::new(self.runtime.clone()));
        let records = events.iter().map(|event| {
            self.events += 1;
            let seal = Seal {
                event_id: EventId::parse(format!("e-{}", self.events)).unwrap(),
                occurred_at: self.runtime.now(),
                correlation_id: CorrelationId::parse(event.key()).unwrap(),
                causation_id: None,
            };
            let payload = event.seal(seal).to_bytes();
            let to = Stream::OrdersEvents.name().into();
            Record { to, key: event.key(), headers: Vec::new(), payload }
        });
        for outcome in client.produce(records.collect()).await {
            outcome.unwrap();
        }
        self.runtime.sleep(Duration::from_secs(5)).await;
        assert_eq!(self.log.with(|log| log.lag("inventory", Stream::OrdersEvents.name())), 0);
    }

    /// What Inventory told of an order: type, cause, payload.
    fn told(&self, order: &str) -> Vec<(String, Option<EventId>, Value)> {
        self.log.with(|log| {
            let records = log.records(Stream::InventoryEvents.name());
            let records = records.filter(|fetched| &*fetched.record.key == order);
            let envelopes = records.map(|f| Envelope::read(&f.record.payload).unwrap());
            let told = envelopes.map(|e| {
                let payload = serde_json::from_str(e.payload.get()).unwrap();
                (e.event_type, e.causation_id, payload)
            });
            told.collect()
        })
    }
}

fn order(name: &str) -> OrderId {
    OrderId::parse(name).unwrap()
}

fn created(name: &str, lines: &[(&str, u32)]) -> Event {
    let line = |(product, qty): &(&str, u32)| Line {
        product_id: ProductId::parse(product).unwrap(),
        qty: *qty,
        unit_price: None,
    };
    Event::OrderCreated(OrderCreated {
        order_id: order(name),
        cart_id: None,
        lines: lines.iter().map(line).collect(),
        amount: None,
        currency: None,
        payment_mode: None,
    })
}

fn confirmed(name: &str) -> Event {
    let final_status = FinalStatus::Confirmed;
    Event::OrderConfirmed(OrderConfirmed { order_id: order(name), final_status })
}

fn cancelled(name: &str) -> Event {
    let final_status = FinalStatus::Cancelled;
    Event::OrderCancelled(OrderCancelled { order_id: order(name), final_status, reason: None })
}

fn books(product: &str, [on_hand, available, reserved, committed]: [i64; 4]) -> Value {
    json!({ "productId": product, "onHand": on_hand, "available": available,
        "reserved": reserved, "committed": committed })
}

#[test]
fn adjusting_is_strict_relative_and_done_once() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime).await;
        let path = "/stock/p/adjust";
        let (status, body) = world.http("POST", path, None, r#"{"delta":5}"#).await;
        let missing = "urn:shakedown:problem:idempotency-key-missing";
        assert_eq!((status, &body["type"]), (400, &json!(missing)));
        for _ in 0..2 {
            let (status, body) = world.http("POST", path, Some("k1"), r#"{"delta":5}"#).await;
            assert_eq!((status, body), (200, books("p", [5, 5, 0, 0])));
        }
        let (status, _) = world.http("POST", path, Some("k1"), r#"{"delta":6}"#).await;
        assert_eq!(status, 422, "the key of another request");
        let (status, _) = world.http("POST", path, Some("k2"), r#"{"delta":1,"x":1}"#).await;
        assert_eq!(status, 422, "an unknown field");
        let (status, body) = world.http("POST", path, Some("k3"), r#"{"delta":-6}"#).await;
        let insufficient = "urn:shakedown:problem:insufficient-stock";
        assert_eq!((status, &body["type"]), (409, &json!(insufficient)));
        let body = r#"{"delta":-2,"reason":"broken"}"#;
        let (status, body) = world.http("POST", path, Some("k4"), body).await;
        assert_eq!((status, body), (200, books("p", [3, 3, 0, 0])));
        assert_eq!(world.get("/stock/p").await, books("p", [3, 3, 0, 0]));
        assert_eq!(world.http("GET", "/stock/none", None, "").await.0, 404);
        assert_eq!(world.http("GET", "/stock/%FF", None, "").await.0, 422);
        assert_eq!(world.http("GET", "/reservations/none", None, "").await.0, 404);

        world.http("POST", "/stock/a/adjust", Some("k5"), r#"{"delta":0}"#).await;
        let first = world.get("/stock?limit=1").await;
        assert_eq!(first["items"], json!([books("a", [0; 4])]));
        let next = first["next"].as_str().unwrap();
        let rest = world.get(&format!("/stock?limit=1&cursor={next}")).await;
        assert_eq!(rest, json!({ "items": [books("p", [3, 3, 0, 0])], "next": null }));
        for bad in ["limit=0", "limit=201", "limit=x", "cursor=", "page=2"] {
            let (status, _) = world.http("GET", &format!("/stock?{bad}"), None, "").await;
            assert_eq!(status, 422, "{bad}");
        }
    });
}

#[test]
fn an_order_reserves_then_commits_or_releases() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime).await;
        for (product, key) in [("a", "k1"), ("b", "k2")] {
            let path = format!("/stock/{product}/adjust");
            world.http("POST", &path, Some(key), r#"{"delta":10}"#).await;
        }
        let wants = [("b", 1), ("a", 2), ("b", 1)];
        world.say(&[created("o1", &wants), created("o2", &[("a", 3)])]).await;
        assert_eq!(world.get("/stock/a").await, books("a", [10, 5, 5, 0]));
        assert_eq!(world.get("/stock/b").await, books("b", [10, 8, 2, 0]));
        world.say(&[confirmed("o1"), cancelled("o2"), confirmed("o1")]).await;
        assert_eq!(world.get("/stock/a").await, books("a", [10, 8, 0, 2]));
        assert_eq!(world.get("/stock/b").await, books("b", [10, 8, 0, 2]));
        let row = json!({ "orderId": "o1", "state": "committed", "lines": { "a": 2, "b": 2 } });
        assert_eq!(world.get("/reservations/o1").await, row);
        let cause = Some(EventId::parse("e-1").unwrap());
        let told = (String::from("StockReserved"), cause, json!({ "orderId": "o1" }));
        assert_eq!(world.told("o1"), vec![told]);
        assert_eq!(world.get("/reservations/o2").await["state"], "released");
    });
}

#[test]
fn one_batch_may_hold_an_orders_whole_life() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime).await;
        world.http("POST", "/stock/a/adjust", Some("k"), r#"{"delta":10}"#).await;
        let events = [
            created("o1", &[("a", 2)]),
            confirmed("o1"),
            created("o1", &[("a", 2)]),
            cancelled("o2"),
            created("o2", &[("a", 1)]),
            created("o3", &[("a", 11)]),
            cancelled("o3"),
            created("o4", &[("z", 1)]),
            confirmed("o5"),
            created("o5", &[("a", 3)]),
        ];
        world.say(&events).await;
        assert_eq!(world.get("/stock/a").await, books("a", [10, 5, 0, 5]));
        let kinds = |order| -> Vec<String> {
            let told = world.told(order).into_iter();
            told.map(|(kind, _, payload)| match payload["reason"].as_str() {
                Some(reason) => format!("{kind} {reason}"),
                None => kind,
            })
            .collect()
        };
        assert_eq!(kinds("o1"), ["StockReserved"]);
        assert_eq!(kinds("o2"), [""; 0]);
        assert_eq!(kinds("o3"), ["StockFailed insufficient_stock"]);
        assert_eq!(kinds("o4"), ["StockFailed unknown_product"]);
        assert_eq!(kinds("o5"), ["StockReserved"]);
        for (order, state) in
            [("o1", "committed"), ("o2", "tombstone"), ("o3", "failed"), ("o5", "committed")]
        {
            assert_eq!(world.get(&format!("/reservations/{order}")).await["state"], state);
        }
    });
}

#[test]
fn many_adjustments_are_made_once_each_in_one_request() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime).await;
        let body = r#"{"productId":"p","delta":5}
{"productId":"p","delta":5}
{"productId":"p","delta":-11,"reason":"broken"}
{"productId":"p","delta":-1,"reason":"a\tb"}
{"productId":"q","delta":3}"#;
        assert_eq!(world.http("POST", "/stock", None, body).await.0, 400);
        let (status, first) = world.http("POST", "/stock", Some("k"), body).await;
        assert_eq!(status, 200);
        let statuses: Vec<_> =
            first["lines"].as_array().unwrap().iter().map(|line| &line["status"]).collect();
        assert_eq!(statuses, [200, 200, 409, 422, 200]);
        assert_eq!(first["lines"][1]["result"], books("p", [10, 10, 0, 0]));
        assert_eq!(world.http("POST", "/stock", Some("k"), body).await, (200, first));
        let other = body.replace("-11", "-10");
        assert_eq!(world.http("POST", "/stock", Some("k"), &other).await.0, 422);
        assert_eq!(world.get("/stock/p").await, books("p", [10, 10, 0, 0]));
        assert_eq!(world.get("/stock/q").await, books("q", [3, 3, 0, 0]));
        // The key of a bulk request and that of a single one are two keys.
        let (status, _) = world.http("POST", "/stock/p/adjust", Some("k"), r#"{"delta":1}"#).await;
        assert_eq!(status, 200);
    });
}

#[test]
fn a_path_has_one_spelling_for_its_key() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime).await;
        for path in ["/stock/p/adjust", "/stock/%70/adjust"] {
            let (status, body) = world.http("POST", path, Some("\"k\""), r#"{"delta":5}"#).await;
            assert_eq!((status, body), (200, books("p", [5, 5, 0, 0])), "{path}");
        }
        let (status, _) = world.http("POST", "/stock/q/adjust", Some("k"), r#"{"delta":5}"#).await;
        assert_eq!(status, 422, "another product is another request");
    });
}
