//! The event log in one process: [`LogServer`] shares a [`Log`] between clients, which wait for
//! what they asked for. Never holds the lock over an await, and has no task of its own: members'
//! polls and heartbeats drive the time-outs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use ports::{
    Consumer, EventLog, Fault, Offsets, Outcome, Partition, Polled, Record, Runtime, TopicSpec,
};
use tokio::sync::Notify;

use super::reader::Reader;
use super::state::{Log, Settings};

/// A consumer that may be waiting.
struct Waiter {
    group: Arc<str>,
    topics: BTreeSet<Arc<str>>,
    notify: Weak<Notify>,
}

struct Shared {
    log: Log,
    waiters: Vec<Waiter>,
}

/// A log that clients share.
#[derive(Clone)]
pub struct LogServer {
    shared: Arc<Mutex<Shared>>,
}

impl LogServer {
    /// An empty log.
    pub fn new(settings: Settings) -> Self {
        LogServer::over(Log::new(settings))
    }

    /// Serves this log.
    pub fn over(log: Log) -> Self {
        LogServer { shared: Arc::new(Mutex::new(Shared { log, waiters: Vec::new() })) }
    }

    /// A client, known to the group coordinator by this name, whose time is this runtime's.
    /// The runtimes of all clients must share one monotonic clock.
    pub fn client(&self, name: &str, runtime: Arc<dyn Runtime>) -> LogClient {
        LogClient { server: self.clone(), name: name.into(), runtime }
    }

    /// Looks at the log or changes it, and wakes who waits for the change.
    pub fn with<T>(&self, work: impl FnOnce(&mut Log) -> T) -> T {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut shared.log);
        let changed = shared.log.take_changed();
        if !changed.topics.is_empty() || !changed.groups.is_empty() {
            shared.waiters.retain(|waiter| {
                let Some(notify) = waiter.notify.upgrade() else { return false };
                if changed.groups.contains(&waiter.group)
                    || !changed.topics.is_disjoint(&waiter.topics)
                {
                    notify.notify_one();
                }
                true
            });
        }
        result
    }

    fn register(&self, group: &str, topics: &[Arc<str>], notify: &Arc<Notify>) {
        let waiter = Waiter {
            group: group.into(),
            topics: topics.iter().cloned().collect(),
            notify: Arc::downgrade(notify),
        };
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).waiters.push(waiter);
    }
}

/// One client's [`EventLog`].
#[derive(Clone)]
pub struct LogClient {
    server: LogServer,
    name: Arc<str>,
    runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl EventLog for LogClient {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        let now = self.runtime.elapsed();
        self.server.with(|log| {
            for topic in topics {
                log.declare(now, topic)?;
            }
            Ok(())
        })
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        let at = self.runtime.now();
        self.server.with(|log| {
            batch
                .into_iter()
                .map(|record| log.append(record, at).map(drop).map_err(Fault::from))
                .collect()
        })
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let now = self.runtime.elapsed();
        let notify = Arc::new(Notify::new());
        self.server.register(group, topics, &notify);
        let (reader, settings) = self.server.with(|log| {
            (Reader::join(log, now, group, &self.name, topics), log.settings().clone())
        });
        let id = Arc::new(AtomicU64::new(reader.id()));
        let beats = heartbeats(
            self.server.clone(),
            self.runtime.clone(),
            group.into(),
            Arc::downgrade(&id),
            settings.heartbeat,
        );
        self.runtime.spawn("log heartbeat", Box::pin(beats));
        let (server, runtime) = (self.server.clone(), self.runtime.clone());
        Ok(Box::new(LogConsumer { server, runtime, settings, reader, notify, id }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        let found: BTreeMap<_, _> = self.server.with(|log| {
            let partitions = log.partitions(topic).into_iter();
            partitions.filter_map(|p| log.watermarks(&p).map(|marks| (p, marks))).collect()
        });
        if found.is_empty() { Err(Fault::refused("unknown topic")) } else { Ok(found) }
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        let mut offsets = self.server.with(|log| log.committed(group));
        offsets.retain(|partition, _| topics.contains(&partition.topic));
        Ok(offsets)
    }
}

/// Beats until the consumer, which holds the id, is dropped or closed.
async fn heartbeats(
    server: LogServer,
    runtime: Arc<dyn Runtime>,
    group: Arc<str>,
    id: Weak<AtomicU64>,
    every: std::time::Duration,
) {
    loop {
        runtime.sleep(every).await;
        let Some(id) = id.upgrade() else { return };
        let now = runtime.elapsed();
        server.with(|log| log.heartbeat(now, &group, id.load(Ordering::Relaxed)));
    }
}

/// A member of a group. Dropped, it stops its heartbeats and is expelled in the end (K24).
pub struct LogConsumer {
    server: LogServer,
    runtime: Arc<dyn Runtime>,
    settings: Settings,
    reader: Reader,
    notify: Arc<Notify>,
    /// The member's present id; the heartbeat task lives as long as this does.
    id: Arc<AtomicU64>,
}

#[async_trait]
impl Consumer for LogConsumer {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        let until = self.runtime.elapsed() + self.settings.poll_wait;
        loop {
            let now = self.runtime.elapsed();
            let polled = self.server.with(|log| self.reader.poll(log, now, max));
            self.id.store(self.reader.id(), Ordering::Relaxed);
            if let Some(polled) = polled {
                return Ok(polled);
            }
            let left = until.saturating_sub(now);
            if left.is_zero() {
                return Ok(Polled::Records(Vec::new()));
            }
            // A notification between the look above and this wait is kept as a permit.
            ports::timeout(&*self.runtime, left, self.notify.notified()).await;
        }
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let now = self.runtime.elapsed();
        self.server.with(|log| self.reader.commit(log, now, next))
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        let now = self.runtime.elapsed();
        self.server.with(|log| self.reader.release(log, now, &revoked));
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        self.reader.seek(next)
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        self.reader.pause(partitions, paused);
    }

    async fn close(self: Box<Self>) {
        let now = self.runtime.elapsed();
        let LogConsumer { server, reader, .. } = *self;
        server.with(|log| reader.leave(log, now));
    }
}
