//! A real Kafka. Topics stay behind: the port deletes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use kafka::{Assignor, Kafka, Settings};
use ports::{EventLog, Fault, Outcome, Partition, Record, Runtime, TopicSpec};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use shakedown_conformance::log::{
    Appended, BareMember, Ending, Groups, Life, LogBackend, Lost, Sent, Transaction,
};
use shakedown_conformance::{NotApplicable, Observed};

use crate::clients::{library, wire};
use crate::member::{HEARTBEAT, MAX_POLL_INTERVAL, Member, SESSION_TIMEOUT, assignor, settings};
use crate::proxy::{Proxy, Way};

const NO_PASSWORD: NotApplicable =
    NotApplicable("the test's own clients know neither TLS nor passwords");

const ELSEWHERE: NotApplicable =
    NotApplicable("its brokers are on other machines: no link leads through the test");

const KNOWS_ITS_LAST: NotApplicable =
    NotApplicable("it answers a batch that it knows with its offset (K6)");

/// For one question to the brokers.
const LIMIT: Duration = Duration::from_secs(10);

/// Kafka's number of the request that brings records.
const PRODUCE: i16 = 0;

/// Longer than the segments of a topic that is to be compacted are written to.
const SEGMENT: Duration = Duration::from_millis(200);

pub struct RealKafka {
    url: String,
    protocol: &'static str,
    groups: Groups,
    session: Duration,
    heartbeat: Duration,
    run: String,
    topics: AtomicU32,
    runtime: Arc<dyn Runtime>,
}

impl RealKafka {
    pub async fn at(
        url: &str,
        protocol: &'static str,
        run: &str,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let (groups, session, heartbeat) = match assignor(protocol) {
            Some(Assignor::Brokers) => {
                let (session, heartbeat) = dealt_by(url).await;
                (Groups::LedByBrokers, session, heartbeat)
            }
            _ => (Groups::LedByMembers, SESSION_TIMEOUT, HEARTBEAT),
        };
        let (url, run) = (url.to_owned(), format!("{run}-{protocol}"));
        let topics = AtomicU32::new(0);
        RealKafka { url, protocol, groups, session, heartbeat, run, topics, runtime }
    }

    fn settings(&self) -> Settings {
        settings(assignor(self.protocol).unwrap())
    }

