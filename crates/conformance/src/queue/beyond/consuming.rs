//! Cases on consumers: R11 to R14 and R25 to R27.

use bytes::Bytes;
use ports::Fault;

use crate::queue::amqp::{
    Consuming, Message, arguments, emptied, ids, message, next, publish, ready, taken,
};
use crate::queue::{Kind, PATIENCE, QUIET, QueueBackend, batch};
use crate::{NotApplicable, Observed, Unseen};

use super::quorum_only;

pub(in crate::queue) async fn a_cancel_keeps_what_is_held(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    channel.declare(&queue, &arguments(backend, [])).await.unwrap();
    for key in ["1", "2", "3"] {
        publish(&*channel, &queue, message(key)).await;
    }
    channel.consume(&queue, Consuming { prefetch: 2, ..Consuming::default() }).await.unwrap();
    let held = taken(backend, &*channel).await;
    assert_eq!(ids(&held), ["1", "2"]);
    channel.cancel().await;
    ready(backend, &*channel, &queue, 1).await;
    channel.ack(held[0].tag, false).await;
    assert_eq!(taken(backend, &*channel).await, [], "nothing more comes");
    assert_eq!(channel.depth(&queue).await, 1, "what is held is not back");
    channel.reject(held[1].tag, true).await;
    ready(backend, &*channel, &queue, 2).await;
    let mut left = emptied(&*channel, &queue).await;
    left.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(ids(&left), ["2", "3"], "its tags were good to the end");
    Ok(())
}

pub(in crate::queue) async fn a_get_ignores_the_prefetch(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    channel.declare(&queue, &arguments(backend, [])).await.unwrap();
    for key in ["1", "2", "3"] {
        publish(&*channel, &queue, message(key)).await;
    }
    channel.consume(&queue, Consuming { prefetch: 1, ..Consuming::default() }).await.unwrap();
    let held = taken(backend, &*channel).await;
    assert_eq!(ids(&held), ["1"], "its prefetch is full");
    let more = [channel.get(&queue).await, channel.get(&queue).await];
    let more = more.map(|one| one.expect("one more").key);
    assert_eq!(more, ["2", "3"]);
    Ok(())
}

/// What a quorum queue gives a consumer without a prefetch.
const CAP: usize = 2_000;

pub(in crate::queue) async fn no_prefetch_is_2000(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let client = backend.client("one").await;
    let queue = backend.queue();
    channel.declare(&queue, &arguments(backend, [])).await.unwrap();
    let mut all = batch(&queue, CAP + 100);
    all.iter_mut().for_each(|record| record.payload = Bytes::new());
    crate::queue::publish(&*client, all).await;
    channel.consume(&queue, Consuming::default()).await.unwrap();
    let left = if backend.kind() == Kind::Quorum { 100 } else { 0 };
    ready(backend, &*channel, &queue, left).await;
    let held = taken(backend, &*channel).await;
    assert_eq!(held.len() as u64, CAP as u64 + 100 - left);
    channel.ack(held[held.len() - 1].tag, true).await;
    assert_eq!(taken(backend, &*channel).await.len() as u64, left, "then the others");
    Ok(())
}

/// What a consumer with a prefetch of 1 holds after a return that was beyond the limit.
async fn held_after_a_last_return(backend: &dyn QueueBackend) -> Result<Vec<String>, Unseen> {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    let limit = arguments(backend, [("x-delivery-limit", 0.into())]);
    channel.declare(&queue, &limit).await.unwrap();
    for key in ["1", "2", "3", "4"] {
        publish(&*channel, &queue, message(key)).await;
    }
    channel.consume(&queue, Consuming { prefetch: 1, ..Consuming::default() }).await.unwrap();
    let first = next(backend, &*channel).await;
    channel.reject(first.tag, true).await;
    Ok(taken(backend, &*channel).await.into_iter().map(|one| one.key).collect())
}

pub(in crate::queue) async fn a_last_return_gives_room_for_two(
    backend: &dyn QueueBackend,
) -> Observed {
    quorum_only(backend)?;
    // Once for the return, once for the death.
    assert_eq!(held_after_a_last_return(backend).await?, ["2", "3"]);
    Ok(())
}

pub(in crate::queue) async fn a_last_return_gives_room_for_one(
    backend: &dyn QueueBackend,
) -> Observed {
    quorum_only(backend)?;
    assert_eq!(held_after_a_last_return(backend).await?, ["2"]);
    Ok(())
}

pub(in crate::queue) async fn multiple_acks_those_below(backend: &dyn QueueBackend) -> Observed {
    let (one, two) = (backend.channel().await?, backend.channel().await?);
    let queue = backend.queue();
    one.declare(&queue, &arguments(backend, [])).await.unwrap();
    for key in ["1", "2", "3", "4"] {
        publish(&*one, &queue, message(key)).await;
    }
    one.consume(&queue, Consuming { prefetch: 3, ..Consuming::default() }).await.unwrap();
    let held = taken(backend, &*one).await;
    two.consume(&queue, Consuming { prefetch: 1, ..Consuming::default() }).await.unwrap();
    let others = taken(backend, &*two).await;
    assert_eq!((ids(&held), ids(&others)), (vec!["1", "2", "3"], vec!["4"]));
    two.cancel().await;
    one.cancel().await;
    one.ack(held[1].tag, true).await;
    drop(one);
    let third = backend.channel().await?;
    ready(backend, &*third, &queue, 1).await;
    assert_eq!(ids(&emptied(&*third, &queue).await), ["3"], "those up to it, of its channel");
    two.ack(others[0].tag, false).await;
    Ok(())
}

