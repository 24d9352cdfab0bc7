//! Ports that fail as a test says: each call asks first what shall become of it. Never invents an
//! outcome that the ports do not allow.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    Consumer, Delivered, Deliveries, EventLog, Fault, JobQueue, Offsets, Op, Outcome, Partition,
    Polled, QueueSpec, Record, Reply, Runtime, Store, Table, TopicSpec, Tx,
};

/// What is about to happen.
#[derive(Debug)]
pub enum Call<'a> {
    Begin(&'a [Op]),
    Read(&'a [Op]),
    Commit(&'a [Op]),
    Send(&'a Record),
    Offsets,
    Ends,
    Depth,
    Seek,
    Settle,
}

/// What shall become of it.
#[derive(Debug, Clone)]
pub enum Act {
    Pass,
    /// It fails without effect.
    Fail(Fault),
    /// It takes effect, and its reply is lost.
    Lost,
    /// It takes so long, then passes.
    Slow(Duration),
    /// It never returns, and has no effect.
    Hang,
}

/// A retry without a story.
pub fn retry() -> Act {
    Act::Fail(Fault::retry("a test says so"))
}

type Rule = Box<dyn FnMut(&Call) -> Act + Send>;

/// The faults of one node; clones share them.
#[derive(Clone)]
pub struct Faults {
    rule: Arc<Mutex<Rule>>,
    runtime: Arc<dyn Runtime>,
}

impl Faults {
    pub fn none(runtime: Arc<dyn Runtime>) -> Self {
        Faults { rule: Arc::new(Mutex::new(Box::new(|_| Act::Pass))), runtime }
    }

    /// From here on this decides.
    pub fn set(&self, rule: impl FnMut(&Call) -> Act + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// From here on nothing fails.
    pub fn clear(&self) {
        self.set(|_| Act::Pass);
    }

    /// Before the effect: whether the reply will be lost.
    async fn enter(&self, call: Call<'_>) -> Outcome<bool> {
        let act = (self.rule.lock().unwrap())(&call);
        match act {
            Act::Pass => Ok(false),
            Act::Fail(fault) => Err(fault),
            Act::Lost => Ok(true),
            Act::Slow(duration) => {
                self.runtime.sleep(duration).await;
                Ok(false)
            }
            Act::Hang => pending().await,
        }
    }
}

fn reply<T>(lost: bool, outcome: Outcome<T>) -> Outcome<T> {
    if lost && outcome.is_ok() { Err(Fault::unknown("the reply was lost")) } else { outcome }
}

/// A port with faults.
pub struct Faulty<P> {
    pub faults: Faults,
    pub inner: P,
}

impl<P> Faulty<P> {
    fn around<Q>(&self, inner: Q) -> Faulty<Q> {
        Faulty { faults: self.faults.clone(), inner }
    }

    /// Sends what may be sent, through the port's own way of sending.
    async fn send<F: Future<Output = Vec<Outcome<()>>>>(
        &self,
        batch: Vec<Record>,
        send: impl Fn(Vec<Record>) -> F,
    ) -> Vec<Outcome<()>> {
        let mut outcomes = Vec::new();
        for record in batch {
            outcomes.push(match self.faults.enter(Call::Send(&record)).await {
                Ok(lost) => reply(lost, send(vec![record]).await.remove(0)),
                Err(fault) => Err(fault),
            });
        }
        outcomes
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.inner.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        self.faults.enter(Call::Begin(&ops)).await?;
        let (tx, replies) = self.inner.begin(ops).await?;
        Ok((Box::new(self.around(tx)), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.faults.enter(Call::Read(&ops)).await?;
        self.inner.read(ops).await
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let lost = self.faults.enter(Call::Commit(&ops)).await?;
        reply(lost, self.inner.transact(ops).await)
    }
}

#[async_trait]
impl Tx for Faulty<Box<dyn Tx>> {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.inner.run(ops).await
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let lost = self.faults.enter(Call::Commit(&ops)).await?;
        reply(lost, self.inner.commit(ops).await)
    }
}

#[async_trait]
impl<L: EventLog> EventLog for Faulty<L> {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.inner.declare(topics).await
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.send(batch, |batch| self.inner.produce(batch)).await
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        Ok(Box::new(self.around(self.inner.subscribe(group, topics).await?)))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.faults.enter(Call::Ends).await?;
        self.inner.watermarks(topic).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        self.inner.committed(group, topics).await
    }
}

#[async_trait]
impl Consumer for Faulty<Box<dyn Consumer>> {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        self.inner.poll(max).await
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let lost = self.faults.enter(Call::Offsets).await?;
        reply(lost, self.inner.commit(next).await)
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.inner.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.faults.enter(Call::Seek).await?;
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
impl<Q: JobQueue> JobQueue for Faulty<Q> {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.inner.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.send(batch, |batch| self.inner.publish(batch)).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        Ok(Box::new(self.around(self.inner.consume(queue, prefetch).await?)))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.faults.enter(Call::Depth).await?;
        self.inner.depth(queue).await
    }
}

#[async_trait]
impl Deliveries for Faulty<Box<dyn Deliveries>> {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        self.inner.next(max).await
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        let lost = self.faults.enter(Call::Settle).await?;
        reply(lost, self.inner.settle(acked, rejected).await)
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.inner.requeue(tags).await
    }
}
