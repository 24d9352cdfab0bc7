//! All seven services on the broker and store models, in virtual time: one shop for many cases. What
//! always has to hold is checked here, after each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use chassis::{DEAD_LETTERS, DeadLetter, Ports, document};
use contract::{CATALOG, Profile, Service, Stream, Streams};
use http_body_util::BodyExt;
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use notifications_worker::memory::MemorySink;
use payments::simulated::{SimulatedGateway, Steering};
use ports::{EventLog, JobQueue, Partition, Record, Runtime, Table};
use serde_json::{Value, json};
use shakedown::config::Config;
use shakedown::doctor::own_tables;
use shakedown::shop::{Outside, Setup, run_all};
use tower::ServiceExt;

/// Partitions of every topic, as the services declare them.
const PARTITIONS: i32 = 6;
/// Cases that share a shop: what a shop has seen makes it slower, and there are many cases.
pub const CASES_A_SHOP: usize = 60;
/// Longest that the shop may take, in its own time, until nothing is left to do.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// In the rows of an order that ended well, of Orders and of Query.
const CONFIRMED: &str = "confirmed";

/// A case's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub allow: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A header or body as it is sent.
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(String, Vec<u8>)],
    pub body: &'a [u8],
}

/// The running shop.
pub struct Shop {
    runtime: VirtualTime,
    log: LogServer,
    queue: QueueServer,
    stores: BTreeMap<Service, StoreServer>,
    router: Router,
    placed: Vec<String>,
}

/// Rows and records, by what and where, with their versions: equal means that nothing was done.
pub type Books = BTreeMap<(String, String), i64>;

impl Shop {
    /// Opens it, with tea to sell.
    pub async fn open(runtime: VirtualTime) -> Shop {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        // A broker that was told to take more than its default: then 2 MB reach the readers.
        let settings =
            model::log::Settings { record_bytes_max: 4_000_000, ..model::log::Settings::default() };
        let log = LogServer::new(settings);
        let queue = QueueServer::new(Default::default(), clock.clone());
        let (mut all, mut stores) = (BTreeMap::new(), BTreeMap::new());
        for service in Service::ALL {
            let store = StoreServer::new(Default::default(), clock.clone());
            let name = service.name();
            let ports = Ports {
                log: Arc::new(log.client(name, clock.clone())),
                queue: Arc::new(queue.client(name, clock.clone())),
                store: Arc::new(store.client(name, clock.clone())),
                runtime: clock.clone(),
            };
            all.insert(service, ports);
            stores.insert(service, store);
        }
        let gateway = Arc::new(SimulatedGateway::new(Steering::default()));
        let (mails, books) = (Arc::new(MemorySink::default()), Router::new());
        let outside = Outside { gateway, mails, books };
        let (instance, streams) = ("one".to_owned(), Streams::default());
        let setup = Setup { instance, streams, config: Config::defaults() };
        let shop = run_all(&all, &outside, &setup).await.expect("every service starts");
        let router = shop.router;
        let mut shop = Shop { runtime, log, queue, stores, router, placed: Vec::new() };
        shop.stock_up().await;
        shop
    }

    async fn stock_up(&mut self) {
        let tea = json!({ "name": "Tea", "categoryId": "drinks", "price": 350 });
        let answer = self.write("PUT", "/catalog/products/tea", "tea", &tea).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let stock = json!({ "delta": 1_000_000 });
        let answer = self.write("POST", "/inventory/stock/tea/adjust", "stock", &stock).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.quiet("opening").await;
    }

    /// Sends a request as it is.
    pub async fn ask(&self, ask: Ask<'_>) -> Answer {
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        for (name, value) in ask.headers {
            request = request.header(name, HeaderValue::from_bytes(value).expect("a header"));
        }
        let request = request.body(Body::from(ask.body.to_vec())).expect("a request");
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let said = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let content_type = said(header::CONTENT_TYPE).unwrap_or("").to_owned();
        let allow = said(header::ALLOW).unwrap_or("").to_owned();
        let status = parts.status.as_u16();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Answer { status, content_type, allow, body }
    }

    /// Sends a good command.
    pub async fn write(&self, method: &str, path: &str, key: &str, body: &Value) -> Answer {
        let headers = [
            ("content-type".to_owned(), b"application/json".to_vec()),
            ("idempotency-key".to_owned(), key.as_bytes().to_vec()),
        ];
        let body = body.to_string();
        self.ask(Ask { method, path, headers: &headers, body: body.as_bytes() }).await
    }

    /// A customer orders a tea. The order has to be final when all is quiet again.
    pub async fn order(&mut self) -> String {
        let body = json!({ "lines": [{ "productId": "tea", "qty": 1 }] });
        let key = format!("order-{}", self.placed.len());
        let answer = self.write("POST", "/orders", &key, &body).await;
        assert_eq!(answer.status, 201, "a good order: {answer:?}");
        let id = answer.json()["orderId"].as_str().expect("an order's id").to_owned();
        self.placed.push(id.clone());
        id
    }

