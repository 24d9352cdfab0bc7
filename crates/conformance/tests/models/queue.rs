//! The queue model, and local mode's queues on it. They have no link: what a lost one does is done
//! here by publishing a part and forgetting the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use local::Local;
use model::queue::{QueueServer, Settings};
use ports::{Fault, JobQueue, Outcome, Record, Runtime};
use shakedown_conformance::NotApplicable;
use shakedown_conformance::queue::QueueBackend;

enum Server {
    Model(QueueServer),
    Local(Local),
}

pub struct InProcess {
    server: Server,
    runtime: Arc<dyn Runtime>,
    queues: AtomicU32,
}

impl InProcess {
    pub fn on_the_model(runtime: Arc<dyn Runtime>) -> Self {
        let server = Server::Model(QueueServer::new(Settings::default(), runtime.clone()));
        InProcess { server, runtime, queues: AtomicU32::new(0) }
    }

    pub fn on(local: Local, runtime: Arc<dyn Runtime>) -> Self {
        InProcess { server: Server::Local(local), runtime, queues: AtomicU32::new(0) }
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
            Server::Local(_) => {
                Err(NotApplicable("no connection: clients and queues die together"))
            }
        }
    }
}
