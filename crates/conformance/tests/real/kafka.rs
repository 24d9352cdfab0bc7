//! A real Kafka. Topics stay behind: the port deletes none.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use kafka::{Assignor, Kafka, Settings};
use ports::{EventLog, Fault, Outcome, Partition, Record, Runtime, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataBroker;
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use shakedown_conformance::log::{
    Apart, Appended, BareMember, Ending, Groups, Life, Link, LogBackend, Lost, Sent, Transaction,
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

const ONE_BROKER: NotApplicable = NotApplicable("it is one broker: a topic has one replica");

const NO_KILL: NotApplicable =
    NotApplicable("SHAKEDOWN_KILL_BROKER does not say how a broker is killed and started");

/// A command that kills the broker whose name, as in kafka-2, is its last word, and starts it again.
const KILL: &str = "SHAKEDOWN_KILL_BROKER";

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
    /// Under way: a broker is killed and started.
    killing: Mutex<Option<Child>>,
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
        let killing = Mutex::default();
        RealKafka { url, protocol, groups, session, heartbeat, run, topics, killing, runtime }
    }

    pub fn settings(&self) -> Settings {
        settings(assignor(self.protocol).unwrap())
    }

    pub fn new_name(&self) -> Arc<str> {
        format!("{}-{}", self.run, self.topics.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// As `bootstrap.servers` has it, where that is all a client needs to know.
    fn brokers(&self) -> Result<String, NotApplicable> {
        plain(&self.url).ok_or(NO_PASSWORD)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, NotApplicable> {
        Ok(library::config(&self.brokers()?).create().unwrap())
    }

    /// The brokers by id, host and port.
    fn cluster(&self) -> Result<Vec<(i32, String, u16)>, NotApplicable> {
        let metadata = self.admin()?.inner().fetch_metadata(None, LIMIT).unwrap();
        let broker = |it: &MetadataBroker| (it.id(), it.host().to_owned(), it.port() as u16);
        let mut brokers: Vec<_> = metadata.brokers().iter().map(broker).collect();
        brokers.sort();
        Ok(brokers)
    }

    /// The leader of the topic's partition 0, and who is in sync.
    fn replicas(&self, topic: &str) -> Result<(i32, Vec<i32>), NotApplicable> {
        let metadata = self.admin()?.inner().fetch_metadata(Some(topic), LIMIT).unwrap();
        let partition = &metadata.topics()[0].partitions()[0];
        Ok((partition.leader(), partition.isr().to_vec()))
    }

    /// The address of the broker that leads partition 0 of the topic.
    fn leader(&self, topic: &str) -> Result<String, NotApplicable> {
        let (leader, _) = self.replicas(topic)?;
        let (_, host, port) =
            self.cluster()?.into_iter().find(|(id, ..)| *id == leader).expect("the leader");
        Ok(format!("{host}:{port}"))
    }

    /// Whether it is more than one broker.
    fn several(&self) -> Result<(), NotApplicable> {
        if self.cluster()?.len() > 1 { Ok(()) } else { Err(ONE_BROKER) }
    }

    /// Kills this broker, which comes back some seconds later.
    fn kill(&self, broker: i32) -> Result<(), NotApplicable> {
        self.several()?;
        let command = std::env::var(KILL).map_err(|_| NO_KILL)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{command} kafka-{broker}")]).stdout(Stdio::null());
        *lock(&self.killing) = Some(shell.spawn().unwrap());
        Ok(())
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

    /// Waits until a broker that was killed is up again.
    async fn calm(&self) {
        let killing = lock(&self.killing).take();
        if let Some(mut killing) = killing {
            assert!(block(move || killing.wait().unwrap()).await.success(), "it came back");
        }
    }

    /// Waits until each broker knows the topic, and who leads it.
    async fn known_everywhere(&self, topic: &Arc<str>) {
        let Ok(brokers) = self.cluster() else { return };
        for (_, host, port) in brokers {
            // A client that is new has but this broker to ask.
            let (config, topic) = (library::config(&format!("{host}:{port}")), topic.clone());
            let known = move || {
                let admin: AdminClient<_> = config.create().unwrap();
                let Ok(metadata) = admin.inner().fetch_metadata(Some(&topic), LIMIT) else {
                    return false;
                };
                let partitions = metadata.topics()[0].partitions();
                !partitions.is_empty() && partitions.iter().all(|it| it.leader() >= 0)
            };
            while !block(known.clone()).await {}
        }
    }

    /// A topic of one partition with so many replicas and these settings.
    async fn topic_with(
        &self,
        replicas: i32,
        settings: &[(&str, &str)],
    ) -> Result<Arc<str>, NotApplicable> {
        self.calm().await;
        let (admin, name) = (self.admin()?, self.new_name());
        let mut new = NewTopic::new(&name, 1, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        admin.create_topics([&new], &options()).await.unwrap().remove(0).unwrap();
        self.known_everywhere(&name).await;
        Ok(name)
    }

    /// Waits until so many records are there, as another client sees it.
    async fn arrived(&self, topic: &str, count: i64) {
        let direct = self.client("direct").await;
        let arrived = |high: i64| high >= count;
        while !direct.watermarks(topic).await.is_ok_and(|it| it.values().any(|it| arrived(it.1))) {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many brokers there are; none where the test's own clients cannot ask.
pub fn brokers(url: &str) -> usize {
    let Some(brokers) = plain(url) else { return 0 };
    let admin: AdminClient<_> = library::config(&brokers).create().unwrap();
    admin.inner().fetch_metadata(None, LIMIT).unwrap().brokers().len()
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
        self.calm().await;
        let spec = TopicSpec { name: self.new_name(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        self.known_everywhere(&spec.name).await;
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(Kafka::connect(&self.url, name, self.settings()).unwrap())
    }

    /// By links of its own: the client library says goodbye on drop, and there nobody hears it.
    async fn mortal(&self, name: &str) -> Option<(Arc<dyn EventLog>, Box<dyn Link>)> {
        let (links, brokers) = self.links().ok()?;
        let client = Kafka::connect(&format!("kafka://{brokers}"), name, self.settings()).unwrap();
        Some((Arc::new(client), Box::new(Every(links))))
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

    async fn kill_the_leader(&self, topic: &Arc<str>) -> Observed {
        let (leader, _) = self.replicas(topic)?;
        self.kill(leader)?;
        while self.replicas(topic)?.0 == leader {}
        Ok(())
    }

    /// Of its two replicas one is killed; it counts until the leader has noticed.
    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable> {
        self.several()?;
        let topic = self.topic_with(2, &[("min.insync.replicas", "2")]).await?;
        let (leader, in_sync) = self.replicas(&topic)?;
        let follower = in_sync.into_iter().find(|id| *id != leader).expect("a follower");
        self.kill(follower)?;
        while self.replicas(&topic)?.1.len() > 1 {}
        Ok(topic)
    }

    async fn enough_replicas(&self, topic: &Arc<str>) -> Observed {
        while self.replicas(topic)?.1.len() < 2 {
            self.runtime.sleep(SEGMENT).await;
        }
        Ok(())
    }

    async fn apart(&self) -> Result<Apart, NotApplicable> {
        self.several()?;
        let (links, brokers) = self.links()?;
        let client = Arc::new(
            Kafka::connect(&format!("kafka://{brokers}"), "one", self.settings()).unwrap(),
        );
        let group: String = format!("{}.group", self.new_name());
        let first = self.brokers()?.split(',').next().unwrap().to_owned();
        let asked = group.clone();
        let coordinator = block(move || wire::coordinator(&first, &asked)).await;
        let topic = loop {
            let topic = self.topic_with(1, &[]).await?;
            if self.leader(&topic)? != coordinator {
                break topic;
            }
        };
        let mut addresses =
            self.cluster()?.into_iter().map(|(_, host, port)| format!("{host}:{port}"));
        let led = addresses.position(|address| address == coordinator).expect("its link");
        Ok(Apart { client, group, topic, coordinator: Box::new(Silenced { links, led }) })
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
        self.topic_with(1, &[("cleanup.policy", "compact"), soon[0], soon[1]]).await
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

/// The links to all brokers, which are to be silent together.
struct Every(Vec<Proxy>);

impl Link for Every {
    fn silence(&self) {
        self.0.iter().for_each(|link| link.limit_requests(Some(0)));
    }
}

/// The links to all brokers, one of which is to be silent.
struct Silenced {
    links: Vec<Proxy>,
    led: usize,
}

impl Link for Silenced {
    fn silence(&self) {
        self.links[self.led].limit_requests(Some(0));
    }
}
