//! A world of one database, two brokers and any number of nodes. Never fails by itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use envelope::Envelope;
use model::log::{Assignor, LogServer};
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::{
    EventLog, JobQueue, Key, Op, OutboxRow, Partition, QueueSpec, Record, Row, Runtime, Store,
    Task, TopicSpec,
};
use serde_json::{Value, json};
use shakedown_chassis::{
    App, Commands, DEAD_LETTERS, DeadLetter, Document, INBOX, InboxRow, Lease, Marker, PARKED,
    Ports, Position, Settings, Stop, document,
};

use crate::counter::{COUNTERS, Counter, Counters, Fact};
use crate::faults::{Faults, Faulty};

pub const GROUP: &str = "counters";

pub struct World {
    pub runtime: VirtualTime,
    pub log: LogServer,
    pub queue: QueueServer,
    pub store: StoreServer,
}

/// The runtime of a node with a wrong wall clock.
struct Skewed {
    runtime: VirtualTime,
    by: TimeDelta,
}

#[async_trait]
impl Runtime for Skewed {
    fn now(&self) -> DateTime<Utc> {
        self.runtime.now() + self.by
    }

    fn elapsed(&self) -> Duration {
        self.runtime.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        self.runtime.sleep(duration).await;
    }

    fn spawn(&self, name: &'static str, task: Task) {
        self.runtime.spawn(name, task);
    }

    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64 {
        self.runtime.choose(site, entity, below)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        self.runtime.block(work);
    }
}

/// A node of the service.
pub struct Node {
    pub app: App<Counters>,
    pub commands: Commands<Fact>,
    pub faults: Faults,
}

/// Runs a test in a world of its own, with topics `in`, `other` (one partition each) and `out`, and
/// queues `jobs` and `mail`.
pub fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<World>) -> F) {
    run_with(Assignor::Range, test);
}

/// As [`run`], with groups that rebalance like this.
pub fn run_with<F: Future<Output = ()> + Send + 'static>(
    assignor: Assignor,
    test: impl FnOnce(Arc<World>) -> F,
) {
    let runtime = VirtualTime::default();
    let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let log = LogServer::new(model::log::Settings { assignor, ..Default::default() });
    let queue = QueueServer::new(Default::default(), clock.clone());
    let store = StoreServer::new(Default::default(), clock.clone());
    let world = Arc::new(World { runtime: runtime.clone(), log, queue, store });
    let test = test(world.clone());
    runtime.run(async move {
        let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1 };
        world.admin().declare(&[spec("in"), spec("other"), spec("out")]).await.unwrap();
        let queues = world.queue.client("admin", Arc::new(world.runtime.clone()));
        for name in ["jobs", "mail"] {
            let spec = QueueSpec { name: name.into(), delivery_limit: 20, dead_letters: None };
            queues.declare(&spec).await.unwrap();
        }
        test.await;
    });
}

impl World {
    fn admin(&self) -> model::log::LogClient {
        self.log.client("admin", Arc::new(self.runtime.clone()))
    }

    /// Starts a node's batch loop alone.
    pub async fn bare(&self, name: &str, change: impl FnOnce(&mut Settings)) -> Node {
        self.started(name, Arc::new(self.runtime.clone()), change).await
    }

    /// As [`World::bare`], with a wall clock that is wrong by so much.
    pub async fn skewed(
        &self,
        name: &str,
        by: TimeDelta,
        change: impl FnOnce(&mut Settings),
    ) -> Node {
        self.started(name, Arc::new(Skewed { runtime: self.runtime.clone(), by }), change).await
    }

    async fn started(
        &self,
        name: &str,
        runtime: Arc<dyn Runtime>,
        change: impl FnOnce(&mut Settings),
    ) -> Node {
        let faults = Faults::none(runtime.clone());
        let log = self.log.client(name, runtime.clone());
        let queue = self.queue.client(name, runtime.clone());
        let store = self.store.client(name, runtime.clone());
        let ports = Ports {
            log: Arc::new(Faulty { faults: faults.clone(), inner: log }),
            queue: Arc::new(Faulty { faults: faults.clone(), inner: queue }),
            store: Arc::new(Faulty { faults: faults.clone(), inner: store }),
            runtime,
        };
        let mut settings = Settings::new(GROUP, name);
        change(&mut settings);
        let app = App::start(ports, settings, Counters).await.unwrap();
        Node { commands: app.commands(), app, faults }
    }

    /// Starts a node that consumes both topics.
    pub async fn consumer(&self, name: &str) -> Node {
        let node = self.bare(name, |_| ()).await;
        node.app.consume(vec!["in".into(), "other".into()]);
        node
    }

    pub async fn sleep(&self, seconds: u64) {
        self.runtime.sleep(Duration::from_secs(seconds)).await;
    }

    /// Appends to a topic.
    pub async fn produce(&self, batch: Vec<Record>) {
        for outcome in self.admin().produce(batch).await {
            outcome.unwrap();
        }
    }

    /// Publishes to a queue.
    pub async fn publish(&self, batch: Vec<Record>) {
        let client = self.queue.client("admin", Arc::new(self.runtime.clone()));
        for outcome in client.publish(batch).await {
            outcome.unwrap();
        }
    }

    /// Changes the database behind everybody's back.
    pub async fn transact(&self, ops: Vec<Op>) {
        let client = self.store.client("admin", Arc::new(self.runtime.clone()));
        client.transact(ops).await.unwrap();
    }

