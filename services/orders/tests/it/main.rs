//! The whole service on the broker and store models, in virtual time: HTTP in, events in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chassis::{Ports, Settings};
use contract::{
    CategoryId, Event, OrderId, PaymentProcessed, PaymentStatus, ProductId, ProductUpserted,
    Profile, StockFailed, StockReserved,
};
use envelope::{CorrelationId, Envelope, EventId, Seal};
use futures_util::future::join_all;
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{EventLog, Record, Runtime};
use serde_json::{Value, json};
use shakedown_orders::Config;
use tower::ServiceExt;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    router: Router,
    events: u32,
}

struct Answer {
    status: u16,
    body: Value,
    location: Option<String>,
    retry_after: Option<String>,
}

impl World {
    async fn start(runtime: VirtualTime, config: Config) -> World {
        World::instances(runtime, config, 1).await.remove(0)
    }

    /// So many instances on one database and one log.
    async fn instances(runtime: VirtualTime, config: Config, count: u32) -> Vec<World> {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let queue = QueueServer::new(Default::default(), clock.clone());
        let store = StoreServer::new(Default::default(), clock.clone());
        let mut worlds = Vec::new();
        for instance in (0..count).map(|n| format!("orders-{n}")) {
            let ports = Ports {
                log: Arc::new(log.client(&instance, clock.clone())),
                queue: Arc::new(queue.client(&instance, clock.clone())),
                store: Arc::new(store.client(&instance, clock.clone())),
                runtime: clock.clone(),
            };
            let settings = Settings::new("orders", instance);
            let service = shakedown_orders::run(ports, settings, config.clone()).await.unwrap();
            let (runtime, log, router) = (runtime.clone(), log.clone(), service.router);
            worlds.push(World { runtime, log, router, events: 0 });
        }
        worlds
    }

    async fn http(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let text = |name| head.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let (location, retry_after) = (text("location"), text("retry-after"));
        let body = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
        Answer { status, body, location, retry_after }
    }

    async fn get(&self, path: &str) -> Value {
        self.http("GET", path, None, "").await.body
    }

    /// Has others say these, and waits until they are handled.
    async fn say(&mut self, events: &[Event]) {
        let client = self.log.client("others", Arc::new(self.runtime.clone()));
        let records = events.iter().map(|event| {
            self.events += 1;
            let seal = Seal {
                event_id: EventId::parse(format!("e-{}", self.events)).unwrap(),
                occurred_at: self.runtime.now(),
                correlation_id: CorrelationId::parse(event.key()).unwrap(),
                causation_id: None,
            };
            let payload = event.seal(seal).to_bytes();
            let to = event.stream().name().into();
            Record { to, key: event.key(), headers: Vec::new(), payload }
        });
        for outcome in client.produce(records.collect()).await {
            outcome.unwrap();
        }
        self.runtime.sleep(Duration::from_secs(5)).await;
        for event in events {
            let lag = self.log.with(|log| log.lag("orders", event.stream().name()));
            assert_eq!(lag, 0, "{event:?}");
        }
    }

    /// Tea costs 350.
    async fn tea(&mut self) {
        self.say(&[Event::ProductUpserted(ProductUpserted {
            product_id: ProductId::parse("tea").unwrap(),
            name: "Tea".to_owned(),
            category_id: CategoryId::parse("drinks").unwrap(),
            price: Some(350),
            updated_at: self.runtime.now(),
            product_version: Some(1),
        })])
        .await;
    }

