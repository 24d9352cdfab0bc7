//! A real Kafka. Topics stay behind: the port deletes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kafka::Kafka;
use ports::{EventLog, Runtime, TopicSpec};
use shakedown_conformance::NotApplicable;
use shakedown_conformance::log::{Life, LogBackend};

use crate::member::{HEARTBEAT, Member, SESSION_TIMEOUT, settings};

pub struct RealKafka {
    url: String,
    run: String,
    topics: AtomicU32,
    runtime: Arc<dyn Runtime>,
}

impl RealKafka {
    pub fn at(url: &str, run: &str, runtime: Arc<dyn Runtime>) -> Self {
        RealKafka { url: url.to_owned(), run: run.to_owned(), topics: AtomicU32::new(0), runtime }
    }
}

#[async_trait]
impl LogBackend for RealKafka {
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
        let n = self.topics.fetch_add(1, Ordering::Relaxed);
        let spec = TopicSpec { name: format!("{}-{n}", self.run).into(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(Kafka::connect(&self.url, name, settings()).unwrap())
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        let member = Member { url: self.url.clone(), life: life.clone() };
        let mut at = Duration::ZERO;
        self.runtime.block(&mut || at = member.live_elsewhere(&*self.runtime));
        Ok(at)
    }
}
