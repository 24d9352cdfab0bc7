//! The queue model as a port: every client in this process shares one server. Never holds the lock
//! across an await, and needs no task of its own: what is due happens at the next call.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select;
use ports::{
    Delivered, Deliveries, Delivery, Fault, JobQueue, Outcome, QueueSpec, Record, Runtime,
};
use tokio::sync::Notify;

use super::machine::Queues;
use super::message::{ChannelId, Settings};

/// A server of queues in this process. Clones share it.
#[derive(Clone)]
pub struct QueueServer {
    shared: Arc<Shared>,
}

struct Shared {
    queues: Mutex<Queues>,
    changed: Notify,
    clock: Arc<dyn Runtime>,
}

impl QueueServer {
    /// A server without queues. Its time (ack timeouts) is `clock.elapsed()`.
    pub fn new(settings: Settings, clock: Arc<dyn Runtime>) -> Self {
        let queues = Mutex::new(Queues::new(settings));
        QueueServer { shared: Arc::new(Shared { queues, changed: Notify::new(), clock }) }
    }

    /// A client of this name, for [`Self::disconnect`]; it sleeps by its own runtime.
    pub fn client(&self, name: &str, runtime: Arc<dyn Runtime>) -> QueueClient {
        QueueClient { server: self.clone(), name: name.into(), runtime }
    }

    /// Looks at the model or changes it, at the server's time `now`; then whoever waits looks again.
    pub fn with<R>(&self, work: impl FnOnce(&mut Queues, Duration) -> R) -> R {
        let result = self.quietly(work);
        self.shared.changed.notify_waiters();
        result
    }

    /// Closes all channels of the clients of this name, as when their node is killed. How many.
    pub fn disconnect(&self, client: &str) -> usize {
        self.with(|queues, now| queues.disconnect(client, now))
    }

    /// The server crashes and comes back: every channel is closed, what was confirmed and not acked is
    /// there (broker-contract R8, R29).
    pub fn restart(&self) {
        self.with(|queues, now| queues.restart(now));
    }

    /// As [`Self::with`], for what gives nobody anything new unless a channel expired.
    fn quietly<R>(&self, work: impl FnOnce(&mut Queues, Duration) -> R) -> R {
        let now = self.shared.clock.elapsed();
        let mut queues = self.lock();
        let expired = queues.expire(now);
        let result = work(&mut queues, now);
        drop(queues);
        if expired > 0 {
            self.shared.changed.notify_waiters();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.shared.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`JobQueue`] on the model.
#[derive(Clone)]
pub struct QueueClient {
    server: QueueServer,
    name: Arc<str>,
    runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl JobQueue for QueueClient {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.server.with(|queues, _| queues.declare(queue))
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.server.with(|queues, now| {
            batch.into_iter().map(|record| queues.publish(record, now).map(|_| ())).collect()
        })
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let channel =
            self.server.with(|queues, now| queues.consume(&self.name, queue, prefetch, now))?;
        let server = self.server.clone();
        Ok(Box::new(QueueDeliveries { server, channel, runtime: self.runtime.clone() }))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        let depth = self.server.quietly(|queues, _| queues.depth(queue));
        match depth {
            Some(depth) => Ok(depth as u64),
            None => Err(Fault::refused(format!("NOT_FOUND: no queue {queue}"))),
        }
    }
}

/// One consuming channel. Dropping it closes the channel at once.
struct QueueDeliveries {
    server: QueueServer,
    channel: ChannelId,
    runtime: Arc<dyn Runtime>,
}

enum Look {
    Lost,
    Taken(Vec<Delivery>),
    /// Nothing yet; a channel expires after so long.
    Nothing(Option<Duration>),
}

impl QueueDeliveries {
    fn look(&self, max: usize) -> Look {
        self.server.quietly(|queues, now| match queues.take(self.channel, max.max(1)) {
            None => Look::Lost,
            Some(taken) if !taken.is_empty() => Look::Taken(taken),
            Some(_) => Look::Nothing(queues.next_expiry().map(|at| at.saturating_sub(now))),
        })
    }
}

#[async_trait]
impl Deliveries for QueueDeliveries {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        loop {
            let mut changed = pin!(self.server.shared.changed.notified());
            changed.as_mut().enable();
            match self.look(max) {
                Look::Lost => return Ok(Delivered::ChannelLost),
                Look::Taken(batch) => return Ok(Delivered::Batch(batch)),
                Look::Nothing(None) => changed.await,
                Look::Nothing(Some(wait)) => {
                    select(changed, self.runtime.sleep(wait)).await;
                }
            }
        }
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        self.server.with(|queues, now| queues.settle(self.channel, acked, rejected, now))
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.server.with(|queues, now| queues.requeue(self.channel, tags, now))
    }
}

impl Drop for QueueDeliveries {
    fn drop(&mut self) {
        self.server.with(|queues, now| queues.close(self.channel, now));
    }
}
