//! Records as AMQP messages and back, and the arguments of queues. Never looks into a payload.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery as Incoming;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use ports::{Delivery, Fault, Header, Outcome, QueueSpec, Record};

/// `delivery_mode`: survives a restart of the server (broker-contract R29).
const PERSISTENT: u8 = 2;
/// Nodes that hold a queue: one of three may die. A single server takes what it has.
const GROUP_SIZE: i32 = 3;
/// Ready messages in a queue; more are nacked, which `reject-publish` needs a bound for. About a day
/// of mail at ten a second.
const MAX_LENGTH: i32 = 1_000_000;
/// Milliseconds that a delivery may stay unsettled (broker-contract R24), far above a handler's
/// budget; the server's 30 minutes would hide a stuck worker. Older servers than 3.12 ignore it.
const CONSUMER_TIMEOUT_MS: i32 = 300_000;
/// Where no limit is meant: 4.0 would otherwise take 20 (broker-contract R15), and 3.10 refuses -1.
const NO_DELIVERY_LIMIT: i32 = i32::MAX;

const X_DEATH: &str = "x-death";
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Headers of dead letters that every release sets; the others are left out.
const KEPT_DEATHS: [&str; 2] = ["x-first-death-queue", "x-first-death-reason"];
/// Headers that only the server sets.
const OWN: [&str; 5] =
    [X_DEATH, DELIVERY_COUNT, "x-acquired-count", "x-first-death-", "x-last-death-"];

fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.starts_with(own))
}

/// A name or id as AMQP has it: at most 255 bytes, else `Refused`.
pub(crate) fn short(text: &str) -> Outcome<ShortString> {
    ShortString::try_new(text).map_err(|error| Fault::refused(error.to_string()))
}

/// The arguments of a queue of jobs.
pub(crate) fn arguments(queue: &QueueSpec) -> FieldTable {
    let mut table = quorum(i32::try_from(queue.delivery_limit).unwrap_or(NO_DELIVERY_LIMIT));
    let mut set = |name: &str, value| {
        table.insert(name.into(), value);
    };
    // Full: the publisher gets a nack. drop-head would lose the oldest (R23), and turns the
    // strategy below off in silence (R19).
    set("x-overflow", text("reject-publish"));
    set("x-max-length", AMQPValue::LongInt(MAX_LENGTH));
    set("x-consumer-timeout", AMQPValue::LongInt(CONSUMER_TIMEOUT_MS));
    if let Some(target) = &queue.dead_letters {
        // The default exchange: the routing key is the queue's name.
        set("x-dead-letter-exchange", text(""));
        set("x-dead-letter-routing-key", text(target));
        // at-most-once, the default, can lose a dead letter (R18).
        set("x-dead-letter-strategy", text("at-least-once"));
    }
    table
}

/// The arguments of a dead-letter queue: nothing in it is ever dropped.
pub(crate) fn dead_letter_arguments() -> FieldTable {
    quorum(NO_DELIVERY_LIMIT)
}

fn quorum(delivery_limit: i32) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    table.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(GROUP_SIZE));
    table.insert("x-delivery-limit".into(), AMQPValue::LongInt(delivery_limit));
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// The properties of a message to publish. `Refused` where an id or a header's name is too long.
pub(crate) fn properties(record: &Record) -> Outcome<BasicProperties> {
    let mut headers = FieldTable::default();
    for (name, value) in record.headers.iter().filter(|(name, _)| !is_own(name)) {
        headers.insert(short(name)?, AMQPValue::LongString(value.to_vec().into()));
    }
    Ok(BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&record.key)?)
        .with_headers(headers))
}

/// A message as it came. One without a message id (from elsewhere) has an empty key.
pub(crate) fn delivery(queue: &Arc<str>, incoming: Incoming) -> Delivery {
    let properties = incoming.properties;
    let table = properties.headers().clone().unwrap_or_default();
    let returns = table.inner().get(DELIVERY_COUNT).and_then(number).unwrap_or(0);
    let key = properties.message_id().as_ref().map_or("", ShortString::as_str).into();
    let headers = table.into_iter().filter_map(|(name, value)| header(name.as_str(), value));
    let record = Record {
        to: queue.clone(),
        key,
        headers: headers.collect(),
        payload: Bytes::from(incoming.data),
    };
    Delivery {
        tag: incoming.delivery_tag,
        redelivered: incoming.redelivered,
        returns: u32::try_from(returns).unwrap_or(u32::MAX),
        record,
    }
}

