//! A real PostgreSQL, in a schema of its own that stays behind: the port drops none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join};
use futures_util::{FutureExt, StreamExt, stream};
use ports::{Outcome, Runtime, Store};
use postgres::PostgresStore;
use shakedown_conformance::store::{Loss, Session, StoreBackend, TABLES, Writers};
use shakedown_conformance::{NotApplicable, Unseen};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::control::{self, KILL_POSTGRES};
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

    async fn restart(&self) -> Result<(), Unseen> {
        control::run(KILL_POSTGRES, &[]).await
    }

    async fn session(&self) -> Result<Box<dyn Session>, Unseen> {
        let (client, mut connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        let (hear, heard) = unbounded_channel();
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        // Ends with the client.
        let listening = async move {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(hint) = message {
                    // Nobody may be there any more.
                    let _ = hear.send(hint.payload().to_owned());
                }
            }
        };
        self.runtime.spawn("session", listening.boxed());
        let (runtime, heard) = (self.runtime.clone(), AsyncMutex::new(heard));
        Ok(Box::new(RealSession { client, heard, runtime }))
    }
}

struct RealSession {
    client: Client,
    heard: AsyncMutex<UnboundedReceiver<String>>,
    runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl Session for RealSession {
    async fn listen(&self, channel: &str) {
        self.client.batch_execute(&format!("LISTEN {channel}")).await.unwrap();
    }

    async fn notify(&self, channel: &str, payload: &str, commit: bool) {
        let end = if commit { "COMMIT" } else { "ROLLBACK" };
        let sql = format!("BEGIN; NOTIFY {channel}, '{payload}'; {end}");
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn heard(&self, quiet: Duration) -> Vec<String> {
        let mut heard = self.heard.lock().await;
        let mut all = Vec::new();
        while let Some(Some(one)) = ports::timeout(&*self.runtime, quiet, heard.recv()).await {
            all.push(one);
        }
        all
    }
}
