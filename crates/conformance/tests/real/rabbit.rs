//! A real RabbitMQ, through links that can be cut. The queues of cases end empty and stay behind: the port
//! deletes none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use ports::{Deliveries, JobQueue, Outcome, QueueSpec, Record, Runtime};
use rabbit::Rabbit;
use shakedown_conformance::queue::{Amqp, Argument, Arguments, Bound, Kind, QueueBackend, RESEND};
use shakedown_conformance::{NotApplicable, Release, Unseen};

use crate::amqp::RealChannel;
use crate::control::{self, KILL_RABBIT, RABBITMQCTL};
use crate::proxy::Proxy;

/// What the frames of a small message take beside its payload, about.
const FRAMES_BYTES: usize = 150;

/// Long enough for the server to store what arrived.
const SILENCE: Duration = Duration::from_millis(500);

/// What the server knows of its queues is on disk after so long. Seen on 3.10.8 and 4.0.5, killed within
/// two seconds after a declaration: a classic queue was gone, a quorum queue there and without a leader
/// for good.
pub const WRITTEN: Duration = Duration::from_secs(5);

/// The first release whose queues have an ack time-out of their own.
const OWN_ACK_TIMEOUT: Release = (3, 12);

/// The server's ack time-out by default, in milliseconds.
const ACK_TIMEOUT_MS: u128 = 1_800_000;

pub struct RealRabbit {
    url: String,
    run: String,
    kind: Kind,
    release: Release,
    queues: AtomicU32,
    links: Mutex<BTreeMap<String, Proxy>>,
    /// The server's ack time-out is not the default.
    impatient: AtomicBool,
    runtime: Arc<dyn Runtime>,
}

impl RealRabbit {
    pub async fn at(
        url: &str,
        run: &str,
        kind: Kind,
        release: Release,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let rabbit = RealRabbit {
            url: url.to_owned(),
            run: format!("{run}-{}", kind.name()),
            kind,
            release,
            queues: AtomicU32::new(0),
            links: Mutex::default(),
            impatient: AtomicBool::new(false),
            runtime,
        };
        // Where there is no command for it, the cases that want it say so.
        let _ = rabbit.hurry().await;
        rabbit
    }

    /// Makes the server look more often at what it looks at each minute or less.
    async fn hurry(&self) -> Result<(), Unseen> {
        let resend_ms = RESEND.as_millis();
        self.set(&[
            ("channel_tick_interval", 500),
            ("dead_letter_worker_publisher_confirm_timeout", resend_ms),
        ])
        .await
    }

    /// Settings of the running server, for channels and queues to come.
    async fn set(&self, settings: &[(&str, u128)]) -> Result<(), Unseen> {
        let set =
            |(name, value): &(&str, u128)| format!("application:set_env(rabbit,{name},{value})");
        let all: Vec<String> = settings.iter().map(set).collect();
        control::run(RABBITMQCTL, &["eval", &format!("{}.", all.join(","))]).await
    }

    /// Undoes an ack time-out for the channels to come.
    async fn be_patient(&self) {
        if self.impatient.swap(false, Ordering::Relaxed) {
            self.set(&[("consumer_timeout", ACK_TIMEOUT_MS)]).await.expect("as it was set");
        }
    }

    async fn connect(&self, name: &str) -> Arc<dyn JobQueue> {
        let (proxy, url) = Proxy::before(&self.url, 5672);
        let client = Rabbit::connect(&url).await.unwrap();
        self.links.lock().unwrap().insert(name.to_owned(), proxy);
        match self.kind {
            Kind::Quorum => Arc::new(client),
            Kind::Classic => Arc::new(Classic { client, url: self.url.clone() }),
        }
    }
}

#[async_trait]
impl QueueBackend for RealRabbit {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn queue(&self) -> Arc<str> {
        format!("{}-{}", self.run, self.queues.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        self.be_patient().await;
        self.connect(name).await
    }

    async fn forget(&self, queues: &[Arc<str>]) {
        let operator = RealChannel::open(&self.url).await;
        for queue in queues {
            operator.delete(queue).await;
        }
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

    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen> {
        let mut arguments = Arguments::from([("x-queue-type", self.kind.name().into())]);
        if self.kind == Kind::Quorum {
            arguments.insert("x-delivery-limit", 20.into());
        }
        match bound {
            Bound::Length(length) => {
                arguments.insert("x-max-length", Argument::Number(length.try_into().unwrap()));
                arguments.insert("x-overflow", "reject-publish".into());
            }
            Bound::Ack(timeout) if self.release >= OWN_ACK_TIMEOUT => {
                // The server must look often enough.
                self.hurry().await?;
                let timeout_ms = timeout.as_millis().try_into().unwrap();
                arguments.insert("x-consumer-timeout", Argument::Number(timeout_ms));
            }
            Bound::Ack(timeout) => {
                self.set(&[("consumer_timeout", timeout.as_millis())]).await?;
                self.impatient.store(true, Ordering::Relaxed);
            }
        }
        let queue = self.queue();
        RealChannel::open(&self.url).await.declare(&queue, &arguments).await.unwrap();
        Ok((queue, self.connect("bounded").await))
    }

    async fn restart(&self) -> Result<(), Unseen> {
        self.runtime.sleep(WRITTEN).await;
        control::run(KILL_RABBIT, &[]).await?;
        self.impatient.store(false, Ordering::Relaxed);
        self.hurry().await
    }

    async fn alarm(&self, on: bool) -> Result<(), Unseen> {
        let watermark = if on { "0.0000001" } else { "0.4" };
        control::run(RABBITMQCTL, &["set_vm_memory_high_watermark", watermark]).await
    }

    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen> {
        self.be_patient().await;
        Ok(Box::new(RealChannel::open(&self.url).await))
    }
}

/// The adapter, with classic queues instead of its own.
struct Classic {
    client: Rabbit,
    url: String,
}

#[async_trait]
impl JobQueue for Classic {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        let classic = || Arguments::from([("x-queue-type", Kind::Classic.name().into())]);
        let mut arguments = classic();
        if let Some(dead) = &queue.dead_letters {
            RealChannel::open(&self.url).await.declare(dead, &classic()).await?;
            arguments.insert("x-dead-letter-exchange", "".into());
            arguments.insert("x-dead-letter-routing-key", (&**dead).into());
        }
        RealChannel::open(&self.url).await.declare(&queue.name, &arguments).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.client.publish(batch).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        self.client.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        self.client.depth(queue).await
    }
}
