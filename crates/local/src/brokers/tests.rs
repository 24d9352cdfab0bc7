//! What a restart brings back, and that nothing shows before it is written. Never kills a process:
//! `tests/crash.rs` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use ports::{
    Delivered, Deliveries, Delivery, EventLog, Fault, Fetched, Offsets, Outcome, Partition, Polled,
    QueueSpec, Record, Runtime, TopicSpec,
};

use crate::{Local, TokioRuntime, folder};

fn record(to: &str, key: &str) -> Record {
    let headers = vec![("h".into(), "1".into())];
    Record { to: to.into(), key: key.into(), headers, payload: format!("of {key}").into() }
}

fn topic() -> TopicSpec {
    TopicSpec { name: "orders".into(), partitions: 2 }
}

fn jobs() -> QueueSpec {
    QueueSpec { name: "jobs".into(), delivery_limit: 1, dead_letters: Some("jobs.dead".into()) }
}

/// Runs on a multi-threaded tokio runtime, with a folder.
fn run<F: Future<Output = ()>>(test: impl FnOnce(std::path::PathBuf, Arc<dyn Runtime>) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let runtime = Arc::new(TokioRuntime::new(tokio.handle().clone()));
    tokio.block_on(test(folder.path().to_path_buf(), runtime));
}

async fn open(dir: &std::path::Path, runtime: &Arc<dyn Runtime>) -> Local {
    let local = Local::open(dir, runtime.clone()).unwrap();
    local.log().declare(&[topic()]).await.unwrap();
    local.queue().declare(&jobs()).await.unwrap();
    local
}

/// Reads until so many records came, with the consumer that read them.
async fn read(
    log: &dyn EventLog,
    group: &str,
    count: usize,
) -> (Box<dyn ports::Consumer>, Vec<Fetched>) {
    let mut consumer = log.subscribe(group, &["orders".into()]).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        if let Polled::Records(records) = consumer.poll(100).await.unwrap() {
            all.extend(records);
        }
    }
    (consumer, all)
}

