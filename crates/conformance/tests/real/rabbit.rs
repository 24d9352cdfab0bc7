//! A real RabbitMQ, through links that can be cut. Its queues end empty and stay behind: the port
//! deletes none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use ports::{JobQueue, Outcome, Record, Runtime};
use rabbit::Rabbit;
use shakedown_conformance::NotApplicable;
use shakedown_conformance::queue::QueueBackend;

use crate::proxy::Proxy;

/// What the frames of a small message take beside its payload, about.
const FRAMES_BYTES: usize = 150;

/// Long enough for the server to store what arrived.
const SILENCE: Duration = Duration::from_millis(500);

pub struct RealRabbit {
    url: String,
    run: String,
    queues: AtomicU32,
    links: Mutex<BTreeMap<String, Proxy>>,
    runtime: Arc<dyn Runtime>,
}

impl RealRabbit {
    pub fn at(url: &str, run: &str, runtime: Arc<dyn Runtime>) -> Self {
        let links = Mutex::default();
        let (url, run) = (url.to_owned(), run.to_owned());
        RealRabbit { url, run, queues: AtomicU32::new(0), links, runtime }
    }
}

#[async_trait]
impl QueueBackend for RealRabbit {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn queue(&self) -> Arc<str> {
        format!("{}-{}", self.run, self.queues.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        let (proxy, url) = Proxy::before(&self.url, 5672);
        let client = Rabbit::connect(&url).await.unwrap();
        self.links.lock().unwrap().insert(name.to_owned(), proxy);
        Arc::new(client)
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        let (proxy, url) = Proxy::before(&self.url, 5672);
        let client = Rabbit::connect(&url).await.unwrap();
        // Opens the channel, which is then used again.
        let nowhere = Record { to: self.queue(), ..batch[0].clone() };
        assert!(client.publish(vec![nowhere]).await[0].is_err(), "no such queue");
        let bytes = |record: &Record| record.payload.len() + FRAMES_BYTES;
        let arrived: usize = batch.iter().take(arriving).map(bytes).sum();
        // All that is to arrive and half a message more.
        let more = if arriving < batch.len() { bytes(&batch[0]) / 2 } else { 64 * 1024 };
        proxy.limit_replies(Some(0));
        proxy.limit_requests(Some(arrived + more));
        let cutting = async {
            self.runtime.sleep(SILENCE).await;
            proxy.cut();
        };
        let (outcomes, ()) = join(client.publish(batch), cutting).await;
        Ok(outcomes)
    }

    async fn cut(&self, client: &str) -> Result<(), NotApplicable> {
        self.links.lock().unwrap().get(client).expect("a client of that name").cut();
        Ok(())
    }
}
