//! Cases on what bounds a queue and its consumers: R23 and R24.

use std::sync::Arc;
use std::time::Duration;

use ports::{Delivered, Delivery, Fault, JobQueue};

use super::{
    Bound, PATIENCE, QueueBackend, batch, counts, drain, keys, publish, ready, tags, take,
};
use crate::{Observed, Unseen};

/// Ready messages that a queue takes here.
const LENGTH: u32 = 5;

/// Quorum queues tell their publishers late: so many more may get in.
const OVERSHOOT: usize = 20;

pub(super) async fn a_full_queue_refuses(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = backend.bounded(Bound::Length(LENGTH)).await?;
    let mut confirmed = 0;
    let refused = loop {
        match client.publish(batch(&queue, 1)).await.remove(0) {
            Ok(()) => confirmed += 1,
            Err(fault) => break fault,
        }
        assert!(confirmed <= LENGTH as usize + OVERSHOOT, "it takes everything");
    };
    assert!(matches!(refused, Fault::Retry(_)), "later it may have room: {refused:?}");
    assert!(confirmed >= LENGTH as usize, "{confirmed} only");
    ready(backend, &*client, &queue, confirmed as u64).await;
    let mut channel = client.consume(&queue, 100).await.unwrap();
    let held = take(backend, &mut channel, confirmed).await;
    assert_eq!(held.len(), confirmed, "the confirmed ones, and not the other");
    // What is held makes room; a server may tell its publishers late.
    let begun = backend.runtime().elapsed();
    while client.publish(batch(&queue, 1)).await[0].is_err() {
        assert!(backend.runtime().elapsed() - begun < PATIENCE, "it stays full");
    }
    channel.settle(&tags(&held), &[]).await.unwrap();
    drop(channel);
    ready(backend, &*client, &queue, 1).await;
    drain(backend, &*client, &queue, 1).await;
    Ok(())
}

/// How long a delivery may stay unsettled here.
const ACK: Duration = Duration::from_secs(2);

/// Two messages, held until the channel was lost by it; as they come again, and who they were.
async fn late(
    backend: &dyn QueueBackend,
) -> Result<(Arc<dyn JobQueue>, Arc<str>, Vec<Delivery>), Unseen> {
    let (queue, client) = backend.bounded(Bound::Ack(ACK)).await?;
    publish(&*client, batch(&queue, 2)).await;
    let begun = backend.runtime().elapsed();
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let held = take(backend, &mut channel, 2).await;
    let lost = ports::timeout(backend.runtime(), PATIENCE, channel.next(1)).await;
    assert_eq!(lost, Some(Ok(Delivered::ChannelLost)), "its patience has an end");
    assert!(backend.runtime().elapsed() - begun >= ACK, "and not before");
    let dead = channel.settle(&tags(&held), &[]).await;
    assert!(matches!(dead, Err(Fault::Refused(_))), "its tags are dead: {dead:?}");
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let back = take(backend, &mut channel, 2).await;
    assert_eq!((back.len(), keys(&back)), (2, keys(&held)));
    assert!(back.iter().all(|delivery| delivery.redelivered));
    channel.settle(&tags(&back), &[]).await.unwrap();
    Ok((client, queue, back))
}

pub(super) async fn held_too_long_comes_back(backend: &dyn QueueBackend) -> Observed {
    let (client, queue, _) = late(backend).await?;
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

pub(super) async fn late_counts_as_a_return(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (_, _, back) = late(backend).await?;
    assert_eq!(back.iter().map(|delivery| delivery.returns).collect::<Vec<_>>(), [1, 1]);
    Ok(())
}

pub(super) async fn late_counts_as_no_return(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (_, _, back) = late(backend).await?;
    assert_eq!(back.iter().map(|delivery| delivery.returns).collect::<Vec<_>>(), [0, 0]);
    Ok(())
}
