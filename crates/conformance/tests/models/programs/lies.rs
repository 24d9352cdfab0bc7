//! Queues that lie about what only a whole program shows: a model behind a wrapper.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ports::{Delivered, Deliveries, Delivery, JobQueue, Outcome, QueueSpec, Record, Runtime};
use shakedown_conformance::queue::{Amqp, Bound, QueueBackend};
use shakedown_conformance::{NotApplicable, Unseen};

use crate::queue::InProcess;

/// What is wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Another payload comes.
    Garbles,
    /// What is acked comes again.
    ForgetsAcks,
    /// A dead letter says another reason.
    OtherReason,
    /// What is rejected stays in the queue.
    NeverDies,
    /// Two messages of a batch change places.
    Swaps,
    /// What a channel holds is delivered to others too.
    Shares,
    /// Each confirmed message of another id is there, too.
    Invents,
    /// What came back says so, and has another count.
    CountsTwice,
}

/// A queue that tells this lie.
pub struct LyingQueue {
    pub truth: InProcess,
    pub lie: Lie,
    pub held: Arc<Mutex<Option<Delivery>>>,
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
        Arc::new(Client { truth, lie: self.lie, held: self.held.clone() })
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        self.truth.publish_and_lose_the_link(batch, arriving).await
    }

    async fn cut(&self, client: &str) -> Result<(), NotApplicable> {
        self.truth.cut(client).await
    }

    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen> {
        self.truth.bounded(bound).await
    }

    async fn restart(&self) -> Result<(), Unseen> {
        self.truth.restart().await
    }

    async fn alarm(&self, on: bool) -> Result<(), Unseen> {
        self.truth.alarm(on).await
    }

    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen> {
        self.truth.channel().await
    }
}

struct Client {
    truth: Arc<dyn JobQueue>,
    lie: Lie,
    held: Arc<Mutex<Option<Delivery>>>,
}

#[async_trait]
impl JobQueue for Client {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.truth.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        if self.lie == Lie::Invents {
            let other = Record { key: "invented".into(), ..batch[0].clone() };
            drop(self.truth.publish(vec![other]).await);
        }
        self.truth.publish(batch).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let truth = self.truth.consume(queue, prefetch).await?;
        Ok(Box::new(Channel { truth, lie: self.lie, held: self.held.clone() }))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.truth.depth(queue).await
    }
}

struct Channel {
    truth: Box<dyn Deliveries>,
    lie: Lie,
    held: Arc<Mutex<Option<Delivery>>>,
}

impl Channel {
    fn tell(&self, batch: &mut Vec<Delivery>) {
        match self.lie {
            Lie::Garbles => batch[0].record.payload = Bytes::from("other"),
            Lie::OtherReason => {
                let headers = batch.iter_mut().flat_map(|delivery| &mut delivery.record.headers);
                for (_, value) in headers.filter(|(name, _)| &**name == "x-death") {
                    let line = String::from_utf8_lossy(value).replace("rejected", "expired");
                    *value = Bytes::from(line);
                }
            }
            Lie::Swaps if batch.len() > 1 => {
                let tag = batch[0].tag;
                batch.swap(0, 1);
                batch[1].tag = batch[0].tag;
                batch[0].tag = tag;
            }
            Lie::Shares => {
                let last = batch[batch.len() - 1].clone();
                let held = self.held.lock().unwrap().replace(last.clone());
                let same = |held: &Delivery| held.record.to == last.record.to;
                batch.extend(held.filter(same).map(|held| Delivery { tag: last.tag + 1, ..held }));
            }
            Lie::CountsTwice => batch.iter_mut().for_each(|delivery| delivery.returns *= 2),
            _ => {}
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
        match self.lie {
            Lie::ForgetsAcks => {
                self.truth.requeue(acked).await?;
                self.truth.settle(&[], rejected).await
            }
            Lie::NeverDies => {
                self.truth.requeue(rejected).await?;
                self.truth.settle(acked, &[]).await
            }
            _ => self.truth.settle(acked, rejected).await,
        }
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.truth.requeue(tags).await
    }
}
