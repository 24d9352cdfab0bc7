//! A real PostgreSQL, in a schema of its own that stays behind: the port drops none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join};
use ports::{Outcome, Runtime, Store};
use postgres::PostgresStore;
use shakedown_conformance::NotApplicable;
use shakedown_conformance::store::{Loss, StoreBackend, TABLES, Writers};

use crate::proxy::Proxy;

/// Long enough for the server to do what it was told.
const SILENCE: Duration = Duration::from_millis(500);

pub struct RealPostgres {
    url: String,
    schema: String,
    store: Arc<dyn Store>,
    /// The flaky client's.
    link: Mutex<Option<Proxy>>,
    runtime: Arc<dyn Runtime>,
}

impl RealPostgres {
    pub async fn at(url: &str, run: &str, runtime: Arc<dyn Runtime>) -> Outcome<Self> {
        let schema = run.replace('-', "_");
        let store = PostgresStore::connect(url, &schema).await?;
        store.prepare(&TABLES).await?;
        let (url, store) = (url.to_owned(), Arc::new(store));
        Ok(RealPostgres { url, schema, store, link: Mutex::new(None), runtime })
    }
}

#[async_trait]
impl StoreBackend for RealPostgres {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn writers(&self) -> Writers {
        Writers::Many
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        let (proxy, url) = Proxy::before(&self.url, 5432);
        let store = PostgresStore::connect_with(&url, &self.schema, 1).await.unwrap();
        store.prepare(&TABLES).await.unwrap();
        *self.link.lock().unwrap() = Some(proxy);
        Ok(Arc::new(store))
    }

    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        {
            let link = self.link.lock().unwrap();
            let proxy = link.as_ref().expect("a flaky client");
            match loss {
                Loss::Request => proxy.limit_requests(Some(0)),
                Loss::Reply => proxy.limit_replies(Some(0)),
            }
        }
        let cutting = async {
            self.runtime.sleep(SILENCE).await;
            self.link.lock().unwrap().as_ref().expect("a flaky client").cut();
        };
        join(call, cutting).await.0
    }
}