    /// Waits until nothing is left to do, and checks that nobody's order was lost: each that was ever
    /// placed is confirmed for Orders and for Query.
    pub async fn quiet(&self, after: &str) {
        let begun = self.runtime.elapsed();
        loop {
            let left = self.left();
            if left.is_empty() {
                break;
            }
            let waited = self.runtime.elapsed() - begun;
            assert!(waited < QUIET_WITHIN, "after {after}: {left:?} after {waited:?}");
            self.runtime.sleep(Duration::from_millis(50)).await;
        }
        for (service, table) in
            [(Service::Orders, &orders::rows::SAGAS), (Service::Query, &query::rows::ORDERS)]
        {
            self.stores[&service].with(|db| {
                for order in &self.placed {
                    let row = db.row(table, order).map_or("", |row| row.body.as_str());
                    let end = row.contains(CONFIRMED);
                    assert!(end, "after {after}: {} has lost order {order}: {row}", service.name());
                }
            });
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        self.log.with(|log| {
            for row in CATALOG.iter().filter(|row| row.stream.is_topic()) {
                for consumer in row.consumers_in(Profile::Default) {
                    let lag = log.lag(consumer.name(), row.stream.name());
                    if lag > 0 {
                        left.push(format!(
                            "{} lags {lag} on {}",
                            consumer.name(),
                            row.stream.name()
                        ));
                    }
                }
            }
        });
        let queue = Stream::NotificationsJobs.name();
        let jobs = self.queue.with(|q, _| q.ready(queue).count() + q.unacked_of(queue).count());
        if jobs > 0 {
            left.push(format!("{jobs} jobs"));
        }
        let due: [(Service, &Table, usize); 3] = [
            (Service::Orders, &orders::rows::SAGAS, orders::rows::DEADLINE),
            (Service::Payments, &payments::rows::PAYMENTS, payments::rows::DUE),
            (
                Service::NotificationsWorker,
                &notifications_worker::rows::MAILS,
                notifications_worker::rows::DUE,
            ),
        ];
        for service in Service::ALL {
            self.stores[&service].with(|db| {
                if db.outbox().next().is_some() {
                    left.push(format!("the outbox of {}", service.name()));
                }
                for (_, table, column) in due.iter().filter(|(owner, ..)| *owner == service) {
                    let open = db
                        .rows(table)
                        .filter(|(_, row)| row.index.get(*column).is_some_and(Option::is_some));
                    let open = open.count();
                    if open > 0 {
                        left.push(format!("{open} open rows of {}", table.name));
                    }
                }
            });
        }
        left
    }

    /// Puts bytes on a topic or the queue. Where on the topic.
    pub async fn send(&self, stream: Stream, key: &str, payload: Vec<u8>) -> Option<Partition> {
        let clock: Arc<dyn Runtime> = Arc::new(self.runtime.clone());
        let to: Arc<str> = stream.name().into();
        let payload = bytes::Bytes::from(payload);
        let record = Record { to: to.clone(), key: key.into(), headers: Vec::new(), payload };
        let outcomes = match stream.is_topic() {
            true => self.log.client("somebody", clock).produce(vec![record.clone()]).await,
            false => self.queue.client("somebody", clock).publish(vec![record.clone()]).await,
        };
        outcomes.into_iter().for_each(|outcome| outcome.expect("the broker takes it"));
        self.log.with(|log| {
            let there = log.records(&to).filter(|f| f.record.payload == record.payload).last();
            there.map(|fetched| fetched.partition.clone())
        })
    }

    /// A key of this sort that goes to the partition.
    pub fn key_in(partition: &Partition, of: &str) -> String {
        let mut keys = (0..).map(|n| format!("{of}-{n}"));
        let fits =
            |key: &String| model::log::partition_of(key.as_bytes(), PARTITIONS) == partition.index;
        keys.find(fits).expect("there are keys for every partition")
    }

    /// All dead letters, by service and key.
    pub fn dead(&self) -> BTreeMap<(Service, String), DeadLetter> {
        let mut dead = BTreeMap::new();
        for (service, store) in &self.stores {
            store.with(|db| {
                let rows = db.rows(&DEAD_LETTERS);
                let letters = rows.filter_map(|(key, row)| Some((key.to_string(), document(row)?)));
                dead.extend(letters.map(|(key, letter)| ((*service, key), letter)));
            });
        }
        dead
    }

    /// The services that have rows about an order or product.
    pub fn known_to(&self, about: &str) -> Vec<Service> {
        let known = |service: &Service| {
            self.stores[service].with(|db| {
                let mut keys =
                    own_tables(*service).iter().flat_map(|t| db.rows(t)).map(|(key, _)| key);
                keys.any(|key| key.split('|').next() == Some(about))
            })
        };
        Service::ALL.into_iter().filter(known).collect()
    }

    /// Every row of every service, but for the chassis' own, and every record.
    pub fn books(&self) -> Books {
        let mut books = Books::new();
        for (service, store) in &self.stores {
            store.with(|db| {
                for table in own_tables(*service) {
                    let rows = db.rows(table).filter(|(_, row)| row.version > 0);
                    let at =
                        |key: &str| (format!("{} {}", service.name(), table.name), key.to_owned());
                    books.extend(rows.map(|(key, row)| (at(key), row.version)));
                }
            });
        }
        self.log.with(|log| {
            for stream in Stream::ALL.into_iter().filter(|stream| stream.is_topic()) {
                let count = log.records(stream.name()).count() as i64;
                books.insert(("records".to_owned(), stream.name().to_owned()), count);
            }
        });
        books
    }
}
