//! The adapter against the client library's mock cluster: the real client and its wire protocol,
//! without a server. What the mock lacks (creating topics, expiry) is held against real brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use ports::{Consumer, EventLog, Fault, Fetched, Offsets, Partition, Polled, Record, TopicSpec};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shakedown_kafka::{Assignor, Kafka, Settings};

const TOPIC: &str = "orders.events";
const GROUP: &str = "payments";

/// The partitions of the keys order-0 to order-7: murmur2 modulo 4.
const HOMES: [i32; 8] = [0, 2, 3, 3, 2, 2, 1, 1];

/// A mock cluster with one topic of four partitions.
struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    assignor: Assignor,
}

impl Cluster {
    fn new(assignor: Assignor) -> Cluster {
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic(TOPIC, 4, 1).expect("a new topic");
        Cluster { mock, assignor }
    }

    fn connect(&self, name: &str) -> Kafka {
        let url = format!("kafka://{}", self.mock.bootstrap_servers());
        let settings = Settings {
            assignor: self.assignor,
            session_timeout: Duration::from_secs(3),
            heartbeat: Duration::from_millis(200),
            poll_wait: Duration::from_millis(100),
            ..Settings::default()
        };
        Kafka::connect(&url, name, settings).expect("a good address")
    }
}

/// Runs a test on tokio's multi-thread flavour, with a limit in real time.
#[allow(clippy::disallowed_methods)]
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    assert!(runtime.block_on(limited).is_ok(), "it takes longer than a minute");
}

fn record(key: &str, n: usize) -> Record {
    let payload = Bytes::from(format!("{{\"n\":{n}}}"));
    let headers = vec![("eventId".into(), Bytes::from_static(b"7")), ("x".into(), Bytes::new())];
    Record { to: TOPIC.into(), key: key.into(), headers, payload }
}

async fn join(kafka: &Kafka) -> Box<dyn Consumer> {
    kafka.subscribe(GROUP, &[TOPIC.into()]).await.expect("it can join")
}

async fn poll(consumer: &mut Box<dyn Consumer>) -> Polled {
    consumer.poll(7).await.expect("the mock's polls succeed")
}

/// Polls until something but empty records comes.
async fn next(consumer: &mut Box<dyn Consumer>) -> Polled {
    loop {
        match poll(consumer).await {
            Polled::Records(records) if records.is_empty() => {}
            polled => return polled,
        }
    }
}

async fn assigned(consumer: &mut Box<dyn Consumer>) -> BTreeSet<Partition> {
    match next(consumer).await {
        Polled::Assigned(partitions) => partitions.into_iter().collect(),
        other => panic!("expected an assignment, got {other:?}"),
    }
}

/// Reads so many records, and nothing but records.
async fn read(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Fetched> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(consumer).await {
            Polled::Records(records) => {
                assert!(records.len() <= 7, "more than asked for");
                all.extend(records);
            }
            other => panic!("expected records, got {other:?}"),
        }
    }
    assert_eq!(all.len(), count);
    all
}

fn after(records: &[Fetched]) -> Offsets {
    records.iter().map(|record| (record.partition.clone(), record.offset + 1)).collect()
}

