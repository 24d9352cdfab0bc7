//! Cases on the job queue: statements R3, R8 and R12 of the broker contract. Never names a backend,
//! and never reuses a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ports::{
    Delivered, Deliveries, Delivery, Fault, JobQueue, Outcome, QueueSpec, Record, Runtime,
};

use crate::{Case, NotApplicable, Observed};

/// What a case needs of a job queue beyond the port.
#[async_trait]
pub trait QueueBackend: Send + Sync {
    /// Measures time for the cases.
    fn runtime(&self) -> &dyn Runtime;

    /// A name for a new queue.
    fn queue(&self) -> Arc<str>;

    /// A new client of this name.
    async fn client(&self, name: &str) -> Arc<dyn JobQueue>;

    /// Publishes by a client of its own, whose link is lost when about `arriving` of the messages
    /// have reached the server, and before it hears of any.
    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable>;

    /// Cuts all links of the client of this name, without goodbye.
    async fn cut(&self, client: &str) -> Result<(), NotApplicable>;
}

/// All cases.
pub fn cases() -> Vec<Case<dyn QueueBackend>> {
    let quorum = "3.8 and later";
    vec![
        Case::new("R3", "lost while unconfirmed: each is enqueued or not", quorum, |backend| {
            Box::pin(a_lost_link_leaves_each_enqueued_or_not(backend))
        }),
        Case::new("R3", "published again, it is there twice", quorum, |backend| {
            Box::pin(published_again_it_is_there_twice(backend))
        }),
        Case::new("R8", "a closed channel requeues what is unacked", quorum, |backend| {
            Box::pin(a_closed_channel_requeues(backend))
        }),
        Case::new("R8", "a lost connection requeues what is unacked", quorum, |backend| {
            Box::pin(a_lost_connection_requeues(backend))
        }),
        Case::new("R12", "prefetch n: at most n unacked on a channel", quorum, |backend| {
            Box::pin(at_most_prefetch_unacked(backend))
        }),
    ]
}

/// Nothing more is to come after so long.
const QUIET: Duration = Duration::from_millis(300);

/// What is to come must be there after so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Large enough for a link to break between two messages.
const PAYLOAD_BYTES: usize = 4096;

async fn declared(backend: &dyn QueueBackend) -> (Arc<str>, Arc<dyn JobQueue>) {
    let (name, client) = (backend.queue(), backend.client("one").await);
    let spec = QueueSpec { name: name.clone(), delivery_limit: 20, dead_letters: None };
    client.declare(&spec).await.unwrap();
    (name, client)
}

fn batch(queue: &Arc<str>, count: usize) -> Vec<Record> {
    let record = |n| Record {
        to: queue.clone(),
        key: format!("job-{n}").into(),
        headers: vec![("n".into(), Bytes::from(format!("{n}")))],
        payload: Bytes::from(vec![b'x'; PAYLOAD_BYTES]),
    };
    (0..count).map(record).collect()
}

async fn publish(client: &dyn JobQueue, batch: Vec<Record>) {
    for outcome in client.publish(batch).await {
        assert_eq!(outcome, Ok(()), "it can be published");
    }
}

/// What comes until nothing more does, unsettled.
async fn take(
    backend: &dyn QueueBackend,
    channel: &mut Box<dyn Deliveries>,
    at_least: usize,
) -> Vec<Delivery> {
    let mut taken = Vec::new();
    loop {
        let wait = if taken.len() < at_least { PATIENCE } else { QUIET };
        match ports::timeout(backend.runtime(), wait, channel.next(100)).await {
            Some(Ok(Delivered::Batch(batch))) => taken.extend(batch),
            Some(other) => panic!("expected deliveries, got {other:?}"),
            None => {
                assert!(taken.len() >= at_least, "{} of {at_least} came", taken.len());
                return taken;
            }
        }
    }
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

fn keys(deliveries: &[Delivery]) -> BTreeSet<&str> {
    deliveries.iter().map(|delivery| &*delivery.record.key).collect()
}

/// Empties the queue: how often each key was in it.
async fn drain(
    backend: &dyn QueueBackend,
    client: &dyn JobQueue,
    queue: &str,
    at_least: usize,
) -> BTreeMap<String, usize> {
    let mut channel = client.consume(queue, 1_000).await.unwrap();
    let taken = take(backend, &mut channel, at_least).await;
    channel.settle(&tags(&taken), &[]).await.unwrap();
    let mut copies = BTreeMap::new();
    for delivery in taken {
        *copies.entry(delivery.record.key.to_string()).or_default() += 1;
    }
    copies
}

/// Waits until so many are ready: a server may count late.
async fn ready(backend: &dyn QueueBackend, client: &dyn JobQueue, queue: &str, count: u64) {
    let begun = backend.runtime().elapsed();
    loop {
        let depth = client.depth(queue).await.unwrap();
        if depth == count {
            return;
        }
        let waited = backend.runtime().elapsed() - begun;
        assert!(waited < PATIENCE, "{depth} are ready, not {count}");
        backend.runtime().sleep(Duration::from_millis(20)).await;
    }
}

async fn a_lost_link_leaves_each_enqueued_or_not(backend: &dyn QueueBackend) -> Observed {
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

async fn published_again_it_is_there_twice(backend: &dyn QueueBackend) -> Observed {
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

async fn a_closed_channel_requeues(backend: &dyn QueueBackend) -> Observed {
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

async fn a_lost_connection_requeues(backend: &dyn QueueBackend) -> Observed {
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

async fn at_most_prefetch_unacked(backend: &dyn QueueBackend) -> Observed {
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
