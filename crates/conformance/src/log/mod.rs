//! Cases on the event log: statements K1 to K34 of the broker contract, as far as our services rely on them or
//! must survive them. Never names a backend, and never reuses a topic.

mod beyond;
mod commits;
mod keeping;
mod membership;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use ports::{Consumer, EventLog, Fault, Fetched, Offsets, Partition, Polled, Record};

use crate::case::cases;
use crate::{Case, Observed};

pub use beyond::{
    Apart, Appended, BareMember, Committed, Ending, Groups, Link, LogBackend, Lost, Sent,
    Transaction, Who,
};

/// What a member does until it is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Its group.
    pub group: String,
    /// Its topic.
    pub topic: Arc<str>,
    /// So many records it reads.
    pub records: usize,
}

/// Joins, reads, and commits half of what it read of each partition. Who drops the consumer, or ends
/// the process, kills the member.
pub async fn before_the_kill(log: &dyn EventLog, life: &Life) -> Box<dyn Consumer> {
    let mut consumer = join_group(log, &life.group, &life.topic).await;
    assigned(&mut consumer).await;
    let records = read(&mut consumer, life.records).await;
    consumer.commit(&half(&by_partition(records))).await.unwrap();
    consumer
}

/// All cases.
pub fn cases() -> Vec<Case<dyn LogBackend>> {
    cases! {
        "K1" "same key, same partition, as by Java's murmur2" ("all") same_key_same_partition;
        "K2" "the count of partitions says where a key goes, and stays" ("all") writing::the_count_stays;
        "K3" "offsets rise, between the watermarks" ("all") reading::offsets_rise;
        "K4" "what is confirmed can be read" ("all") reading::confirmed_can_be_read;
        "K4" "and survives the leader" ("all") writing::the_leader_is_lost;
        "K5" "sent again without idempotence, it is there twice" ("all") writing::without_idempotence_twice;
        "K6" "a client that hears no answer sends again, and it is there once" ("all") writing::sent_again_it_is_there_once;
        "K6" "one of the last five batches again is not written again" ("all") writing::the_last_five_are_known;
        "K7" "DUPLICATE_SEQUENCE counts as confirmed" ("all") writing::a_duplicate_is_confirmed;
        "K8" "a gap in the sequence is refused, a new epoch begins at 0" ("all") writing::a_gap_is_refused;
        "K9" "what a restarted producer sends again is there twice" ("all") a_restarted_producer_duplicates;
        "K10" "a key keeps its order" ("all") reading::a_key_keeps_its_order;
        "K11" "no answer in time is unknown: it may be there, and what follows goes" ("all") writing::late_is_unknown;
        "K12" "what is too large is refused, its neighbours are not" ("all") reading::too_large_is_refused_alone;
        "K13" "short of replicas nothing is confirmed, later it is" ("all") writing::short_of_replicas;
        "K15" "a group without offsets begins at the beginning" ("all") reading::a_new_group_begins_at_the_beginning;
        "K16" "a new owner reads on from the committed offset" ("all") a_new_owner_reads_from_the_committed_offset;
        "K16" "the last commit counts, a lower one too" ("all") reading::a_commit_may_go_back;
        "K17" "a stored offset below the committed one is not committed" ("all") commits::stored_below_is_not_committed;
        "K18" "reading commits nothing" ("all") commits::reading_commits_nothing;
        "K18" "with the library's defaults it does" ("all") commits::defaults_commit;
        "K19" "a commit of another generation, of a stranger, or too early is refused" ("all") commits::fenced_by_generation;
        "K20" "a commit without a membership counts while nobody is there" ("all") commits::nobody_commits;
        "K21" "a commit of another epoch is refused" ("4.0 and later") commits::fenced_by_epoch;
        "K22" "cooperative: only what moves is revoked" ("all") membership::only_what_moves_is_revoked;
        "K23" "who does not poll in time is out, and cannot commit" ("all") membership::who_does_not_poll_is_out;
        "K24" "a closed member's partitions move at once" ("all") a_closed_member_lets_go;
        "K24" "a killed member's, after the session time-out" ("all") a_killed_member_holds_on;
        "K25" "only what is held is committed" ("all") membership::only_what_is_held_is_committed;
        "K27" "without the coordinator nothing is committed; classic, it reads for a session more" ("all") membership::without_the_coordinator;
        "K28" "what a transaction aborts is never read" ("all") keeping::aborted_is_not_read;
        "K28" "an open transaction holds up what is behind it" ("all") keeping::open_holds_up;
        "K32" "below the first offset reading begins at it" ("all") keeping::reading_begins_at_the_first;
        "K33" "compaction leaves the last of each key where it stood" ("all") keeping::the_last_of_a_key_stays;
        "K34" "time may go backwards, the order is that of the offsets" ("all") keeping::time_may_go_backwards;
        "" "a seek says where to go on" ("all") reading::a_seek_says_where_to_go_on;
        "" "a paused partition rests, and goes on where it stood" ("all") reading::a_paused_partition_rests;
    }
}

