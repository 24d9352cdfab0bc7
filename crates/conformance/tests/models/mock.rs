//! The real client library against its own mock cluster: its wire protocol without a server. Topics
//! are made beforehand, for the mock itself stays on its thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kafka::{Kafka, Settings};
use ports::{EventLog, Runtime};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use shakedown_conformance::log::{Life, LogBackend};
use shakedown_conformance::{NotApplicable, Observed};

const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

const HEARTBEAT: Duration = Duration::from_millis(200);

/// Each rebalance takes it a session time-out less a second, also where nobody is waited for.
const OTHER_TIME: NotApplicable =
    NotApplicable("its rebalances last a fixed time, whether a member left or fell silent");

/// A mock cluster, and its topics by their number of partitions.
pub struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    topics: BTreeMap<i32, Vec<Arc<str>>>,
}

impl Cluster {
    pub fn new() -> Self {
        let mock = MockCluster::new(1).unwrap();
        let mut topics: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
        for partitions in [1, 2, 3, 4, 6] {
            for n in 0..8 {
                let name = format!("topic-{partitions}-{n}");
                mock.create_topic(&name, partitions, 1).unwrap();
                topics.entry(partitions).or_default().push(name.into());
            }
        }
        Cluster { mock, topics }
    }

    pub fn backend(&self, runtime: Arc<dyn Runtime>) -> Mock {
        let url = format!("kafka://{}", self.mock.bootstrap_servers());
        Mock { url, topics: Mutex::new(self.topics.clone()), runtime }
    }
}

pub struct Mock {
    url: String,
    topics: Mutex<BTreeMap<i32, Vec<Arc<str>>>>,
    runtime: Arc<dyn Runtime>,
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

    async fn topic(&self, partitions: i32) -> Arc<str> {
        self.topics.lock().unwrap().get_mut(&partitions).and_then(Vec::pop).expect("a topic left")
    }

    fn keeps_time(&self) -> Observed {
        Err(OTHER_TIME.into())
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        let settings = Settings {
            session_timeout: SESSION_TIMEOUT,
            heartbeat: HEARTBEAT,
            poll_wait: Duration::from_millis(100),
            ..Settings::default()
        };
        Arc::new(Kafka::connect(&self.url, name, settings).unwrap())
    }

    async fn kill_a_member(&self, _: &Life) -> Result<Duration, NotApplicable> {
        Err(OTHER_TIME)
    }
}