    /// An order of two teas.
    async fn place(&self, mode: &str) -> OrderId {
        let lines = json!([{ "productId": "tea", "qty": 2 }]);
        let body = json!({ "lines": lines, "paymentMode": mode }).to_string();
        let answer = self.http("POST", "/orders", None, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        OrderId::parse(answer.body["orderId"].as_str().unwrap()).unwrap()
    }

    /// What Orders told of an order: types and causes.
    async fn told(&self, order: &OrderId) -> Vec<(String, Option<String>)> {
        self.runtime.sleep(Duration::from_secs(2)).await;
        self.log.with(|log| {
            let records = log.records("orders.events");
            let records = records.filter(|fetched| *fetched.record.key == *order.as_str());
            let envelopes = records.map(|f| Envelope::read(&f.record.payload).unwrap());
            envelopes.map(|e| (e.event_type, e.causation_id.map(|id| id.to_string()))).collect()
        })
    }

    async fn kinds(&self, order: &OrderId) -> Vec<String> {
        self.told(order).await.into_iter().map(|(kind, _)| kind).collect()
    }

    async fn status(&self, order: &OrderId) -> Value {
        self.get(&format!("/orders/{order}")).await["status"].clone()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(
    config: Config,
    story: impl FnOnce(World) -> F + Send + 'static,
) {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move { story(World::start(runtime, config).await).await });
}

fn reserved(order_id: &OrderId) -> Event {
    Event::StockReserved(StockReserved { order_id: order_id.clone() })
}

fn stock_failed(order_id: &OrderId) -> Event {
    let reason = Some("insufficient_stock".to_owned());
    Event::StockFailed(StockFailed { order_id: order_id.clone(), reason })
}

fn paid(order_id: &OrderId, status: PaymentStatus) -> Event {
    Event::PaymentProcessed(PaymentProcessed { order_id: order_id.clone(), status, reason: None })
}

#[test]
fn an_order_waits_for_its_price_and_ends_well() {
    run(Config::default(), |mut world| async move {
        let body = r#"{"lines":[{"productId":"tea","qty":2}]}"#;
        let early = world.http("POST", "/orders", Some("k"), body).await;
        assert_eq!((early.status, early.retry_after.as_deref()), (422, Some("1")));
        assert_eq!(early.body["type"], "urn:shakedown:problem:price-unavailable");

        world.tea().await;
        let first = world.http("POST", "/orders", Some("k"), body).await;
        assert_eq!(first.status, 201, "the same key may succeed after a refusal in passing");
        let order = OrderId::parse(first.body["orderId"].as_str().unwrap()).unwrap();
        assert_eq!(first.location, Some(format!("orders/{order}")));
        assert_eq!(first.body["amount"], 700);
        let again = world.http("POST", "/orders", Some("k"), body).await;
        assert_eq!((again.status, again.body, again.location), (201, first.body, first.location));
        let other = world.http("POST", "/orders", Some("k"), &body.replace('2', "3")).await;
        assert_eq!(other.body["type"], "urn:shakedown:problem:idempotency-key-reused");

        world.say(&[paid(&order, PaymentStatus::Success)]).await;
        assert_eq!(world.status(&order).await, "pending");
        world.say(&[reserved(&order), reserved(&order)]).await;
        assert_eq!(world.status(&order).await, "confirmed");
        let told = world.told(&order).await;
        let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["OrderCreated", "OrderConfirmed"]);
        assert_eq!(told[1].1.as_deref(), Some("e-3"), "the first that told of the reservation");
        let cancel = world.http("POST", &format!("/orders/{order}/cancel"), None, "").await;
        assert_eq!(cancel.status, 409);
        // Long after: the timer has nothing to say.
        world.runtime.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(world.kinds(&order).await, ["OrderCreated", "OrderConfirmed"]);
    });
}

#[test]
fn an_order_is_cancelled_by_stock_payment_customer_or_deadline() {
    let deadline = Duration::from_secs(60);
    run(Config { deadline, ..Config::default() }, move |mut world| async move {
        world.tea().await;
        let (short, poor) = (world.place("parallel").await, world.place("after_stock").await);
        let (unwanted, slow) = (world.place("none").await, world.place("parallel").await);
        world.say(&[stock_failed(&short), paid(&poor, PaymentStatus::Failure)]).await;
        let path = format!("/orders/{unwanted}/cancel");
        assert_eq!(world.http("POST", &path, Some("c"), "").await.status, 202);
        assert_eq!(world.http("POST", &path, Some("c"), "").await.status, 202);
        assert_eq!(world.http("POST", &path, None, "{}").await.status, 200);
        world.say(&[reserved(&slow)]).await;
        assert_eq!(world.status(&slow).await, "pending");
        world.runtime.sleep(deadline).await;
        let ends = [
            (&short, "insufficient_stock"),
            (&poor, "payment_failed"),
            (&unwanted, "customer_request"),
            (&slow, "deadline"),
        ];
        for (order, reason) in ends {
            assert_eq!(world.kinds(order).await, ["OrderCreated", "OrderCancelled"]);
            let shown = world.get(&format!("/orders/{order}")).await;
            assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &json!(reason)));
        }
        world.say(&[paid(&slow, PaymentStatus::Success)]).await;
        let shown = world.get(&format!("/orders/{slow}")).await;
        assert_eq!((&shown["payment"], &shown["late"]["payment"]), (&json!("ok"), &json!(1)));
        assert_eq!(world.kinds(&slow).await, ["OrderCreated", "OrderCancelled"]);
    });
}

#[test]
fn facts_of_unknown_orders_are_listed_as_stubs() {
    run(Config::default(), |mut world| async move {
        let strangers: Vec<OrderId> =
            ["s|1", "s|2"].iter().map(|id| OrderId::parse(id).unwrap()).collect();
        world.say(&[reserved(&strangers[0])]).await;
        world.say(&[paid(&strangers[1], PaymentStatus::Success)]).await;
        let first = world.get("/stubs?limit=1").await;
        assert_eq!(first["items"][0]["orderId"], "s|1");
        let next = first["next"].as_str().unwrap().replace('|', "%7C");
        let rest = world.get(&format!("/stubs?limit=1&cursor={next}")).await;
        assert_eq!((&rest["items"][0]["orderId"], &rest["next"]), (&json!("s|2"), &Value::Null));
        assert_eq!(world.http("GET", "/orders/s%7C1", None, "").await.status, 404);
        for bad in ["limit=0", "limit=201", "cursor=x", "cursor=a%7Cb", "what=1"] {
            assert_eq!(world.http("GET", &format!("/stubs?{bad}"), None, "").await.status, 422);
        }
        world.runtime.sleep(Duration::from_secs(3_600)).await;
        assert!(world.kinds(&strangers[0]).await.is_empty());
    });
}

