//! The simulated RabbitMQ as a node sees it: the queue model behind the gate.

use std::sync::Arc;

use async_trait::async_trait;
use model::queue::QueueClient;
use ports::{Delivered, Deliveries, Fault, JobQueue, Outcome, QueueSpec, Record};

use crate::batch;
use crate::cluster::Node;
use crate::fault::{Server, Site};
use crate::touch::{self, Touch};

pub(crate) struct GatedQueue {
    pub(crate) node: Arc<Node>,
    pub(crate) inner: QueueClient,
}

struct GatedDeliveries {
    node: Arc<Node>,
    /// `None` once the link broke: the channel is closed, its tags are dead.
    inner: Option<Box<dyn Deliveries>>,
    /// Came from the model, and is not yet through the gate: a dropped wait loses nothing.
    pending: Option<Delivered>,
}

#[async_trait]
impl JobQueue for GatedQueue {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        self.node.open(Server::Queue)?;
        self.inner.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        batch::send(&self.node, Site::Publish, batch, |batch| self.inner.publish(batch)).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let call = self.node.enter(Site::Consume, || queue.to_owned()).await?;
        let answer = self.inner.consume(queue, prefetch).await.map(|inner| {
            let (node, inner) = (self.node.clone(), Some(inner));
            Box::new(GatedDeliveries { node, inner, pending: None }) as Box<dyn Deliveries>
        });
        self.node.leave(call, answer).await
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.node.open(Server::Queue)?;
        self.inner.depth(queue).await
    }
}

fn dead() -> Fault {
    Fault::refused("the channel is closed")
}

#[async_trait]
impl Deliveries for GatedDeliveries {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        let Some(inner) = &mut self.inner else { return Ok(Delivered::ChannelLost) };
        if self.pending.is_none() {
            self.pending = Some(inner.next(max).await?);
        }
        let Some(delivered) = &self.pending else { unreachable!("just waited") };
        // The wait is the model's; the gate stands behind it, so that an idle wait is no call.
        let about = || match delivered {
            Delivered::Batch(batch) => {
                self.node.touches(|| batch.iter().cloned().map(Touch::Delivered).collect());
                let redelivered = batch.iter().filter(|d| d.redelivered).count();
                format!("{} deliveries, {redelivered} redelivered", batch.len())
            }
            Delivered::ChannelLost => "channel lost".to_owned(),
        };
        let call = match self.node.enter(Site::Deliver, about).await {
            Ok(call) => call,
            Err(_) => {
                // The link broke with the deliveries on it: they are back in the queue.
                (self.inner, self.pending) = (None, None);
                return Ok(Delivered::ChannelLost);
            }
        };
        // A wait that is dropped on the way back loses nothing.
        self.node.leave(call, Ok(())).await?;
        Ok(self.pending.take().unwrap_or(Delivered::ChannelLost))
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        let about = || {
            self.node.touches(|| touch::settled(acked, rejected));
            format!("ack {} reject {}", acked.len(), rejected.len())
        };
        let call = self.node.enter(Site::Settle, about).await?;
        let inner = self.inner.as_mut().ok_or_else(dead)?;
        let answer = if call.lost() { Ok(()) } else { inner.settle(acked, rejected).await };
        let answer = self.node.leave(call, answer).await;
        if let Err(Fault::Unknown(_)) = answer {
            self.inner = None;
        }
        answer
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        let about = || {
            self.node.touches(|| touch::settled(&[], tags));
            format!("requeue {}", tags.len())
        };
        let call = self.node.enter(Site::Settle, about).await?;
        let inner = self.inner.as_mut().ok_or_else(dead)?;
        let answer = if call.lost() { Ok(()) } else { inner.requeue(tags).await };
        let answer = self.node.leave(call, answer).await;
        if let Err(Fault::Unknown(_)) = answer {
            self.inner = None;
        }
        answer
    }
}
