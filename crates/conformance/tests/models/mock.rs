//! The real client library against its own mock cluster: its wire protocol without a server. Topics
//! are made beforehand, for the mock itself stays on its thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kafka::{Kafka, Settings};
use ports::{EventLog, Outcome, Partition, Record, Runtime};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shakedown_conformance::log::{
    Apart, Appended, BareMember, Ending, Groups, Life, LogBackend, Lost, Sent, Transaction,
};
use shakedown_conformance::{NotApplicable, Observed};

use crate::clients::{library, wire};

const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

const HEARTBEAT: Duration = Duration::from_millis(200);

/// Each rebalance takes it a session time-out less a second, also where nobody is waited for.
const OTHER_TIME: NotApplicable =
    NotApplicable("its rebalances last a fixed time, whether a member left or fell silent");

const NO_LINK: NotApplicable =
    NotApplicable("its clients go to it without a link that could be cut");

const NO_NUMBERS: NotApplicable = NotApplicable("it writes what comes, whatever its number");

const NO_REPLICAS: NotApplicable = NotApplicable("its replicas are always enough");

const NO_MARKERS: NotApplicable = NotApplicable("it writes no markers of transactions");

const NO_DELETION: NotApplicable = NotApplicable("it keeps all that it has room for");

const NO_COMMIT_OF_NOBODY: NotApplicable =
    NotApplicable("an empty group knows nobody there, not even the one that is nobody");

/// The topic on the cluster that answers wrong.
const DUPLICATE: &str = "topic-duplicate";

/// A mock cluster, and its topics by their number of partitions.
pub struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    /// Another one, which takes the first batch for a duplicate.
    mistaken: MockCluster<'static, DefaultProducerContext>,
    topics: BTreeMap<i32, Vec<Arc<str>>>,
}

impl Cluster {
    pub fn new() -> Self {
        let mock = MockCluster::new(1).unwrap();
        let mut topics: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
        // Each takes it a quarter of a second: no more than the cases ask for.
        for (partitions, count) in [(1, 26), (2, 2), (3, 1), (4, 2), (6, 2)] {
            for n in 0..count {
                let name = format!("topic-{partitions}-{n}");
                mock.create_topic(&name, partitions, 1).unwrap();
                topics.entry(partitions).or_default().push(name.into());
            }
        }
        let mistaken = MockCluster::new(1).unwrap();
        mistaken.create_topic(DUPLICATE, 1, 1).unwrap();
        let duplicate = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        mistaken.request_errors(RDKafkaApiKey::Produce, &[duplicate]);
        Cluster { mock, mistaken, topics }
    }

    pub fn backend(&self, runtime: Arc<dyn Runtime>) -> Mock {
        let brokers = self.mock.bootstrap_servers();
        let mistaken = self.mistaken.bootstrap_servers();
        Mock { brokers, mistaken, topics: Mutex::new(self.topics.clone()), runtime }
    }
}

pub struct Mock {
    brokers: String,
    mistaken: String,
    topics: Mutex<BTreeMap<i32, Vec<Arc<str>>>>,
    runtime: Arc<dyn Runtime>,
}

impl Mock {
    fn connect(brokers: &str, name: &str) -> Arc<dyn EventLog> {
        let settings = Settings {
            session_timeout: SESSION_TIMEOUT,
            heartbeat: HEARTBEAT,
            poll_wait: Duration::from_millis(100),
            ..Settings::default()
        };
        Arc::new(Kafka::connect(&format!("kafka://{brokers}"), name, settings).unwrap())
    }

    /// Does what blocks, on a thread for it.
    async fn block<T: Send + 'static>(&self, work: impl FnOnce(&str) -> T + Send + 'static) -> T {
        let brokers = self.brokers.clone();
        tokio::task::spawn_blocking(move || work(&brokers)).await.unwrap()
    }
}

#[async_trait]
impl LogBackend for Mock {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn session_timeout(&self) -> Duration {
        SESSION_TIMEOUT
    }

    fn heartbeat(&self) -> Duration {
        HEARTBEAT
    }

    fn knows_nobody(&self) -> Observed {
        Err(NO_COMMIT_OF_NOBODY.into())
    }