async fn batch(deliveries: &mut Box<dyn Deliveries>) -> Vec<Delivery> {
    match deliveries.next(100).await {
        Ok(Delivered::Batch(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

fn all_ok(outcomes: Vec<Outcome<()>>) {
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[test]
fn a_restart_brings_back_the_log_and_its_offsets() {
    run(|dir, runtime| async move {
        let local = open(&dir, &runtime).await;
        let log = local.log();
        let records: Vec<Record> = (0..20).map(|n| record("orders", &format!("k{n}"))).collect();
        all_ok(log.produce(records.clone()).await);
        let (mut consumer, before) = read(&*log, "group", 20).await;
        let next: Offsets =
            before.iter().map(|fetched| (fetched.partition.clone(), fetched.offset + 1)).collect();
        consumer.commit(&next).await.unwrap();
        consumer.close().await;
        drop((local, log));

        let local = open(&dir, &runtime).await;
        let log = local.log();
        assert_eq!(log.committed("group", &["orders".into()]).await, Ok(next.clone()));
        let (_, mut after) = read(&*log, "other", 20).await;
        let mut before = before;
        let place = |fetched: &Fetched| (fetched.partition.clone(), fetched.offset);
        before.sort_by_key(place);
        after.sort_by_key(place);
        assert_eq!(after, before);
        let marks = log.watermarks("orders").await.unwrap();
        let high: BTreeMap<Partition, i64> =
            marks.into_iter().map(|(partition, (_, high))| (partition, high)).collect();
        assert_eq!(high, next);
        assert!(matches!(
            log.declare(&[TopicSpec { partitions: 3, ..topic() }]).await,
            Err(Fault::Refused(_))
        ));
        all_ok(log.produce(records).await);
    });
}

#[test]
fn a_restart_brings_back_what_was_not_acked() {
    run(|dir, runtime| async move {
        let local = open(&dir, &runtime).await;
        let queue = local.queue();
        let jobs = ["acked", "rejected", "returned", "held"].map(|key| record("jobs", key));
        all_ok(queue.publish(jobs.to_vec()).await);
        let mut channel = queue.consume("jobs", 10).await.unwrap();
        assert_eq!(batch(&mut channel).await.len(), 4);
        channel.settle(&[1], &[2]).await.unwrap();
        channel.requeue(&[3]).await.unwrap();
        assert_eq!(queue.depth("jobs.dead").await, Ok(1));
        drop((channel, queue, local));

        let local = open(&dir, &runtime).await;
        let queue = local.queue();
        let mut channel = queue.consume("jobs", 10).await.unwrap();
        let again = batch(&mut channel).await;
        let seen: BTreeMap<&str, (bool, u32)> =
            again.iter().map(|d| (&*d.record.key, (d.redelivered, d.returns))).collect();
        // The last drop of the channel returned "held" and the requeued one, which was at its limit. The
        // restart counts too, and makes no dead letter.
        assert_eq!(seen, BTreeMap::from([("held", (true, 2))]));
        assert_eq!(again[0].record, record("jobs", "held"));
        let mut dead = queue.consume("jobs.dead", 10).await.unwrap();
        let dead = batch(&mut dead).await;
        let keys: Vec<&str> = dead.iter().map(|delivery| &*delivery.record.key).collect();
        assert_eq!(keys, ["rejected", "returned"]);
    });
}

#[test]
fn a_kill_counts_as_a_return() {
    run(|dir, runtime| async move {
        let mut local = open(&dir, &runtime).await;
        all_ok(local.queue().publish(vec![record("jobs", "a")]).await);
        for returns in 0..4 {
            let mut channel = local.queue().consume("jobs", 10).await.unwrap();
            assert_eq!(batch(&mut channel).await[0].returns, returns);
            // What a process leaves behind that is killed now.
            let left = dir.join(returns.to_string());
            std::fs::create_dir(&left).unwrap();
            for file in ["brokers.db", "brokers.db-wal"] {
                std::fs::copy(local.dir.join(file), left.join(file)).unwrap();
            }
            local = open(&left, &runtime).await;
        }
    });
}

#[test]
fn refusals_are_those_of_the_models_and_leave_no_trace() {
    run(|dir, runtime| async move {
        let local = open(&dir, &runtime).await;
        let (log, queue) = (local.log(), local.queue());
        let outcomes = log.produce(vec![record("nowhere", "a"), record("orders", "b")]).await;
        assert!(matches!(outcomes[..], [Err(Fault::Refused(_)), Ok(())]));
        let outcomes = queue.publish(vec![record("jobs", "a"), record("nowhere", "b")]).await;
        assert!(matches!(outcomes[..], [Ok(()), Err(Fault::Refused(_))]));
        let twice = [TopicSpec { name: "new".into(), partitions: 1 }, topic(), topic()];
        log.declare(&twice).await.unwrap();
        let clash = [1, 2].map(|partitions| TopicSpec { name: "clash".into(), partitions });
        let Err(Fault::Refused(cause)) = log.declare(&clash).await else { panic!("declared") };
        assert!(cause.0.contains("has 1 partitions, and 2 are wanted"), "{cause}");
        let none = [TopicSpec { name: "none".into(), partitions: 0 }];
        assert!(matches!(log.declare(&none).await, Err(Fault::Refused(_))));
        let other = QueueSpec { delivery_limit: 9, ..jobs() };
        assert!(matches!(queue.declare(&other).await, Err(Fault::Refused(_))));
        drop((log, queue, local));

        let local = open(&dir, &runtime).await;
        assert!(local.log().watermarks("clash").await.is_err());
        let mut kept = folder::journal(&dir).unwrap().unwrap();
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(kept, [TopicSpec { name: "new".into(), partitions: 1 }, topic()]);
        assert!(local.log().watermarks("new").await.is_ok());
        assert_eq!(local.queue().depth("jobs").await, Ok(1));
        assert_eq!(read(&*local.log(), "group", 1).await.1.len(), 1);
    });
}

#[test]
fn many_writers_at_once_keep_each_their_order() {
    run(|dir, runtime| async move {
        let local = open(&dir, &runtime).await;
        let log = local.log();
        let writers = (0..16).map(|writer| {
            let log = log.clone();
            async move {
                for n in 0..25 {
                    let mut record = record("orders", &format!("w{writer}"));
                    record.payload = format!("{n}").into();
                    all_ok(log.produce(vec![record]).await);
                }
            }
        });
        futures_util::future::join_all(writers).await;
        let (_, records) = read(&*log, "group", 400).await;
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for fetched in records {
            let payload = String::from_utf8_lossy(&fetched.record.payload).into_owned();
            by_key.entry(fetched.record.key.to_string()).or_default().push(payload);
        }
        let expected: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        assert_eq!(by_key.len(), 16);
        assert!(by_key.values().all(|payloads| *payloads == expected));
    });
}

#[test]
fn a_folder_serves_one_process_and_is_free_again_when_all_is_dropped() {
    run(|dir, runtime| async move {
        let local = open(&dir, &runtime).await;
        let consumer = local.log().subscribe("group", &["orders".into()]).await.unwrap();
        drop(local);
        let Err(Fault::Refused(cause)) = Local::open(&dir, runtime.clone()) else {
            panic!("opened twice");
        };
        assert!(cause.0.contains(&*dir.to_string_lossy()), "{cause}");
        drop(consumer);
        let local = Local::open(&dir, runtime.clone()).unwrap();
        for name in ["brokers", "", "../x", "Orders"] {
            assert!(matches!(local.store(name), Err(Fault::Refused(_))), "{name:?}");
        }
        local.store("orders").unwrap().prepare(&[]).await.unwrap();
        assert!(dir.join("orders.db").exists());
    });
}

#[test]
fn a_file_that_is_not_ours_is_refused_by_name() {
    run(|dir, runtime| async move {
        for name in ["orders.db", "brokers.db"] {
            std::fs::write(dir.join(name), "no database, but long enough to be read").unwrap();
        }
        let refused = |fault: Option<Fault>, name: &str| {
            let Some(Fault::Refused(cause)) = fault else { panic!("{fault:?}") };
            for words in [name, "restore it from a copy"] {
                assert!(cause.0.contains(words), "{cause}");
            }
        };
        refused(Local::open(&dir, runtime.clone()).err(), "brokers.db");
        refused(folder::journal(&dir).err(), "brokers.db");
        refused(folder::database(&dir, "orders", &[]).err(), "orders.db");
        std::fs::remove_file(dir.join("brokers.db")).unwrap();
        let local = Local::open(&dir, runtime).unwrap();
        refused(local.store("orders").err(), "orders.db");
    });
}
