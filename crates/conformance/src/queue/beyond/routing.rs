//! Cases on what becomes of a publish: R4, R5, R6 and R31.

use std::sync::Arc;

use ports::Fault;

use crate::Observed;
use crate::queue::amqp::{
    Amqp, Confirmed, Consuming, arguments, emptied, ids, message, next, publish, ready,
};
use crate::queue::{Kind, QueueBackend};

pub(in crate::queue) async fn not_mandatory_is_dropped(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let nowhere = backend.queue();
    let confirmed = channel.publish("", &nowhere, false, message("1")).await;
    assert_eq!(confirmed, Ok(Confirmed::Acked), "as if it were somewhere");
    let confirmed = channel.publish("", &nowhere, true, message("2")).await;
    assert_eq!(confirmed, Ok(Confirmed::Returned));
    channel.declare(&nowhere, &arguments(backend, [])).await.unwrap();
    assert_eq!(channel.depth(&nowhere).await, 0);
    Ok(())
}

pub(in crate::queue) async fn a_missing_exchange_closes_the_channel(
    backend: &dyn QueueBackend,
) -> Observed {
    let channel = backend.channel().await?;
    let queue = backend.queue();
    channel.declare(&queue, &arguments(backend, [])).await.unwrap();
    publish(&*channel, &queue, message("held")).await;
    channel.consume(&queue, Consuming::default()).await.unwrap();
    let held = next(backend, &*channel).await;
    assert!(!held.redelivered);
    let refused = channel.publish(&backend.queue(), "", true, message("lost")).await;
    assert!(matches!(refused, Err(Fault::Unknown(_))), "{refused:?}");
    let other = backend.channel().await?;
    ready(backend, &*other, &queue, 1).await;
    let back = other.get(&queue).await.expect("what was held");
    assert!(back.key == held.key && back.redelivered, "{back:?}");
    other.ack(back.tag, false).await;
    Ok(())
}

/// A queue that is full, one that is not, and an exchange that fans out to both.
async fn one_of_two_is_full(backend: &dyn QueueBackend, channel: &dyn Amqp) -> [Arc<str>; 3] {
    let [full, open, exchange] = [(); 3].map(|()| backend.queue());
    let bound =
        arguments(backend, [("x-max-length", 1.into()), ("x-overflow", "reject-publish".into())]);
    channel.declare(&full, &bound).await.unwrap();
    channel.declare(&open, &arguments(backend, [])).await.unwrap();
    channel.fan_out(&exchange, &[full.clone(), open.clone()]).await;
    let mut published = 0;
    // A quorum queue lets some more in before it tells the channel (R23).
    while channel.publish("", &full, true, message("filler")).await == Ok(Confirmed::Acked) {
        published += 1;
        assert!(published < 50, "it takes everything");
    }
    [full, open, exchange]
}

pub(in crate::queue) async fn a_nack_is_not_nowhere(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let [full, open, exchange] = one_of_two_is_full(backend, &*channel).await;
    let confirmed = channel.publish(&exchange, "", true, message("fanned")).await;
    assert_eq!(confirmed, Ok(Confirmed::Nacked));
    assert_eq!(ids(&emptied(&*channel, &open).await), ["fanned"], "the other one has it");
    let fillers = emptied(&*channel, &full).await;
    assert!(fillers.iter().all(|one| one.key == "filler"), "{fillers:?}");
    Ok(())
}

pub(in crate::queue) async fn a_fan_out_is_not_atomic(backend: &dyn QueueBackend) -> Observed {
    let channel = backend.channel().await?;
    let [full, open, exchange] = one_of_two_is_full(backend, &*channel).await;
    let committed = channel.transact(&exchange, "", message("fanned")).await;
    match backend.kind() {
        Kind::Quorum => assert_eq!(committed, Ok(()), "nobody says that a part is missing"),
        Kind::Classic => assert!(matches!(committed, Err(Fault::Refused(_))), "{committed:?}"),
    }
    // A quorum queue has it a little later than the commit is answered.
    ready(backend, &*channel, &open, 1).await;
    assert_eq!(ids(&emptied(&*channel, &open).await), ["fanned"], "a part is there");
    let fillers = emptied(&*channel, &full).await;
    assert!(fillers.iter().all(|one| one.key == "filler"), "{fillers:?}");
    Ok(())
}
