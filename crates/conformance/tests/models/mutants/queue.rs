//! Queues that lie: a model behind a wrapper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use ports::{
    Delivered, Deliveries, Delivery, Fault, JobQueue, Outcome, QueueSpec, Record, Runtime,
};
use shakedown_conformance::queue::{Amqp, Bound, QueueBackend};
use shakedown_conformance::{NotApplicable, Unseen};

use crate::queue;

/// What is wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueLie {
    /// The last of a batch is confirmed and nowhere.
    LosesTheLast,
    /// Of batches at the same time, all but the first are said to have failed.
    AnswersOneBatch,
    /// What has no answer is said to be enqueued.
    SaysDone,
    /// What has no answer is said to be nowhere.
    SaysNowhere,
    /// What is published again is left out.
    Dedup,
    /// What has no queue is confirmed.
    DropsUnroutable,
    /// Any declaration is fine.
    DeclaresAnything,
    /// A queue that is not there is empty.
    MissingIsEmpty,
    /// A tag that nobody knows is acked.
    ForgivesTags,
    /// Nothing says that it was delivered before.
    NeverRedelivered,
    /// Everything says that it was delivered before.
    AlwaysRedelivered,
    /// A connection that is lost is not noticed.
    CutUnnoticed,
    /// What is returned is gone.
    DropsReturned,
    /// One more than the prefetch is delivered.
    OneMore,
    /// What is held counts as ready.
    HeldIsReady,
    /// An ack takes those below with it.
    AcksBelow,
    /// There is no limit to returns.
    NoLimit,
    /// Nothing came back before.
    CountsNothing,
    /// Each message is there twice.
    DeliversTwice,
    /// A message counts on where its dead letter stopped.
    CountsOn,
    /// The last that is there comes first.
    LastFirst,
    /// What is returned goes back to where it was.
    ReturnsToItsPlace,
    /// A dead letter says that it expired.
    SaysExpired,
    /// A queue is never full.
    NeverFull,
    /// A queue that is full stays so.
    StaysFull,
    /// A delivery may be held for ever.
    EndlessPatience,
    /// A delivery may be held half as long.
    HalfThePatience,
    /// As an older release: what was held too long counts.
    CountsLate,
    /// As a newer release: what was held too long does not count.
    CountsLateNot,
    /// As an older release: a dead letter begins anew.
    BeginsAnew,
    /// As another release: a dead letter tells what failed before.
    TellsFailures,
    /// A restart of the server empties its queues.
    ForgetsOnRestart,
    /// Nobody hears of a restart.
    RestartUnnoticed,
}

impl QueueLie {
    /// All of them, with the statements that each breaks.
    pub const ALL: [(QueueLie, &'static [&'static str]); 33] = [
        (QueueLie::LosesTheLast, &["R1", "R13"]),
        (QueueLie::AnswersOneBatch, &["R2"]),
        (QueueLie::SaysDone, &["R3"]),
        (QueueLie::SaysNowhere, &["R3"]),
        (QueueLie::Dedup, &["R3", "R9"]),
        (QueueLie::DropsUnroutable, &["R4"]),
        (QueueLie::DeclaresAnything, &["R5"]),
        (QueueLie::MissingIsEmpty, &["R5"]),
        (QueueLie::ForgivesTags, &["R7"]),
        (QueueLie::NeverRedelivered, &["R8", "R10"]),
        (QueueLie::AlwaysRedelivered, &["R9"]),
        (QueueLie::CutUnnoticed, &["R8", "R16"]),
        (QueueLie::DropsReturned, &["R10", "R15"]),
        (QueueLie::OneMore, &["R12"]),
        (QueueLie::HeldIsReady, &["R12"]),
        (QueueLie::AcksBelow, &["R13"]),
        (QueueLie::NoLimit, &["R15", "R17"]),
        (QueueLie::CountsNothing, &["R16"]),
        (QueueLie::DeliversTwice, &["R19"]),
        (QueueLie::CountsOn, &["R20"]),
        (QueueLie::LastFirst, &["R28"]),
        (QueueLie::ReturnsToItsPlace, &["R10"]),
        (QueueLie::SaysExpired, &["R20"]),
        (QueueLie::NeverFull, &["R23"]),
        (QueueLie::StaysFull, &["R23"]),
        (QueueLie::EndlessPatience, &["R24"]),
        (QueueLie::HalfThePatience, &["R24"]),
        (QueueLie::CountsLate, &["R24"]),
        (QueueLie::CountsLateNot, &["R24"]),
        (QueueLie::ForgetsOnRestart, &["R29"]),
        (QueueLie::RestartUnnoticed, &["R29"]),
        (QueueLie::BeginsAnew, &["R33"]),
        (QueueLie::TellsFailures, &["R33"]),
    ];
}

