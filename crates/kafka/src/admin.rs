//! Topics, watermarks and committed offsets. Asks on threads for blocking work, with a time-out;
//! never joins a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::{Fault, Offsets, Outcome, Partition, TopicSpec};
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::detached::Detached;
use crate::faults::{Call, classify, fault, not_created};
use crate::logs::{Door, Logs};
use crate::settings::Clients;
use crate::topology::Topic;

/// How long to wait for the brokers before a look at the door.
const SLICE: Duration = Duration::from_millis(500);

type Client = Arc<Detached<AdminClient<Logs>>>;

/// Asks the cluster.
pub(crate) struct Admin {
    pub client: Client,
    pub timeout: Duration,
    /// As those topics should be that this shop wants in a certain way.
    topics: Vec<Topic>,
    door: Door,
}

impl Admin {
    pub fn new(clients: &Clients) -> Outcome<Self> {
        let client: Result<AdminClient<_>, _> = clients.admin().create_with_context(Logs);
        let client = client.map_err(not_created)?;
        Ok(Admin {
            client: Arc::new(Detached::new(client)),
            timeout: clients.settings.request_timeout,
            topics: clients.settings.topics.clone(),
            door: clients.door.clone(),
        })
    }

    /// Creates what is missing and checks what is there.
    pub async fn declare(&self, topics: Vec<TopicSpec>) -> Outcome<()> {
        let (brokers, counts) = self.counts().await?;
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
        let new: Vec<_> = missing.iter().map(|topic| self.wanted(topic, brokers)).collect();
        let results = self.create(&new).await?;
        for (topic, result) in missing.into_iter().zip(results) {
            match result {
                Ok(_) => {}
                // Someone else was faster.
                Err(Code::TopicAlreadyExists) => {
                    let count = self.counts().await?.1.get(&*topic.name).copied();
                    let unseen = || Fault::retry("a new topic is not in the metadata yet");
                    check(topic, count.ok_or_else(unseen)?)?;
                }
                Err(code) => return Err(classify(Call::Create, code)),
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
            let consumer = consumer.map_err(not_created)?;
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

    /// The topic to create, with its copies in a cluster of so many brokers.
    fn wanted(&self, spec: &TopicSpec, brokers: i32) -> (Topic, i32) {
        let TopicSpec { name, partitions } = spec.clone();
        match self.topics.iter().find(|topic| topic.name == name) {
            Some(topic) => (Topic { partitions, ..topic.clone() }, topic.copies(brokers)),
            // Nobody says how: kept as records of events are, with what copies there can be.
            None => {
                let topic = Topic { name, partitions, ..Topic::default() };
                let copies = topic.copies(brokers);
                (topic, copies)
            }
        }
    }

    /// How many brokers there are, and the partition counts of all topics. `Refused` as soon as a
    /// broker has turned us down, or we it.
    #[allow(clippy::disallowed_methods)] // An adapter: real time.
    async fn counts(&self) -> Outcome<(i32, BTreeMap<String, i32>)> {
        let (client, door, timeout) = (self.client.clone(), self.door.clone(), self.timeout);
        blocking(move || {
            let begun = Instant::now();
            let metadata = loop {
                let left = timeout.saturating_sub(begun.elapsed());
                match (client.inner().fetch_metadata(None, left.min(SLICE)), door.closed()) {
                    (Ok(metadata), _) => break metadata,
                    (Err(_), Some(reason)) => return Err(Fault::refused(reason)),
                    (Err(error), None) if left <= SLICE => return Err(fault(Call::Read, &error)),
                    (Err(_), None) => {}
                }
            };
            door.opened();
            let topics = metadata.topics().iter();
            let counts = topics.map(|t| (t.name().to_owned(), t.partitions().len() as i32));
            Ok((metadata.brokers().len() as i32, counts.collect()))
        })
        .await
    }
}

fn check(topic: &TopicSpec, count: i32) -> Outcome<()> {
    if topic.partitions == count {
        return Ok(());
    }
    Err(Fault::refused(format!(
        "topic {} has {count} partitions, and {} are wanted; they are fixed when it is made",
        topic.name, topic.partitions
    )))
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
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // A question changes nothing.
        Err(_) => Err(Fault::retry("the question was cut short")),
    }
}