/// A header as bytes; numbers as decimal text. `None` for those that only some releases set, and for
/// tables and arrays, which nothing of ours publishes.
fn header(name: &str, value: &AMQPValue) -> Option<Header> {
    let bytes = match value {
        AMQPValue::FieldArray(deaths) if name == X_DEATH => {
            let lines: Vec<String> = deaths.as_slice().iter().filter_map(death).collect();
            Bytes::from(lines.join("\n"))
        }
        _ if is_own(name) && !KEPT_DEATHS.contains(&name) => return None,
        AMQPValue::LongString(text) => Bytes::copy_from_slice(text.as_bytes()),
        AMQPValue::ShortString(text) => Bytes::copy_from_slice(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Bytes::copy_from_slice(bytes.as_slice()),
        AMQPValue::Boolean(value) => Bytes::from(value.to_string()),
        other => Bytes::from(number(other)?.to_string()),
    };
    Some((name.into(), bytes))
}

/// An entry of `x-death` as `<reason> <count> <queue>` (broker-contract R20).
fn death(entry: &AMQPValue) -> Option<String> {
    let AMQPValue::FieldTable(table) = entry else { return None };
    let field = |name: &str| match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    let count = table.inner().get("count").and_then(number)?;
    Some(format!("{} {count} {}", field("reason")?, field("queue")?))
}

fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, headers: &[(&str, &'static str)]) -> Record {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), Bytes::from(*value)));
        Record {
            to: "jobs".into(),
            key: key.into(),
            headers: headers.collect(),
            payload: "p".into(),
        }
    }

    fn incoming(properties: BasicProperties) -> Incoming {
        let mut incoming = Incoming::mock(7, "".into(), "jobs".into(), true, b"p".to_vec());
        incoming.properties = properties;
        incoming
    }

    #[test]
    fn a_record_survives_the_way() {
        let sent = record("job-1", &[("a", "1"), ("traceparent", "00-x")]);
        let properties = properties(&sent).unwrap();
        assert_eq!(properties.delivery_mode(), &Some(2));
        let got = delivery(&"jobs".into(), incoming(properties));
        assert_eq!(got, Delivery { tag: 7, redelivered: true, returns: 0, record: sent });
    }

    #[test]
    fn what_the_server_sets_is_not_published() {
        let sent = record("k", &[("x-death", "x"), ("x-first-death-queue", "q"), ("x-dear", "y")]);
        let table = properties(&sent).unwrap().headers().clone().unwrap();
        let names: Vec<_> = table.into_iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["x-dear"]);
    }

    #[test]
    fn too_long_an_id_is_refused() {
        assert!(matches!(properties(&record(&"k".repeat(256), &[])), Err(Fault::Refused(_))));
        assert!(properties(&record(&"k".repeat(255), &[])).is_ok());
        assert!(matches!(short(&"q".repeat(300)), Err(Fault::Refused(_))));
    }

    #[test]
    fn a_dead_letter_reads_as_on_every_backend() {
        let mut entry = FieldTable::default();
        entry.insert("reason".into(), text("delivery_limit"));
        entry.insert("queue".into(), text("jobs"));
        entry.insert("count".into(), AMQPValue::LongLongInt(1));
        let mut headers = FieldTable::default();
        let deaths = vec![AMQPValue::FieldTable(entry.clone()), AMQPValue::FieldTable(entry)];
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        headers.insert("x-first-death-exchange".into(), text(""));
        headers.insert("x-first-death-queue".into(), text("jobs"));
        headers.insert("x-last-death-reason".into(), text("delivery_limit"));
        headers.insert("n".into(), AMQPValue::LongInt(-5));
        let properties = BasicProperties::default().with_headers(headers);
        let got = delivery(&"jobs.dead".into(), incoming(properties));
        assert_eq!((got.returns, &*got.record.key, &*got.record.to), (3, "", "jobs.dead"));
        let line = "delivery_limit 1 jobs";
        let two = format!("{line}\n{line}");
        let expected = [("n", "-5"), ("x-death", &two), ("x-first-death-queue", "jobs")];
        let expected = expected.map(|(name, value)| (name.into(), Bytes::from(value.to_owned())));
        assert_eq!(got.record.headers, expected);
    }

    #[test]
    fn at_least_once_needs_reject_publish() {
        let spec = QueueSpec {
            name: "jobs".into(),
            delivery_limit: 10,
            dead_letters: Some("jobs.dead".into()),
        };
        let table = arguments(&spec);
        let get = |name: &str| table.inner().get(name).cloned();
        assert_eq!(get("x-dead-letter-strategy"), Some(text("at-least-once")));
        assert_eq!(get("x-overflow"), Some(text("reject-publish")));
        assert_eq!(get("x-delivery-limit"), Some(AMQPValue::LongInt(10)));
    }
}
