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
use crate::link::Link;
use crate::message::{delivery, short};
use crate::watchdog::{QUIET, Watchdog};

/// A consumer on a channel of its own.
pub(crate) struct Subscription {
    link: Arc<Link>,
    queue: Arc<str>,
    prefetch: u16,
    watchdog: Watchdog,
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
    pub(crate) async fn open(link: Arc<Link>, queue: Arc<str>, prefetch: u16) -> Outcome<Self> {
        let channel = link.channel().await?;
        let name = short(&queue)?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        limited(Stage::Ask, "basic.qos", qos).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(name, "".into(), options, FieldTable::default());
        let consumer = limited(Stage::Ask, "basic.consume", consume).await?;
        let open = Open { channel, consumer, unsettled: BTreeMap::new() };
        Ok(Subscription { link, queue, prefetch, watchdog: Watchdog::default(), open: Some(open) })
    }

    /// The next delivery; `None` where the channel is lost, or gives nothing although there is
    /// something. Cancel-safe.
    #[allow(clippy::disallowed_methods)] // An adapter: real time.
    async fn first(&mut self) -> Option<Incoming> {
        loop {
            let open = self.open.as_mut()?;
            match tokio::time::timeout(QUIET, open.consumer.next()).await {
                // An error of channel or connection, or the server cancelled the consumer.
                Ok(item) => return item?.ok(),
                Err(_) => {
                    let room = open.unsettled.len() < usize::from(self.prefetch);
                    // A server that does not answer, or has lost the queue, has lost the channel too.
                    let ready = self.link.ready(&self.queue).await.ok()?;
                    if self.watchdog.look(ready, room) {
                        tracing::warn!(queue = %self.queue, "messages wait and none comes: stalled");
                        return None;
                    }
                }
            }
        }
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
            // Whatever came back: the ack had no effect, and the channel is given up.
            Ok(()) => Fault::refused(format!("unknown delivery tag {tag}")),
            Err(fault) => Fault::refused(format!("unknown delivery tag {tag}: {fault}")),
        }
    }
}

#[async_trait]
impl Deliveries for Subscription {
    async fn next(&mut self, max: usize) -> Outcome<Delivered> {
        // Nothing is awaited once something was taken: a dropped call loses nothing.
        let mut item = self.first().await;
        self.watchdog.moved();
        let mut batch = Vec::new();
        let (Some(open), true) = (&mut self.open, item.is_some()) else {
            self.open = None;
            return Ok(Delivered::ChannelLost);
        };
        while let Some(incoming) = item {
            batch.push(open.take(&self.queue, incoming));
            item = None;
            if batch.len() < max
                && let Some(next) = open.consumer.next().now_or_never()
            {
                let Some(Ok(next)) = next else {
                    self.open = None;
                    return Ok(Delivered::ChannelLost);
                };
                item = Some(next);
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