pub(in crate::queue) async fn auto_acked_is_gone(backend: &dyn QueueBackend) -> Observed {
    let doomed = backend.channel().await?;
    let queue = backend.queue();
    doomed.declare(&queue, &arguments(backend, [])).await.unwrap();
    for key in ["1", "2", "3"] {
        publish(&*doomed, &queue, message(key)).await;
    }
    doomed.consume(&queue, Consuming { auto_ack: true, ..Consuming::default() }).await.unwrap();
    let other = backend.channel().await?;
    ready(backend, &*other, &queue, 0).await;
    // Nobody has read them.
    drop(doomed);
    backend.runtime().sleep(QUIET).await;
    assert_eq!(ids(&emptied(&*other, &queue).await), Vec::<&str>::new(), "lost on the way");
    Ok(())
}

pub(in crate::queue) async fn one_consumer_is_active(backend: &dyn QueueBackend) -> Observed {
    let (one, two) = (backend.channel().await?, backend.channel().await?);
    let queue = backend.queue();
    let single = arguments(backend, [("x-single-active-consumer", true.into())]);
    one.declare(&queue, &single).await.unwrap();
    let some = Consuming { prefetch: 2, ..Consuming::default() };
    one.consume(&queue, some).await.unwrap();
    two.consume(&queue, some).await.unwrap();
    for key in ["1", "2", "3"] {
        publish(&*two, &queue, message(key)).await;
    }
    let held = taken(backend, &*one).await;
    assert_eq!(ids(&held), ["1", "2"]);
    assert_eq!(taken(backend, &*two).await, [], "though it has room");
    if backend.kind() == Kind::Classic {
        let greedy = backend.channel().await?;
        let refused = greedy.consume(&queue, Consuming { exclusive: true, ..some }).await;
        assert!(matches!(refused, Err(Fault::Refused(_))), "exclusive: {refused:?}");
    }
    one.ack(held[0].tag, false).await;
    let third = next(backend, &*one).await;
    drop(one);
    let taken_over = taken(backend, &*two).await;
    let mut ids = ids(&taken_over);
    ids.sort_unstable();
    assert_eq!(ids, ["2", &*third.key], "what the first one held");
    assert!(taken_over.iter().all(|one| one.redelivered));
    Ok(())
}

pub(in crate::queue) async fn an_exclusive_consumer_is_alone(
    backend: &dyn QueueBackend,
) -> Observed {
    let (one, two) = (backend.channel().await?, backend.channel().await?);
    let queue = backend.queue();
    one.declare(&queue, &arguments(backend, [])).await.unwrap();
    let exclusive = Consuming { exclusive: true, ..Consuming::default() };
    one.consume(&queue, exclusive).await.unwrap();
    if backend.kind() == Kind::Quorum {
        assert_eq!(two.consume(&queue, exclusive).await, Ok(()), "in silence it is not");
        return Ok(());
    }
    let refused = two.consume(&queue, Consuming::default()).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    drop(one);
    let third = backend.channel().await?;
    let begun = backend.runtime().elapsed();
    // The server may notice late that the first one is gone; a refusal costs a channel.
    let mut again = third.consume(&queue, exclusive).await;
    while again.is_err() && backend.runtime().elapsed() - begun < PATIENCE {
        again = backend.channel().await?.consume(&queue, exclusive).await;
    }
    assert_eq!(again, Ok(()), "once it is gone");
    Ok(())
}

/// Published in the order of their names; the priority is the name's number. As they come out.
async fn prioritised(backend: &dyn QueueBackend, levels: Option<i32>) -> Result<String, Unseen> {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    let mut given = arguments(backend, []);
    given.extend(levels.map(|levels| ("x-max-priority", levels.into())));
    channel.declare(&queue, &given).await.unwrap();
    for (key, priority) in [("a0", 0), ("b9", 9), ("c0", 0), ("d9", 9), ("e9", 9), ("f0", 0)] {
        let message = Message { priority: Some(priority), ..message(key) };
        publish(&*channel, &queue, message).await;
    }
    let all = emptied(&*channel, &queue).await;
    Ok(ids(&all).join(" "))
}

pub(in crate::queue) async fn the_higher_priority_comes_first(
    backend: &dyn QueueBackend,
) -> Observed {
    if backend.kind() == Kind::Quorum {
        return Err(NotApplicable("quorum queues have no x-max-priority").into());
    }
    assert_eq!(prioritised(backend, Some(9)).await?, "b9 d9 e9 a0 c0 f0");
    assert_eq!(prioritised(backend, None).await?, "a0 b9 c0 d9 e9 f0", "without x-max-priority");
    Ok(())
}

pub(in crate::queue) async fn a_quorum_queue_ignores_priorities(
    backend: &dyn QueueBackend,
) -> Observed {
    quorum_only(backend)?;
    assert_eq!(prioritised(backend, None).await?, "a0 b9 c0 d9 e9 f0");
    Ok(())
}

pub(in crate::queue) async fn a_quorum_queue_has_two_priorities(
    backend: &dyn QueueBackend,
) -> Observed {
    quorum_only(backend)?;
    assert_eq!(prioritised(backend, None).await?, "b9 d9 a0 e9 c0 f0");
    Ok(())
}