    /// A row of a service's.
    pub fn row<D: Document>(&self, key: &str) -> Option<D> {
        self.store.with(|db| db.row(D::TABLE, key).and_then(document))
    }

    pub fn counter(&self, key: &str) -> Counter {
        self.row(key).unwrap_or_default()
    }

    pub fn trail(&self, key: &str) -> Vec<String> {
        self.counter(key).trail
    }

    pub fn counters(&self) -> usize {
        self.store.with(|db| db.rows(&COUNTERS).count())
    }

    pub fn inbox(&self, id: &str) -> Option<InboxRow> {
        self.row(id)
    }

    pub fn inbox_rows(&self) -> Vec<String> {
        self.store.with(|db| db.rows(&INBOX).map(|(key, _)| key.to_string()).collect())
    }

    /// State and code of each letter, by its key.
    pub fn letters(&self) -> Vec<String> {
        let line = |row: &Row| {
            let letter = document::<DeadLetter>(row).unwrap();
            format!("{} {} {}", letter.id, letter.state.name(), letter.code)
        };
        self.store.with(|db| db.rows(&DEAD_LETTERS).map(|(_, row)| line(row)).collect())
    }

    pub fn letter(&self, id: &str) -> DeadLetter {
        self.row(id).unwrap()
    }

    /// The keys that wait, with the ids of their letters.
    pub fn markers(&self) -> Vec<(String, Vec<String>)> {
        let ids = |row: &Row| {
            let marker = document::<Marker>(row).unwrap();
            marker.letters.into_iter().map(|waiting| waiting.id).collect()
        };
        self.store
            .with(|db| db.rows(&PARKED).map(|(key, row)| (key.to_string(), ids(row))).collect())
    }

    /// Code of each dead letter, by its key.
    pub fn dead(&self) -> Vec<(String, String)> {
        let code = |row: &Row| document::<DeadLetter>(row).unwrap().code;
        self.store.with(|db| {
            db.rows(&DEAD_LETTERS).map(|(key, row)| (key.to_string(), code(row))).collect()
        })
    }

    /// Epoch and next offset in the database.
    pub fn position(&self, topic: &str) -> (u64, Option<i64>) {
        let position = self.row::<Position>(&format!("{topic}|0"));
        position.map_or((0, None), |p| (p.epoch, p.next))
    }

    /// The group's committed offset.
    pub fn offset(&self, topic: &str) -> Option<i64> {
        self.log.with(|log| log.committed_at(GROUP, &partition(topic)))
    }

    /// The instance that a shard's lease names.
    pub fn lease_holder(&self, shard: u16) -> String {
        let lease: Option<Lease> = self.row(&format!("outbox/{shard}"));
        lease.map(|lease| lease.owner).unwrap_or_default()
    }

    pub fn outbox(&self) -> Vec<OutboxRow> {
        self.store.with(|db| db.outbox().cloned().collect())
    }

    /// The event ids on a topic, in order.
    pub fn events(&self, topic: &str) -> Vec<String> {
        self.log.with(|log| {
            let read = |f: &ports::Fetched| Envelope::read(&f.record.payload).unwrap().event_id;
            log.records(topic).map(|fetched| read(fetched).to_string()).collect()
        })
    }

    pub async fn depth(&self, queue: &str) -> u64 {
        self.queue.client("admin", Arc::new(self.runtime.clone())).depth(queue).await.unwrap()
    }
}

impl Node {
    /// Its HTTP.
    pub fn router(self) -> Router {
        self.app.finish(Router::new()).router
    }

    pub fn stop(self) -> Stop {
        self.app.finish(Router::new()).stop
    }
}

pub fn partition(topic: &str) -> Partition {
    Partition { topic: topic.into(), index: 0 }
}

pub fn envelope(id: &str, event_type: &str, payload: &Value) -> Envelope {
    let text = json!({
        "eventId": id,
        "eventType": event_type,
        "eventVersion": 1,
        "occurredAt": "2026-01-02T03:04:05.678Z",
        "correlationId": "c",
        "payload": payload,
    });
    Envelope::read(text.to_string().as_bytes()).unwrap()
}

pub fn record(to: &str, id: &str, event_type: &str, payload: Value) -> Record {
    let key: Key = payload["key"].as_str().unwrap_or(id).into();
    let payload = envelope(id, event_type, &payload).to_bytes();
    Record { to: to.into(), key, headers: Vec::new(), payload }
}

/// An event that belongs to its key: it stands in the key's sequence.
pub fn sequenced(to: &str, id: &str, event_type: &str, key: &str, by: i64) -> Record {
    let record = record(to, id, event_type, json!({ "key": key, "by": by }));
    let text = String::from_utf8(record.payload.to_vec()).unwrap();
    let own = format!("\"correlationId\":\"{key}\"");
    Record { payload: text.replace("\"correlationId\":\"c\"", &own).into(), ..record }
}

/// An event that adds to a counter.
pub fn add(to: &str, id: &str, key: &str, by: i64) -> Record {
    record(to, id, "Add", json!({ "key": key, "by": by }))
}

/// A record that is no envelope.
pub fn garbage(to: &str) -> Record {
    let payload = Bytes::from_static(b"\xff\x00 no envelope");
    Record { to: to.into(), key: "k".into(), headers: Vec::new(), payload }
}