    fn max_poll_interval(&self) -> Duration {
        Settings::default().max_poll_interval
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        self.topics.lock().unwrap().get_mut(&partitions).and_then(Vec::pop).expect("a topic left")
    }

    fn keeps_time(&self) -> Observed {
        Err(OTHER_TIME.into())
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        Mock::connect(&self.brokers, name)
    }

    async fn kill_a_member(&self, _: &Life) -> Result<Duration, NotApplicable> {
        Err(OTHER_TIME)
    }

    async fn resend_without_idempotence(&self, _: Vec<Record>) -> Observed {
        Err(NO_LINK.into())
    }

    async fn break_before_the_answer(
        &self,
        _: Vec<Record>,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        Err(NO_LINK)
    }

    async fn lose_until_late(
        &self,
        _: Lost,
        _: Vec<Record>,
        _: Vec<Record>,
    ) -> Result<[Vec<Outcome<()>>; 2], NotApplicable> {
        Err(NO_LINK)
    }

    async fn producer_id(&self) -> Result<i64, NotApplicable> {
        Err(NO_NUMBERS)
    }

    async fn send(&self, _: Sent, _: Record) -> Result<Appended, NotApplicable> {
        Err(NO_NUMBERS)
    }

    async fn answers_as_a_duplicate(&self) -> Result<(Arc<dyn EventLog>, Arc<str>), NotApplicable> {
        Ok((Mock::connect(&self.mistaken, "one"), DUPLICATE.into()))
    }

    async fn kill_the_leader(&self, _: &Arc<str>) -> Observed {
        Err(NO_REPLICAS.into())
    }

    async fn apart(&self) -> Result<Apart, NotApplicable> {
        Err(NO_LINK)
    }

    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable> {
        Err(NO_REPLICAS)
    }

    async fn enough_replicas(&self, _: &Arc<str>) -> Observed {
        Err(NO_REPLICAS.into())
    }

    async fn produce_to_the_leader(&self, _: Record) -> Result<Outcome<()>, NotApplicable> {
        Err(NO_REPLICAS)
    }

    async fn produce_at(&self, record: Record, at: DateTime<Utc>) -> Observed {
        let producer = library::producer(&self.brokers, &[]);
        library::send(&producer, &record, Some(at)).await.unwrap().unwrap();
        Ok(())
    }

    async fn begin(
        &self,
        _: Vec<Record>,
        _: Ending,
    ) -> Result<Box<dyn Transaction>, NotApplicable> {
        Err(NO_MARKERS)
    }

    async fn delete_below(&self, _: &Partition, _: i64) -> Observed {
        Err(NO_DELETION.into())
    }

    async fn compacted_topic(&self) -> Result<Arc<str>, NotApplicable> {
        Err(NO_DELETION)
    }

    async fn compact(&self, _: &Arc<str>) -> Observed {
        Err(NO_DELETION.into())
    }

    async fn store_offsets(
        &self,
        group: &str,
        partition: &Partition,
        rounds: &[&[i64]],
    ) -> Result<Vec<Option<i64>>, NotApplicable> {
        let (group, partition) = (group.to_owned(), partition.clone());
        let rounds: Vec<Vec<i64>> = rounds.iter().map(|round| round.to_vec()).collect();
        let store = move |brokers: &str| {
            library::store_offsets(brokers, Groups::LedByMembers, &group, &partition, &rounds)
        };
        Ok(self.block(store).await)
    }

    async fn read_by_default(&self, group: &str, topic: &Arc<str>, count: usize) -> Observed {
        let (group, topic) = (group.to_owned(), topic.clone());
        let read = move |brokers: &str| {
            library::read_by_default(brokers, Groups::LedByMembers, &group, &topic, count);
        };
        self.block(read).await;
        Ok(())
    }

    async fn bare_member(
        &self,
        group: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn BareMember>, NotApplicable> {
        let (group, topic) = (group.to_owned(), topic.clone());
        let join =
            move |brokers: &str| wire::Member::join(brokers, Groups::LedByMembers, &group, &topic);
        Ok(Box::new(self.block(join).await))
    }
}