    fn new_name(&self) -> Arc<str> {
        format!("{}-{}", self.run, self.topics.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// As `bootstrap.servers` has it, where that is all a client needs to know.
    fn brokers(&self) -> Result<String, NotApplicable> {
        plain(&self.url).ok_or(NO_PASSWORD)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, NotApplicable> {
        Ok(library::config(&self.brokers()?).create().unwrap())
    }

    /// The address of the broker that leads partition 0 of the topic.
    fn leader(&self, topic: &str) -> Result<String, NotApplicable> {
        let metadata = self.admin()?.inner().fetch_metadata(Some(topic), LIMIT).unwrap();
        let leader = metadata.topics()[0].partitions()[0].leader();
        let leader = metadata.brokers().iter().find(|broker| broker.id() == leader).unwrap();
        Ok(format!("{}:{}", leader.host(), leader.port()))
    }

    /// Links to all brokers, and the brokers' addresses through them.
    pub fn links(&self) -> Result<(Vec<Proxy>, String), NotApplicable> {
        let metadata = self.admin()?.inner().fetch_metadata(None, LIMIT).unwrap();
        let brokers = metadata.brokers().iter();
        let brokers: Vec<_> = brokers.map(|it| (it.host().to_owned(), it.port() as u16)).collect();
        if brokers.iter().any(|(host, _)| !["127.0.0.1", "localhost"].contains(&&**host)) {
            return Err(ELSEWHERE);
        }
        Ok(Proxy::before_brokers(&brokers))
    }

    /// A topic of one partition with these settings.
    async fn topic_with(&self, settings: &[(&str, &str)]) -> Result<Arc<str>, NotApplicable> {
        let (admin, name) = (self.admin()?, self.new_name());
        let mut new = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        admin.create_topics([&new], &options()).await.unwrap().remove(0).unwrap();
        Ok(name)
    }

    /// Waits until so many records are there, as another client sees it.
    async fn arrived(&self, topic: &str, count: i64) {
        let direct = self.client("direct").await;
        let arrived = |high: i64| high >= count;
        while !direct.watermarks(topic).await.is_ok_and(|it| it.values().any(|it| arrived(it.1))) {}
    }
}

fn plain(url: &str) -> Option<String> {
    (!url.contains('?'))
        .then(|| url.trim_start_matches("kafka://").trim_end_matches('/').to_owned())
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

/// Does what blocks, on a thread for it.
async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Session and heartbeat of groups that the brokers lead: theirs to set, and the same on all of them.
async fn dealt_by(url: &str) -> (Duration, Duration) {
    let brokers = url.trim_start_matches("kafka://");
    let admin: AdminClient<_> = library::config(brokers).create().unwrap();
    let first = {
        let metadata = admin.inner().fetch_metadata(None, LIMIT).unwrap();
        metadata.brokers()[0].id()
    };
    let asked = [ResourceSpecifier::Broker(first)];
    let told = admin.describe_configs(&asked, &AdminOptions::new()).await.unwrap();
    let config = told.into_iter().next().unwrap().unwrap();
    let millis = |name: &str| {
        let value = config.get(name).and_then(|entry| entry.value.as_deref()).unwrap();
        Duration::from_millis(value.parse().unwrap())
    };
    (millis("group.consumer.session.timeout.ms"), millis("group.consumer.heartbeat.interval.ms"))
}

#[async_trait]
impl LogBackend for RealKafka {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn session_timeout(&self) -> Duration {
        self.session
    }

    fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    fn max_poll_interval(&self) -> Duration {
        MAX_POLL_INTERVAL
    }

    fn groups(&self) -> Groups {
        self.groups
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        let spec = TopicSpec { name: self.new_name(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(Kafka::connect(&self.url, name, self.settings()).unwrap())
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        let member = Member { url: self.url.clone(), protocol: self.protocol, life: life.clone() };
        let runtime = self.runtime.clone();
        Ok(block(move || member.live_elsewhere(&*runtime)).await)
    }

    async fn resend_without_idempotence(&self, batch: Vec<Record>) -> Observed {
        let (links, brokers) = self.links()?;
        let (topic, count) = (batch[0].to.clone(), batch.len());
        links.iter().for_each(|link| link.lose_from(PRODUCE, Way::Reply));
        let producer = library::producer(&brokers, &[("enable.idempotence", "false")]);
        let sent = batch.iter().map(|record| library::send(&producer, record, None));
        let sent: Vec<_> = sent.collect();
        self.arrived(&topic, count as i64).await;
        links.iter().for_each(Proxy::cut);
        for answer in sent {
            answer.await.unwrap().unwrap();
        }
        Ok(())
    }

    async fn break_before_the_answer(
        &self,
        batch: Vec<Record>,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        let (links, brokers) = self.links()?;
        let (topic, count) = (batch[0].to.clone(), batch.len());
        links.iter().for_each(|link| link.lose_from(PRODUCE, Way::Reply));
        let client = Kafka::connect(&format!("kafka://{brokers}"), "one", self.settings()).unwrap();
        let breaking = async {
            self.arrived(&topic, count as i64).await;
            links.iter().for_each(Proxy::cut);
        };
        Ok(join(client.produce(batch), breaking).await.0)
    }

    async fn lose_until_late(
        &self,
        lost: Lost,
        batch: Vec<Record>,
        next: Vec<Record>,
    ) -> Result<[Vec<Outcome<()>>; 2], NotApplicable> {
        let (links, brokers) = self.links()?;
        let way = match lost {
            Lost::Requests => Way::Request,
            Lost::Replies => Way::Reply,
        };
        links.iter().for_each(|link| link.lose_from(PRODUCE, way));
        let settings = Settings { delivery_timeout: Duration::from_secs(2), ..self.settings() };
        let client = Kafka::connect(&format!("kafka://{brokers}"), "one", settings).unwrap();
        let outcomes = client.produce(batch).await;
        links.iter().for_each(Proxy::cut);
        Ok([outcomes, client.produce(next).await])
    }

    async fn producer_id(&self) -> Result<i64, NotApplicable> {
        let brokers = self.brokers()?;
        let first = brokers.split(',').next().unwrap().to_owned();
        Ok(block(move || wire::Wire::to(&first).producer_id()).await)
    }

    async fn send(&self, sent: Sent, record: Record) -> Result<Appended, NotApplicable> {
        let leader = self.leader(&record.to)?;
        Ok(block(move || wire::Wire::to(&leader).send(sent, &record)).await)
    }

    async fn answers_as_a_duplicate(&self) -> Result<(Arc<dyn EventLog>, Arc<str>), NotApplicable> {
        Err(KNOWS_ITS_LAST)
    }

    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable> {
        self.topic_with(&[("min.insync.replicas", "2")]).await
    }

    async fn enough_replicas(&self, topic: &Arc<str>) -> Observed {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let change = change.set("min.insync.replicas", "1");
        self.admin()?.alter_configs([&change], &options()).await.unwrap().remove(0).unwrap();
        Ok(())
    }

    async fn produce_to_the_leader(&self, record: Record) -> Result<Outcome<()>, NotApplicable> {
        let producer = library::producer(&self.brokers()?, &[("acks", "1")]);
        let answer = library::send(&producer, &record, None).await.unwrap();
        Ok(answer.map(drop).map_err(|(error, _)| Fault::unknown(error.to_string())))
    }

    async fn produce_at(&self, record: Record, at: DateTime<Utc>) -> Observed {
        let producer = library::producer(&self.brokers()?, &[]);
        library::send(&producer, &record, Some(at)).await.unwrap().unwrap();
        Ok(())
    }

    async fn begin(
        &self,
        batch: Vec<Record>,
        ending: Ending,
    ) -> Result<Box<dyn Transaction>, NotApplicable> {
        let id = self.new_name();
        let producer = library::producer(&self.brokers()?, &[("transactional.id", &id)]);
        let producer = block(move || {
            producer.init_transactions(LIMIT).unwrap();
            producer.begin_transaction().unwrap();
            producer
        })
        .await;
        let sent = batch.iter().map(|record| library::send(&producer, record, None));
        for answer in join_all(sent).await {
            answer.unwrap().unwrap();
        }
        Ok(Box::new(Open { producer, ending }))
    }

    async fn delete_below(&self, partition: &Partition, offset: i64) -> Observed {
        let mut below = TopicPartitionList::new();
        let (topic, index) = (&partition.topic, partition.index);
        below.add_partition_offset(topic, index, Offset::Offset(offset)).unwrap();
        let deleted = self.admin()?.delete_records(&below, &options()).await.unwrap();
        deleted.elements()[0].error().unwrap();
        Ok(())
    }

    async fn compacted_topic(&self) -> Result<Arc<str>, NotApplicable> {
        let soon = [("min.cleanable.dirty.ratio", "0.001"), ("segment.ms", "100")];
        self.topic_with(&[("cleanup.policy", "compact"), soon[0], soon[1]]).await
    }

    async fn compact(&self, topic: &Arc<str>) -> Observed {
        // What is written to is not compacted: another record, later, begins a new segment.
        self.runtime.sleep(SEGMENT).await;
        let last = Record {
            to: topic.clone(),
            key: "last".into(),
            headers: Vec::new(),
            payload: Vec::new().into(),
        };
        assert_eq!(self.client("last").await.produce(vec![last]).await, [Ok(())]);
        Ok(())
    }

    async fn store_offsets(
        &self,
        group: &str,
        partition: &Partition,
        rounds: &[&[i64]],
    ) -> Result<Vec<Option<i64>>, NotApplicable> {
        let (brokers, groups) = (self.brokers()?, self.groups);
        let (group, partition) = (group.to_owned(), partition.clone());
        let rounds: Vec<Vec<i64>> = rounds.iter().map(|round| round.to_vec()).collect();
        let store = move || library::store_offsets(&brokers, groups, &group, &partition, &rounds);
        Ok(block(store).await)
    }

    async fn read_by_default(&self, group: &str, topic: &Arc<str>, count: usize) -> Observed {
        let (brokers, groups) = (self.brokers()?, self.groups);
        let (group, topic) = (group.to_owned(), topic.clone());
        block(move || library::read_by_default(&brokers, groups, &group, &topic, count)).await;
        Ok(())
    }

    async fn bare_member(
        &self,
        group: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn BareMember>, NotApplicable> {
        let (brokers, groups) = (self.brokers()?, self.groups);
        let first = brokers.split(',').next().unwrap().to_owned();
        let (group, topic) = (group.to_owned(), topic.clone());
        let join = move || wire::Member::join(&first, groups, &group, &topic);
        Ok(Box::new(block(join).await))
    }
}

struct Open {
    producer: FutureProducer,
    ending: Ending,
}

#[async_trait]
impl Transaction for Open {
    async fn end(self: Box<Self>) {
        let ended = block(move || match self.ending {
            Ending::Commits => self.producer.commit_transaction(LIMIT),
            Ending::Aborts => self.producer.abort_transaction(LIMIT),
        });
        ended.await.unwrap();
    }
}