async fn produce(kafka: &Kafka, numbers: std::ops::Range<usize>) {
    let batch: Vec<_> = numbers.map(|n| record(&format!("order-{}", n % 8), n)).collect();
    let outcomes = kafka.produce(batch).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[test]
fn a_group_reads_all_in_the_order_of_each_key_and_goes_on_from_what_it_committed() {
    run(async {
        let cluster = Cluster::new(Assignor::CooperativeSticky);
        let kafka = cluster.connect("one");
        produce(&kafka, 0..40).await;
        let mut consumer = join(&kafka).await;
        assert_eq!(assigned(&mut consumer).await.len(), 4);
        let records = read(&mut consumer, 40).await;
        let mut keys: BTreeMap<&str, (i32, Vec<&Bytes>)> = BTreeMap::new();
        for fetched in &records {
            let index = fetched.partition.index;
            let (home, payloads) =
                keys.entry(&fetched.record.key).or_insert_with(|| (index, Vec::new()));
            assert_eq!(*home, index, "same key, same partition (K1)");
            let number: usize = fetched.record.key[6..].parse().expect("order-N");
            assert_eq!(index, HOMES[number], "as the model and Java's clients (K1)");
            payloads.push(&fetched.record.payload);
        }
        let first: Vec<_> = (0..5).map(|n| record("order-0", n * 8).payload).collect();
        assert_eq!(keys["order-0"].1, first.iter().collect::<Vec<_>>());
        let same = |found: &&Fetched| found.record == record("order-3", 3);
        assert!(records.iter().any(|found| same(&found)), "headers and all");
        let half = after(&records[..20]);
        assert_eq!(consumer.commit(&half).await, Ok(()));
        let topics: [Arc<str>; 1] = [TOPIC.into()];
        assert_eq!(kafka.committed(GROUP, &topics).await, Ok(half.clone()));
        consumer.close().await;

        let kafka = cluster.connect("restarted");
        let mut consumer = join(&kafka).await;
        assigned(&mut consumer).await;
        let mut rest = Vec::new();
        let want = 40 - half.values().sum::<i64>() as usize;
        if want > 0 {
            rest = read(&mut consumer, want).await;
        }
        for found in &rest {
            assert!(found.offset >= half.get(&found.partition).copied().unwrap_or(0), "K16");
        }
        assert_eq!(rest.len(), want);
        assert_eq!(poll(&mut consumer).await, Polled::Records(Vec::new()));
        consumer.close().await;
    });
}

async fn rebalance(assignor: Assignor) {
    let cluster = Cluster::new(assignor);
    let (kafka, other) = (cluster.connect("one"), cluster.connect("two"));
    produce(&kafka, 0..40).await;
    let mut one = join(&kafka).await;
    assert_eq!(assigned(&mut one).await.len(), 4);
    let records = read(&mut one, 40).await;
    assert_eq!(one.commit(&after(&records)).await, Ok(()));
    let mut two = join(&other).await;
    let Polled::Revoked(revoked) = next(&mut one).await else { panic!("not revoked") };
    assert_eq!(revoked.len(), if assignor == Assignor::Range { 4 } else { 2 });
    // They stay ours until they are released, over several heartbeats and polls.
    for _ in 0..4 {
        assert_eq!(poll(&mut one).await, Polled::Records(Vec::new()));
        assert_eq!(poll(&mut two).await, Polled::Records(Vec::new()), "nothing moves before");
    }
    match one.commit(&after(&records)).await {
        Ok(()) => {}
        // A real coordinator takes commits while members join (K19), the mock does not; in a
        // cooperative group nobody joins anew by now, unless the machine is busy.
        Err(Fault::Retry(_)) => {}
        other => panic!("still ours, but {other:?}"),
    }
    one.release(revoked.clone()).await;
    let stolen = one.commit(&after(&records)).await;
    assert!(matches!(stolen, Err(Fault::Refused(_))), "released: {stolen:?}");
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    if assignor == Assignor::CooperativeSticky {
        ours = records.iter().map(|record| record.partition.clone()).collect();
        ours.retain(|partition| !revoked.contains(partition));
    }
    // On a busy machine a member rejoins late, and the mock shares out once more.
    while ours.len() != 2 || theirs.len() != 2 {
        for (consumer, mine) in [(&mut one, &mut ours), (&mut two, &mut theirs)] {
            match poll(consumer).await {
                Polled::Assigned(partitions) => mine.extend(partitions),
                Polled::Revoked(partitions) => {
                    mine.retain(|partition| !partitions.contains(partition));
                    consumer.release(partitions).await;
                }
                Polled::Lost(partitions) => {
                    mine.retain(|partition| !partitions.contains(partition));
                }
                Polled::Records(records) => assert_eq!(records, [], "all was committed"),
            }
        }
    }
    assert!(ours.is_disjoint(&theirs));
    produce(&kafka, 40..80).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        for (consumer, mine) in [(&mut one, &ours), (&mut two, &theirs)] {
            let Polled::Records(records) = poll(consumer).await else { panic!("not records") };
            for found in records {
                assert!(mine.contains(&found.partition));
                assert!(seen.insert(found.record.payload), "read twice");
            }
        }
    }
    one.close().await;
    two.close().await;
}

