//! Cases on the job queue: statements R1 to R33 of the broker contract, through the port as far as it
//! lets them be seen. Never names a backend, and never reuses a queue.

mod amqp;
mod beyond;
mod bounds;
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
use crate::{Case, NotApplicable, Unseen};

pub use amqp::{Amqp, Argument, Arguments, Confirmed, Consuming, Death, Got, Message};
pub use beyond::RESEND;

/// The type of a backend's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Replicated; the product's own.
    Quorum,
    /// On one node.
    Classic,
}

impl Kind {
    /// As `x-queue-type` names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Quorum => "quorum",
            Kind::Classic => "classic",
        }
    }
}

/// What bounds a queue beside its delivery limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many may be ready; then publishes are refused (`reject-publish`).
    Length(u32),
    /// So long may a delivery stay unsettled. The server looks each second at most.
    Ack(Duration),
}

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

    /// The type of its queues.
    fn kind(&self) -> Kind {
        Kind::Quorum
    }

    /// A new queue that is bound like this, with a delivery limit of 20, and a client for it.
    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen>;

    /// Kills the server, and starts it on what it has left behind. Clients of before may live on. Not
    /// before the youngest queue has been there for some seconds: a real server writes down late
    /// which queues there are, and may lose one with all that was confirmed.
    async fn restart(&self) -> Result<(), Unseen>;

    /// Makes the server short of memory, or no longer.
    async fn alarm(&self, on: bool) -> Result<(), Unseen>;

    /// A channel of AMQP itself.
    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen>;

    /// Deletes queues that nobody needs any more, as an operator would: those of thousands of programs are too many
    /// for one server. What ends with its server needs none of it.
    async fn forget(&self, _queues: &[Arc<str>]) {}
}

/// Releases with quorum queues.
const QUORUM: &str = "3.8 and later";

/// Releases where a quorum queue takes a single limit for all its returns.
const BEFORE_4: &str = "3.8 to 3.13";

/// All cases, by number.
pub fn cases() -> Vec<Case<dyn QueueBackend>> {
    let mut all = through_the_port();
    all.extend(beyond_the_port());
    // Stable: the cases of one statement stay in their order.
    all.sort_by_key(|case| case.id[1..].parse::<u32>().expect("a number"));
    all
}

/// Cases that models have to show too.
pub fn through_the_port() -> Vec<Case<dyn QueueBackend>> {
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
        "R10" "quorum: in the order of their return, before the others" (QUORUM) settling::returns_come_first_in_their_order;
        "R12" "prefetch n: at most n unacked on a channel" (QUORUM) settling::at_most_prefetch_unacked;
        "R12" "what is held is not ready" (QUORUM) settling::what_is_held_is_not_ready;
        "R13" "an ack is of its own tag, not of those below" (QUORUM) settling::an_ack_is_of_its_own_tag;
        "R15" "beyond the limit it is dead, and not before" (QUORUM) dead::beyond_the_limit_is_dead;
        "R15" "without a dead-letter queue it is dropped" (QUORUM) dead::without_a_target_it_is_dropped;
        "R16" "each return counts, a closed channel's too" (QUORUM) settling::each_return_counts;
        "R16" "a lost connection counts too" (QUORUM) dead::a_lost_link_counts_too;
        "R17" "held together, innocents reach the limit together" (QUORUM) dead::innocents_reach_the_limit_together;
        "R19" "what is rejected is dead, once, as it was" (QUORUM) dead::rejected_is_dead;
        "R20" "a dead letter says where it died first, and why" (QUORUM) dead::a_dead_letter_says_why;
        "R20" "a dead letter that is published again begins anew" (QUORUM) dead::a_dead_letter_is_published_like_any;
        "R23" "full, it refuses for now; what is held is not in it" (QUORUM) bounds::a_full_queue_refuses;
        "R24" "held too long, all that the channel holds comes back" (QUORUM) bounds::held_too_long_comes_back;
        "R24" "that counts as a return" ("3.8 to 4.2") bounds::late_counts_as_a_return;
        "R24" "that counts as no return" ("4.3 and later") bounds::late_counts_as_no_return;
        "R28" "one consumer sees the order of one publisher" (QUORUM) publishing::one_consumer_sees_the_order;
        "R29" "what is confirmed survives a kill of the server" (QUORUM) links::confirmed_survives_a_kill;
        "R33" "quorum: a dead letter begins anew" (BEFORE_4) dead::a_dead_letter_begins_anew;
        "R33" "quorum: it tells what failed before, until it comes back" ("4.0 to 4.2") dead::a_dead_letter_tells_what_failed;
        "R33" "quorum: it counts on" ("4.3 and later") dead::a_dead_letter_counts_on;
    }
}