#[test]
fn requests_are_strict() {
    let config = Config { key_required: true, ..Config::default() };
    run(config, |mut world| async move {
        world.tea().await;
        let line = r#"{"productId":"tea","qty":1}"#;
        let many = vec![line; 101].join(",");
        let bad = [
            (400, String::new()),
            (422, "{}".to_owned()),
            (422, r#"{"lines":[]}"#.to_owned()),
            (422, format!(r#"{{"lines":[{many}]}}"#)),
            (422, format!(r#"{{"lines":[{line}],"coupon":1}}"#)),
            (422, format!(r#"{{"lines":[{line}],"paymentMode":"barter"}}"#)),
            (422, r#"{"lines":[{"productId":"tea","qty":0}]}"#.to_owned()),
            (422, r#"{"lines":[{"productId":"tea","qty":-1}]}"#.to_owned()),
            (422, r#"{"lines":[{"productId":"tea","qty":1000001}]}"#.to_owned()),
            (422, r#"{"lines":[{"productId":"a b","qty":1}]}"#.to_owned()),
        ];
        for (status, body) in bad {
            assert_eq!(world.http("POST", "/orders", Some("k"), &body).await.status, status);
        }
        let full = format!(r#"{{"lines":[{}]}}"#, vec![line; 100].join(","));
        let unkeyed = world.http("POST", "/orders", None, &full).await;
        assert_eq!(unkeyed.body["type"], "urn:shakedown:problem:idempotency-key-missing");
        let answer = world.http("POST", "/orders", Some("k"), &full).await;
        assert_eq!((answer.status, &answer.body["amount"]), (201, &json!(35_000)));
        assert_eq!(world.http("GET", "/orders/none", None, "").await.status, 404);
        assert_eq!(world.http("GET", "/orders/%FF", None, "").await.status, 422);
        let cancel = world.http("POST", "/orders/none/cancel", Some("c1"), "").await;
        assert_eq!(cancel.status, 404);
        let body = r#"{"why":"no"}"#;
        let cancel = world.http("POST", "/orders/none/cancel", Some("c2"), body).await;
        assert_eq!(cancel.status, 422);
    });
}

#[test]
fn profile_catalog_needs_no_prices_and_knows_no_modes() {
    let config = Config { profile: Profile::Catalog, ..Config::default() };
    run(config, |mut world| async move {
        let body = r#"{"lines":[{"productId":"tea","qty":2}],"paymentMode":"none"}"#;
        assert_eq!(world.http("POST", "/orders", None, body).await.status, 422);
        let body = r#"{"lines":[{"productId":"tea","qty":2}]}"#;
        let answer = world.http("POST", "/orders", None, body).await;
        assert_eq!((answer.status, answer.body.get("amount")), (201, None));
        let order = OrderId::parse(answer.body["orderId"].as_str().unwrap()).unwrap();
        world.say(&[reserved(&order)]).await;
        assert_eq!(world.status(&order).await, "pending");
        world.say(&[paid(&order, PaymentStatus::Success)]).await;
        let told = [("OrderCreated".to_owned(), None), ("OrderConfirmed".to_owned(), None)];
        assert_eq!(world.told(&order).await, told);
    });
}

/// saga-rules 17: 100 parallel requests with one key are one order, and all get the same reply.
fn parallel_twins(instances: u32) {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut worlds = World::instances(runtime, Config::default(), instances).await;
        worlds[0].tea().await;
        let twins = (0..100).map(|n| {
            let world = &worlds[n % worlds.len()];
            let body = r#"{"lines":[{"productId":"tea","qty":2}]}"#;
            async move { world.http("POST", "/orders", Some("k"), body).await }
        });
        let answers = join_all(twins).await;
        let first = (answers[0].status, &answers[0].body, &answers[0].location);
        assert_eq!(first.0, 201, "{}", first.1);
        for answer in &answers {
            assert_eq!((answer.status, &answer.body, &answer.location), first);
        }
        worlds[0].runtime.sleep(Duration::from_secs(5)).await;
        let orders = worlds[0].log.with(|log| log.records("orders.events").count());
        assert_eq!(orders, 1, "one order was created");
    });
}

#[test]
fn a_hundred_twins_are_one_order_on_one_instance() {
    parallel_twins(1);
}

#[test]
fn a_hundred_twins_are_one_order_on_two_instances() {
    parallel_twins(2);
}
