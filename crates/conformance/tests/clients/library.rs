//! The client library as others set it. Every call blocks.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ports::{Partition, Record};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use shakedown_conformance::log::Groups;

const SLICE: Duration = Duration::from_millis(100);

/// For one question.
const LIMIT: Duration = Duration::from_secs(10);

/// A client of these brokers with the library's defaults, but that it makes no topics.
pub fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("allow.auto.create.topics", "false");
    config
}

/// Sends this record, as made at this time or now. The producer has to live until it is answered.
pub fn send(
    producer: &FutureProducer,
    record: &Record,
    at: Option<DateTime<Utc>>,
) -> DeliveryFuture {
    let mut headers = OwnedHeaders::new();
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: Some(&value[..]) });
    }
    let message = FutureRecord::to(&record.to).key(record.key.as_bytes());
    let message = message.payload(&record.payload[..]).headers(headers);
    let message = match at {
        Some(at) => message.timestamp(at.timestamp_millis()),
        None => message,
    };
    producer.send_result(message).map_err(|(error, _)| error).unwrap()
}

fn join(
    brokers: &str,
    groups: Groups,
    group: &str,
    topic: &str,
    more: &[(&str, &str)],
) -> BaseConsumer {
    let mut config = config(brokers);
    let protocol = match groups {
        Groups::LedByMembers => "classic",
        Groups::LedByBrokers => "consumer",
    };
    config.set("group.id", group).set("group.protocol", protocol);
    config.set("auto.offset.reset", "earliest");
    for (name, value) in more {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

/// The committed offset after each round of stores and a commit of what is stored.
pub fn store_offsets(
    brokers: &str,
    groups: Groups,
    group: &str,
    partition: &Partition,
    rounds: &[Vec<i64>],
) -> Vec<Option<i64>> {
    let more = [("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    let consumer = join(brokers, groups, group, &partition.topic, &more);
    while consumer.assignment().unwrap().count() == 0 {
        drop(consumer.poll(SLICE));
    }
    let after = |round: &Vec<i64>| {
        for offset in round {
            let (mut next, offset) = (TopicPartitionList::new(), Offset::Offset(*offset));
            next.add_partition_offset(&partition.topic, partition.index, offset).unwrap();
            consumer.store_offsets(&next).unwrap();
        }
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => panic!("no commit: {error}"),
        }
        let committed = consumer.committed(LIMIT).unwrap();
        match committed.find_partition(&partition.topic, partition.index)?.offset() {
            Offset::Offset(next) => Some(next),
            _ => None,
        }
    };
    rounds.iter().map(after).collect()
}

/// Reads so many records and ends.
pub fn read_by_default(brokers: &str, groups: Groups, group: &str, topic: &str, count: usize) {
    let consumer = join(brokers, groups, group, topic, &[]);
    for _ in 0..count {
        while consumer.poll(SLICE).is_none_or(|polled| polled.is_err()) {}
    }
}

/// A producer with these settings.
pub fn producer(brokers: &str, more: &[(&str, &str)]) -> FutureProducer {
    let mut config = config(brokers);
    for (name, value) in more {
        config.set(*name, *value);
    }
    config.create().unwrap()
}
