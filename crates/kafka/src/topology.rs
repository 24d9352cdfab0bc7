//! Topics as they should be and as they are. Never deletes one, never changes how many partitions or replicas
//! one has, and never drops a setting of it that somebody else made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Fault, Outcome};
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::address::Address;
use crate::admin::{Admin, blocking};
use crate::faults::{Call, classify, fault};
use crate::logs::Door;
use crate::settings::{Clients, Settings};

/// How often a change is looked for, and the pause between: what the controller took is with the broker that is
/// asked a little later.
const LOOKS_MAX: usize = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Which records of a topic go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those that are older (`cleanup.policy=delete`).
    For(Duration),
    /// Those whose key has a later one (`cleanup.policy=compact`).
    LastOfKey,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Fixed at creation (broker-contract K2), at least 1.
    pub partitions: i32,
    /// Copies of each partition, as far as there are brokers for them.
    pub replication: i32,
    /// Which of its records go.
    pub keep: Keep,
}

impl Default for Topic {
    /// Without a name: six partitions, three copies, 30 days.
    fn default() -> Self {
        let keep = Keep::For(Duration::from_secs(30 * 24 * 60 * 60));
        Topic { name: "".into(), partitions: 6, replication: 3, keep }
    }
}

impl Topic {
    /// What is set for it, by name, where each partition has so many copies.
    pub fn settings(&self, replication: i32) -> BTreeMap<&'static str, String> {
        // A record that was confirmed survives the loss of a broker, and one may be away (K4). With fewer
        // than three copies the second is not worth a standstill.
        let min_insync = if replication >= 3 { "2" } else { "1" };
        let mut settings = BTreeMap::from([
            ("min.insync.replicas", min_insync.to_owned()),
            // An unclean leader has lost what was confirmed (K14).
            ("unclean.leader.election.enable", "false".to_owned()),
        ]);
        match self.keep {
            Keep::For(age) => {
                settings.insert("cleanup.policy", "delete".to_owned());
                settings.insert("retention.ms", age.as_millis().to_string());
            }
            Keep::LastOfKey => {
                settings.insert("cleanup.policy", "compact".to_owned());
            }
        }
        settings
    }

    /// How many copies it gets in a cluster of so many brokers.
    pub fn copies(&self, brokers: i32) -> i32 {
        self.replication.min(brokers).max(1)
    }
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    /// How many it has.
    pub partitions: i32,
    /// Copies of the partition that has the fewest.
    pub replication: i32,
    /// All its settings, those by default too; `None` where we may not read them.
    pub settings: Option<BTreeMap<String, String>>,
}

/// A Kafka cluster, for who looks at its topics or sets them.
pub struct Cluster {
    admin: Admin,
}

impl Cluster {
    /// A client for an address as [`crate::Kafka::connect`] has it. Connects in the background.
    pub fn connect(url: &str, name: &str, settings: Settings) -> Outcome<Cluster> {
        // Nobody feeds its door: there is no producer here.
        let (address, door) = (Address::parse(url)?, Door::default());
        let clients =
            Clients { address, name: name.into(), settings, door, given_up: Default::default() };
        Ok(Cluster { admin: Admin::new(&clients)? })
    }

