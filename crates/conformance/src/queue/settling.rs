//! Cases on what a consumer does with its deliveries: R7, R8, R10, R12, R13 and R16.

use ports::{Delivered, Fault};

use super::{
    Kind, PATIENCE, QUIET, QueueBackend, batch, counts, declared, depth, keys, publish, ready,
    tags, take,
};
use crate::{NotApplicable, Observed};

pub(super) async fn at_most_prefetch_unacked(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 10)).await;
    let mut one = client.consume(&queue, 3).await.unwrap();
    let held = take(backend, &mut one, 3).await;
    assert_eq!(held.len(), 3, "and no more");
    ready(backend, &*client, &queue, 7).await;
    let mut two = client.consume(&queue, 2).await.unwrap();
    let others = take(backend, &mut two, 2).await;
    assert_eq!(others.len(), 2, "each channel has its own");
    one.settle(&[held[0].tag], &[held[1].tag]).await.unwrap();
    let more = take(backend, &mut one, 2).await;
    assert_eq!(more.len(), 2, "one for each that was settled");
    two.settle(&tags(&others), &[]).await.unwrap();
    let more_others = take(backend, &mut two, 2).await;
    assert_eq!(more_others.len(), 2);
    ready(backend, &*client, &queue, 1).await;
    one.settle(&[&tags(&held[2..])[..], &tags(&more)].concat(), &[]).await.unwrap();
    two.settle(&tags(&more_others), &[]).await.unwrap();
    let last = take(backend, &mut one, 0).await;
    let last_others = take(backend, &mut two, 0).await;
    assert_eq!(last.len() + last_others.len(), 1);
    one.settle(&tags(&last), &[]).await.unwrap();
    two.settle(&tags(&last_others), &[]).await.unwrap();
    Ok(())
}

pub(super) async fn an_unknown_tag_closes_the_channel(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 3)).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let held = take(backend, &mut channel, 3).await;
    channel.settle(&[held[0].tag], &[]).await.unwrap();
    let twice = channel.settle(&[held[0].tag], &[]).await;
    assert!(matches!(twice, Err(Fault::Refused(_))), "{twice:?}");
    let next = ports::timeout(backend.runtime(), PATIENCE, channel.next(1)).await;
    assert_eq!(next, Some(Ok(Delivered::ChannelLost)), "and with it the other tags");
    let mut again = client.consume(&queue, 10).await.unwrap();
    let back = take(backend, &mut again, 2).await;
    assert_eq!(keys(&back), keys(&held[1..]), "what was unacked, and not what was acked");
    assert!(back.iter().all(|delivery| delivery.redelivered));
    again.settle(&tags(&back), &[]).await.unwrap();
    Ok(())
}

pub(super) async fn tags_are_of_their_channel(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 4)).await;
    let mut one = client.consume(&queue, 3).await.unwrap();
    let of_one = take(backend, &mut one, 3).await;
    let mut two = client.consume(&queue, 3).await.unwrap();
    let of_two = take(backend, &mut two, 1).await;
    // A number that only the first channel has given out.
    let foreign = of_one[2].tag;
    assert!(of_two.iter().all(|delivery| delivery.tag != foreign), "each counts for itself");
    let refused = two.settle(&[foreign], &[]).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    assert_eq!(one.settle(&tags(&of_one), &[]).await, Ok(()), "the first one's are as they were");
    drop(one);
    let mut again = client.consume(&queue, 3).await.unwrap();
    let back = take(backend, &mut again, 1).await;
    assert_eq!(keys(&back), keys(&of_two));
    again.settle(&tags(&back), &[]).await.unwrap();
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

pub(super) async fn an_ack_is_of_its_own_tag(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 3)).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let held = take(backend, &mut channel, 3).await;
    channel.settle(&[held[2].tag], &[]).await.unwrap();
    drop(channel);
    let mut again = client.consume(&queue, 10).await.unwrap();
    let back = take(backend, &mut again, 2).await;
    assert_eq!(keys(&back), keys(&held[..2]), "none below it");
    again.settle(&tags(&back), &[]).await.unwrap();
    Ok(())
}

pub(super) async fn what_is_returned_comes_again(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 3)).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let first = take(backend, &mut channel, 3).await;
    channel.settle(&[first[0].tag, first[2].tag], &[]).await.unwrap();
    channel.requeue(&[first[1].tag]).await.unwrap();
    let again = take(backend, &mut channel, 1).await;
    assert_eq!((again.len(), &again[0].record), (1, &first[1].record), "that one, unchanged");
    assert!(again[0].redelivered && again[0].tag > first[2].tag, "under a new tag, and says so");
    channel.settle(&tags(&again), &[]).await.unwrap();
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

/// Four messages. The second and third come back, then the first: their order.
async fn returned_in_disorder(backend: &dyn QueueBackend) -> Vec<String> {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 4)).await;
    let mut one = client.consume(&queue, 1).await.unwrap();
    let first = take(backend, &mut one, 1).await;
    let mut two = client.consume(&queue, 2).await.unwrap();
    let others = take(backend, &mut two, 2).await;
    assert_eq!((first.len(), others.len()), (1, 2));
    drop(two);
    ready(backend, &*client, &queue, 3).await;
    drop(one);
    ready(backend, &*client, &queue, 4).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let all = take(backend, &mut channel, 4).await;
    channel.settle(&tags(&all), &[]).await.unwrap();
    all.iter().map(|delivery| delivery.record.key.to_string()).collect()
}

pub(super) async fn returns_come_first_in_their_order(backend: &dyn QueueBackend) -> Observed {
    if backend.kind() == Kind::Classic {
        return Err(NotApplicable("a statement on quorum queues").into());
    }
    assert_eq!(returned_in_disorder(backend).await, ["job-1", "job-2", "job-0", "job-3"]);
    Ok(())
}

pub(super) async fn returns_go_back_to_their_place(backend: &dyn QueueBackend) -> Observed {
    if backend.kind() == Kind::Quorum {
        return Err(NotApplicable("a statement on classic queues").into());
    }
    assert_eq!(returned_in_disorder(backend).await, ["job-0", "job-1", "job-2", "job-3"]);
    Ok(())
}

pub(super) async fn each_return_counts(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    for returns in 0..3 {
        let one = take(backend, &mut channel, 1).await;
        assert_eq!(one[0].returns, returns, "how often it came back");
        channel.requeue(&tags(&one)).await.unwrap();
    }
    let held = take(backend, &mut channel, 1).await;
    assert_eq!(held[0].returns, 3);
    drop(channel);
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let last = take(backend, &mut channel, 1).await;
    assert_eq!(last[0].returns, 4, "a channel that closes returns it too");
    channel.settle(&tags(&last), &[]).await.unwrap();
    Ok(())
}

pub(super) async fn what_is_held_is_not_ready(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 5)).await;
    assert_eq!(depth(backend, &*client, &queue, 5).await, 5);
    let mut channel = client.consume(&queue, 2).await.unwrap();
    let held = take(backend, &mut channel, 2).await;
    ready(backend, &*client, &queue, 3).await;
    let more = ports::timeout(backend.runtime(), QUIET, channel.next(5)).await;
    assert_eq!(more, None, "its prefetch is full");
    channel.requeue(&tags(&held)).await.unwrap();
    let held = take(backend, &mut channel, 2).await;
    ready(backend, &*client, &queue, 3).await;
    channel.settle(&tags(&held), &[]).await.unwrap();
    drop(channel);
    ready(backend, &*client, &queue, 3).await;
    super::drain(backend, &*client, &queue, 3).await;
    Ok(())
}
