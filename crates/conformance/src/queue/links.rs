//! Cases on links and servers that are lost: R3, R8 and R29.

use ports::{Delivered, Fault, Outcome};

use super::{
    PATIENCE, QUIET, QueueBackend, batch, declared, drain, keys, publish, ready, tags, take,
};
use crate::Observed;

pub(super) async fn a_lost_link_leaves_each_enqueued_or_not(
    backend: &dyn QueueBackend,
) -> Observed {
    let (queue, client) = declared(backend).await;
    let outcomes = backend.publish_and_lose_the_link(batch(&queue, 10), 4).await?;
    assert_eq!(outcomes.len(), 10);
    let copies = drain(backend, &*client, &queue, 1).await;
    assert!(copies.len() < 10, "some were lost on the way: {copies:?}");
    for (n, outcome) in outcomes.iter().enumerate() {
        let copies = copies.get(&format!("job-{n}"));
        assert!(copies.is_none_or(|copies| *copies == 1), "one publish, {copies:?} copies");
        match outcome {
            Err(Fault::Unknown(_)) => {}
            Err(Fault::Retry(_)) => assert_eq!(copies, None, "job-{n} was said to be nowhere"),
            other => panic!("job-{n} has no answer, but {other:?}"),
        }
    }
    let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Err(Fault::Unknown(_))));
    assert!(unknown.count() > copies.len(), "the same outcome for those here and those not");
    Ok(())
}

pub(super) async fn published_again_it_is_there_twice(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    let outcomes = backend.publish_and_lose_the_link(batch(&queue, 3), 3).await?;
    let unknown = |outcome: &Outcome<()>| matches!(outcome, Err(Fault::Unknown(_)));
    assert!(outcomes.iter().all(unknown), "{outcomes:?}");
    ready(backend, &*client, &queue, 3).await;
    publish(&*client, batch(&queue, 3)).await;
    let copies = drain(backend, &*client, &queue, 6).await;
    let twice = (0..3).map(|n| (format!("job-{n}"), 2)).collect();
    assert_eq!(copies, twice, "nobody removes duplicates");
    Ok(())
}

pub(super) async fn a_closed_channel_requeues(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 4)).await;
    let mut channel = client.consume(&queue, 3).await.unwrap();
    let held = take(backend, &mut channel, 3).await;
    assert!(held.iter().all(|delivery| !delivery.redelivered), "the first time");
    channel.settle(&[held[0].tag], &[]).await.unwrap();
    // That makes room for the fourth.
    let fourth = take(backend, &mut channel, 1).await;
    let other = backend.client("two").await;
    let mut second = other.consume(&queue, 10).await.unwrap();
    let early = ports::timeout(backend.runtime(), QUIET, second.next(10)).await;
    assert_eq!(early, None, "what is held is nobody else's");
    drop(channel);
    let back = take(backend, &mut second, 3).await;
    let expected = [&held[1..], &fourth].concat();
    assert_eq!((back.len(), keys(&back)), (3, keys(&expected)), "all unacked, none acked");
    assert!(back.iter().all(|delivery| delivery.redelivered), "and it says so");
    second.settle(&tags(&back), &[]).await.unwrap();
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

pub(super) async fn a_lost_connection_requeues(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 3)).await;
    let doomed = backend.client("doomed").await;
    let mut channel = doomed.consume(&queue, 2).await.unwrap();
    let held = take(backend, &mut channel, 2).await;
    backend.cut("doomed").await?;
    let mut second = client.consume(&queue, 10).await.unwrap();
    let back = take(backend, &mut second, 3).await;
    for delivery in &back {
        let was_held = keys(&held).contains(&*delivery.record.key);
        assert_eq!(delivery.redelivered, was_held, "{}", delivery.record.key);
    }
    assert_eq!((back.len(), keys(&back).len()), (3, 3), "each once");
    let lost = ports::timeout(backend.runtime(), PATIENCE, channel.next(1)).await;
    assert_eq!(lost, Some(Ok(Delivered::ChannelLost)), "its tags are dead");
    let late = channel.settle(&tags(&held), &[]).await;
    assert!(matches!(late, Err(Fault::Refused(_))), "a tag of a lost channel: {late:?}");
    second.settle(&tags(&back), &[]).await.unwrap();
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

pub(super) async fn confirmed_survives_a_kill(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 20)).await;
    let mut channel = client.consume(&queue, 5).await.unwrap();
    let held = take(backend, &mut channel, 5).await;
    backend.restart().await?;
    let lost = ports::timeout(backend.runtime(), PATIENCE, channel.next(1)).await;
    assert_eq!(lost, Some(Ok(Delivered::ChannelLost)), "its channels are gone");
    let begun = backend.runtime().elapsed();
    let mut again = loop {
        match client.consume(&queue, 100).await {
            Ok(channel) => break channel,
            // It is coming up.
            Err(fault) => {
                assert!(backend.runtime().elapsed() - begun < PATIENCE * 2, "{fault}");
                backend.runtime().sleep(QUIET).await;
            }
        }
    };
    let back = take(backend, &mut again, 20).await;
    let all = batch(&queue, 20);
    let expected = all.iter().map(|record| &*record.key).collect();
    assert_eq!((back.len(), keys(&back)), (20, expected), "each once, and whole");
    for delivery in back.iter().filter(|delivery| keys(&held).contains(&*delivery.record.key)) {
        assert!(delivery.redelivered, "{} was held", delivery.record.key);
    }
    again.settle(&tags(&back), &[]).await.unwrap();
    drop(again);
    ready(backend, &*client, &queue, 0).await;
    publish(&*client, batch(&queue, 1)).await;
    assert_eq!(drain(backend, &*client, &queue, 1).await.len(), 1, "it goes on");
    Ok(())
}