/// Keys and their partitions of six: murmur2 with the sign bit off, modulo 6. The first six keys and
/// their hashes are those of Kafka's own test of murmur2; the last is not ASCII.
const HOMES: [(&str, i32); 9] = [
    ("21", 0),
    ("foobar", 0),
    ("a-little-bit-long-string", 2),
    ("a-little-bit-longer-string", 5),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 5),
    ("abc", 3),
    ("order-0", 4),
    ("order-7", 1),
    ("Größe", 1),
];

type ByPartition = BTreeMap<Partition, Vec<Fetched>>;

fn record(topic: &Arc<str>, key: &str, n: usize) -> Record {
    let headers = vec![("eventId".into(), Bytes::from(format!("event-{n}")))];
    Record {
        to: topic.clone(),
        key: key.into(),
        headers,
        payload: Bytes::from(format!("{{\"n\":{n}}}")),
    }
}

async fn produce(log: &dyn EventLog, batch: Vec<Record>) {
    for outcome in log.produce(batch).await {
        assert_eq!(outcome, Ok(()), "it can be produced");
    }
}

/// Records of eight keys in turn.
async fn produce_orders(log: &dyn EventLog, topic: &Arc<str>, count: usize) {
    let batch = (0..count).map(|n| record(topic, &format!("order-{}", n % 8), n));
    produce(log, batch.collect()).await;
}

/// First and next offset of each partition. A topic that is new may have no leader yet.
async fn watermarks(log: &dyn EventLog, topic: &str) -> BTreeMap<Partition, (i64, i64)> {
    loop {
        match log.watermarks(topic).await {
            Ok(marks) => return marks,
            Err(Fault::Retry(_)) => {}
            Err(fault) => panic!("no watermarks: {fault}"),
        }
    }
}

async fn join_group(log: &dyn EventLog, group: &str, topic: &Arc<str>) -> Box<dyn Consumer> {
    log.subscribe(group, std::slice::from_ref(topic)).await.unwrap()
}

async fn poll(consumer: &mut Box<dyn Consumer>) -> Polled {
    loop {
        match consumer.poll(100).await {
            Ok(polled) => return polled,
            Err(Fault::Retry(_)) => {}
            Err(fault) => panic!("a poll failed: {fault}"),
        }
    }
}

/// Waits for an assignment, before which nothing else comes.
async fn assigned(consumer: &mut Box<dyn Consumer>) -> Vec<Partition> {
    loop {
        match poll(consumer).await {
            Polled::Assigned(partitions) => return partitions,
            Polled::Records(records) if records.is_empty() => {}
            other => panic!("expected an assignment, got {other:?}"),
        }
    }
}

