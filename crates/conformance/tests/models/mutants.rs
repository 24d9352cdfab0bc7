//! Backends that break one statement each: the case must differ there, else it could not fail
//! anywhere. Each is a model behind a wrapper that lies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all, join4};
use model::store::Settings;
use ports::{
    Consumer, Delivered, Deliveries, EventLog, Fault, JobQueue, Offsets, Op, Outcome, Partition,
    Polled, QueueSpec, Record, Reply, Runtime, Store, Table, TopicSpec, Tx,
};
use shakedown_conformance::log::{Life, LogBackend, before_the_kill};
use shakedown_conformance::queue::QueueBackend;
use shakedown_conformance::store::{Loss, StoreBackend, Writers};
use shakedown_conformance::{Case, NotApplicable, Observed, Verdict, run};

use crate::{log, queue, store};

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLie {
    /// Another hash chooses the partition (K1).
    OtherHash,
    /// A producer of the same name is known again, and what it sends again left out (K9).
    Dedup,
    /// A commit is of the last offset, not of the next (K16).
    LastNotNext,
    /// A close is silent (K24).
    SilentClose,
    /// A kill says goodbye (K24).
    PoliteKill,
}

/// Topic, key and payload of what was produced.
type Produced = Arc<Mutex<BTreeSet<(Arc<str>, Arc<str>, Vec<u8>)>>>;

pub struct LyingLog {
    truth: log::InProcess,
    lie: LogLie,
    produced: Produced,
}

impl LyingLog {
    pub fn new(truth: log::InProcess, lie: LogLie) -> Self {
        LyingLog { truth, lie, produced: Arc::default() }
    }
}

#[async_trait]
impl LogBackend for LyingLog {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn session_timeout(&self) -> Duration {
        self.truth.session_timeout()
    }

    fn heartbeat(&self) -> Duration {
        self.truth.heartbeat()
    }

    fn keeps_time(&self) -> Observed {
        Ok(())
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        self.truth.topic(partitions).await
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        let truth = self.truth.client(name).await;
        Arc::new(Client { truth, lie: self.lie, produced: self.produced.clone() })
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        if self.lie != LogLie::PoliteKill {
            return self.truth.kill_a_member(life).await;
        }
        let at = self.runtime().elapsed();
        let client = self.truth.client("doomed").await;
        before_the_kill(&*client, life).await.close().await;
        Ok(at)
    }
}

struct Client {
    truth: Arc<dyn EventLog>,
    lie: LogLie,
    produced: Produced,
}

#[async_trait]
impl EventLog for Client {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.truth.declare(topics).await
    }

    async fn produce(&self, mut batch: Vec<Record>) -> Vec<Outcome<()>> {
        let count = batch.len();
        match self.lie {
            LogLie::OtherHash => {
                for record in &mut batch {
                    record.key = format!("~{}", record.key).into();
                }
            }
            LogLie::Dedup => {
                let mut produced = self.produced.lock().unwrap();
                batch.retain(|record| {
                    let id = (record.to.clone(), record.key.clone(), record.payload.to_vec());
                    produced.insert(id)
                });
            }
            LogLie::LastNotNext | LogLie::SilentClose | LogLie::PoliteKill => {}
        }
        self.truth.produce(batch).await;
        vec![Ok(()); count]
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let truth = self.truth.subscribe(group, topics).await?;
        Ok(Box::new(Member { truth, lie: self.lie }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.truth.watermarks(topic).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        let mut offsets = self.truth.committed(group, topics).await?;
        if self.lie == LogLie::LastNotNext {
            offsets.values_mut().for_each(|offset| *offset -= 1);
        }
        Ok(offsets)
    }
}

struct Member {
    truth: Box<dyn Consumer>,
    lie: LogLie,
}

#[async_trait]
impl Consumer for Member {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        let mut polled = self.truth.poll(max).await?;
        if let (LogLie::OtherHash, Polled::Records(records)) = (self.lie, &mut polled) {
            for fetched in records {
                fetched.record.key = fetched.record.key[1..].into();
            }
        }
        Ok(polled)
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let mut next = next.clone();
        if self.lie == LogLie::LastNotNext {
            next.values_mut().for_each(|offset| *offset += 1);
        }
        self.truth.commit(&next).await
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.truth.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.truth.seek(next).await
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        self.truth.pause(partitions, paused);
    }

    async fn close(self: Box<Self>) {
        if self.lie != LogLie::SilentClose {
            self.truth.close().await;
        }
    }
}

