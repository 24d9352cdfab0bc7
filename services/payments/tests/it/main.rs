//! The whole service on the broker and store models and the simulated gateway, in virtual time.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use chassis::{Ports, Settings};
use contract::{
    Event, FinalStatus, Line, OrderCancelled, OrderConfirmed, OrderCreated, OrderId, PaymentMode,
    ProductId, Profile, StockReserved, Stream,
};
use envelope::{CorrelationId, Envelope, EventId, Seal};
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{EventLog, Record, Runtime};
use serde_json::{Value, json};
use shakedown_payments::Config;
use shakedown_payments::gateway::Gateway;
use shakedown_payments::rules::{Answer, Operation};
use shakedown_payments::simulated::{Account, Passage, SimulatedGateway};
use tower::ServiceExt;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    gateway: SimulatedGateway,
    router: Router,
    events: u32,
}

/// Carries the first call of each key out, and never answers it.
struct Hangs(SimulatedGateway);

#[async_trait]
impl Gateway for Hangs {
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        let first = !self.0.ledger().calls.contains_key(key);
        let answer = self.0.answer(key, operation, order, amount);
        if first { pending().await } else { answer }
    }
}

impl World {
    async fn start(runtime: VirtualTime, profile: Profile, hangs: bool) -> World {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let queue = QueueServer::new(Default::default(), clock.clone());
        let store = StoreServer::new(Default::default(), clock.clone());
        let ports = Ports {
            log: Arc::new(log.client("payments", clock.clone())),
            queue: Arc::new(queue.client("payments", clock.clone())),
            store: Arc::new(store.client("payments", clock.clone())),
            runtime: clock,
        };
        let gateway = SimulatedGateway::default();
        let port: Arc<dyn Gateway> =
            if hangs { Arc::new(Hangs(gateway.clone())) } else { Arc::new(gateway.clone()) };
        let settings = Settings::new("payments", "payments-0");
        let config = Config { profile, ..Config::new(port) };
        let service = shakedown_payments::run(ports, settings, config).await.unwrap();
        World { runtime, log, gateway, router: service.router, events: 0 }
    }

    async fn http(&self, path: &str) -> (u16, Value) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn state(&self, order: &str) -> Value {
        self.http(&format!("/payments/{order}")).await.1["state"].clone()
    }

    /// Has the others say these, and gives Payments a minute.
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
        self.runtime.sleep(Duration::from_secs(60)).await;
        assert_eq!(self.log.with(|log| log.lag("payments", Stream::OrdersEvents.name())), 0);
    }

    /// What Payments told of an order: event id, cause, payload.
    fn told(&self, order: &str) -> Vec<(EventId, Option<EventId>, Value)> {
        self.log.with(|log| {
            let records = log.records(Stream::PaymentsEvents.name());
            let records = records.filter(|fetched| &*fetched.record.key == order);
            let envelopes = records.map(|f| Envelope::read(&f.record.payload).unwrap());
            let told = envelopes.map(|e| {
                (e.event_id, e.causation_id, serde_json::from_str(e.payload.get()).unwrap())
            });
            told.collect()
        })
    }

    fn account(&self, order: &str) -> Account {
        let accounts = self.gateway.ledger().accounts;
        accounts.get(&id(order)).cloned().unwrap_or_default()
    }
}

fn id(name: &str) -> OrderId {
    OrderId::parse(name).unwrap()
}

fn created(name: &str, amount: Option<i64>, mode: Option<PaymentMode>) -> Event {
    let product_id = ProductId::parse("p").unwrap();
    Event::OrderCreated(OrderCreated {
        order_id: id(name),
        cart_id: None,
        lines: vec![Line { product_id, qty: 1, unit_price: amount }],
        amount,
        currency: None,
        payment_mode: mode,
    })
}

fn reserved(name: &str) -> Event {
    Event::StockReserved(StockReserved { order_id: id(name) })
}

fn confirmed(name: &str) -> Event {
    let final_status = FinalStatus::Confirmed;
    Event::OrderConfirmed(OrderConfirmed { order_id: id(name), final_status })
}

fn cancelled(name: &str) -> Event {
    let final_status = FinalStatus::Cancelled;
    Event::OrderCancelled(OrderCancelled { order_id: id(name), final_status, reason: None })
}

fn success(order: &str) -> Value {
    json!({ "orderId": order, "status": "success" })
}