/// Reads so many records, and not one more.
async fn read(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Fetched> {
    let mut all = Vec::new();
    while all.len() < count {
        match poll(consumer).await {
            Polled::Records(records) => all.extend(records),
            other => panic!("expected records, got {other:?}"),
        }
    }
    assert_eq!(all.len(), count, "more records than were produced");
    all
}

fn by_partition(records: Vec<Fetched>) -> ByPartition {
    let mut all = ByPartition::new();
    for fetched in records {
        all.entry(fetched.partition.clone()).or_default().push(fetched);
    }
    all
}

/// The next offsets after the first half of the records of each partition.
fn half(all: &ByPartition) -> Offsets {
    let next = |(partition, records): (&Partition, &Vec<Fetched>)| {
        (partition.clone(), records[records.len() / 2].offset)
    };
    all.iter().map(next).collect()
}

/// What is to be read from these offsets on.
fn rest(all: &ByPartition, next: &Offsets) -> ByPartition {
    let mut all = all.clone();
    for (partition, records) in &mut all {
        records.retain(|fetched| fetched.offset >= next[partition]);
    }
    all
}

fn count(all: &ByPartition) -> usize {
    all.values().map(Vec::len).sum()
}

async fn same_key_same_partition(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(6).await;
    for name in ["one", "two"] {
        let log = backend.client(name).await;
        for round in 0..3 {
            let batch = HOMES.iter().map(|(key, _)| record(&topic, key, round));
            produce(&*log, batch.collect()).await;
        }
    }
    let log = backend.client("reader").await;
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assert_eq!(assigned(&mut consumer).await.len(), 6, "all partitions of the topic");
    for fetched in read(&mut consumer, 6 * HOMES.len()).await {
        let home = HOMES.iter().find(|(key, _)| **key == *fetched.record.key);
        let (key, index) = home.expect("a key that was produced");
        assert_eq!(fetched.partition.index, *index, "the partition of {key}");
    }
    consumer.close().await;
    Ok(())
}

async fn a_restarted_producer_duplicates(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let batch = || (0..3).map(|n| record(&topic, "order-0", n)).collect::<Vec<_>>();
    for _ in 0..2 {
        let producer = backend.client("orders").await;
        produce(&*producer, batch()).await;
    }
    let log = backend.client("reader").await;
    let marks = watermarks(&*log, &topic).await;
    assert_eq!(marks.into_values().collect::<Vec<_>>(), [(0, 6)], "two times three records");
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let found = read(&mut consumer, 6).await;
    assert!(found.is_sorted_by(|a, b| a.offset < b.offset), "at offsets of their own");
    let found: Vec<Record> = found.into_iter().map(|fetched| fetched.record).collect();
    assert_eq!(found, [batch(), batch()].concat(), "both copies");
    consumer.close().await;
    Ok(())
}

/// The owner changes by a goodbye and by a rebalance here, and by a crash in [K24's
/// case](a_killed_member_holds_on).
async fn a_new_owner_reads_from_the_committed_offset(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(2).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 40).await;
    let mut one = join_group(&*log, &group, &topic).await;
    assert_eq!(assigned(&mut one).await.len(), 2);
    let all = by_partition(read(&mut one, 40).await);
    let half = half(&all);
    assert_eq!(one.commit(&half).await, Ok(()));
    assert_eq!(log.committed(&group, std::slice::from_ref(&topic)).await, Ok(half.clone()));
    one.close().await;

    let rest = rest(&all, &half);
    let log = backend.client("two").await;
    let mut two = join_group(&*log, &group, &topic).await;
    assert_eq!(assigned(&mut two).await.len(), 2);
    let again = by_partition(read(&mut two, count(&rest)).await);
    assert_eq!(again, rest, "from the committed offset on, the same in the same order");

    let log = backend.client("three").await;
    let mut three = join_group(&*log, &group, &topic).await;
    let (mut owned, mut found) = (Vec::new(), Vec::new());
    let wanted = |owned: &[Partition]| owned.iter().map(|partition| rest[partition].len()).sum();
    while owned.is_empty() || found.len() < wanted(&owned) {
        match poll(&mut two).await {
            Polled::Revoked(revoked) => two.release(revoked).await,
            Polled::Lost(lost) => panic!("it had time to release {lost:?}"),
            Polled::Assigned(_) | Polled::Records(_) => {}
        }
        match poll(&mut three).await {
            Polled::Assigned(partitions) => owned.extend(partitions),
            Polled::Records(records) => found.extend(records),
            other => panic!("nobody takes anything from the newest, but {other:?}"),
        }
    }
    let mut expected = rest.clone();
    expected.retain(|partition, _| owned.contains(partition));
    assert_eq!(by_partition(found), expected, "what the second owner never committed");

    let last = expected.iter().map(|(p, all)| (p.clone(), all[all.len() - 1].offset + 1)).collect();
    assert_eq!(three.commit(&last).await, Ok(()));
    two.close().await;
    three.close().await;
    let committed = log.committed(&group, std::slice::from_ref(&topic)).await.unwrap();
    let marks = watermarks(&*log, &topic).await;
    for (partition, next) in committed {
        let expected =
            if last.contains_key(&partition) { marks[&partition].1 } else { half[&partition] };
        assert_eq!(next, expected, "{partition}: the next offset to read");
    }
    Ok(())
}