/// What the lie has to remember.
#[derive(Default)]
struct Memory {
    /// Queue and id of what was published.
    published: BTreeSet<(Arc<str>, Arc<str>)>,
    /// What its consumers hold, by queue.
    held: BTreeMap<Arc<str>, u64>,
    /// Ids that were delivered, by how often.
    delivered: BTreeMap<Arc<str>, u32>,
    batches: usize,
    /// A queue was full.
    full: bool,
    /// The server was killed once.
    restarted: bool,
}

pub struct LyingQueue {
    truth: queue::InProcess,
    lie: QueueLie,
    memory: Arc<Mutex<Memory>>,
}

impl LyingQueue {
    pub fn new(truth: queue::InProcess, lie: QueueLie) -> Self {
        LyingQueue { truth, lie, memory: Arc::default() }
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
        Arc::new(Publisher { truth, lie: self.lie, memory: self.memory.clone() })
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        for record in batch.iter().take(arriving) {
            let id = (record.to.clone(), record.key.clone());
            self.memory.lock().unwrap().published.insert(id);
        }
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

    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen> {
        let bound = match (bound, self.lie) {
            (Bound::Length(_), QueueLie::NeverFull) => Bound::Length(u32::MAX),
            (Bound::Ack(_), QueueLie::EndlessPatience) => Bound::Ack(Duration::MAX / 2),
            (Bound::Ack(timeout), QueueLie::HalfThePatience) => Bound::Ack(timeout / 2),
            (bound, _) => bound,
        };
        let (queue, truth) = self.truth.bounded(bound).await?;
        Ok((queue, Arc::new(Publisher { truth, lie: self.lie, memory: self.memory.clone() })))
    }

    async fn restart(&self) -> Result<(), Unseen> {
        if self.lie == QueueLie::RestartUnnoticed {
            return Ok(());
        }
        self.memory.lock().unwrap().restarted = true;
        self.truth.restart().await
    }

    async fn alarm(&self, on: bool) -> Result<(), Unseen> {
        self.truth.alarm(on).await
    }

    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen> {
        self.truth.channel().await
    }
}

struct Publisher {
    truth: Arc<dyn JobQueue>,
    lie: QueueLie,
    memory: Arc<Mutex<Memory>>,
}

#[async_trait]
impl JobQueue for Publisher {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        match self.lie {
            QueueLie::DeclaresAnything => drop(self.truth.declare(queue).await),
            QueueLie::NoLimit => {
                let endless = QueueSpec { delivery_limit: 1_000, ..queue.clone() };
                self.truth.declare(&endless).await?;
            }
            _ => self.truth.declare(queue).await?,
        }
        Ok(())
    }

