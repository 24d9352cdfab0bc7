//! Cases on what is written and read: K3, K4, K10, K12, K15 and K16, and the port's seek and pause.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ports::{Fault, Offsets, Polled, Record};

use super::{
    LogBackend, assigned, by_partition, join_group, poll, produce, produce_orders, read, record,
    watermarks,
};
use crate::Observed;

/// Nothing more is to come after so long.
const QUIET: Duration = Duration::from_millis(800);

/// More than a record may have anywhere here, key and headers included.
const TOO_LARGE_BYTES: usize = 1_100_000;

pub(super) async fn offsets_rise(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(3).await;
    let log = backend.client("one").await;
    let empty = watermarks(&*log, &topic).await;
    assert!(empty.len() == 3 && empty.values().all(|marks| *marks == (0, 0)), "{empty:?}");
    produce_orders(&*log, &topic, 48).await;
    let marks = watermarks(&*log, &topic).await;
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let all = by_partition(read(&mut consumer, 48).await);
    for (partition, records) in &all {
        let (low, high) = marks[partition];
        assert!(
            records.is_sorted_by(|a, b| a.offset < b.offset),
            "{partition}: each above the last"
        );
        assert!(
            records[0].offset >= low && records[records.len() - 1].offset < high,
            "{partition}"
        );
    }
    consumer.close().await;
    Ok(())
}

pub(super) async fn confirmed_can_be_read(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let (writer, reader) = (backend.client("one").await, backend.client("two").await);
    let mut consumer = join_group(&*reader, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    for n in 0..5 {
        produce(&*writer, vec![record(&topic, "order-0", n)]).await;
        let high = watermarks(&*reader, &topic).await.into_values().next().unwrap().1;
        assert_eq!(high, n as i64 + 1, "its offset is below the high watermark at once");
        let found = read(&mut consumer, 1).await;
        assert_eq!(found[0].record, record(&topic, "order-0", n), "to the byte");
    }
    consumer.close().await;
    Ok(())
}

pub(super) async fn a_key_keeps_its_order(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(4).await;
    let log = backend.client("one").await;
    for _ in 0..5 {
        produce_orders(&*log, &topic, 80).await;
    }
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let mut seen: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for fetched in read(&mut consumer, 400).await {
        seen.entry(fetched.record.key.to_string()).or_default().push(fetched.record);
    }
    for (at, (key, records)) in seen.iter().enumerate() {
        let of_one: Vec<Record> = (at..80).step_by(8).map(|n| record(&topic, key, n)).collect();
        let all: Vec<Record> = std::iter::repeat_n(of_one, 5).flatten().collect();
        assert_eq!(*records, all, "{key} as it was produced");
    }
    assert_eq!(seen.len(), 8);
    consumer.close().await;
    Ok(())
}

pub(super) async fn too_large_is_refused_alone(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    let mut batch: Vec<Record> = (0..3).map(|n| record(&topic, "order-0", n)).collect();
    batch[1].payload = Bytes::from(vec![b'x'; TOO_LARGE_BYTES]);
    let outcomes = log.produce(batch.clone()).await;
    assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &Ok(())), "its neighbours");
    assert!(matches!(outcomes[1], Err(Fault::Refused(_))), "{:?}", outcomes[1]);
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let found: Vec<Record> = read(&mut consumer, 2).await.into_iter().map(|it| it.record).collect();
    assert_eq!(found, [batch[0].clone(), batch[2].clone()]);
    consumer.close().await;
    Ok(())
}

pub(super) async fn a_new_group_begins_at_the_beginning(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(2).await;
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 16).await;
    for group in ["first", "second"] {
        let group = format!("{topic}.{group}");
        let before = log.committed(&group, std::slice::from_ref(&topic)).await;
        assert_eq!(before, Ok(Offsets::new()), "nothing is committed");
        let mut consumer = join_group(&*log, &group, &topic).await;
        assigned(&mut consumer).await;
        let all = by_partition(read(&mut consumer, 16).await);
        let next =
            all.iter().map(|(p, records)| (p.clone(), records[records.len() - 1].offset + 1));
        // What one group commits is nothing to the other.
        assert_eq!(consumer.commit(&next.collect()).await, Ok(()));
        consumer.close().await;
    }
    Ok(())
}

pub(super) async fn a_commit_may_go_back(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    let mut consumer = join_group(&*log, &group, &topic).await;
    let partition = assigned(&mut consumer).await.remove(0);
    read(&mut consumer, 10).await;
    for next in [8, 3] {
        let next = Offsets::from([(partition.clone(), next)]);
        assert_eq!(consumer.commit(&next).await, Ok(()));
        assert_eq!(log.committed(&group, std::slice::from_ref(&topic)).await, Ok(next));
    }
    consumer.close().await;
    let mut again = join_group(&*log, &group, &topic).await;
    assigned(&mut again).await;
    assert_eq!(read(&mut again, 7).await[0].offset, 3, "the last commit counts");
    again.close().await;
    Ok(())
}

pub(super) async fn a_seek_says_where_to_go_on(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    let mut consumer = join_group(&*log, &format!("{topic}.group"), &topic).await;
    let partition = assigned(&mut consumer).await.remove(0);
    let to = |offset| Offsets::from([(partition.clone(), offset)]);
    // Before the first read, and between two.
    assert_eq!(consumer.seek(&to(6)).await, Ok(()));
    assert_eq!(read(&mut consumer, 4).await[0].offset, 6);
    assert_eq!(consumer.seek(&to(2)).await, Ok(()));
    let found = read(&mut consumer, 8).await;
    assert_eq!((found[0].offset, found[7].offset), (2, 9));
    consumer.close().await;
    Ok(())
}

pub(super) async fn a_paused_partition_rests(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 5).await;
    let mut consumer = join_group(&*log, &format!("{topic}.group"), &topic).await;
    let partition = assigned(&mut consumer).await;
    read(&mut consumer, 5).await;
    consumer.pause(&partition, true);
    produce_orders(&*log, &topic, 5).await;
    let begun = backend.runtime().elapsed();
    while backend.runtime().elapsed() - begun < QUIET {
        assert_eq!(poll(&mut consumer).await, Polled::Records(Vec::new()), "it rests");
    }
    consumer.pause(&partition, false);
    assert_eq!(read(&mut consumer, 5).await[0].offset, 5, "and goes on where it stood");
    consumer.close().await;
    Ok(())
}
