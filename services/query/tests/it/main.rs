//! The whole read model on the broker and store models, in virtual time: events in, lists out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use chassis::{Document, Ports, Service, Settings, Stop, document};
use contract::{
    CategoryId, Event, FinalStatus, Line, OrderCancelled, OrderCreated, OrderId, PaymentProcessed,
    PaymentStatus, ProductId, ProductUpserted, StockFailed, Streams,
};
use envelope::{CorrelationId, EventId, Seal};
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{EventLog, Record, Row, Runtime};
use serde_json::{Value, json};
use shakedown_query::rows::{ORDERS, OrderRow, PRODUCTS};
use shakedown_query::{Config, run};
use tower::ServiceExt;

mod following;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    store: StoreServer,
    router: Router,
    stop: Stop,
}

impl World {
    async fn start(runtime: VirtualTime) -> World {
        World::instances(runtime, Config::default(), 1).await.remove(0)
    }

    /// So many instances on one database and one log.
    async fn instances(runtime: VirtualTime, config: Config, count: u32) -> Vec<World> {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let queue = QueueServer::new(Default::default(), clock.clone());
        let store = StoreServer::new(Default::default(), clock.clone());
        let mut worlds = Vec::new();
        for instance in (0..count).map(|n| format!("query-{n}")) {
            let ports = Ports {
                log: Arc::new(log.client(&instance, clock.clone())),
                queue: Arc::new(queue.client(&instance, clock.clone())),
                store: Arc::new(store.client(&instance, clock.clone())),
                runtime: clock.clone(),
            };
            let settings = Settings::new("query", instance);
            let Service { router, stop, .. } = run(ports, settings, config.clone()).await.unwrap();
            let (runtime, log, store) = (runtime.clone(), log.clone(), store.clone());
            worlds.push(World { runtime, log, store, router, stop });
        }
        worlds
    }

    /// Has the other services say this, and waits until it is projected.
    async fn say(&self, event: &Event) {
        self.say_all(std::slice::from_ref(event)).await;
    }

    async fn say_all(&self, events: &[Event]) {
        let client = self.log.client("others", Arc::new(self.runtime.clone()));
        let record = |event: &Event| {
            let id = envelope::fingerprint(format!("{event:?}").as_bytes());
            let seal = Seal {
                event_id: EventId::parse(id).unwrap(),
                occurred_at: envelope::parse_time("2026-01-02T03:04:05Z").unwrap(),
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
        self.runtime.sleep(Duration::from_secs(5)).await;
    }

    async fn get(&self, path: &str) -> Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The content of all rows, without how often each was put and in which order they changed.
    fn rows(&self) -> Vec<String> {
        self.store.with(|db| {
            let order = |row: &Row| OrderRow { changed: 0, ..document(row).unwrap() };
            let orders = db.rows(&ORDERS).map(|(key, row)| (key, order(row)));
            let orders = orders.map(|(key, row)| format!("{key} {:?} {row:?}", row.index()));
            let products = db.rows(&PRODUCTS);
            let products = products.map(|(key, row)| format!("{key} {:?} {}", row.index, row.body));
            orders.chain(products).collect()
        })
    }
}

fn order() -> OrderId {
    OrderId::parse("o1").unwrap()
}

/// An order that fails in two ways at once, and a product that changes its price.
fn story() -> Vec<Event> {
    let product_id = ProductId::parse("p1").unwrap();
    let product = |version: u64| {
        Event::ProductUpserted(ProductUpserted {
            product_id: product_id.clone(),
            name: "tea".to_owned(),
            category_id: CategoryId::parse("c1").unwrap(),
            price: Some(100 * version as i64),
            updated_at: envelope::parse_time("2026-01-02T03:04:05Z").unwrap(),
            product_version: Some(version),
        })
    };
    let (status, reason) = (PaymentStatus::Failure, Some("declined".to_owned()));
    let short = Some("insufficient_stock".to_owned());
    vec![
        product(1),
        product(2),
        Event::OrderCreated(OrderCreated {
            order_id: order(),
            cart_id: None,
            lines: vec![Line { product_id: product_id.clone(), qty: 1, unit_price: Some(200) }],
            amount: Some(200),
            currency: Some("EUR".to_owned()),
            payment_mode: None,
        }),
        Event::StockFailed(StockFailed { order_id: order(), reason: short.clone() }),
        Event::PaymentProcessed(PaymentProcessed { order_id: order(), status, reason }),
        Event::OrderCancelled(OrderCancelled {
            order_id: order(),
            final_status: FinalStatus::Cancelled,
            reason: short,
        }),
    ]
}

/// What the rows are after the events in this order.
fn told(events: Vec<Event>) -> Vec<String> {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime).await;
        for event in &events {
            world.say(event).await;
        }
        world.rows()
    })
}

#[test]
fn the_story_is_shown_as_it_goes_on() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let world = World::start(runtime).await;
        let mut statuses = Vec::new();
        for event in story() {
            world.say(&event).await;
            let listed = world.get("/orders").await["items"][0]["status"].clone();
            statuses.push(listed);
        }
        let (none, failing) = (Value::Null, json!("failing"));
        let expected =
            [none.clone(), none, json!("placed"), failing.clone(), failing, json!("cancelled")];
        assert_eq!(statuses, expected);
        assert_eq!(world.get("/orders?status=failing").await["items"], json!([]));
        assert_eq!(world.get("/orders?status=cancelled").await["items"][0]["orderId"], "o1");
        assert_eq!(world.get("/products/p1").await["price"], 200);
    });
}

#[test]
fn backwards_and_twice_the_rows_are_the_same() {
    let forwards = told(story());
    assert_eq!(forwards.len(), 2);
    let mut backwards = story();
    backwards.reverse();
    assert_eq!(told(backwards.clone()), forwards);
    let twice = [backwards, story()].concat();
    assert_eq!(told(twice), forwards);
}