#[test]
fn a_second_member_gets_what_the_first_releases_cooperative() {
    run(rebalance(Assignor::CooperativeSticky));
}

#[test]
fn a_second_member_gets_what_the_first_releases_eager() {
    run(rebalance(Assignor::Range));
}

#[test]
fn reading_starts_where_a_seek_says_pauses_and_survives_a_dropped_poll() {
    run(async {
        let cluster = Cluster::new(Assignor::CooperativeSticky);
        let kafka = cluster.connect("one");
        let batch: Vec<_> = (0..10).map(|n| record("order-0", n)).collect();
        assert!(kafka.produce(batch).await.iter().all(Result::is_ok));
        let mut consumer = join(&kafka).await;
        let all: Vec<_> = assigned(&mut consumer).await.into_iter().collect();
        let marks = kafka.watermarks(TOPIC).await.expect("a known topic");
        assert_eq!(marks.len(), 4);
        let home = marks.iter().find(|(_, marks)| **marks == (0, 10)).expect("one has all").0;
        let at = |offset: i64| Offsets::from([(home.clone(), offset)]);
        assert!(matches!(consumer.seek(&at(-1)).await, Err(Fault::Refused(_))));
        assert_eq!(consumer.seek(&at(6)).await, Ok(()), "before the first poll");
        assert_eq!(read(&mut consumer, 4).await[0].offset, 6);
        assert_eq!(consumer.seek(&at(2)).await, Ok(()));
        assert_eq!(consumer.poll(7).now_or_never(), None, "dropped before its reply");
        let records = read(&mut consumer, 8).await;
        let offsets: Vec<_> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (2..10).collect::<Vec<_>>());
        consumer.pause(&all, true);
        assert!(kafka.produce(vec![record("order-0", 10)]).await[0].is_ok());
        for _ in 0..3 {
            assert_eq!(poll(&mut consumer).await, Polled::Records(Vec::new()));
        }
        consumer.pause(&all, false);
        assert_eq!(read(&mut consumer, 1).await[0].offset, 10);
        consumer.close().await;
    });
}

#[test]
fn outcomes_name_what_the_caller_may_do_next() {
    run(async {
        let cluster = Cluster::new(Assignor::CooperativeSticky);
        let kafka = cluster.connect("one");
        let mut large = record("order-0", 1);
        large.payload = Bytes::from(vec![b'x'; 1_100_000]);
        let outcomes = kafka.produce(vec![record("order-0", 0), large, record("order-0", 2)]).await;
        assert_eq!([outcomes[0].is_ok(), outcomes[2].is_ok()], [true, true], "K12: neighbours");
        assert!(matches!(outcomes[1], Err(Fault::Refused(_))), "{outcomes:?}");
        let spec = |partitions| TopicSpec { name: TOPIC.into(), partitions };
        assert_eq!(kafka.declare(&[spec(4)]).await, Ok(()));
        assert!(matches!(kafka.declare(&[spec(5)]).await, Err(Fault::Refused(_))));
        let mut consumer = join(&kafka).await;
        assigned(&mut consumer).await;
        let next = after(&read(&mut consumer, 2).await);
        // The library tries again some times where the coordinator is not there.
        let errors: [(&[RDKafkaRespErr], &str); 4] = [
            (&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS], "retry"),
            (&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN], "unknown: Unknown"),
            (
                &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 20],
                "unknown: CoordinatorNotAvailable",
            ),
            (&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION], "refused"),
        ];
        for (errors, expected) in errors {
            cluster.mock.request_errors(RDKafkaApiKey::OffsetCommit, errors);
            let got = match consumer.commit(&next).await {
                Err(Fault::Refused(_)) => "refused".to_owned(),
                Err(Fault::Retry(_)) => "retry".to_owned(),
                Err(Fault::Unknown(cause)) => cause.to_string().replace("Commit", "unknown"),
                Ok(()) => panic!("{errors:?} was no error"),
            };
            assert_eq!(got, expected);
            cluster.mock.clear_request_errors(RDKafkaApiKey::OffsetCommit);
        }
        let topics: [Arc<str>; 1] = [TOPIC.into()];
        assert_eq!(kafka.committed(GROUP, &topics).await, Ok(Offsets::new()), "unchanged (K19)");
        consumer.close().await;
    });
}