#[test]
fn money_is_held_then_taken_or_given_back() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Default, false).await;
        let late = Some(PaymentMode::AfterStock);
        let orders = [
            created("o1", Some(100), None),
            created("o2", Some(200), None),
            created("o3", Some(300), late),
            created("o4", Some(400), Some(PaymentMode::None)),
            created("o5", None, None),
            created("o6", Some(0), None),
        ];
        world.say(&orders).await;
        assert_eq!((world.account("o1").held(), world.account("o2").held()), (100, 200));
        assert_eq!(world.account("o3"), Account::default());
        let derived = contract::derived_id(&id("o1"), "PaymentProcessed");
        let cause = Some(EventId::parse("e-1").unwrap());
        assert_eq!(world.told("o1"), vec![(derived, cause, success("o1"))]);
        world.say(&[reserved("o3"), confirmed("o1"), cancelled("o2"), confirmed("o6")]).await;
        world.say(&[confirmed("o3"), confirmed("o1"), created("o1", Some(100), None)]).await;

        for (order, state) in [
            ("o1", "captured"),
            ("o2", "voided"),
            ("o3", "captured"),
            ("o4", "not_required"),
            ("o5", "declined"),
            ("o6", "captured"),
        ] {
            assert_eq!(world.state(order).await, state, "{order}");
        }
        let account = world.account("o1");
        assert_eq!((account.charges, account.captured, account.held()), (1, 100, 0));
        let account = world.account("o2");
        assert_eq!((account.charges, account.voided, account.held()), (1, 200, 0));
        assert_eq!(world.account("o3").captured, 300);
        assert_eq!(world.account("o6"), Account::default());
        assert_eq!(world.told("o4"), vec![]);
        let reason = json!({
            "orderId": "o5", "status": "failure", "reason": "price_unavailable"
        });
        assert_eq!(world.told("o5")[0].2, reason);
        assert!(["o1", "o2", "o3", "o5", "o6"].iter().all(|order| world.told(order).len() == 1));
    });
}

#[test]
fn a_hanging_gateway_is_asked_again_with_the_same_key() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Default, true).await;
        world.say(&[created("o1", Some(100), None), cancelled("o1")]).await;
        assert_eq!(world.state("o1").await, "voided");
        let account = world.account("o1");
        assert_eq!((account.charges, account.voids, account.held()), (1, 1, 0));
        let calls = world.gateway.ledger().calls;
        assert_eq!((calls["o1:authorise"], calls["o1:void"]), (2, 2));
        assert_eq!(world.told("o1").len(), 1);
    });
}

#[test]
fn nothing_is_voided_before_the_authorisation_is_definite() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Default, false).await;
        world.gateway.steer(|s| s.passes = Some(Arc::new(|_| Passage::LostAfter)));
        world.say(&[created("o1", Some(100), None), cancelled("o1")]).await;
        let calls = world.gateway.ledger().calls;
        assert!(calls["o1:authorise"] > 3 && !calls.contains_key("o1:void"), "{calls:?}");
        assert_eq!(world.state("o1").await, "authorising");
        assert_eq!(world.told("o1"), vec![]);
        world.gateway.steer(|s| s.passes = None);
        world.say(&[]).await;
        assert_eq!((world.state("o1").await, world.account("o1").held()), (json!("voided"), 0));
    });
}

#[test]
fn a_refused_capture_is_an_open_item() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Default, false).await;
        world.gateway.steer(|s| s.declined.extend([(id("o1"), Operation::Capture)]));
        world.say(&[created("o1", Some(100), None), confirmed("o1")]).await;
        let (status, payment) = world.http("/payments/o1").await;
        assert_eq!((status, &payment["state"]), (200, &json!("capture_failed")));
        assert_eq!((&payment["openItem"], &payment["refused"]), (&json!(true), &json!("declined")));
        assert_eq!(world.told("o1")[0].2, success("o1"));
    });
}

#[test]
fn profile_catalog_charges_once_and_never_gives_back() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Catalog, false).await;
        let events = [created("o1", None, None), cancelled("o1"), created("o1", None, None)];
        world.say(&events).await;
        assert_eq!(world.state("o1").await, "captured");
        let account = world.account("o1");
        assert_eq!((account.charges, account.captures, account.voids), (1, 1, 0));
        let told = world.told("o1");
        assert_eq!((told.len(), &told[0].1, &told[0].2), (1, &None, &success("o1")));
    });
}

#[test]
fn payments_are_listed_newest_first() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut world = World::start(runtime, Profile::Default, false).await;
        for order in ["o1", "o2", "o3"] {
            world.say(&[created(order, Some(100), None)]).await;
        }
        let mut path = "/payments?limit=2".to_owned();
        let mut seen = Vec::new();
        loop {
            let (status, page) = world.http(&path).await;
            assert_eq!(status, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            seen.extend(items.iter().map(|item| item["orderId"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/payments?limit=2&cursor={next}");
        }
        assert_eq!(seen, ["o3", "o2", "o1"]);
        for (path, status) in [
            ("/payments/none", 404),
            ("/payments/%FF", 422),
            ("/payments?cursor=x", 422),
            ("/payments?limit=0", 422),
        ] {
            assert_eq!(world.http(path).await.0, status, "{path}");
        }
    });
}
