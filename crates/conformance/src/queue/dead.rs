//! Cases on dead letters: R15 to R20, R33.

use std::sync::Arc;

use ports::{Delivery, JobQueue, QueueSpec};

use super::{Kind, QueueBackend, batch, counts, drain, keys, publish, ready, tags, take};
use crate::{NotApplicable, Observed};

/// Returns that a message may have here.
const LIMIT: u32 = 2;

/// A queue with this limit and a dead-letter queue.
async fn limited(backend: &dyn QueueBackend) -> (Arc<str>, Arc<str>, Arc<dyn JobQueue>) {
    let client = backend.client("one").await;
    let (name, dead) = (backend.queue(), backend.queue());
    let spec =
        QueueSpec { name: name.clone(), delivery_limit: LIMIT, dead_letters: Some(dead.clone()) };
    client.declare(&spec).await.unwrap();
    (name, dead, client)
}

/// All that is dead, settled.
async fn dead_letters(
    backend: &dyn QueueBackend,
    client: &dyn JobQueue,
    dead: &str,
    count: usize,
) -> Vec<Delivery> {
    ready(backend, client, dead, count as u64).await;
    let mut channel = client.consume(dead, 100).await.unwrap();
    let letters = take(backend, &mut channel, count).await;
    channel.settle(&tags(&letters), &[]).await.unwrap();
    letters
}

pub(super) async fn rejected_is_dead(backend: &dyn QueueBackend) -> Observed {
    let (queue, dead, client) = limited(backend).await;
    let all = batch(&queue, 4);
    publish(&*client, all.clone()).await;
    let mut channel = client.consume(&queue, 10).await.unwrap();
    let held = take(backend, &mut channel, 4).await;
    channel.settle(&[held[0].tag, held[2].tag], &[held[1].tag, held[3].tag]).await.unwrap();
    let letters = dead_letters(backend, &*client, &dead, 2).await;
    assert_eq!(keys(&letters), keys(&[held[1].clone(), held[3].clone()]), "once each");
    for letter in &letters {
        let was = all.iter().find(|record| record.key == letter.record.key).unwrap();
        assert_eq!(letter.record.payload, was.payload, "what it was");
        let kept = was.headers.iter().all(|header| letter.record.headers.contains(header));
        assert!(kept, "with its headers: {:?}", letter.record.headers);
    }
    ready(backend, &*client, &queue, 0).await;
    Ok(())
}

pub(super) async fn beyond_the_limit_is_dead(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    for _ in 0..=LIMIT {
        ready(backend, &*client, &dead, 0).await;
        let one = take(backend, &mut channel, 1).await;
        channel.requeue(&tags(&one)).await.unwrap();
    }
    assert_eq!(dead_letters(backend, &*client, &dead, 1).await.len(), 1);
    let none = ports::timeout(backend.runtime(), super::QUIET, channel.next(1)).await;
    assert_eq!(none, None, "it is in one place");
    Ok(())
}

pub(super) async fn without_a_target_it_is_dropped(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let client = backend.client("one").await;
    let spec = QueueSpec { name: backend.queue(), delivery_limit: LIMIT, dead_letters: None };
    client.declare(&spec).await.unwrap();
    publish(&*client, batch(&spec.name, 2)).await;
    let mut channel = client.consume(&spec.name, 10).await.unwrap();
    let held = take(backend, &mut channel, 2).await;
    channel.settle(&[], &[held[0].tag]).await.unwrap();
    channel.requeue(&[held[1].tag]).await.unwrap();
    for _ in 0..LIMIT {
        let one = take(backend, &mut channel, 1).await;
        assert_eq!(keys(&one), keys(&held[1..]), "the rejected one never comes");
        channel.requeue(&tags(&one)).await.unwrap();
    }
    assert!(take(backend, &mut channel, 0).await.is_empty());
    drop(channel);
    assert!(drain(backend, &*client, &spec.name, 0).await.is_empty());
    Ok(())
}

pub(super) async fn innocents_reach_the_limit_together(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 3)).await;
    for _ in 0..=LIMIT {
        let mut channel = client.consume(&queue, 3).await.unwrap();
        let held = take(backend, &mut channel, 3).await;
        assert_eq!(held.len(), 3);
        // One of them ends its consumer; all that it held came back.
        drop(channel);
    }
    assert_eq!(dead_letters(backend, &*client, &dead, 3).await.len(), 3);
    Ok(())
}