/// Cases that only a real server can show.
pub fn beyond_the_port() -> Vec<Case<dyn QueueBackend>> {
    cases! {
        "R4" "not mandatory: confirmed, and dropped" (QUORUM) beyond::routing::not_mandatory_is_dropped;
        "R5" "a missing exchange ends the channel, and returns what it holds" (QUORUM) beyond::routing::a_missing_exchange_closes_the_channel;
        "R6" "a nack is not nowhere: those that can have it" (QUORUM) beyond::routing::a_nack_is_not_nowhere;
        "R10" "classic: back to where it was" (QUORUM) settling::returns_go_back_to_their_place;
        "R11" "a cancelled consumer keeps what it holds, and gets no more" (QUORUM) beyond::consuming::a_cancel_keeps_what_is_held;
        "R12" "a get ignores the prefetch" (QUORUM) beyond::consuming::a_get_ignores_the_prefetch;
        "R12" "no prefetch: no limit; quorum: 2,000" (QUORUM) beyond::consuming::no_prefetch_is_2000;
        "R12" "quorum: a return that is the last gives room for two" ("3.8 to 3.10") beyond::consuming::a_last_return_gives_room_for_two;
        "R12" "quorum: a return that is the last gives room for one" ("3.11 and later") beyond::consuming::a_last_return_gives_room_for_one;
        "R13" "multiple: each tag up to it, of this channel" (QUORUM) beyond::consuming::multiple_acks_those_below;
        "R14" "auto-acked, it is lost with the link" (QUORUM) beyond::consuming::auto_acked_is_gone;
        "R15" "quorum: without a limit it is 20" ("4.0 and later") beyond::dying::by_default_the_limit_is_20;
        "R15" "quorum: without a limit there is none" (BEFORE_4) beyond::dying::by_default_there_is_no_limit;
        "R15" "classic: there is none" (QUORUM) beyond::dying::a_classic_queue_has_no_limit;
        "R18" "at most once: without a target a dead letter is lost" (QUORUM) beyond::dying::without_a_target_a_dead_letter_is_lost;
        "R19" "at least once: it waits for its target" ("3.10 and later") beyond::dying::at_least_once_waits_for_the_target;
        "R19" "with drop-head it is at most once, in silence" ("3.10 and later") beyond::dying::with_drop_head_it_is_at_most_once;
        "R20" "deaths are counted by queue and reason, the newest first" (QUORUM) beyond::dying::deaths_are_counted_the_newest_first;
        "R21" "a cycle without a rejection is dropped" (QUORUM) beyond::dying::a_cycle_of_expiries_ends;
        "R22" "expired behind a live one, it waits; dead, it does not expire" (QUORUM) beyond::dying::expired_behind_a_live_one_it_waits;
        "R22" "a return keeps the expiry" (QUORUM) beyond::dying::a_return_keeps_the_expiry;
        "R23" "by default the oldest is dropped" (QUORUM) beyond::dying::by_default_the_oldest_is_dropped;
        "R23" "classic knows reject-publish-dlx, quorum takes it for drop-head" (QUORUM) beyond::dying::refused_publishes_may_be_dead_letters;
        "R25" "single active consumer: the next one takes over" (QUORUM) beyond::consuming::one_consumer_is_active;
        "R26" "classic: an exclusive consumer is alone; quorum: it is not" (QUORUM) beyond::consuming::an_exclusive_consumer_is_alone;
        "R27" "classic: the higher priority first, with x-max-priority" (QUORUM) beyond::consuming::the_higher_priority_comes_first;
        "R27" "quorum: no priorities" (BEFORE_4) beyond::consuming::a_quorum_queue_ignores_priorities;
        "R27" "quorum: two of the higher, one of the others" ("4.0 to 4.2") beyond::consuming::a_quorum_queue_has_two_priorities;
        "R30" "an alarm stalls publishers, and nobody else" (QUORUM) beyond::alarm::an_alarm_stalls_publishers_alone;
        "R31" "a fan-out in a transaction leaves a part" (QUORUM) beyond::routing::a_fan_out_is_not_atomic;
        "R33" "classic: a dead letter begins anew" (QUORUM) dead::a_classic_dead_letter_begins_anew;
    }
}

/// Nothing more is to come after so long.
const QUIET: Duration = Duration::from_millis(300);

/// What is to come must be there after so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing counts the returns of these.
const NO_COUNT: NotApplicable = NotApplicable("classic queues count no returns");

/// Where returns are counted and have a limit.
fn counts(backend: &dyn QueueBackend) -> Result<(), NotApplicable> {
    match backend.kind() {
        Kind::Quorum => Ok(()),
        Kind::Classic => Err(NO_COUNT),
    }
}

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