/// What is wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueLie {
    /// What has no answer is said to be enqueued (R3).
    SaysDone,
    /// What has no answer is said to be nowhere (R3).
    SaysNowhere,
    /// What is published again is left out (R3).
    Dedup,
    /// Nothing says that it was delivered before (R8).
    NeverRedelivered,
    /// A connection that is lost is not noticed (R8).
    CutUnnoticed,
    /// One more than the prefetch is delivered (R12).
    OneMore,
}

/// Queue and id of what was published.
type Published = Arc<Mutex<BTreeSet<(Arc<str>, Arc<str>)>>>;

pub struct LyingQueue {
    truth: queue::InProcess,
    lie: QueueLie,
    published: Published,
}

impl LyingQueue {
    pub fn new(truth: queue::InProcess, lie: QueueLie) -> Self {
        LyingQueue { truth, lie, published: Arc::default() }
    }

    fn note(&self, record: &Record) {
        self.published.lock().unwrap().insert((record.to.clone(), record.key.clone()));
    }
}

#[async_trait]
impl QueueBackend for LyingQueue {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn queue(&self) -> Arc<str> {
        self.truth.queue()
    }

    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        let truth = self.truth.client(name).await;
        Arc::new(Publisher { truth, lie: self.lie, published: self.published.clone() })
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        batch.iter().take(arriving).for_each(|record| self.note(record));
        let mut outcomes = self.truth.publish_and_lose_the_link(batch, arriving).await?;
        match self.lie {
            QueueLie::SaysDone => outcomes.fill(Ok(())),
            QueueLie::SaysNowhere => outcomes.fill(Err(Fault::retry("nowhere"))),
            _ => {}
        }
        Ok(outcomes)
    }

    async fn cut(&self, client: &str) -> Result<(), NotApplicable> {
        if self.lie == QueueLie::CutUnnoticed { Ok(()) } else { self.truth.cut(client).await }
    }
}

struct Publisher {
    truth: Arc<dyn JobQueue>,
    lie: QueueLie,
    published: Published,
}

#[async_trait]
impl JobQueue for Publisher {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.truth.declare(queue).await
    }

    async fn publish(&self, mut batch: Vec<Record>) -> Vec<Outcome<()>> {
        let count = batch.len();
        if self.lie == QueueLie::Dedup {
            let mut published = self.published.lock().unwrap();
            batch.retain(|record| published.insert((record.to.clone(), record.key.clone())));
        }
        self.truth.publish(batch).await;
        vec![Ok(()); count]
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let more = u16::from(self.lie == QueueLie::OneMore);
        let truth = self.truth.consume(queue, prefetch + more).await?;
        Ok(Box::new(Channel { truth, lie: self.lie }))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.truth.depth(queue).await
    }
}

struct Channel {
    truth: Box<dyn Deliveries>,
    lie: QueueLie,
}

#[async_trait]
impl Deliveries for Channel {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        let mut delivered = self.truth.next(max).await?;
        if let (QueueLie::NeverRedelivered, Delivered::Batch(batch)) = (self.lie, &mut delivered) {
            batch.iter_mut().for_each(|delivery| delivery.redelivered = false);
        }
        Ok(delivered)
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        self.truth.settle(acked, rejected).await
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.truth.requeue(tags).await
    }
}

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreLie {
    /// Nothing: D2 agrees, so that it is the others' lies that it sees.
    Nothing,
    /// A commit without an answer is said to have had no effect (D2).
    SaysNotDone,
    /// A commit whose reply is lost is rolled back (D2).
    LosesBoth,
    /// A commit of a failed transaction is confirmed (D9).
    SaysDone,
}

/// Loses replies by forgetting them, and requests by dropping the call.
pub struct LyingStore {
    pub truth: store::InProcess,
    pub lie: StoreLie,
}