    /// How many brokers are there.
    pub async fn brokers(&self) -> Outcome<i32> {
        let (client, timeout) = (self.admin.client.clone(), self.admin.timeout);
        blocking(move || {
            // Of one topic that is none: all of them would be much.
            let metadata = client.inner().fetch_metadata(Some("-"), timeout);
            let metadata = metadata.map_err(|error| fault(Call::Read, &error))?;
            Ok(i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX))
        })
        .await
    }

    /// The topic as it is; `None` where it does not exist. `Refused` where we may not see it.
    pub async fn find(&self, topic: &str) -> Outcome<Option<FoundTopic>> {
        let (client, timeout) = (self.admin.client.clone(), self.admin.timeout);
        let name = topic.to_owned();
        let counts = blocking(move || {
            let metadata = client.inner().fetch_metadata(Some(&name), timeout);
            let metadata = metadata.map_err(|error| fault(Call::Read, &error))?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
                return Ok(None);
            };
            match topic.error().map(Code::from) {
                None => {}
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
                Some(code) => return Err(classify(Call::Read, code)),
            }
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
            let number = |count| i32::try_from(count).unwrap_or(i32::MAX);
            Ok(Some((number(topic.partitions().len()), number(replicas.min().unwrap_or(0)))))
        });
        let Some((partitions, replication)) = counts.await? else { return Ok(None) };
        let settings = self
            .settings(topic)
            .await?
            .map(|settings| settings.into_iter().map(|(name, (value, _))| (name, value)).collect());
        Ok(Some(FoundTopic { partitions, replication, settings }))
    }

    /// Creates the topic. One that exists is left as it is.
    pub async fn create(&self, topic: &Topic) -> Outcome<()> {
        let brokers = self.brokers().await?;
        match self.admin.create(&[(topic.clone(), topic.copies(brokers))]).await?.pop() {
            Some(Err(Code::TopicAlreadyExists)) | Some(Ok(())) | None => Ok(()),
            Some(Err(code)) => Err(classify(Call::Create, code)),
        }
    }

    /// Gives these settings of the topic these values, and leaves its others as they are.
    ///
    /// The client library has the request alone that replaces all settings of a topic, so they are read first: a
    /// change that somebody else makes between the two is lost.
    pub async fn set(&self, topic: &str, changes: &BTreeMap<String, String>) -> Outcome<()> {
        let all = self.settings(topic).await?;
        let all = all.ok_or_else(|| Fault::refused("its settings cannot be read"))?;
        let own = all.into_iter().filter(|(_, (_, own))| *own);
        let mut own: BTreeMap<String, String> =
            own.map(|(name, (value, _))| (name, value)).collect();
        own.extend(changes.clone());
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in &own {
            alter = alter.set(name, value);
        }
        let results = self.admin.client.alter_configs([&alter], &self.options()).await;
        let results = results.map_err(|error| fault(Call::Create, &error))?;
        for result in results {
            result.map_err(|(_, code)| classify(Call::Create, code))?;
        }
        self.has(topic, changes).await
    }

    /// Waits until the topic's settings are these: the library drops the cluster's refusal of a change, too.
    #[allow(clippy::disallowed_methods)] // An adapter: real time.
    async fn has(&self, topic: &str, changes: &BTreeMap<String, String>) -> Outcome<()> {
        for _ in 0..LOOKS_MAX {
            let found = self.settings(topic).await?.unwrap_or_default();
            let done = |(name, value): (&String, &String)| {
                found.get(name).is_some_and(|(found, _)| found == value)
            };
            if changes.iter().all(done) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(Fault::refused("the cluster has not taken it: no right to, or a value that it refuses"))
    }

    /// A topic's settings, and whether they are its own and not by default; `None` where we may not read them.
    async fn settings(&self, topic: &str) -> Outcome<Option<BTreeMap<String, (String, bool)>>> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let found = self.admin.client.describe_configs(&asked, &self.options()).await;
        let found = found.map_err(|error| fault(Call::Read, &error))?.pop();
        let found = found.transpose().map_err(|code| classify(Call::Read, code))?;
        // The library drops the error of a single topic: one without any settings is one that we may not read.
        let Some(found) = found.filter(|found| !found.entries.is_empty()) else { return Ok(None) };
        let value = |entry: rdkafka::admin::ConfigEntry| {
            Some((entry.name, (entry.value?, entry.source == ConfigSource::DynamicTopic)))
        };
        Ok(Some(found.entries.into_iter().filter_map(value).collect()))
    }

    fn options(&self) -> AdminOptions {
        self.admin.options()
    }
}

impl Admin {
    pub(crate) fn options(&self) -> AdminOptions {
        let timeout = Some(self.timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// Creates topics with so many copies each: an outcome for each.
    pub(crate) async fn create(&self, topics: &[(Topic, i32)]) -> Outcome<Vec<Result<(), Code>>> {
        let settings: Vec<_> =
            topics.iter().map(|(topic, copies)| topic.settings(*copies)).collect();
        let new = topics.iter().zip(&settings).map(|((topic, copies), settings)| {
            let copies = TopicReplication::Fixed(*copies);
            let new = NewTopic::new(&topic.name, topic.partitions, copies);
            settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<_> = new.collect();
        let results = self.client.create_topics(&new, &self.options()).await;
        let results = results.map_err(|error| fault(Call::Create, &error))?;
        Ok(results.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(keep: Keep) -> Topic {
        Topic { name: "orders.events".into(), partitions: 6, replication: 3, keep }
    }

    #[test]
    fn a_topic_has_as_many_copies_as_there_are_brokers_for() {
        let topic = topic(Keep::LastOfKey);
        for (brokers, copies, min_insync) in [(1, 1, "1"), (2, 2, "1"), (3, 3, "2"), (9, 3, "2")] {
            assert_eq!(topic.copies(brokers), copies);
            assert_eq!(topic.settings(copies)["min.insync.replicas"], min_insync);
        }
    }

    #[test]
    fn a_compacted_topic_has_no_age() {
        let compacted = topic(Keep::LastOfKey).settings(3);
        assert_eq!(compacted["cleanup.policy"], "compact");
        assert!(!compacted.contains_key("retention.ms"));
        let deleted = topic(Keep::For(Duration::from_secs(60))).settings(3);
        assert_eq!((&*deleted["cleanup.policy"], &*deleted["retention.ms"]), ("delete", "60000"));
    }
}
