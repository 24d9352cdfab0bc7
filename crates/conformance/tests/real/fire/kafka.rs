//! The Kafka adapter under fire: what its links, its groups and its end may do to it. Nothing that was
//! confirmed is lost, nothing hangs, and records flow again soon. Other faults are cases of the log: no answer
//! in time (K11), a record too large (K12), no poll in time (K23).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use kafka::{Kafka, Settings};
use ports::{Consumer, EventLog, Fault, Fetched, Offsets, Polled, Record, TopicSpec};
use shakedown_conformance::log::LogBackend;
use shakedown_conformance::{Case, Observed};

use crate::kafka::RealKafka;
use crate::proxy::{Proxy, Way};

/// Within so long records flow again.
const SOON: Duration = Duration::from_secs(10);

/// Kafka's number of the request that makes topics.
const CREATE_TOPICS: i16 = 19;

/// All of them.
pub fn cases() -> Vec<Case<RealKafka>> {
    vec![
        Case::new("", "cut and slow in the middle of batches", "all", |it| {
            Box::pin(cut_and_slow(it))
        }),
        Case::new("", "a commit without an answer is unknown", "all", |it| Box::pin(no_answer(it))),
        Case::new("", "a declaration whose answer is lost is unknown", "all", |it| {
            Box::pin(lost_declaration(it))
        }),
        Case::new("", "an end with records in flight", "all", |it| Box::pin(end_in_flight(it))),
        Case::new("", "one rebalance after the other", "all", |it| Box::pin(rebalances(it))),
    ]
}

fn records(topic: &Arc<str>, numbers: std::ops::Range<usize>) -> Vec<Record> {
    let record = |n: usize| Record {
        to: topic.clone(),
        key: format!("order-{}", n % 4).into(),
        headers: Vec::new(),
        payload: Bytes::from(n.to_string()),
    };
    numbers.map(record).collect()
}

fn number(fetched: &Fetched) -> usize {
    std::str::from_utf8(&fetched.record.payload).unwrap().parse().unwrap()
}

fn connect(brokers: &str, settings: Settings) -> Kafka {
    Kafka::connect(&format!("kafka://{brokers}"), "under fire", settings).unwrap()
}

/// Polls, and gives up what is to be given up.
async fn poll(consumer: &mut Box<dyn Consumer>) -> Vec<Fetched> {
    match consumer.poll(100).await {
        Ok(Polled::Records(records)) => records,
        Ok(Polled::Revoked(revoked)) => {
            consumer.release(revoked).await;
            Vec::new()
        }
        Ok(Polled::Assigned(_) | Polled::Lost(_)) | Err(Fault::Retry(_)) => Vec::new(),
        Err(fault) => panic!("a poll failed: {fault}"),
    }
}

/// Reads until all these numbers have come.
async fn until(consumer: &mut Box<dyn Consumer>, mut missing: BTreeSet<usize>) {
    while !missing.is_empty() {
        for fetched in poll(consumer).await {
            missing.remove(&number(&fetched));
        }
    }
}

async fn cut_and_slow(backend: &RealKafka) -> Observed {
    let (links, brokers) = backend.links()?;
    let topic = backend.topic(2).await;
    let client = connect(&brokers, backend.settings());
    let mut consumer =
        client.subscribe(&format!("{topic}.group"), std::slice::from_ref(&topic)).await.unwrap();
    let (mut confirmed, mut cut) = (BTreeSet::new(), 0);
    for round in 0..6 {
        let numbers = round * 100..(round + 1) * 100;
        links.iter().for_each(|link| link.slow(Duration::from_millis(20)));
        // An answer is back after twice that.
        let pause = backend.runtime().sleep(Duration::from_millis(30));
        let outcomes = match select(client.produce(records(&topic, numbers.clone())), pause).await {
            Either::Left((outcomes, _)) => outcomes,
            Either::Right(((), producing)) => {
                links.iter().for_each(Proxy::cut);
                cut += 1;
                producing.await
            }
        };
        for (n, outcome) in numbers.zip(outcomes) {
            match outcome {
                Ok(()) => drop(confirmed.insert(n)),
                Err(Fault::Unknown(_)) => {}
                Err(fault) => panic!("{n}: {fault}"),
            }
        }
    }
    assert!(
        cut > 0 && !confirmed.is_empty(),
        "{cut} cuts in the middle, and something came through"
    );
    let begun = backend.runtime().elapsed();
    assert_eq!(client.produce(records(&topic, 600..601)).await, [Ok(())]);
    confirmed.insert(600);
    until(&mut consumer, confirmed).await;
    let took = backend.runtime().elapsed() - begun;
    assert!(took < SOON, "only after {took:?}");
    consumer.close().await;
    Ok(())
}

