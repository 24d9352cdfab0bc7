//! The queue model, and local mode's queues on it. They have no link: what a lost one does is done
//! here by publishing a part and forgetting the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use local::Local;
use model::queue::{QueueServer, Settings, Version};
use ports::{Fault, JobQueue, Outcome, QueueSpec, Record, Runtime};
use shakedown_conformance::queue::{Amqp, Bound, QueueBackend};
use shakedown_conformance::{NotApplicable, Release, Unseen};

/// What local mode does not have.
const ONE_PROCESS: &str = "no connection: clients and queues die together";

enum Server {
    Model(QueueServer),
    Local(Local),
}

pub struct InProcess {
    server: Server,
    version: Version,
    runtime: Arc<dyn Runtime>,
    queues: AtomicU32,
}

impl InProcess {
    /// On a model of this release.
    pub fn on_the_model(version: Version, runtime: Arc<dyn Runtime>) -> Self {
        let settings = Settings { version, ..Settings::default() };
        let server = Server::Model(QueueServer::new(settings, runtime.clone()));
        InProcess { server, version, runtime, queues: AtomicU32::new(0) }
    }

    /// On local mode, whose queues are those of 3.10.
    pub fn on(local: Local, runtime: Arc<dyn Runtime>) -> Self {
        let (server, version) = (Server::Local(local), Version::V3_10);
        InProcess { server, version, runtime, queues: AtomicU32::new(0) }
    }

    /// What it behaves as.
    pub fn release(&self) -> Release {
        (self.version.major.into(), self.version.minor.into())
    }
}

#[async_trait]
impl QueueBackend for InProcess {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn queue(&self) -> Arc<str> {
        format!("queue-{}", self.queues.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        match &self.server {
            Server::Model(server) => Arc::new(server.client(name, self.runtime.clone())),
            Server::Local(local) => local.queue(),
        }
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        let count = batch.len();
        let arrived = batch.into_iter().take(arriving).collect();
        drop(self.client("flaky").await.publish(arrived).await);
        Ok(vec![Err(Fault::unknown("the link is lost")); count])
    }

    async fn cut(&self, client: &str) -> Result<(), NotApplicable> {
        match &self.server {
            Server::Model(server) => {
                assert_eq!(server.disconnect(client), 1, "it has one channel");
                Ok(())
            }
            Server::Local(_) => Err(NotApplicable(ONE_PROCESS)),
        }
    }

    /// On a server of its own: these are settings of the whole model.
    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen> {
        if let Server::Local(_) = self.server {
            return Err(NotApplicable("its bounds are the adapter's, and no setting").into());
        }
        let settings = Settings { version: self.version, ..Settings::default() };
        let settings = match bound {
            Bound::Length(length) => Settings { max_length: length as usize, ..settings },
            Bound::Ack(ack_timeout) => Settings { ack_timeout, ..settings },
        };
        let server = QueueServer::new(settings, self.runtime.clone());
        let client = server.client("bounded", self.runtime.clone());
        let spec = QueueSpec { name: self.queue(), delivery_limit: 20, dead_letters: None };
        client.declare(&spec).await.unwrap();
        Ok((spec.name, Arc::new(client)))
    }

    async fn restart(&self) -> Result<(), Unseen> {
        match &self.server {
            Server::Model(server) => {
                server.restart();
                Ok(())
            }
            Server::Local(_) => Err(NotApplicable(ONE_PROCESS).into()),
        }
    }

    async fn alarm(&self, _: bool) -> Result<(), Unseen> {
        Err(NotApplicable("in process: nothing runs short; the simulator stalls the port's calls")
            .into())
    }

    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen> {
        Err(NotApplicable("beyond the port: no code of ours does it").into())
    }
}
