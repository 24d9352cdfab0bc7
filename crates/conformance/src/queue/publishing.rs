//! Cases on publishing and declaring: R1, R2, R4, R5, R9 and R28.

use futures_util::future::join_all;
use ports::{Fault, QueueSpec, Record};

use super::{QueueBackend, batch, counts, declared, depth, drain, publish, take};
use crate::Observed;

pub(super) async fn confirmed_is_enqueued(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 50)).await;
    // Asked by another client, at once: a confirm is not a promise for later.
    let other = backend.client("two").await;
    assert_eq!(depth(backend, &*other, &queue, 50).await, 50);
    let copies = drain(backend, &*other, &queue, 50).await;
    assert!(copies.len() == 50 && copies.values().all(|count| *count == 1), "{copies:?}");
    Ok(())
}

pub(super) async fn each_publish_is_answered_once(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    let at_once = (0..5).map(|_| client.publish(batch(&queue, 40)));
    for outcomes in join_all(at_once).await {
        assert_eq!(outcomes, vec![Ok(()); 40], "one answer each");
    }
    let copies = drain(backend, &*client, &queue, 200).await;
    assert!(copies.values().all(|count| *count == 5), "{copies:?}");
    assert!(client.publish(Vec::new()).await.is_empty(), "nothing for nothing");
    Ok(())
}

pub(super) async fn unroutable_is_returned(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    let nowhere = backend.queue();
    let mut mixed = batch(&queue, 5);
    for at in [1, 3] {
        mixed[at].to = nowhere.clone();
    }
    for (at, outcome) in client.publish(mixed).await.into_iter().enumerate() {
        match at {
            1 | 3 => assert!(matches!(outcome, Err(Fault::Refused(_))), "{at}: {outcome:?}"),
            _ => assert_eq!(outcome, Ok(()), "{at}: its neighbours are not touched"),
        }
    }
    let copies = drain(backend, &*client, &queue, 3).await;
    assert_eq!(copies.keys().collect::<Vec<_>>(), ["job-0", "job-2", "job-4"]);
    Ok(())
}

pub(super) async fn equal_ids_are_different_messages(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let both = take(backend, &mut channel, 2).await;
    let said: Vec<bool> = both.iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(said, [false, false], "neither says that there was another");
    assert_eq!(both[0].record, both[1].record);
    channel.settle(&super::tags(&both), &[]).await.unwrap();
    Ok(())
}

pub(super) async fn one_consumer_sees_the_order(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    let all = batch(&queue, 60);
    for part in all.chunks(20) {
        publish(&*client, part.to_vec()).await;
    }
    let mut channel = client.consume(&queue, 7).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < all.len() {
        let some = take(backend, &mut channel, 1).await;
        channel.settle(&super::tags(&some), &[]).await.unwrap();
        seen.extend(some);
    }
    assert!(seen.is_sorted_by(|a, b| a.tag < b.tag), "tags rise");
    let seen: Vec<Record> = seen.into_iter().map(|delivery| delivery.record).collect();
    assert_eq!(seen, all, "as published, to the byte");
    Ok(())
}

pub(super) async fn an_equal_declaration_is_fine(backend: &dyn QueueBackend) -> Observed {
    let client = backend.client("one").await;
    let spec =
        QueueSpec { name: backend.queue(), delivery_limit: 3, dead_letters: Some(backend.queue()) };
    for _ in 0..2 {
        assert_eq!(client.declare(&spec).await, Ok(()));
    }
    publish(&*client, batch(&spec.name, 1)).await;
    let other = [
        QueueSpec { delivery_limit: 4, ..spec.clone() },
        QueueSpec { dead_letters: Some(backend.queue()), ..spec.clone() },
        QueueSpec { dead_letters: None, ..spec.clone() },
    ];
    // A limit is an argument of those that count.
    let from = usize::from(counts(backend).is_err());
    for other in &other[from..] {
        let refused = client.declare(other).await;
        assert!(matches!(refused, Err(Fault::Refused(_))), "{other:?}: {refused:?}");
    }
    // The refusal cost a channel and nothing else.
    assert_eq!(client.declare(&spec).await, Ok(()));
    assert_eq!(drain(backend, &*client, &spec.name, 1).await.len(), 1, "the message is there");
    Ok(())
}

pub(super) async fn a_missing_queue_is_refused(backend: &dyn QueueBackend) -> Observed {
    let (queue, client) = declared(backend).await;
    let missing = backend.queue();
    let consumed = client.consume(&missing, 1).await.err();
    assert!(matches!(consumed, Some(Fault::Refused(_))), "{consumed:?}");
    let asked = client.depth(&missing).await;
    assert!(matches!(asked, Err(Fault::Refused(_))), "{asked:?}");
    // The client goes on.
    publish(&*client, batch(&queue, 1)).await;
    assert_eq!(drain(backend, &*client, &queue, 1).await.len(), 1);
    Ok(())
}
