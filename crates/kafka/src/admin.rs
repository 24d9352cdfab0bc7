//! Topics, watermarks and committed offsets. Asks on threads for blocking work, with a time-out;
//! never joins a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Fault, Offsets, Outcome, Partition, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::detached::Detached;
use crate::faults::{Call, classify, fault};
use crate::logs::Logs;
use crate::settings::Clients;

type Client = Arc<Detached<AdminClient<Logs>>>;

/// Asks the cluster.
pub(crate) struct Admin {
    client: Client,
    timeout: Duration,
    replication: i32,
}

impl Admin {
    pub fn new(clients: &Clients) -> Outcome<Self> {
        let client: Result<AdminClient<_>, _> = clients.admin().create_with_context(Logs);
        let client = client.map_err(|error| Fault::refused(error.to_string()))?;
        Ok(Admin {
            client: Arc::new(Detached::new(client)),
            timeout: clients.settings.request_timeout,
            replication: clients.settings.replication,
        })
    }

    /// Creates what is missing and checks what is there.
    pub async fn declare(&self, topics: Vec<TopicSpec>) -> Outcome<()> {
        let counts = self.counts().await?;
        let mut missing = Vec::new();
        for topic in &topics {
            if topic.partitions < 1 {
                return Err(Fault::refused("a topic needs at least one partition"));
            }
            match counts.get(&*topic.name) {
                Some(count) => check(topic, *count)?,
                None => missing.push(topic),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let new: Vec<_> = missing
            .iter()
            .map(|topic| {
                NewTopic::new(
                    &topic.name,
                    topic.partitions,
                    TopicReplication::Fixed(self.replication),
                )
            })
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        let results = self.client.create_topics(&new, &options).await;
        let results = results.map_err(|error| fault(Call::Create, &error))?;
        for (topic, result) in missing.into_iter().zip(results) {
            match result {
                Ok(_) => {}
                // Someone else was faster.
                Err((_, Code::TopicAlreadyExists)) => {
                    let count = self.counts().await?.get(&*topic.name).copied();
                    let unseen = || Fault::retry("a new topic is not in the metadata yet");
                    check(topic, count.ok_or_else(unseen)?)?;
                }
                Err((_, code)) => return Err(classify(Call::Create, code)),
            }
        }
        Ok(())
    }

    /// Low and high watermark of each partition.
    pub async fn watermarks(&self, topic: Arc<str>) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        blocking(move || {
            let count = count(&client, &topic, timeout)?;
            (0..count)
                .map(|index| {
                    let marks = client.inner().fetch_watermarks(&topic, index, timeout);
                    let marks = marks.map_err(|error| fault(Call::Read, &error))?;
                    Ok((Partition { topic: topic.clone(), index }, marks))
                })
                .collect()
        })
        .await
    }

    /// The group's committed offsets in these topics.
    pub async fn committed(&self, config: ClientConfig, topics: Vec<Arc<str>>) -> Outcome<Offsets> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        blocking(move || {
            let mut asked = TopicPartitionList::new();
            for topic in &topics {
                for index in 0..count(&client, topic, timeout)? {
                    asked.add_partition(topic, index);
                }
            }
            let consumer: Result<BaseConsumer, _> = config.create();
            let consumer = consumer.map_err(|error| Fault::refused(error.to_string()))?;
            let found = consumer.committed_offsets(asked, timeout);
            let found = found.map_err(|error| fault(Call::Read, &error))?;
            let mut offsets = Offsets::new();
            for element in found.elements() {
                element.error().map_err(|error| fault(Call::Read, &error))?;
                let topic = topics.iter().find(|topic| ***topic == *element.topic());
                if let (Some(topic), Offset::Offset(next)) = (topic, element.offset()) {
                    let index = element.partition();
                    offsets.insert(Partition { topic: topic.clone(), index }, next);
                }
            }
            Ok(offsets)
        })
        .await
    }

    /// The partition counts of all topics.
    async fn counts(&self) -> Outcome<BTreeMap<String, i32>> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        blocking(move || {
            let metadata = client.inner().fetch_metadata(None, timeout);
            let metadata = metadata.map_err(|error| fault(Call::Read, &error))?;
            let topics = metadata.topics().iter();
            Ok(topics.map(|t| (t.name().to_owned(), t.partitions().len() as i32)).collect())
        })
        .await
    }
}

fn check(topic: &TopicSpec, count: i32) -> Outcome<()> {
    if topic.partitions == count {
        return Ok(());
    }
    Err(Fault::refused(format!("topic {} has {count} partitions", topic.name)))
}

/// The partition count of one topic; `Refused` if there is no such topic.
fn count(client: &Client, topic: &str, timeout: Duration) -> Outcome<i32> {
    let metadata = client.inner().fetch_metadata(Some(topic), timeout);
    let metadata = metadata.map_err(|error| fault(Call::Read, &error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| (found.error(), found.partitions().len() as i32)) {
        Some((None, count)) if count > 0 => Ok(count),
        Some((Some(code), _)) => Err(classify(Call::Read, Code::from(code))),
        _ => Err(classify(Call::Read, Code::UnknownTopic)),
    }
}

/// Runs what waits for the network off the async runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::unknown("the question was cut short")),
    }
}
