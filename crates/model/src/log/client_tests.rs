//! The in-process client through the ports, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::{Consumer, EventLog, Fault, Offsets, Partition, Polled, Record, Runtime, TopicSpec};

use super::{LogServer, Settings};
use crate::virtual_time::VirtualTime;

const TOPIC: &str = "orders.events";

fn record(key: &str) -> Record {
    let payload = Bytes::from_static(b"{}");
    Record { to: TOPIC.into(), key: key.into(), headers: Vec::new(), payload }
}

fn partitions(indexes: std::ops::Range<i32>) -> Vec<Partition> {
    indexes.map(|index| Partition { topic: TOPIC.into(), index }).collect()
}

/// A server with one topic of two partitions, and its runtime.
struct World {
    runtime: VirtualTime,
    server: LogServer,
}

impl World {
    async fn new(runtime: VirtualTime) -> World {
        let server = LogServer::new(Settings::default());
        let world = World { runtime, server };
        let spec = TopicSpec { name: TOPIC.into(), partitions: 2 };
        assert_eq!(world.log("admin").declare(&[spec]).await, Ok(()));
        world
    }

    fn log(&self, name: &str) -> super::LogClient {
        self.server.client(name, Arc::new(self.runtime.clone()))
    }

    async fn join(&self, name: &str) -> Box<dyn Consumer> {
        self.log(name).subscribe("payments", &[TOPIC.into()]).await.expect("it can join")
    }

    fn seconds(&self) -> u64 {
        self.runtime.elapsed().as_secs()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(VirtualTime) -> F) {
    let runtime = VirtualTime::default();
    runtime.run(test(runtime.clone()));
}

/// Polls until something but empty records comes.
async fn next(consumer: &mut Box<dyn Consumer>) -> Polled {
    loop {
        match consumer.poll(100).await.expect("the model's polls succeed") {
            Polled::Records(records) if records.is_empty() => {}
            polled => return polled,
        }
    }
}

#[test]
fn an_append_wakes_a_waiting_poll() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let mut consumer = world.join("one").await;
        assert_eq!(next(&mut consumer).await, Polled::Assigned(partitions(0..2)));
        let (log, runtime) = (world.log("producer"), world.runtime.clone());
        let producing = async move {
            runtime.sleep(Duration::from_millis(100)).await;
            assert_eq!(log.produce(vec![record("a")]).await, [Ok(())]);
        };
        world.runtime.spawn("producing", Box::pin(producing));
        let Polled::Records(records) = consumer.poll(10).await.expect("no fault") else {
            panic!("no records")
        };
        assert_eq!(world.runtime.elapsed(), Duration::from_millis(100));
        assert_eq!(records[0].record, record("a"));
        assert_eq!(records[0].at, world.runtime.now());
        let empty = consumer.poll(10).await;
        assert_eq!(empty, Ok(Polled::Records(Vec::new())));
        assert_eq!(world.runtime.elapsed(), Duration::from_millis(350));
    });
}

#[test]
fn a_dropped_poll_loses_nothing() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let mut consumer = world.join("one").await;
        next(&mut consumer).await;
        let limit = Duration::from_millis(10);
        assert_eq!(ports::timeout(&world.runtime, limit, consumer.poll(10)).await, None);
        world.log("producer").produce(vec![record("a"), record("a")]).await;
        let Polled::Records(records) = next(&mut consumer).await else { panic!("no records") };
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1]);
    });
}

