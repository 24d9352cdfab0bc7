//! The simulated Kafka as a node sees it: the log model behind the gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::log::LogClient;
use ports::{Consumer, EventLog, Fault, Offsets, Outcome, Partition, Polled, Record, TopicSpec};

use crate::batch;
use crate::cluster::{CLIENT_TIMEOUT, Node};
use crate::fault::{FaultKind, Server, Site};
use crate::touch::{self, Touch};

pub(crate) struct GatedLog {
    pub(crate) node: Arc<Node>,
    pub(crate) inner: LogClient,
}

struct GatedConsumer {
    node: Arc<Node>,
    group: String,
    inner: Box<dyn Consumer>,
    /// Came from the model, and is not yet through the gate: a dropped poll loses nothing.
    pending: Option<Polled>,
}

/// Where the records go, for the trace.
pub(crate) fn words(batch: &[Record]) -> String {
    batch.iter().map(|r| [&r.to, "[", &r.key, "]"].concat()).collect::<Vec<_>>().join(" ")
}

impl GatedLog {
    /// Appends what goes to partitions with a leader at once; what goes to others when they have one again,
    /// or not at all where that takes longer than a client waits. Answers when all of it has come to an end.
    async fn append(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        let cluster = &self.node.cluster;
        let leaderless = |record: &Record| {
            cluster.is_leaderless(|| {
                let place = cluster.log().with(|log| log.place(record));
                place.map_or(String::new(), |partition| partition.to_string())
            })
        };
        let out: Vec<bool> = batch.iter().map(leaderless).collect();
        if out.iter().all(|out| !out) {
            return self.inner.produce(batch).await;
        }
        let (waiting, led): (Vec<_>, Vec<_>) =
            batch.into_iter().zip(&out).partition(|(_, out)| **out);
        let led = led.into_iter().map(|(record, _)| record).collect();
        let mut done = self.inner.produce(led).await.into_iter();
        let mut late = Vec::new();
        let until = cluster.elapsed() + CLIENT_TIMEOUT;
        for (record, _) in waiting {
            while leaderless(&record) && cluster.elapsed() < until {
                madsim::time::sleep(Duration::from_millis(50)).await;
            }
            late.push(match leaderless(&record) {
                true => Err(Fault::retry("injected: the partition has no leader")),
                false => self.inner.produce(vec![record]).await.remove(0),
            });
        }
        let mut late = late.into_iter();
        let next = |out| if out { late.next() } else { done.next() };
        let answers = out.into_iter().map(next);
        answers.map(|it| it.unwrap_or_else(|| Err(Fault::unknown("no answer")))).collect()
    }
}

/// Through the gate with what was polled.
async fn pass(node: &Node, about: String, polled: &Polled) -> Outcome<()> {
    let records = match polled {
        Polled::Records(records) => records.as_slice(),
        Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) => &[],
    };
    let about = || {
        node.touches(|| records.iter().cloned().map(Touch::Fetched).collect());
        about
    };
    let call = node.enter(Site::Poll, about).await?;
    if let Some(long) = call.lasting(FaultKind::Hidden).filter(|_| !records.is_empty()) {
        call.meet(node);
        let mut read: Vec<Partition> = records.iter().map(|it| it.partition.clone()).collect();
        read.dedup();
        node.cluster.hide(read, long);
    }
    node.leave(call, Ok(())).await
}

fn offsets(next: &Offsets) -> String {
    next.iter().map(|(p, o)| format!("{p}={o}")).collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl EventLog for GatedLog {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.node.open(Server::Log)?;
        self.inner.declare(topics).await
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        batch::send(&self.node, Site::Produce, batch, |batch| self.append(batch)).await
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let call = self.node.enter(Site::Subscribe, || group.to_owned()).await?;
        self.node.cluster.joins(&self.node, group, topics);
        let answer = self.inner.subscribe(group, topics).await.map(|inner| {
            Box::new(GatedConsumer {
                node: self.node.clone(),
                group: group.to_owned(),
                inner,
                pending: None,
            }) as Box<dyn Consumer>
        });
        self.node.leave(call, answer).await
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.node.open(Server::Log)?;
        self.inner.watermarks(topic).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        self.node.open(Server::Log)?;
        self.inner.committed(group, topics).await
    }
}

#[async_trait]
impl Consumer for GatedConsumer {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        if self.pending.is_none() {
            self.node.until_heard(Server::Log).await;
            self.pending = Some(self.inner.poll(max).await?);
        }
        let Some(polled) = &self.pending else { unreachable!("just polled") };
        let about = match polled {
            // The wait is the model's; the gate stands behind it, so that an idle wait is no call.
            Polled::Records(records) if records.is_empty() => String::new(),
            Polled::Records(records) => {
                let partitions = records.chunk_by(|a, b| a.partition == b.partition);
                let parts = partitions.map(|of| {
                    let (first, last) = (&of[0], &of[of.len() - 1]);
                    format!("{}@{}..{}", first.partition, first.offset, last.offset + 1)
                });
                parts.collect::<Vec<_>>().join(" ")
            }
            Polled::Assigned(partitions) => format!("assigned {}", partitions.len()),
            Polled::Revoked(partitions) => format!("revoked {}", partitions.len()),
            Polled::Lost(partitions) => format!("lost {}", partitions.len()),
        };
        // What was polled stays here until it is through: a poll that is dropped on the way back loses
        // nothing.
        let passed = if about.is_empty() { Ok(()) } else { pass(&self.node, about, polled).await };
        let polled = self.pending.take().unwrap_or(Polled::Records(Vec::new()));
        match (passed, polled) {
            (Ok(()), polled) => Ok(polled),
            // The fetch failed: the same records come again.
            (Err(fault), Polled::Records(records)) => {
                let mut again = Offsets::new();
                for record in records.iter().rev() {
                    again.insert(record.partition.clone(), record.offset);
                }
                self.inner.seek(&again).await?;
                Err(fault)
            }
            // A change of assignment is the client's own news: it cannot fail to arrive.
            (Err(_), polled) => Ok(polled),
        }
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let about = || {
            self.node.touches(|| touch::offsets(next));
            offsets(next)
        };
        let call = self.node.enter(Site::CommitOffsets, about).await?;
        if let Some(long) = call.lasting(FaultKind::LeaderChange) {
            self.node.cluster.unlead(self.group.clone(), long);
        }
        let answer = if call.lost() {
            Ok(())
        } else if self.node.cluster.is_leaderless(|| self.group.clone()) {
            Err(Fault::retry("injected: the group has no coordinator"))
        } else {
            self.inner.commit(next).await
        };
        self.node.leave(call, answer).await
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