async fn a_closed_member_lets_go(backend: &dyn LogBackend) -> Observed {
    backend.keeps_time()?;
    let topic = backend.topic(2).await;
    let group = format!("{topic}.group");
    let (log, other) = (backend.client("one").await, backend.client("two").await);
    let mut one = join_group(&*log, &group, &topic).await;
    assert_eq!(assigned(&mut one).await.len(), 2);
    let mut two = join_group(&*other, &group, &topic).await;
    let runtime = backend.runtime();
    let session = backend.session_timeout();
    // As the first does not poll, it does not give anything up.
    let early = ports::timeout(runtime, session / 4, assigned(&mut two)).await;
    assert_eq!(early, None, "both own it");
    let begun = runtime.elapsed();
    let ((), moved) = join(one.close(), assigned(&mut two)).await;
    let took = runtime.elapsed() - begun;
    assert_eq!(moved.len(), 2);
    assert!(took < session / 2, "it took {took:?} of a session time-out of {session:?}");
    two.close().await;
    Ok(())
}

async fn a_killed_member_holds_on(backend: &dyn LogBackend) -> Observed {
    backend.keeps_time()?;
    let topic = backend.topic(2).await;
    let life = Life { group: format!("{topic}.group"), topic: topic.clone(), records: 40 };
    let log = backend.client("two").await;
    produce_orders(&*log, &topic, life.records).await;
    let killed = backend.kill_a_member(&life).await?;
    let mut two = join_group(&*log, &life.group, &topic).await;
    assert_eq!(assigned(&mut two).await.len(), 2);
    let runtime = backend.runtime();
    let took = runtime.elapsed() - killed;
    let session = backend.session_timeout();
    // The session began with the last heartbeat, which may have been late.
    assert!(took + 2 * backend.heartbeat() >= session, "after {took:?} of {session:?}");
    assert!(took < 2 * session, "only after {took:?} of {session:?}");
    let committed = log.committed(&life.group, std::slice::from_ref(&topic)).await.unwrap();
    let wanted: i64 = watermarks(&*log, &topic)
        .await
        .iter()
        .map(|(partition, (_, high))| high - committed[partition])
        .sum();
    let records = by_partition(read(&mut two, wanted as usize).await);
    for (partition, records) in &records {
        assert_eq!(records[0].offset, committed[partition], "it reads on from there (K16)");
        assert!(records.is_sorted_by(|a, b| a.offset < b.offset), "in the same order");
    }
    assert!(wanted > 0 && records.len() == 2, "both had something to read");
    two.close().await;
    Ok(())
}
