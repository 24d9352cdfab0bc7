//! The log model, and local mode's log on it. Both use the model's default time-outs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use local::Local;
use model::log::{Assignor, LogServer, Settings};
use ports::{EventLog, Runtime, TopicSpec};
use shakedown_conformance::NotApplicable;
use shakedown_conformance::log::{Life, LogBackend, before_the_kill};

enum Server {
    Model(LogServer),
    Local(Local),
}

pub struct InProcess {
    server: Server,
    runtime: Arc<dyn Runtime>,
    settings: Settings,
    topics: AtomicU32,
}

impl InProcess {
    pub fn on_the_model(runtime: Arc<dyn Runtime>) -> Self {
        // As the adapter and local mode.
        InProcess::of(Assignor::CooperativeSticky, runtime)
    }

    /// With eager rebalances.
    pub fn eager(runtime: Arc<dyn Runtime>) -> Self {
        InProcess::of(Assignor::Range, runtime)
    }

    fn of(assignor: Assignor, runtime: Arc<dyn Runtime>) -> Self {
        let settings = Settings { assignor, ..Settings::default() };
        let server = Server::Model(LogServer::new(settings.clone()));
        InProcess { server, runtime, settings, topics: AtomicU32::new(0) }
    }

    pub fn on(local: Local, runtime: Arc<dyn Runtime>) -> Self {
        let server = Server::Local(local);
        InProcess { server, runtime, settings: Settings::default(), topics: AtomicU32::new(0) }
    }
}

#[async_trait]
impl LogBackend for InProcess {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn session_timeout(&self) -> Duration {
        self.settings.session_timeout
    }

    fn heartbeat(&self) -> Duration {
        self.settings.heartbeat
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        let n = self.topics.fetch_add(1, Ordering::Relaxed);
        let spec = TopicSpec { name: format!("topic-{n}").into(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        match &self.server {
            Server::Model(server) => Arc::new(server.client(name, self.runtime.clone())),
            Server::Local(local) => local.log(),
        }
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        let client = self.client("doomed").await;
        // Dropped without a close: no process is needed, its heartbeats end.
        drop(before_the_kill(&*client, life).await);
        Ok(self.runtime.elapsed())
    }
}
