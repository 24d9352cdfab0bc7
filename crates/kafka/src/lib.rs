//! EventLog on Kafka through librdkafka. Holds no rule of any service, commits nothing by itself,
//! and never blocks a thread of the async runtime.
#![warn(missing_docs)]

mod address;
mod admin;
mod committer;
mod consumer;
mod detached;
mod faults;
mod logs;
mod producer;
mod settings;
mod topology;
mod watchdog;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{Consumer, EventLog, Offsets, Outcome, Partition, Record, TopicSpec};

pub use address::Address;
pub use faults::{Call, classify};
pub use settings::{Assignor, Settings};
pub use topology::{Cluster, FoundTopic, Keep, Topic};

use admin::Admin;
use consumer::KafkaConsumer;
use producer::Producer;

/// The version of librdkafka that is linked in.
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Connections to one Kafka cluster.
pub struct Kafka {
    clients: settings::Clients,
    producer: Producer,
    admin: Admin,
}

impl Kafka {
    /// Clients for `kafka://host:port[,host:port]`, known to the brokers as `name`. Connects in the
    /// background. `Refused` where the address or a setting is wrong.
    pub fn connect(url: &str, name: &str, settings: Settings) -> Outcome<Kafka> {
        let clients = settings::Clients {
            address: Address::parse(url)?,
            name: name.into(),
            settings,
            door: logs::Door::default(),
            given_up: watchdog::GivenUp::default(),
        };
        let producer = Producer::new(&clients)?;
        let admin = Admin::new(&clients)?;
        Ok(Kafka { clients, producer, admin })
    }

    /// Waits until all that was produced has an outcome, at most `deadline`. For shutdown, after
    /// the last [`EventLog::produce`]; `Unknown` where it took longer.
    pub async fn flush(&self, deadline: Duration) -> Outcome<()> {
        self.producer.flush(deadline).await
    }
}

#[async_trait]
impl EventLog for Kafka {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        self.admin.declare(topics.to_vec()).await
    }

    async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        self.producer.produce(batch).await
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let group = self.clients.group(group);
        Ok(Box::new(KafkaConsumer::join(&self.clients, &group, topics).await?))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        self.admin.watermarks(topic.into()).await
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        let group = self.clients.group(group);
        self.admin.committed(self.clients.reader(&group), topics.to_vec()).await
    }
}