#[test]
fn two_members_share_and_the_rest_goes_on_from_the_committed_offset() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let log = world.log("producer");
        let batch: Vec<_> = (0..20).map(|n| record(&format!("order-{n}"))).collect();
        assert!(log.produce(batch).await.iter().all(Result::is_ok));
        let mut one = world.join("one").await;
        next(&mut one).await;
        let Polled::Records(records) = next(&mut one).await else { panic!("no records") };
        assert_eq!(records.len(), 20);
        let mut two = world.join("two").await;
        assert_eq!(next(&mut one).await, Polled::Revoked(partitions(0..2)));
        let ends: Offsets = log
            .watermarks(TOPIC)
            .await
            .expect("a known topic")
            .into_iter()
            .map(|(partition, (_, high))| (partition, high))
            .collect();
        assert_eq!(one.commit(&ends).await, Ok(()));
        one.release(partitions(0..2)).await;
        assert_eq!(next(&mut one).await, Polled::Assigned(partitions(0..1)));
        assert_eq!(next(&mut two).await, Polled::Assigned(partitions(1..2)));
        assert_eq!(log.committed("payments", &[TOPIC.into()]).await, Ok(ends));
        assert_eq!(two.poll(10).await, Ok(Polled::Records(Vec::new())));
        one.close().await;
        assert_eq!(next(&mut two).await, Polled::Revoked(partitions(1..2)));
        two.release(partitions(1..2)).await;
        assert_eq!(next(&mut two).await, Polled::Assigned(partitions(0..2)));
        assert_eq!(world.server.with(|log| log.lag("payments", TOPIC)), 0);
    });
}

#[test]
fn k24_a_dropped_consumer_stops_beating_and_is_expelled_after_the_session() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let mut one = world.join("one").await;
        next(&mut one).await;
        world.runtime.sleep(Duration::from_secs(100)).await;
        assert_eq!(world.server.with(|log| log.members("payments").len()), 1, "it beats alone");
        drop(one);
        let mut two = world.join("two").await;
        assert_eq!(next(&mut two).await, Polled::Assigned(partitions(0..2)));
        assert!((142..=145).contains(&world.seconds()), "after {} s", world.seconds());
    });
}

#[test]
fn k23_a_member_that_does_not_poll_loses_its_partitions_and_joins_anew() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let mut one = world.join("one").await;
        next(&mut one).await;
        let mut two = world.join("two").await;
        assert_eq!(next(&mut two).await, Polled::Assigned(partitions(0..2)));
        assert_eq!(world.seconds(), 300);
        let late = Offsets::from([(partitions(0..1).remove(0), 1)]);
        assert!(matches!(one.commit(&late).await, Err(Fault::Refused(_))));
        assert_eq!(next(&mut one).await, Polled::Lost(partitions(0..2)));
        assert_eq!(one.poll(1).await, Ok(Polled::Records(Vec::new())));
        assert_eq!(next(&mut two).await, Polled::Revoked(partitions(0..2)));
        two.release(partitions(0..2)).await;
        assert_eq!(next(&mut two).await, Polled::Assigned(partitions(0..1)));
        assert_eq!(next(&mut one).await, Polled::Assigned(partitions(1..2)));
    });
}

#[test]
fn refusals_name_their_reason_and_spare_the_neighbours() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let log = world.log("producer");
        let mut nowhere = record("a");
        nowhere.to = "nowhere".into();
        let outcomes = log.produce(vec![record("a"), nowhere, record("a")]).await;
        let unknown = Fault::refused("unknown topic or partition");
        assert_eq!(outcomes, [Ok(()), Err(unknown), Ok(())]);
        let other = TopicSpec { name: TOPIC.into(), partitions: 3 };
        let refused = log.declare(&[other]).await;
        assert_eq!(refused, Err(Fault::refused("topic has 2 partitions")));
        assert!(matches!(log.watermarks("nowhere").await, Err(Fault::Refused(_))));
    });
}

#[test]
fn what_is_appended_behind_a_standing_watermark_comes_later_and_in_order() {
    run(|runtime| async move {
        let world = World::new(runtime).await;
        let all = partitions(0..2);
        world.server.with(|log| all.iter().for_each(|partition| log.hide(partition)));
        let batch = vec![record("k"), record("k"), record("k")];
        assert_eq!(world.log("a").produce(batch).await, [Ok(()), Ok(()), Ok(())]);
        let ends = || {
            world.server.with(|log| {
                let high = |partition| log.watermarks(partition).expect("it exists").1;
                all.iter().map(high).sum::<i64>()
            })
        };
        assert_eq!(ends(), 0);
        world.server.with(|log| log.show(&all));
        assert_eq!(ends(), 3);
    });
}