async fn no_answer(backend: &RealKafka) -> Observed {
    let (links, brokers) = backend.links()?;
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let request_timeout = Duration::from_secs(1);
    let client = connect(&brokers, Settings { request_timeout, ..backend.settings() });
    assert!(client.produce(records(&topic, 0..4)).await.iter().all(Result::is_ok));
    let mut consumer = client.subscribe(&group, std::slice::from_ref(&topic)).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 4 {
        found.extend(poll(&mut consumer).await);
    }
    links.iter().for_each(|link| link.limit_requests(Some(0)));
    let next = Offsets::from([(found[0].partition.clone(), 3)]);
    let begun = backend.runtime().elapsed();
    let unknown = consumer.commit(&next).await;
    assert!(matches!(unknown, Err(Fault::Unknown(_))), "{unknown:?}");
    let again = consumer.commit(&next).await;
    assert!(matches!(again, Err(Fault::Retry(_))), "the first one is still under way: {again:?}");
    let took = backend.runtime().elapsed() - begun;
    assert!(took < 2 * request_timeout, "{took:?}");
    links.iter().for_each(Proxy::cut);
    let begun = backend.runtime().elapsed();
    while consumer.commit(&next).await.is_err() {
        poll(&mut consumer).await;
    }
    let took = backend.runtime().elapsed() - begun;
    assert!(took < SOON, "only after {took:?}");
    let committed = client.committed(&group, std::slice::from_ref(&topic)).await;
    assert_eq!(committed, Ok(next));
    consumer.close().await;
    Ok(())
}

async fn lost_declaration(backend: &RealKafka) -> Observed {
    let (links, brokers) = backend.links()?;
    let request_timeout = Duration::from_secs(2);
    let client = connect(&brokers, Settings { request_timeout, ..backend.settings() });
    let topics = [TopicSpec { name: backend.new_name(), partitions: 2 }];
    links.iter().for_each(|link| link.lose_from(CREATE_TOPICS, Way::Reply));
    let declared = client.declare(&topics).await;
    assert!(matches!(declared, Err(Fault::Unknown(_))), "{declared:?}");
    links.iter().for_each(Proxy::cut);
    let direct = backend.client("direct").await;
    let there = direct.watermarks(&topics[0].name).await;
    assert_eq!(there.map(|partitions| partitions.len()), Ok(2), "and it was done");
    let begun = backend.runtime().elapsed();
    while client.declare(&topics).await.is_err() {}
    let took = backend.runtime().elapsed() - begun;
    assert!(took < SOON, "only after {took:?}");
    Ok(())
}

async fn end_in_flight(backend: &RealKafka) -> Observed {
    let (links, brokers) = backend.links()?;
    let topic = backend.topic(1).await;
    let client = connect(&brokers, backend.settings());
    let group = format!("{topic}.group");
    let mut consumer = client.subscribe(&group, std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(client.produce(records(&topic, 0..1)).await, [Ok(())]);
    until(&mut consumer, BTreeSet::from([0])).await;
    links.iter().for_each(|link| link.limit_requests(Some(0)));
    let producing = client.produce(records(&topic, 1..50));
    let pause = backend.runtime().sleep(Duration::from_millis(200));
    let Either::Right(((), producing)) = select(producing, pause).await else {
        panic!("nobody answered, and yet it has an outcome")
    };
    let begun = backend.runtime().elapsed();
    drop(producing);
    let flushed = client.flush(Duration::from_secs(1)).await;
    assert!(matches!(flushed, Err(Fault::Unknown(_))), "{flushed:?}");
    consumer.close().await;
    drop(client);
    let took = backend.runtime().elapsed() - begun;
    // A second for the flush and five for the goodbye.
    assert!(took < Duration::from_secs(8), "it hangs: {took:?}");
    Ok(())
}

async fn rebalances(backend: &RealKafka) -> Observed {
    let topic = backend.topic(4).await;
    let topics = std::slice::from_ref(&topic);
    let group = format!("{topic}.group");
    let client = backend.client("one").await;
    let mut one = client.subscribe(&group, topics).await.unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..6 {
        let other = backend.client("two").await;
        let mut two = other.subscribe(&group, topics).await.unwrap();
        let numbers = round * 20..(round + 1) * 20;
        assert!(client.produce(records(&topic, numbers)).await.iter().all(Result::is_ok));
        // Each reads, and each commits what it has read.
        for _ in 0..8 {
            for consumer in [&mut one, &mut two] {
                let found = poll(consumer).await;
                let next = found.iter().map(|it| (it.partition.clone(), it.offset + 1)).collect();
                if consumer.commit(&next).await.is_ok() {
                    seen.extend(found.iter().map(number));
                    continue;
                }
                // Whoever holds them then reads them again: somebody else, or this one from there.
                for fetched in found.iter().rev() {
                    let back = Offsets::from([(fetched.partition.clone(), fetched.offset)]);
                    let _ = consumer.seek(&back).await;
                }
            }
        }
        two.close().await;
    }
    let begun = backend.runtime().elapsed();
    assert_eq!(client.produce(records(&topic, 120..121)).await, [Ok(())]);
    let missing: BTreeSet<usize> = (0..121).filter(|n| !seen.contains(n)).collect();
    until(&mut one, missing).await;
    let took = backend.runtime().elapsed() - begun;
    assert!(took < SOON, "only after {took:?}");
    one.close().await;
    Ok(())
}
