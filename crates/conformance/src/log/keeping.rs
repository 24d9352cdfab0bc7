//! Cases on what the log keeps and shows: K28 and K32 to K34.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::DateTime;
use ports::{Consumer, Fetched, Offsets, Partition, Polled, Record};

use super::{
    Ending, LogBackend, assigned, join_group, poll, produce, produce_orders, read, record,
    watermarks,
};
use crate::Observed;

/// Nothing more is to come after so long.
const QUIET: Duration = Duration::from_millis(800);

/// Nothing comes for a while.
async fn nothing_comes(backend: &dyn LogBackend, consumer: &mut Box<dyn Consumer>) {
    let begun = backend.runtime().elapsed();
    while backend.runtime().elapsed() - begun < QUIET {
        assert_eq!(poll(consumer).await, Polled::Records(Vec::new()));
    }
}

pub(super) async fn aborted_is_not_read(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let aborted = (0..3).map(|n| record(&topic, "order-0", n)).collect();
    backend.begin(aborted, Ending::Aborts).await?.end().await;
    let behind = record(&topic, "order-0", 3);
    produce(&*log, vec![behind.clone()]).await;
    let found = read(&mut consumer, 1).await;
    assert_eq!(found[0].record, behind);
    // The marker of the end is written by and by: it may stand before that record or behind it.
    assert!((3..=4).contains(&found[0].offset), "behind a gap (K3): {}", found[0].offset);
    nothing_comes(backend, &mut consumer).await;
    consumer.close().await;
    Ok(())
}

pub(super) async fn open_holds_up(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let records: Vec<Record> = (0..2).map(|n| record(&topic, "order-0", n)).collect();
    let open = backend.begin(vec![records[0].clone()], Ending::Commits).await?;
    produce(&*log, vec![records[1].clone()]).await;
    nothing_comes(backend, &mut consumer).await;
    open.end().await;
    let found: Vec<Record> = read(&mut consumer, 2).await.into_iter().map(|it| it.record).collect();
    assert_eq!(found, records, "then all of it, in order");
    consumer.close().await;
    Ok(())
}

pub(super) async fn reading_begins_at_the_first(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    let mut consumer = join_group(&*log, &group, &topic).await;
    let partition = assigned(&mut consumer).await.remove(0);
    let at = |offset| Offsets::from([(partition.clone(), offset)]);
    read(&mut consumer, 10).await;
    assert_eq!(consumer.commit(&at(2)).await, Ok(()));
    consumer.close().await;
    backend.delete_below(&partition, 6).await?;
    assert_eq!(watermarks(&*log, &topic).await[&partition], (6, 10));
    // From the committed offset, which is gone, and from another one.
    let mut again = join_group(&*log, &group, &topic).await;
    assigned(&mut again).await;
    assert_eq!(read(&mut again, 4).await[0].offset, 6, "the first that is left");
    assert_eq!(again.seek(&at(4)).await, Ok(()));
    assert_eq!(read(&mut again, 4).await[0].offset, 6, "the first that is left");
    again.close().await;
    Ok(())
}

/// All records of a topic of one partition whose last one is at `last`.
async fn all(backend: &dyn LogBackend, topic: &Partition, round: usize, last: i64) -> Vec<Fetched> {
    let log = backend.client("reader").await;
    let mut consumer = join_group(&*log, &format!("{topic}.{round}"), &topic.topic).await;
    assigned(&mut consumer).await;
    let mut found: Vec<Fetched> = Vec::new();
    while found.last().is_none_or(|fetched| fetched.offset < last) {
        if let Polled::Records(records) = poll(&mut consumer).await {
            found.extend(records);
        }
    }
    consumer.close().await;
    found
}

pub(super) async fn the_last_of_a_key_stays(backend: &dyn LogBackend) -> Observed {
    let topic = backend.compacted_topic().await?;
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 30).await;
    // One that is never the last: compaction leaves it alone.
    backend.compact(&topic).await?;
    let partition = Partition { topic: topic.clone(), index: 0 };
    let high = watermarks(&*log, &topic).await[&partition].1;
    let mut round = 0;
    let found = loop {
        let found = all(backend, &partition, round, high - 1).await;
        if found.iter().filter(|fetched| fetched.offset < 30).count() < 30 {
            break found;
        }
        round += 1;
    };
    assert!(found.is_sorted_by(|a, b| a.offset < b.offset), "the order stays");
    let mut left: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for fetched in found.iter().filter(|fetched| fetched.offset < 30) {
        let n = fetched.offset as usize;
        let written = record(&topic, &format!("order-{}", n % 8), n);
        assert_eq!(fetched.record, written, "what is left is what was there");
        left.entry(fetched.record.key.to_string()).or_default().insert(fetched.offset);
    }
    for n in 22..30 {
        let of_key = left.get(&format!("order-{}", n % 8));
        assert!(of_key.is_some_and(|offsets| offsets.contains(&n)), "the last of its key: {n}");
    }
    Ok(())
}

pub(super) async fn time_may_go_backwards(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    let seconds = [1_700_000_300, 1_700_000_100, 1_700_000_200];
    let times = seconds.map(|at| DateTime::from_timestamp(at, 0).unwrap());
    for (n, at) in times.into_iter().enumerate() {
        backend.produce_at(record(&topic, "order-0", n), at).await?;
    }
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), &topic).await;
    assigned(&mut consumer).await;
    let found = read(&mut consumer, 3).await;
    let found: Vec<_> = found.into_iter().map(|it| (it.offset, it.at)).collect();
    assert_eq!(found, [(0, times[0]), (1, times[1]), (2, times[2])]);
    consumer.close().await;
    Ok(())
}
