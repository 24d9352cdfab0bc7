//! The store model, and local mode's store on a file. Neither has a link that could be cut.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use local::Local;
use model::store::{Settings, StoreServer};
use ports::{Outcome, Runtime, Store};
use shakedown_conformance::store::{Loss, Session, StoreBackend, TABLES, Writers};
use shakedown_conformance::{NotApplicable, Unseen};

pub struct InProcess {
    store: Arc<dyn Store>,
    writers: Writers,
    /// The model's.
    server: Option<StoreServer>,
    runtime: Arc<dyn Runtime>,
}

impl InProcess {
    pub async fn on_the_model(runtime: Arc<dyn Runtime>) -> Self {
        let settings = Settings {
            lock_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
            idle_in_transaction_timeout: Duration::from_secs(3),
        };
        InProcess::with(settings, runtime).await
    }

    pub async fn with(settings: Settings, runtime: Arc<dyn Runtime>) -> Self {
        let server = StoreServer::new(settings, runtime.clone());
        let store: Arc<dyn Store> = Arc::new(server.client("one", runtime.clone()));
        store.prepare(&TABLES).await.unwrap();
        InProcess { store, writers: Writers::Many, server: Some(server), runtime }
    }

    pub async fn on(local: &Local, runtime: Arc<dyn Runtime>) -> Self {
        let store = local.store("conformance").unwrap();
        store.prepare(&TABLES).await.unwrap();
        InProcess { store, writers: Writers::One, server: None, runtime }
    }
}

#[async_trait]
impl StoreBackend for InProcess {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn writers(&self) -> Writers {
        self.writers
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        Err(NotApplicable(
            "in process: no link; the simulator loses replies around the port's calls",
        ))
    }

    async fn losing(&self, _: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        call.await
    }

    async fn restart(&self) -> Result<(), Unseen> {
        let Some(server) = &self.server else {
            let why = "no server: clients and file die together (crates/local/tests/crash.rs)";
            return Err(NotApplicable(why).into());
        };
        server.restart();
        Ok(())
    }

    async fn session(&self) -> Result<Box<dyn Session>, Unseen> {
        Err(NotApplicable("beyond the port: no code of ours listens").into())
    }
}
