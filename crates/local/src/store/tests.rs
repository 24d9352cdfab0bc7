//! The SQLite store against the store model, and what only a file can show.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use conformance::store::{
    ITEMS, Step, TABLES, Writers, item, random_sequence, replay, rows, sequences, statements,
};
use model::store::{Settings, StoreServer};
use ports::{Op, Reply, Runtime, Store, Task};

use super::SqliteStore;

/// The store sleeps only to give up on the writer.
struct Plain;

#[async_trait]
impl Runtime for Plain {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    #[expect(clippy::disallowed_methods, reason = "a test on real time")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn spawn(&self, _: &'static str, _: Task) {
        panic!("the store starts no task")
    }

    fn choose(&self, _: &'static str, _: &str, _: u64) -> u64 {
        0
    }

    fn block(&self, work: &mut dyn FnMut()) {
        work()
    }
}

async fn file_store() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.db"), Arc::new(Plain)).unwrap();
    store.prepare(&TABLES).await.unwrap();
    (folder, store)
}

async fn agrees_with_the_model(name: &str, steps: &[Step]) {
    let model = StoreServer::new(Settings::default(), Arc::new(Plain));
    let model = model.client("one", Arc::new(Plain));
    model.prepare(&TABLES).await.unwrap();
    let (_folder, store) = file_store().await;
    let expected = replay(&model, steps).await;
    let seen = replay(&store, steps).await;
    for (at, (expected, seen)) in expected.iter().zip(&seen).enumerate() {
        assert_eq!(expected, seen, "{name}, answer {at} of {steps:#?}");
    }
    assert_eq!(expected.len(), seen.len(), "{name}");
}

#[tokio::test]
async fn sequences_answer_as_on_the_model() {
    for (name, steps) in sequences() {
        agrees_with_the_model(name, &steps).await;
    }
}

#[tokio::test]
async fn random_sequences_answer_as_on_the_model() {
    for seed in 0..100 {
        agrees_with_the_model(&format!("seed {seed}"), &random_sequence(seed, 30)).await;
    }
}

#[tokio::test]
async fn statements_hold_that_need_one_writer_only() {
    let (_folder, store) = file_store().await;
    for statement in statements() {
        if statement.writers == Writers::One {
            (statement.run)(&store, &Plain).await;
        }
    }
}

#[tokio::test]
async fn d8_a_reopened_file_has_what_was_committed_and_never_reuses_an_outbox_id() {
    let (folder, store) = file_store().await;
    let append = || Op::Append { rows: vec![conformance::store::outgoing(0, "a")] };
    let put = Op::Put { table: &ITEMS, rows: rows([("a", item(0, Some("1"), None))]) };
    store.transact(vec![put, append()]).await.unwrap();
    let unsent = || vec![Op::Unsent { shard: 0, limit: 9 }];
    let id = |replies: Vec<Reply>| match &replies[..] {
        [Reply::Outbox(rows)] => rows[0].id,
        other => panic!("{other:?}"),
    };
    let first = id(store.read(unsent()).await.unwrap());
    store.transact(vec![Op::Sent { ids: [first].into() }]).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&folder.path().join("store.db"), Arc::new(Plain)).unwrap();
    store.prepare(&TABLES).await.unwrap();
    store.transact(vec![append()]).await.unwrap();
    assert!(id(store.read(unsent()).await.unwrap()) > first);
    let read = Op::Read { table: &ITEMS, keys: conformance::store::keys(["a"]) };
    let expected = Reply::Rows(rows([("a", item(1, Some("1"), None))]));
    assert_eq!(store.read(vec![read]).await.unwrap(), [expected]);
}

#[tokio::test]
async fn the_writer_goes_from_transaction_to_transaction() {
    let (_folder, store) = file_store().await;
    let put = |version| Op::Put { table: &ITEMS, rows: rows([("a", item(version, None, None))]) };
    let (held, _) = store.begin(vec![put(0)]).await.unwrap();
    let dropping = async { drop(held) };
    let (second, ()) = futures_util::future::join(store.transact(vec![put(0)]), dropping).await;
    assert_eq!(second, Ok(vec![Reply::Done]));
    let waiting = store.transact(vec![put(9)]);
    let (held, _) = store.begin(vec![put(1)]).await.unwrap();
    drop(waiting);
    held.commit(vec![]).await.unwrap();
    assert_eq!(store.transact(vec![put(2)]).await, Ok(vec![Reply::Done]));
}
