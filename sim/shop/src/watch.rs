//! Looks over the services' shoulders: under which lease each sending begins, how long a shard is
//! without a holder, and which offsets are committed. Never changes what happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chassis::{LEASES, Lease, POSITIONS, Position, document, lease_key, position_key};
use contract::Service;
use model::store::StoreServer;
use ports::{
    Consumer, Deliveries, EventLog, JobQueue, Offsets, Outcome, Partition, Polled, QueueSpec,
    Record, TopicSpec,
};
use sim_engine::Cluster;

use crate::nodes::{SHARDS, World};

/// How the relays sent, and what consumers committed.
#[derive(Clone, Default)]
pub struct Sends(Arc<Mutex<Seen>>);

/// What was seen of sendings and offset commits.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Rows that were sent, repeats among them.
    pub count: u64,
    /// How often each row was sent.
    pub rows: BTreeMap<(Service, i64), u64>,
    /// Jobs that were published, in that order.
    pub jobs: Vec<Record>,
    /// Sendings that began without a valid lease of their instance.
    pub unleased: Vec<String>,
    /// Offsets that were to be committed ahead of their position in the database.
    pub ahead: Vec<String>,
}

impl Sends {
    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, row: Option<(Service, i64)>, about: Option<String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        if let Some(row) = row {
            *seen.rows.entry(row).or_default() += 1;
        }
        seen.unleased.extend(about);
    }

    fn add_jobs(&self, batch: &[Record]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.jobs.extend(batch.iter().cloned());
    }

    fn add_ahead(&self, about: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ahead.push(about);
    }
}

/// A port of a node, watched.
pub struct Watched<P: ?Sized> {
    inner: Arc<P>,
    sends: Sends,
    cluster: Cluster,
    database: StoreServer,
    service: Service,
    node: String,
}

impl<P: ?Sized> Watched<P> {
    /// Watches what this node of the service sends.
    pub fn new(inner: Arc<P>, world: &World, service: Service, node: &str) -> Self {
        let (sends, cluster) = (world.sends.clone(), world.cluster.clone());
        let database = world.database(service).clone();
        Watched { inner, sends, cluster, database, service, node: node.to_owned() }
    }

    /// Each sending begins under a valid lease. With at most one valid lease a shard that is: no two
    /// instances have a row in flight under valid leases.
    fn look(&self, batch: &[Record]) {
        let now_ms = self.cluster.now().timestamp_millis();
        self.database.with(|db| {
            for record in batch {
                let sent = |row: &&ports::OutboxRow| row.outgoing.payload == record.payload;
                let ours = |lease: &Lease| lease.owner == self.node && lease.until_ms > now_ms;
                let Some(row) = db.outbox().find(sent) else {
                    // Whoever sent it before may have deleted it meanwhile, its lease run out.
                    let mut leases = db.rows(&LEASES).filter_map(|(_, row)| document(row));
                    let about = (!leases.any(|lease| ours(&lease))).then(|| {
                        format!(
                            "{} sends {}, which is gone, without a lease",
                            self.node, record.key
                        )
                    });
                    self.sends.add(None, about);
                    continue;
                };
                let shard = row.outgoing.shard;
                let lease: Option<Lease> = db.row(&LEASES, &lease_key(shard)).and_then(document);
                let about = (!lease.as_ref().is_some_and(ours)).then(|| {
                    format!("{} sends {} of shard {shard} under {lease:?}", self.node, record.key)
                });
                self.sends.add(Some((self.service, row.id)), about);
            }
        });
    }
}

#[async_trait]
impl EventLog for Watched<dyn EventLog> {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.inner.declare(topics).await
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.look(&batch);
        self.inner.produce(batch).await
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let inner = self.inner.subscribe(group, topics).await?;
        let (sends, database) = (self.sends.clone(), self.database.clone());
        Ok(Box::new(WatchedConsumer { inner, sends, database, node: self.node.clone() }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.inner.watermarks(topic).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        self.inner.committed(group, topics).await
    }
}

/// A node's membership, watched.
struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    sends: Sends,
    database: StoreServer,
    node: String,
}

