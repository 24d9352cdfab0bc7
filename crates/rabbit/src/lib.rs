//! JobQueue on RabbitMQ through lapin. Never recovers a channel behind the caller's back, never acks
//! by itself, and never takes an unanswered publish for done.
//!
//! lapin's own auto-recovery stays off: after it, delivery tags are dead without the caller knowing.
#![warn(missing_docs)]

mod address;
mod consume;
mod fault;
mod link;
mod message;
mod publish;
mod server;
mod topology;
mod watchdog;

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use ports::{Deliveries, Fault, JobQueue, Outcome, QueueSpec, Record};

pub use address::Address;

use consume::Subscription;
use fault::{Stage, limited};
use link::Link;
use message::short;
use publish::Publisher;
pub use server::Server;
pub use topology::{Difference, FoundQueue, Queue};

/// A client of one RabbitMQ server or cluster. It must live on a tokio runtime with IO and time.
///
/// Headers arrive sorted by name, a name twice arrives once, and names that the server sets on dead
/// letters (`x-death`, `x-first-death-…`) are not published: an AMQP header table is a map.
pub struct Rabbit {
    /// Apart from the consumers: a resource alarm blocks connections that publish
    /// (broker-contract R30), and must not keep acks from the server.
    publisher: Publisher,
    consumers: Arc<Link>,
}

impl Rabbit {
    /// A client for `amqp://user:password@host:port/vhost`, connected; `amqps://` is the same over TLS,
    /// with RabbitMQ's URI parameters `cacertfile`, `certfile`, `keyfile` and `verify`. `Refused` for an
    /// address that is not one and for credentials that the server turns down, `Retry` while it is
    /// unreachable.
    pub async fn connect(url: &str) -> Outcome<Rabbit> {
        let address = Address::parse(url)?;
        let consumers = Arc::new(Link::new(address.clone(), "shakedown-consume"));
        let publisher = Publisher::new(Link::new(address, "shakedown-publish"));
        consumers.log_in().await?;
        Ok(Rabbit { publisher, consumers })
    }

    /// Whether the server has blocked publishing (a resource alarm, broker-contract R30): publishes
    /// then stall and end as `Unknown`. For readiness.
    pub async fn blocked(&self) -> bool {
        self.publisher.blocked().await
    }

    async fn declare_one(&self, name: &str, arguments: FieldTable) -> Outcome<()> {
        let name = short(name)?;
        // A channel of its own: a refusal closes it (broker-contract R5).
        let channel = self.consumers.channel().await?;
        let declared = channel.queue_declare(name, QueueDeclareOptions::durable(), arguments);
        limited(Stage::Change, "queue.declare", declared).await?;
        Ok(())
    }
}

#[async_trait]
impl JobQueue for Rabbit {
    async fn declare(&self, queue: &QueueSpec) -> Outcome<()> {
        // The dead-letter queue first: a dead letter without a target is held back (R19).
        if let Some(name) = &queue.dead_letters {
            if *name == queue.name {
                return Err(Fault::refused(format!("{name}: its own dead-letter queue")));
            }
            self.declare_one(name, message::dead_letter_arguments()).await?;
        }
        self.declare_one(&queue.name, message::arguments(queue)).await
    }

    async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.publisher.publish(batch).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Outcome<Box<dyn Deliveries>> {
        let (link, queue) = (self.consumers.clone(), Arc::from(queue));
        Ok(Box::new(Subscription::open(link, queue, prefetch.max(1)).await?))
    }

    async fn depth(&self, queue: &str) -> Outcome<u64> {
        Ok(self.consumers.ready(queue).await?.into())
    }
}
