//! A consuming channel. Never reopens itself: its loss is an event, and its tags die with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Incoming;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use ports::{Delivered, Deliveries, Delivery, Fault, Outcome};

use crate::fault::{ACK_LIMIT, Stage, classify, limited, limited_to};
use crate::message::{delivery, short};

/// A consumer on a channel of its own.
pub(crate) struct Subscription {
    queue: Arc<str>,
    prefetch: u16,
    /// Dropping it closes the channel, and the server requeues (broker-contract R8). `None`: lost.
    open: Option<Open>,
}

struct Open {
    channel: Channel,
    consumer: Consumer,
    /// Deliveries that the caller has and did not settle.
    unsettled: BTreeMap<u64, Acker>,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Ack,
    Reject,
    Requeue,
}

impl Subscription {
    /// Sets the prefetch and consumes with explicit acks.
    pub(crate) async fn open(channel: Channel, queue: Arc<str>, prefetch: u16) -> Outcome<Self> {
        let name = short(&queue)?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        limited(Stage::Ask, "basic.qos", qos).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(name, "".into(), options, FieldTable::default());
        let consumer = limited(Stage::Ask, "basic.consume", consume).await?;
        let open = Open { channel, consumer, unsettled: BTreeMap::new() };
        Ok(Subscription { queue, prefetch, open: Some(open) })
    }

    /// Settles in the order given. lapin knows the tags it delivered; one that it does not know goes
    /// to the server all the same, which closes the channel (broker-contract R7).
    async fn settle_all(&mut self, tags: Vec<(u64, Verdict)>) -> Outcome<()> {
        let Some(open) = &mut self.open else {
            return Err(Fault::refused("the channel is gone"));
        };
        let mut known = Vec::with_capacity(tags.len());
        let mut stranger = None;
        for (tag, verdict) in tags {
            let Some(acker) = open.unsettled.remove(&tag) else {
                stranger = Some(tag);
                break;
            };
            known.push((acker, verdict));
        }
        let settled = join_all(known.iter().map(|(acker, verdict)| verdict.send(acker)));
        let mut outcome =
            judge(limited_to(ACK_LIMIT, Stage::Sent, "basic.ack", settled.map(Ok)).await);
        if let (Ok(()), Some(tag)) = (&outcome, stranger) {
            outcome = Err(open.protest(tag, self.prefetch).await);
        }
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }
}

impl Verdict {
    async fn send(self, acker: &Acker) -> lapin::Result<bool> {
        match self {
            Verdict::Ack => acker.ack(BasicAckOptions::default()).await,
            Verdict::Reject => acker.reject(BasicRejectOptions { requeue: false }).await,
            // Not nack: since 4.3 that counts no return, and the limit is never reached (R16).
            Verdict::Requeue => acker.reject(BasicRejectOptions { requeue: true }).await,
        }
    }
}

/// lapin answers `false`, not an error, where the channel had died before (its acker is poisoned).
fn judge(settled: Outcome<Vec<lapin::Result<bool>>>) -> Outcome<()> {
    let settled = settled?;
    if let Some(error) = settled.iter().find_map(|result| result.as_ref().err()) {
        return Err(classify(Stage::Sent, error));
    }
    let sent = settled.iter().filter(|result| matches!(result, Ok(true))).count();
    match settled.len() - sent {
        0 => Ok(()),
        dead if dead == settled.len() => Err(Fault::refused("the channel is gone")),
        _ => Err(Fault::unknown("the channel died while settling")),
    }
}

impl Open {
    fn take(&mut self, queue: &Arc<str>, incoming: Incoming) -> Delivery {
        self.unsettled.insert(incoming.delivery_tag, incoming.acker.clone());
        delivery(queue, incoming)
    }

    /// Acks a tag that is not ours, and asks something behind it: the answer to an ack is silence,
    /// or the end of the channel.
    async fn protest(&self, tag: u64, prefetch: u16) -> Fault {
        let channel = &self.channel;
        let asked = async {
            channel.basic_ack(tag, BasicAckOptions::default()).await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await
        };
        match limited(Stage::Ask, "basic.ack", asked).await {
            Ok(()) => Fault::refused(format!("unknown delivery tag {tag}")),
            Err(fault) => fault,
        }
    }
}

#[async_trait]
impl Deliveries for Subscription {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        let Some(open) = &mut self.open else { return Ok(Delivered::ChannelLost) };
        let mut batch = Vec::new();
        // Nothing is awaited once something was taken: a dropped call loses nothing.
        let mut item = open.consumer.next().await;
        loop {
            let Some(Ok(incoming)) = item else {
                // An error of channel or connection, or the server cancelled the consumer.
                self.open = None;
                return Ok(Delivered::ChannelLost);
            };
            batch.push(open.take(&self.queue, incoming));
            if batch.len() >= max {
                break;
            }
            match open.consumer.next().now_or_never() {
                Some(next) => item = next,
                None => break,
            }
        }
        if !open.channel.status().connected() {
            self.open = None;
            return Ok(Delivered::ChannelLost);
        }
        Ok(Delivered::Batch(batch))
    }

    async fn settle(&mut self, acked: &[u64], rejected: &[u64]) -> Outcome<()> {
        let acks = acked.iter().map(|tag| (*tag, Verdict::Ack));
        let rejects = rejected.iter().map(|tag| (*tag, Verdict::Reject));
        self.settle_all(acks.chain(rejects).collect()).await
    }

    async fn requeue(&mut self, tags: &[u64]) -> Outcome<()> {
        self.settle_all(tags.iter().map(|tag| (*tag, Verdict::Requeue)).collect()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_acker_is_no_ack() {
        let broken =
            || Err(lapin::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!(judge(Ok(vec![])), Ok(()));
        assert_eq!(judge(Ok(vec![Ok(true), Ok(true)])), Ok(()));
        assert!(matches!(judge(Ok(vec![Ok(false), Ok(false)])), Err(Fault::Refused(_))));
        assert!(matches!(judge(Ok(vec![Ok(true), Ok(false)])), Err(Fault::Unknown(_))));
        assert!(matches!(judge(Ok(vec![Ok(true), broken()])), Err(Fault::Unknown(_))));
        assert!(matches!(judge(Err(Fault::unknown("late"))), Err(Fault::Unknown(_))));
    }
}