impl WatchedConsumer {
    /// What is committed to the log was handled: the database's position is there already.
    fn look(&self, next: &Offsets) {
        self.database.with(|db| {
            for (partition, offset) in next {
                let position: Option<Position> =
                    db.row(&POSITIONS, &position_key(partition)).and_then(document);
                let done = position.and_then(|position| position.next).unwrap_or(0);
                if *offset > done {
                    let node = &self.node;
                    self.sends.add_ahead(format!("{node} commits {partition}@{offset} at {done}"));
                }
            }
        });
    }
}

#[async_trait]
impl Consumer for WatchedConsumer {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        self.inner.poll(max).await
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        self.look(next);
        self.inner.commit(next).await
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.inner.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.inner.seek(next).await
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        self.inner.pause(partitions, paused);
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

#[async_trait]
impl JobQueue for Watched<dyn JobQueue> {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.inner.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.look(&batch);
        self.sends.add_jobs(&batch);
        self.inner.publish(batch).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        self.inner.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.inner.depth(queue).await
    }
}

/// A stretch of time in which nobody held a shard; to 100 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose outbox.
    pub service: Service,
    /// Which shard.
    pub shard: u16,
    /// From the beginning of the world.
    pub from: Duration,
    /// So long.
    pub to: Duration,
}

/// A service's leases, as they were last read.
#[derive(Debug, Clone, Default)]
struct Leases {
    of_shards: Vec<Option<Lease>>,
    /// All are held until then.
    until_ms: i64,
}

impl Leases {
    /// Reads them, if a commit after this one wrote any; whether one did.
    fn read(&mut self, world: &World, service: Service, since: u64) -> bool {
        world.database(service).with(|db| {
            if db.rows_since(&LEASES, since).next().is_none() {
                return false;
            }
            let lease = |shard| db.row(&LEASES, &lease_key(shard)).and_then(document);
            self.of_shards = (0..SHARDS).map(lease).collect();
            let until_ms = |lease: &Option<Lease>| lease.as_ref().map_or(0, |it| it.until_ms);
            self.until_ms = self.of_shards.iter().map(until_ms).min().unwrap_or(0);
            true
        })
    }
}

/// Who held which shard, looked at again and again.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    /// Each service's leases.
    leases: BTreeMap<Service, Leases>,
    since: BTreeMap<(Service, u16), Duration>,
    owners: BTreeMap<(Service, u16), String>,
    /// Stretches without a holder, between two holders or up to the end.
    pub gaps: Vec<Gap>,
    /// How often a shard went from one instance to another.
    pub handovers: u64,
}

impl Holders {
    /// Looks once; at the leases of those that committed since so many commits. Services that never had a
    /// lease have no relay.
    pub fn look(&mut self, world: &World, changed: &[(Service, u64)]) {
        let now = world.cluster.elapsed();
        let now_ms = world.cluster.now().timestamp_millis();
        for service in Service::ALL {
            let leases = self.leases.entry(service).or_default();
            let since = changed.iter().find(|(it, _)| *it == service);
            let news = since.is_some_and(|(_, since)| leases.read(world, service, *since));
            if !news && leases.until_ms > now_ms {
                continue;
            }
            for (shard, lease) in (0..SHARDS).zip(&leases.of_shards) {
                let Some(lease) = lease else { continue };
                let at = (service, shard);
                if lease.until_ms <= now_ms {
                    self.since.entry(at).or_insert(now);
                    continue;
                }
                close(&mut self.since, &mut self.gaps, at, now);
                let before = self.owners.get(&at);
                if before != Some(&lease.owner) {
                    self.handovers += u64::from(before.is_some());
                    self.owners.insert(at, lease.owner.clone());
                }
            }
        }
    }

    /// Ends the stretches that are open.
    pub fn end(&mut self, now: Duration) {
        let open: Vec<(Service, u16)> = self.since.keys().copied().collect();
        open.into_iter().for_each(|at| close(&mut self.since, &mut self.gaps, at, now));
    }
}

fn close(
    since: &mut BTreeMap<(Service, u16), Duration>,
    gaps: &mut Vec<Gap>,
    (service, shard): (Service, u16),
    to: Duration,
) {
    if let Some(from) = since.remove(&(service, shard)) {
        gaps.push(Gap { service, shard, from, to });
    }
}
