//! Cases on messages that die: R15 and R18 to R23.

use std::sync::Arc;
use std::time::Duration;

use crate::queue::amqp::{
    Amqp, Argument, Confirmed, Consuming, Death, Message, arguments, emptied, ids, message,
    publish, ready,
};
use crate::queue::{Kind, QUIET, QueueBackend};
use crate::{NotApplicable, Observed, Unseen};

use super::{RESEND, quorum_only};

/// Declares a queue that dead-letters to the other one.
async fn declare(
    backend: &dyn QueueBackend,
    channel: &dyn Amqp,
    queue: &str,
    target: &str,
    more: &[(&'static str, Argument)],
) {
    let mut given = arguments(
        backend,
        [("x-dead-letter-exchange", "".into()), ("x-dead-letter-routing-key", target.into())],
    );
    given.extend(more.iter().cloned());
    channel.declare(queue, &given).await.unwrap();
}

/// Gets the message that must be ready, and rejects it.
async fn reject(backend: &dyn QueueBackend, channel: &dyn Amqp, queue: &str) {
    ready(backend, channel, queue, 1).await;
    let one = channel.get(queue).await.expect("the message");
    channel.reject(one.tag, false).await;
}

/// Returns the only message so often, or until it is gone: how often it came.
async fn returned(backend: &dyn QueueBackend, most: u32) -> Result<u32, Unseen> {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    channel.declare(&queue, &arguments(backend, [])).await.unwrap();
    publish(&*channel, &queue, message("1")).await;
    let one_at_a_time = Consuming { prefetch: 1, ..Consuming::default() };
    channel.consume(&queue, one_at_a_time).await.unwrap();
    for times in 0..most {
        match ports::timeout(backend.runtime(), QUIET * 3, channel.next()).await.flatten() {
            Some(one) => channel.reject(one.tag, true).await,
            None => return Ok(times),
        }
    }
    Ok(most)
}

pub(in crate::queue) async fn by_default_the_limit_is_20(backend: &dyn QueueBackend) -> Observed {
    quorum_only(backend)?;
    assert_eq!(returned(backend, 40).await?, 21, "the first time, and 20 returns");
    Ok(())
}

pub(in crate::queue) async fn by_default_there_is_no_limit(backend: &dyn QueueBackend) -> Observed {
    quorum_only(backend)?;
    assert_eq!(returned(backend, 40).await?, 40);
    Ok(())
}

pub(in crate::queue) async fn a_classic_queue_has_no_limit(backend: &dyn QueueBackend) -> Observed {
    if backend.kind() == Kind::Quorum {
        return Err(NotApplicable("a statement on classic queues").into());
    }
    assert_eq!(returned(backend, 40).await?, 40);
    Ok(())
}

pub(in crate::queue) async fn without_a_target_a_dead_letter_is_lost(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let (queue, dead) = (backend.queue(), backend.queue());
    declare(backend, &*channel, &queue, &dead, &[]).await;
    publish(&*channel, &queue, message("lost")).await;
    reject(backend, &*channel, &queue).await;
    ready(backend, &*channel, &queue, 0).await;
    backend.runtime().sleep(QUIET).await;
    channel.declare(&dead, &arguments(backend, [])).await.unwrap();
    // This one has a target; the other one does not come behind it.
    publish(&*channel, &queue, message("kept")).await;
    reject(backend, &*channel, &queue).await;
    ready(backend, &*channel, &dead, 1).await;
    assert_eq!(ids(&emptied(&*channel, &dead).await), ["kept"]);
    Ok(())
}

/// With this `x-overflow` and at-least-once: what reaches a target that is there too late.
async fn dead_before_the_target(
    backend: &dyn QueueBackend,
    overflow: &str,
) -> Result<(Box<dyn Amqp>, Arc<str>), Unseen> {
    quorum_only(backend)?;
    let channel = backend.channel().await?;
    let (queue, dead) = (backend.queue(), backend.queue());
    let strategy =
        [("x-dead-letter-strategy", "at-least-once".into()), ("x-overflow", overflow.into())];
    declare(backend, &*channel, &queue, &dead, &strategy).await;
    publish(&*channel, &queue, message("1")).await;
    reject(backend, &*channel, &queue).await;
    backend.runtime().sleep(QUIET).await;
    channel.declare(&dead, &arguments(backend, [])).await.unwrap();
    Ok((channel, dead))
}

pub(in crate::queue) async fn at_least_once_waits_for_the_target(
    backend: &dyn QueueBackend,
) -> Observed {
    let (channel, dead) = dead_before_the_target(backend, "reject-publish").await?;
    ready(backend, &*channel, &dead, 1).await;
    assert_eq!(ids(&emptied(&*channel, &dead).await), ["1"]);
    Ok(())
}

pub(in crate::queue) async fn with_drop_head_it_is_at_most_once(
    backend: &dyn QueueBackend,
) -> Observed {
    let (channel, dead) = dead_before_the_target(backend, "drop-head").await?;
    // Longer than the other strategy takes.
    backend.runtime().sleep(RESEND * 3).await;
    assert_eq!(channel.depth(&dead).await, 0, "it was not kept");
    Ok(())
}

pub(in crate::queue) async fn deaths_are_counted_the_newest_first(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let (one, two) = (backend.queue(), backend.queue());
    declare(backend, &*channel, &one, &two, &[]).await;
    declare(backend, &*channel, &two, &one, &[]).await;
    publish(&*channel, &one, message("1")).await;
    for queue in [&one, &two, &one] {
        reject(backend, &*channel, queue).await;
    }
    ready(backend, &*channel, &two, 1).await;
    let letters = emptied(&*channel, &two).await;
    let death = |queue: &Arc<str>, count| Death {
        reason: "rejected".to_owned(),
        queue: queue.to_string(),
        count,
    };
    assert_eq!(letters[0].deaths, [death(&one, 2), death(&two, 1)]);
    Ok(())
}

pub(in crate::queue) async fn a_cycle_of_expiries_ends(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let (one, two) = (backend.queue(), backend.queue());
    let ttl = [("x-message-ttl", 200.into())];
    declare(backend, &*channel, &one, &two, &ttl).await;
    declare(backend, &*channel, &two, &one, &[]).await;
    publish(&*channel, &one, message("1")).await;
    // With a rejection in it, a cycle goes on.
    reject(backend, &*channel, &two).await;
    reject(backend, &*channel, &two).await;
    let (first, second) = (backend.queue(), backend.queue());
    declare(backend, &*channel, &first, &second, &ttl).await;
    declare(backend, &*channel, &second, &first, &ttl).await;
    publish(&*channel, &first, message("2")).await;
    ready(backend, &*channel, &first, 0).await;
    let begun = backend.runtime().elapsed();
    // It may be seen in the second queue, and never in the first one again.
    while backend.runtime().elapsed() - begun < Duration::from_millis(800) {
        assert_eq!(channel.depth(&first).await, 0, "it came round");
        backend.runtime().sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(channel.depth(&second).await, 0, "it was dropped");
    Ok(())
}

pub(in crate::queue) async fn expired_behind_a_live_one_it_waits(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let (queue, dead) = (backend.queue(), backend.queue());
    channel.declare(&dead, &arguments(backend, [])).await.unwrap();
    declare(backend, &*channel, &queue, &dead, &[]).await;
    publish(&*channel, &queue, message("live")).await;
    publish(&*channel, &queue, Message { ttl_ms: Some(100), ..message("short") }).await;
    backend.runtime().sleep(Duration::from_millis(600)).await;
    assert_eq!(channel.depth(&queue).await, 2, "only the head is looked at");
    assert_eq!(channel.depth(&dead).await, 0);
    let live = channel.get(&queue).await.expect("the head");
    assert_eq!(live.key, "live");
    channel.ack(live.tag, false).await;
    ready(backend, &*channel, &dead, 1).await;
    let letters = emptied(&*channel, &dead).await;
    assert_eq!(ids(&letters), ["short"]);
    assert_eq!(letters[0].expiration, None, "it shall not expire again");
    assert_eq!(letters[0].deaths[0].reason, "expired");
    Ok(())
}

pub(in crate::queue) async fn a_return_keeps_the_expiry(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let (queue, dead) = (backend.queue(), backend.queue());
    channel.declare(&dead, &arguments(backend, [])).await.unwrap();
    declare(backend, &*channel, &queue, &dead, &[]).await;
    publish(&*channel, &queue, Message { ttl_ms: Some(1_500), ..message("1") }).await;
    let held = channel.get(&queue).await.expect("the message");
    backend.runtime().sleep(Duration::from_millis(1_000)).await;
    assert_eq!(channel.depth(&dead).await, 0);
    channel.reject(held.tag, true).await;
    // A new 1,500 ms would not be over then.
    backend.runtime().sleep(Duration::from_millis(1_000)).await;
    assert_eq!(channel.depth(&dead).await, 1, "1,500 ms after it was published");
    emptied(&*channel, &dead).await;
    Ok(())
}

pub(in crate::queue) async fn by_default_the_oldest_is_dropped(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    let bound = arguments(backend, [("x-max-length", 3.into())]);
    channel.declare(&queue, &bound).await.unwrap();
    for key in ["1", "2", "3", "4", "5"] {
        // Confirmed all the same.
        publish(&*channel, &queue, message(key)).await;
    }
    ready(backend, &*channel, &queue, 3).await;
    assert_eq!(ids(&emptied(&*channel, &queue).await), ["3", "4", "5"]);
    Ok(())
}

pub(in crate::queue) async fn refused_publishes_may_be_dead_letters(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let (queue, dead) = (backend.queue(), backend.queue());
    let overflow = [("x-max-length", 1.into()), ("x-overflow", "reject-publish-dlx".into())];
    channel.declare(&dead, &arguments(backend, [])).await.unwrap();
    declare(backend, &*channel, &queue, &dead, &overflow).await;
    publish(&*channel, &queue, message("1")).await;
    let second = channel.publish("", &queue, true, message("2")).await;
    let (confirmed, died) = match backend.kind() {
        Kind::Classic => (Confirmed::Nacked, "2"),
        // As if nothing had been said: the oldest is dropped.
        Kind::Quorum => (Confirmed::Acked, "1"),
    };
    assert_eq!(second, Ok(confirmed));
    ready(backend, &*channel, &dead, 1).await;
    let letters = emptied(&*channel, &dead).await;
    assert_eq!((ids(&letters), letters[0].deaths[0].reason.as_str()), (vec![died], "maxlen"));
    Ok(())
}
