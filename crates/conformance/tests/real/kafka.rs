//! A real Kafka. Topics stay behind: the port deletes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kafka::{Assignor, Kafka};
use ports::{EventLog, Runtime, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use shakedown_conformance::NotApplicable;
use shakedown_conformance::log::{Life, LogBackend};

use crate::member::{HEARTBEAT, Member, SESSION_TIMEOUT, assignor, settings};

pub struct RealKafka {
    url: String,
    protocol: &'static str,
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
        let (session, heartbeat) = match assignor(protocol) {
            Some(Assignor::Brokers) => dealt_by(url).await,
            _ => (SESSION_TIMEOUT, HEARTBEAT),
        };
        let (url, run) = (url.to_owned(), format!("{run}-{protocol}"));
        RealKafka { url, protocol, session, heartbeat, run, topics: AtomicU32::new(0), runtime }
    }
}

/// Session and heartbeat of groups that the brokers lead: theirs to set, and the same on all of them.
async fn dealt_by(url: &str) -> (Duration, Duration) {
    let brokers = url.trim_start_matches("kafka://");
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let first = {
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
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

    async fn topic(&self, partitions: i32) -> Arc<str> {
        let n = self.topics.fetch_add(1, Ordering::Relaxed);
        let spec = TopicSpec { name: format!("{}-{n}", self.run).into(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(
            Kafka::connect(&self.url, name, settings(assignor(self.protocol).unwrap())).unwrap(),
        )
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        let member = Member { url: self.url.clone(), protocol: self.protocol, life: life.clone() };
        let mut at = Duration::ZERO;
        self.runtime.block(&mut || at = member.live_elsewhere(&*self.runtime));
        Ok(at)
    }
}