pub(super) async fn a_lost_link_counts_too(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    for returns in 0..=LIMIT {
        let name = format!("doomed-{returns}");
        let doomed = backend.client(&name).await;
        let mut channel = doomed.consume(&queue, 1).await.unwrap();
        assert_eq!(take(backend, &mut channel, 1).await[0].returns, returns);
        backend.cut(&name).await?;
        if returns < LIMIT {
            ready(backend, &*client, &queue, 1).await;
        }
    }
    assert_eq!(dead_letters(backend, &*client, &dead, 1).await.len(), 1);
    Ok(())
}

pub(super) async fn a_dead_letter_says_why(backend: &dyn QueueBackend) -> Observed {
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let one = take(backend, &mut channel, 1).await;
    channel.settle(&[], &tags(&one)).await.unwrap();
    let mut reasons = vec!["rejected"];
    if counts(backend).is_ok() {
        publish(&*client, batch(&queue, 1)).await;
        for _ in 0..=LIMIT {
            let one = take(backend, &mut channel, 1).await;
            channel.requeue(&tags(&one)).await.unwrap();
        }
        reasons.push("delivery_limit");
    }
    let letters = dead_letters(backend, &*client, &dead, reasons.len()).await;
    for (letter, reason) in letters.iter().zip(reasons) {
        let header = |wanted: &str| {
            let found = letter.record.headers.iter().find(|(name, _)| &**name == wanted);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(header("x-death"), Some(format!("{reason} 1 {queue}")));
        assert_eq!(header("x-first-death-queue").as_deref(), Some(&*queue));
        assert_eq!(header("x-first-death-reason").as_deref(), Some(reason));
    }
    Ok(())
}

pub(super) async fn a_dead_letter_is_published_like_any(backend: &dyn QueueBackend) -> Observed {
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let one = take(backend, &mut channel, 1).await;
    channel.settle(&[], &tags(&one)).await.unwrap();
    let mut letters = client.consume(&dead, 1).await.unwrap();
    let letter = take(backend, &mut letters, 1).await;
    // Back to where it came from, as an operator does it: confirmed before it is settled.
    let again = ports::Record { to: queue.clone(), ..letter[0].record.clone() };
    publish(&*client, vec![again]).await;
    letters.settle(&tags(&letter), &[]).await.unwrap();
    let back = take(backend, &mut channel, 1).await;
    assert_eq!((keys(&back), back[0].returns), (keys(&one), 0), "it begins anew");
    channel.settle(&tags(&back), &[]).await.unwrap();
    Ok(())
}

/// Whether it was delivered before, and its count, as a dead letter says it at first and after a return. It was
/// returned, lost its channel, and was rejected.
async fn told(backend: &dyn QueueBackend) -> [(bool, u32); 2] {
    let (queue, dead, client) = limited(backend).await;
    publish(&*client, batch(&queue, 1)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let one = take(backend, &mut channel, 1).await;
    channel.requeue(&tags(&one)).await.unwrap();
    take(backend, &mut channel, 1).await;
    drop(channel);
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let one = take(backend, &mut channel, 1).await;
    channel.settle(&[], &tags(&one)).await.unwrap();
    let mut letters = client.consume(&dead, 1).await.unwrap();
    let first = take(backend, &mut letters, 1).await.remove(0);
    letters.requeue(&[first.tag]).await.unwrap();
    let second = take(backend, &mut letters, 1).await.remove(0);
    letters.settle(&[second.tag], &[]).await.unwrap();
    [first, second].map(|letter| (letter.redelivered, letter.returns))
}

pub(super) async fn a_dead_letter_begins_anew(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    assert_eq!(told(backend).await, [(false, 0), (true, 1)]);
    Ok(())
}

pub(super) async fn a_dead_letter_tells_what_failed(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    // The channel and the rejection; not the return.
    assert_eq!(told(backend).await, [(true, 2), (true, 1)]);
    Ok(())
}

pub(super) async fn a_dead_letter_counts_on(backend: &dyn QueueBackend) -> Observed {
    counts(backend)?;
    assert_eq!(told(backend).await, [(true, 3), (true, 4)]);
    Ok(())
}

pub(super) async fn a_classic_dead_letter_begins_anew(backend: &dyn QueueBackend) -> Observed {
    if backend.kind() == Kind::Quorum {
        return Err(NotApplicable("a statement on classic queues").into());
    }
    assert_eq!(told(backend).await, [(false, 0), (true, 0)]);
    Ok(())
}