#[async_trait]
impl StoreBackend for LyingStore {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn writers(&self) -> Writers {
        self.truth.writers()
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(LyingClient { truth: self.truth.store(), lie: self.lie })
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        Ok(self.truth.store())
    }

    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        if loss == Loss::Reply && self.lie != StoreLie::LosesBoth {
            call.await?;
        }
        match self.lie {
            StoreLie::SaysNotDone => Err(Fault::retry("not done")),
            StoreLie::Nothing | StoreLie::LosesBoth | StoreLie::SaysDone => {
                Err(Fault::unknown("no answer"))
            }
        }
    }
}

struct LyingClient {
    truth: Arc<dyn Store>,
    lie: StoreLie,
}

#[async_trait]
impl Store for LyingClient {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.truth.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let (truth, replies) = self.truth.begin(ops).await?;
        Ok((Box::new(LyingTx { truth, lie: self.lie }), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.truth.read(ops).await
    }
}

struct LyingTx {
    truth: Box<dyn Tx>,
    lie: StoreLie,
}

#[async_trait]
impl Tx for LyingTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.truth.run(ops).await
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let outcome = self.truth.commit(ops).await;
        if self.lie == StoreLie::SaysDone { Ok(()) } else { outcome }
    }
}

/// Runs the cases with this number: what is wrong, if none of them sees the lie.
async fn unseen<B: ?Sized>(
    lie: String,
    id: &str,
    mut cases: Vec<Case<B>>,
    backend: &B,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Option<String> {
    cases.retain(|case| case.id == id);
    let column = run(&cases, &lie, backend, runtime, limit).await;
    let differs = |verdict: &Verdict| matches!(verdict, Verdict::Differs(_));
    let seen = column.verdicts.iter().any(differs);
    (seen == (lie == "Nothing")).then(|| format!("{id} does not see {lie}: {column:?}"))
}

/// Runs each lie: those that nobody saw.
pub async fn all(
    runtime: &Arc<dyn Runtime>,
    fast: &Arc<dyn Runtime>,
    limit: Duration,
) -> Vec<String> {
    let logs = [
        (LogLie::OtherHash, "K1"),
        (LogLie::Dedup, "K9"),
        (LogLie::LastNotNext, "K16"),
        (LogLie::SilentClose, "K24"),
        (LogLie::PoliteKill, "K24"),
    ]
    .map(|(lie, id)| async move {
        let backend = LyingLog::new(log::InProcess::on_the_model(fast.clone()), lie);
        let cases = shakedown_conformance::log::cases();
        // A lie that starves a case ends here; that is in the fast clock's time.
        unseen(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let queues = [
        (QueueLie::SaysDone, "R3"),
        (QueueLie::SaysNowhere, "R3"),
        (QueueLie::Dedup, "R3"),
        (QueueLie::NeverRedelivered, "R8"),
        (QueueLie::CutUnnoticed, "R8"),
        (QueueLie::OneMore, "R12"),
    ]
    .map(|(lie, id)| async move {
        let backend = LyingQueue::new(queue::InProcess::on_the_model(fast.clone()), lie);
        let cases = shakedown_conformance::queue::cases();
        unseen(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let stores = [
        (StoreLie::Nothing, "D2"),
        (StoreLie::Nothing, "D9"),
        (StoreLie::SaysNotDone, "D2"),
        (StoreLie::LosesBoth, "D2"),
        (StoreLie::SaysDone, "D9"),
    ]
    .map(|(lie, id)| async move {
        let backend = LyingStore { truth: store::InProcess::on_the_model(fast.clone()).await, lie };
        let cases = shakedown_conformance::store::cases();
        unseen(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let impatient = async {
        let lock_timeout = Duration::from_millis(20);
        let settings = Settings { lock_timeout, ..Settings::default() };
        let backend = store::InProcess::with(settings, runtime.clone()).await;
        let cases = shakedown_conformance::store::cases();
        unseen("Impatient".to_owned(), "D4", cases, &backend, &**runtime, limit).await
    };
    let (logs, queues, stores, impatient) =
        join4(join_all(logs), join_all(queues), join_all(stores), impatient).await;
    [logs, queues, stores, vec![impatient]].into_iter().flatten().flatten().collect()
}
