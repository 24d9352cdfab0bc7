//! Topics on a real cluster, at SHAKEDOWN_KAFKA. Without that address the tests say so and pass, unless
//! SHAKEDOWN_REQUIRE_SERVERS=1. Their topics stay behind: nothing here deletes one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ports::{EventLog, TopicSpec};
use shakedown_kafka::{Cluster, FoundTopic, Kafka, Keep, Settings, Topic};

fn url() -> Option<String> {
    let url = std::env::var("SHAKEDOWN_KAFKA").ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "SHAKEDOWN_REQUIRE_SERVERS=1 wants SHAKEDOWN_KAFKA");
        eprintln!("not run: SHAKEDOWN_KAFKA is not set");
    }
    url
}

#[expect(clippy::disallowed_methods, reason = "a name that no other run has")]
fn name(what: &str) -> Arc<str> {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("topology.{what}.{now_us}").into()
}

fn hour(what: &str) -> Topic {
    let keep = Keep::For(Duration::from_secs(3600));
    Topic { name: name(what), partitions: 2, keep, ..Topic::default() }
}

/// What is new is in the metadata a little later.
#[expect(clippy::disallowed_methods, reason = "a real server's time")]
async fn found(cluster: &Cluster, topic: &Topic) -> FoundTopic {
    for _ in 0..100 {
        if let Some(found) = cluster.find(&topic.name).await.unwrap() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} is not there", topic.name);
}

fn settings(found: &FoundTopic, wanted: &Topic) -> BTreeMap<&'static str, String> {
    let all = found.settings.as_ref().expect("they can be read");
    let names = wanted.settings(found.replication).into_keys();
    names.map(|name| (name, all[name].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_as_it_is_wanted_by_a_start_and_by_hand() {
    let Some(url) = url() else { return };
    let by_hand = hour("by_hand");
    let by_start = Topic { keep: Keep::LastOfKey, ..hour("by_start") };
    let cluster = Cluster::connect(&url, "topology", Settings::default()).unwrap();
    let brokers = cluster.brokers().await.unwrap();
    assert!(brokers >= 1);
    assert_eq!(cluster.find(&by_hand.name).await, Ok(None));
    cluster.create(&by_hand).await.unwrap();
    cluster.create(&by_hand).await.unwrap();
    let settled = Settings { topics: vec![by_start.clone()], ..Settings::default() };
    let log = Kafka::connect(&url, "topology", settled).unwrap();
    let spec = TopicSpec { name: by_start.name.clone(), partitions: by_start.partitions };
    log.declare(&[spec]).await.unwrap();
    for topic in [by_hand, by_start] {
        let found = found(&cluster, &topic).await;
        assert_eq!((found.partitions, found.replication), (2, topic.copies(brokers)));
        assert_eq!(settings(&found, &topic), topic.settings(found.replication));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_keeps_what_others_have_set() {
    let Some(url) = url() else { return };
    let topic = hour("changed");
    let cluster = Cluster::connect(&url, "topology", Settings::default()).unwrap();
    cluster.create(&topic).await.unwrap();
    found(&cluster, &topic).await;
    let change = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    cluster.set(&topic.name, &change("max.message.bytes", "123456")).await.unwrap();
    cluster.set(&topic.name, &change("retention.ms", "7200000")).await.unwrap();
    let settings = found(&cluster, &topic).await.settings.unwrap();
    let values = ["max.message.bytes", "retention.ms", "cleanup.policy", "min.insync.replicas"]
        .map(|name| &*settings[name]);
    assert_eq!(values[..3], ["123456", "7200000", "delete"]);
    assert!(cluster.set(&topic.name, &change("retention.ms", "soon")).await.is_err());
}