    async fn publish(&self, mut batch: Vec<Record>) -> Vec<Outcome<()>> {
        let count = batch.len();
        match self.lie {
            QueueLie::Dedup => {
                let published = &mut self.memory.lock().unwrap().published;
                batch.retain(|record| published.insert((record.to.clone(), record.key.clone())));
            }
            QueueLie::LosesTheLast => drop(batch.pop()),
            QueueLie::AnswersOneBatch => {
                let batches = &mut self.memory.lock().unwrap().batches;
                *batches += 1;
                if *batches > 1 {
                    return vec![Err(Fault::unknown("no answer")); count];
                }
            }
            _ => {}
        }
        let outcomes = self.truth.publish(batch).await;
        match self.lie {
            QueueLie::StaysFull => {
                let full = &mut self.memory.lock().unwrap().full;
                *full |= outcomes.iter().any(Result::is_err);
                if *full { vec![Err(Fault::retry("full")); count] } else { outcomes }
            }
            QueueLie::DropsUnroutable | QueueLie::Dedup | QueueLie::LosesTheLast => {
                vec![Ok(()); count]
            }
            _ => outcomes,
        }
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let more = u16::from(self.lie == QueueLie::OneMore);
        let mut truth = self.truth.consume(queue, prefetch + more).await?;
        let restarted = self.memory.lock().unwrap().restarted;
        if restarted && self.lie == QueueLie::ForgetsOnRestart {
            while let Some(Ok(Delivered::Batch(batch))) = truth.next(100).now_or_never() {
                let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
                truth.settle(&tags, &[]).await?;
            }
        }
        let (lie, memory) = (self.lie, self.memory.clone());
        Ok(Box::new(Channel { truth, lie, memory, queue: queue.into(), held: BTreeSet::new() }))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        match (self.truth.depth(queue).await, self.lie) {
            (Err(_), QueueLie::MissingIsEmpty) => Ok(0),
            (Ok(depth), QueueLie::HeldIsReady) => {
                let held = self.memory.lock().unwrap().held.get(queue).copied();
                Ok(depth + held.unwrap_or(0))
            }
            (depth, _) => depth,
        }
    }
}

struct Channel {
    truth: Box<dyn Deliveries>,
    lie: QueueLie,
    memory: Arc<Mutex<Memory>>,
    queue: Arc<str>,
    /// Tags.
    held: BTreeSet<u64>,
}

impl Channel {
    fn tell(&mut self, batch: &mut Vec<Delivery>) {
        let mut memory = self.memory.lock().unwrap();
        for delivery in batch.iter_mut() {
            self.held.insert(delivery.tag);
            match self.lie {
                QueueLie::NeverRedelivered => delivery.redelivered = false,
                QueueLie::AlwaysRedelivered => delivery.redelivered = true,
                QueueLie::CountsNothing => delivery.returns = 0,
                QueueLie::CountsOn => {
                    let count = memory.delivered.entry(delivery.record.key.clone()).or_default();
                    delivery.returns = *count;
                    *count += 1;
                }
                QueueLie::HeldIsReady => {
                    *memory.held.entry(self.queue.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        match self.lie {
            QueueLie::LastFirst => batch.reverse(),
            QueueLie::ReturnsToItsPlace => {
                batch.sort_by(|a, b| a.record.key.cmp(&b.record.key));
            }
            QueueLie::SaysExpired => {
                for (name, value) in batch.iter_mut().flat_map(|it| &mut it.record.headers) {
                    if &**name == "x-death" {
                        *value = bytes::Bytes::from_static(b"expired 1 somewhere");
                    }
                }
            }
            QueueLie::DeliversTwice => {
                let copies = batch.clone();
                batch.extend(copies);
            }
            _ => {}
        }
    }

    /// Forgets those that are settled.
    fn let_go(&mut self, tags: &[u64]) {
        for tag in tags {
            if self.held.remove(tag)
                && let Some(held) = self.memory.lock().unwrap().held.get_mut(&self.queue)
            {
                *held -= 1;
            }
        }
    }
}

#[async_trait]
impl Deliveries for Channel {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        let mut delivered = self.truth.next(max).await?;
        if let Delivered::Batch(batch) = &mut delivered {
            self.tell(batch);
        }
        Ok(delivered)
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        let mut acked = acked.to_vec();
        match self.lie {
            QueueLie::ForgivesTags => acked.retain(|tag| self.held.contains(tag)),
            QueueLie::AcksBelow => {
                let most = acked.iter().max().copied().unwrap_or(0);
                acked = self.held.range(..=most).copied().collect();
                acked.retain(|tag| !rejected.contains(tag));
            }
            _ => {}
        }
        self.let_go(&acked);
        self.let_go(rejected);
        self.truth.settle(&acked, rejected).await
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.let_go(tags);
        match self.lie {
            QueueLie::DropsReturned => self.truth.settle(tags, &[]).await,
            _ => self.truth.requeue(tags).await,
        }
    }
}
