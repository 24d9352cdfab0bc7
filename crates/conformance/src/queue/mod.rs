//! Cases on the job queue: statements R1 to R28 of the broker contract, as far as the port lets them be
//! seen. Never names a backend, and never reuses a queue.

mod dead;
mod links;
mod publishing;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ports::{Delivered, Deliveries, Delivery, JobQueue, Outcome, QueueSpec, Record, Runtime};

use crate::case::cases;
use crate::{Case, NotApplicable};

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

/// Releases with quorum queues.
const QUORUM: &str = "3.8 and later";

/// All cases.
pub fn cases() -> Vec<Case<dyn QueueBackend>> {
    cases! {
        "R1" "what is confirmed is in the queue" (QUORUM) publishing::confirmed_is_enqueued;
        "R2" "each publish is answered once, and its own answer" (QUORUM) publishing::each_publish_is_answered_once;
        "R3" "lost while unconfirmed: each is enqueued or not" (QUORUM) links::a_lost_link_leaves_each_enqueued_or_not;
        "R3" "published again, it is there twice" (QUORUM) links::published_again_it_is_there_twice;
        "R4" "what has no queue is returned, its neighbours are not" (QUORUM) publishing::unroutable_is_returned;
        "R5" "an equal declaration is fine, another one is refused" (QUORUM) publishing::an_equal_declaration_is_fine;
        "R5" "a missing queue is refused, and the client goes on" (QUORUM) publishing::a_missing_queue_is_refused;
        "R7" "a tag that is settled or unknown closes the channel" (QUORUM) settling::an_unknown_tag_closes_the_channel;
        "R7" "tags are of their channel" (QUORUM) settling::tags_are_of_their_channel;
        "R8" "a closed channel requeues what is unacked" (QUORUM) links::a_closed_channel_requeues;
        "R8" "a lost connection requeues what is unacked" (QUORUM) links::a_lost_connection_requeues;
        "R9" "equal ids are different messages, and neither says so" (QUORUM) publishing::equal_ids_are_different_messages;
        "R10" "what is returned comes again, unchanged, and says so" (QUORUM) settling::what_is_returned_comes_again;
        "R12" "prefetch n: at most n unacked on a channel" (QUORUM) settling::at_most_prefetch_unacked;
        "R12" "what is held is not ready" (QUORUM) settling::what_is_held_is_not_ready;
        "R13" "an ack is of its own tag, not of those below" (QUORUM) settling::an_ack_is_of_its_own_tag;
        "R15" "beyond the limit it is dead, and not before" (QUORUM) dead::beyond_the_limit_is_dead;
        "R15" "without a dead-letter queue it is dropped" (QUORUM) dead::without_a_target_it_is_dropped;
        "R16" "each return counts, a closed channel's too" (QUORUM) settling::each_return_counts;
        "R16" "a lost connection counts too" (QUORUM) dead::a_lost_link_counts_too;
        "R17" "held together, innocents reach the limit together" (QUORUM) dead::innocents_reach_the_limit_together;
        "R19" "what is rejected is dead, once, as it was" (QUORUM) dead::rejected_is_dead;
        "R20" "a dead letter that is published again begins anew" (QUORUM) dead::a_dead_letter_is_published_like_any;
        "R28" "one consumer sees the order of one publisher" (QUORUM) publishing::one_consumer_sees_the_order;
    }
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

/// How many are ready, waited for until there are so many: a server may count late.
async fn depth(
    backend: &dyn QueueBackend,
    client: &dyn JobQueue,
    queue: &str,
    at_least: u64,
) -> u64 {
    let begun = backend.runtime().elapsed();
    loop {
        let depth = client.depth(queue).await.unwrap();
        if depth >= at_least || backend.runtime().elapsed() - begun > PATIENCE {
            return depth;
        }
        backend.runtime().sleep(Duration::from_millis(20)).await;
    }
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
