//! Harmless edits of the ledger, as somebody would make them after a failure was stored: each is made
//! before every commit, publish, consume and settle, or beside them. Never changes what the ledger does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    Consumer, Delivered, Deliveries, EventLog, JobQueue, Offsets, Outcome, Partition, Polled,
    QueueSpec, Record, TopicSpec,
};
use sim_engine::{Cluster, Leave, NodePorts, Plan, Settings, System, Verdict};
use sim_ledger::{ENTRIES, LedgerSystem, Workload};

/// What somebody adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    Nothing,
    /// A line in the trace.
    LogLine,
    /// A pause of a millisecond.
    Await,
    /// A task that wakes 14 times a second.
    Timer,
    /// A node of its own that reads the entries too.
    Node,
    /// A record to another topic: a call that the ledger makes nowhere else.
    Produce,
    /// A message to another queue: one more call of a site that the ledger uses.
    Publish,
    /// A call of something else outside: one more call of a site that the ledger uses.
    Outside,
}

impl Edit {
    pub const ALL: [Edit; 8] = [
        Edit::Nothing,
        Edit::LogLine,
        Edit::Await,
        Edit::Timer,
        Edit::Node,
        Edit::Produce,
        Edit::Publish,
        Edit::Outside,
    ];
}

/// The ledger with an edit.
#[derive(Debug, Clone, Copy)]
pub struct Edited(pub Edit);

impl System for Edited {
    type Workload = Workload;

    fn plan(&self, seed: u64) -> Plan<Workload> {
        LedgerSystem { ack_first: true }.plan(seed)
    }

    fn settings(&self, workload: &Workload) -> Settings {
        LedgerSystem::default().settings(workload)
    }

    async fn run(&self, workload: Workload, cluster: Cluster) -> Verdict {
        let teller = cluster.queue().client("teller", cluster.server_runtime());
        let audit = QueueSpec { name: AUDIT.into(), delivery_limit: 1_000, dead_letters: None };
        teller.declare(&audit).await.expect("a new server has no other queue");
        let log = cluster.log().client("teller", cluster.server_runtime());
        let audit = TopicSpec { name: AUDIT.into(), partitions: 1 };
        log.declare(&[audit]).await.expect("a new server has no other topic");
        let Edited(edit) = *self;
        if edit == Edit::Node {
            cluster.add("auditor", "none", Arc::new(|ports| Box::pin(auditor(ports))));
        }
        let edited = Arc::new(move |ports| edited(edit, ports));
        LedgerSystem::default().run_edited(workload, cluster, edited).await
    }
}

const AUDIT: &str = "audit";

async fn auditor(ports: NodePorts) -> Outcome<Leave> {
    let mut consumer = ports.log.subscribe(AUDIT, &[ENTRIES.into()]).await?;
    let reading = async move {
        loop {
            if let Ok(Polled::Revoked(partitions)) = consumer.poll(8).await {
                consumer.release(partitions).await;
            }
        }
    };
    ports.runtime.spawn("auditor", Box::pin(reading));
    let leave: Leave = Box::new(|| Box::pin(async {}));
    Ok(leave)
}

fn edited(edit: Edit, ports: NodePorts) -> NodePorts {
    if edit == Edit::Timer {
        let timed = ports.clone();
        let ticks = async move {
            loop {
                timed.runtime.sleep(Duration::from_millis(70)).await;
                timed.note("edit", "tick".to_owned());
            }
        };
        ports.runtime.spawn("edit", Box::pin(ticks));
    }
    let added = Added { edit, ports: ports.clone() };
    let mut edited = ports;
    edited.log = Arc::new(added.clone());
    edited.queue = Arc::new(added);
    edited
}

/// The ports with the edit in front.
#[derive(Clone)]
struct Added {
    edit: Edit,
    ports: NodePorts,
}

impl Added {
    async fn make(&self) {
        let record = || Record {
            to: AUDIT.into(),
            key: "k".into(),
            headers: Vec::new(),
            payload: Vec::new().into(),
        };
        match self.edit {
            Edit::Nothing | Edit::Timer | Edit::Node => {}
            Edit::LogLine => self.ports.note("edit", "here".to_owned()),
            Edit::Await => self.ports.runtime.sleep(Duration::from_millis(1)).await,
            Edit::Produce => drop(self.ports.log.produce(vec![record()]).await),
            Edit::Publish => drop(self.ports.queue.publish(vec![record()]).await),
            Edit::Outside => drop(self.ports.outside(AUDIT.to_owned(), || ()).await),
        }
    }
}

#[async_trait]
impl EventLog for Added {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.ports.log.declare(topics).await
    }
    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.ports.log.produce(batch).await
    }
    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let inner = self.ports.log.subscribe(group, topics).await?;
        Ok(Box::new(AddedTo { added: self.clone(), inner }))
    }
    async fn watermarks(
        &self,
        topic: &str,
    ) -> Outcome<std::collections::BTreeMap<Partition, (i64, i64)>> {
        self.ports.log.watermarks(topic).await
    }
    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        self.ports.log.committed(group, topics).await
    }
}

#[async_trait]
impl JobQueue for Added {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.ports.queue.declare(queue).await
    }
    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.make().await;
        self.ports.queue.publish(batch).await
    }
    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        self.make().await;
        let inner = self.ports.queue.consume(queue, prefetch).await?;
        Ok(Box::new(AddedTo { added: self.clone(), inner }))
    }
    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.ports.queue.depth(queue).await
    }
}

struct AddedTo<T> {
    added: Added,
    inner: T,
}

#[async_trait]
impl Consumer for AddedTo<Box<dyn Consumer>> {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        self.inner.poll(max).await
    }
    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        self.added.make().await;
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
impl Deliveries for AddedTo<Box<dyn Deliveries>> {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        self.inner.next(max).await
    }
    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        self.added.make().await;
        self.inner.settle(acked, rejected).await
    }
    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.inner.requeue(tags).await
    }
}
