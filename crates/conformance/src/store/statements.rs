//! Statements of the broker contract on the store port: each panics where a store breaks it. Never
//! reads a row that another statement wrote: they can share a store.

use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use ports::{Fault, Op, Outcome, Range, Reply, Row, Runtime, Store};

use super::sequences::{GROUPS, ITEMS, group, item, keys, outgoing, range, rows};

/// How many transactions can be open at a time where a statement means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Holds with one writer too.
    One,
    /// Does not apply to a store with one writer: nobody else has a transaction to meet.
    Many,
}

/// A statement as a case.
pub struct Statement {
    /// Its number in the broker contract, and what it claims.
    pub name: &'static str,
    /// What a store must have for it to apply.
    pub writers: Writers,
    /// Runs it on a store whose [`TABLES`](super::TABLES) are prepared; the runtime gives time.
    pub run: for<'a> fn(&'a dyn Store, &'a dyn Runtime) -> BoxFuture<'a, ()>,
}

/// All statements that need a store and nothing else. D2 (a lost reply of a commit), D7 (notifications)
/// and D8 (a kill) are cases only.
pub fn statements() -> Vec<Statement> {
    vec![
        Statement {
            name: "D1 ids of the outbox are not in commit order",
            writers: Writers::Many,
            run: |store, _| Box::pin(ids_are_not_in_commit_order(store)),
        },
        Statement {
            name: "D3 claims are disjoint and do not wait",
            writers: Writers::Many,
            run: |store, _| Box::pin(claims_are_disjoint(store)),
        },
        Statement {
            name: "D4 an insert waits for the fate of the other transaction",
            writers: Writers::One,
            run: |store, runtime| Box::pin(an_insert_waits(store, runtime)),
        },
        Statement {
            name: "D4 an absent key can be locked",
            writers: Writers::One,
            run: |store, runtime| Box::pin(an_absent_key_can_be_locked(store, runtime)),
        },
        Statement {
            name: "D5 a deadlock aborts one",
            writers: Writers::Many,
            run: |store, _| Box::pin(a_deadlock_aborts_one(store)),
        },
        Statement {
            name: "D6 a dropped transaction did nothing and lets go",
            writers: Writers::One,
            run: |store, _| Box::pin(a_dropped_transaction_lets_go(store)),
        },
        Statement {
            name: "D9 a commit behind a failed statement is not confirmed",
            writers: Writers::One,
            run: |store, _| Box::pin(a_failed_statement_fails_the_commit(store)),
        },
        Statement {
            name: "a waiter gives up in time, and has done nothing",
            writers: Writers::Many,
            run: |store, _| Box::pin(a_waiter_gives_up(store)),
        },
        Statement {
            name: "a silent holder lets go",
            writers: Writers::Many,
            run: |store, _| Box::pin(a_silent_holder_lets_go(store)),
        },
    ]
}

/// Long enough for a waiter to be seen waiting.
const A_WHILE: Duration = Duration::from_millis(100);

fn put(key: &str, version: i64) -> Op {
    Op::Put { table: &ITEMS, rows: rows([(key, item(version, Some("1"), None))]) }
}

fn lock(key: &str) -> Op {
    Op::Lock { table: &ITEMS, keys: keys([key]) }
}

fn append(shard: u16, key: &str) -> Op {
    Op::Append { rows: vec![outgoing(shard, key)] }
}

async fn unsent(store: &dyn Store, shard: u16) -> Vec<(i64, String)> {
    let replies = store.read(vec![Op::Unsent { shard, limit: 99 }]).await.unwrap();
    match &replies[..] {
        [Reply::Outbox(rows)] => {
            rows.iter().map(|row| (row.id, row.outgoing.key.to_string())).collect()
        }
        other => panic!("not outbox rows: {other:?}"),
    }
}

async fn read(store: &dyn Store, key: &str) -> i64 {
    let op = Op::Read { table: &ITEMS, keys: keys([key]) };
    match &store.read(vec![op]).await.unwrap()[..] {
        [Reply::Rows(rows)] => rows.get(key).map_or(0, |row| row.version),
        other => panic!("not rows: {other:?}"),
    }
}

fn is_retry<T>(result: &Outcome<T>) -> bool {
    matches!(result, Err(Fault::Retry(_)))
}

async fn ids_are_not_in_commit_order(store: &dyn Store) {
    let shard = 101;
    let (early, _) = store.begin(vec![append(shard, "early")]).await.unwrap();
    store.transact(vec![append(shard, "late")]).await.unwrap();
    let first = unsent(store, shard).await;
    assert!(matches!(&first[..], [(_, key)] if key == "late"), "{first:?}");
    early.commit(vec![]).await.unwrap();
    let both = unsent(store, shard).await;
    let order: Vec<&str> = both.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(order, ["early", "late"], "the later commit has the lower id");
}

async fn claims_are_disjoint(store: &dyn Store) {
    let due = |value: &str| item(0, None, Some(value));
    let given = rows([("d3a", due("d3.1")), ("d3b", due("d3.2")), ("d3c", due("d3.3"))]);
    store.transact(vec![Op::Put { table: &ITEMS, rows: given }]).await.unwrap();
    let range = Range { column: 1, ..range("d3", "d4", 2) };
    let claim = || vec![Op::Claim { table: &ITEMS, range: range.clone() }];
    let claimed = |replies: Vec<Reply>| match &replies[..] {
        [Reply::Listed(rows)] => rows.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(),
        other => panic!("not a list: {other:?}"),
    };
    let (one, first) = store.begin(claim()).await.unwrap();
    let (two, second) = store.begin(claim()).await.unwrap();
    assert_eq!(
        (claimed(first), claimed(second)),
        (vec!["d3a".into(), "d3b".into()], vec!["d3c".into()])
    );
    two.commit(vec![]).await.unwrap();
    one.commit(vec![]).await.unwrap();
    let (held, _) = store.begin(vec![lock("d3a")]).await.unwrap();
    let (rest, third) = store.begin(claim()).await.unwrap();
    assert_eq!(claimed(third), ["d3b", "d3c"], "a locked row is not claimed");
    rest.commit(vec![]).await.unwrap();
    held.commit(vec![]).await.unwrap();
}

async fn an_insert_waits(store: &dyn Store, runtime: &dyn Runtime) {
    for (key, commits) in [("d4c", true), ("d4r", false)] {
        let insert = || vec![Op::Insert { table: &GROUPS, rows: rows([(key, group(0))]) }];
        let (first, replies) = store.begin(insert()).await.unwrap();
        assert_eq!(replies, [Reply::Rows(rows([]))]);
        let ending = async {
            runtime.sleep(A_WHILE).await;
            let ended = runtime.elapsed();
            if commits {
                first.commit(vec![]).await.unwrap();
            } else {
                drop(first);
            }
            ended
        };
        let waiting = async { (store.transact(insert()).await, runtime.elapsed()) };
        let (ended, (second, answered)) = join(ending, waiting).await;
        let row = Row { version: 1, ..group(0) };
        let existing = if commits { rows([(key, row)]) } else { rows([]) };
        assert_eq!(second, Ok(vec![Reply::Rows(existing)]), "committed: {commits}");
        assert!(answered >= ended, "it waited");
    }
}

async fn an_absent_key_can_be_locked(store: &dyn Store, runtime: &dyn Runtime) {
    for (key, commits) in [("lockc", true), ("lockr", false)] {
        let (first, _) = store.begin(vec![lock(key)]).await.unwrap();
        assert_eq!(read(store, key).await, 0, "a lock alone is no row");
        let ending = async {
            runtime.sleep(A_WHILE).await;
            if commits {
                first.commit(vec![put(key, 0)]).await.unwrap();
            } else {
                first.commit(vec![]).await.unwrap();
            }
        };
        let ((), second) = join(ending, store.begin(vec![lock(key)])).await;
        let (tx, replies) = second.unwrap();
        let version = match &replies[..] {
            [Reply::Rows(rows)] => rows.get(key).expect("a row for each key").version,
            other => panic!("not rows: {other:?}"),
        };
        assert_eq!(version, i64::from(commits), "it waited, and saw what the other one did");
        tx.commit(vec![append(102, key)]).await.unwrap();
        assert_eq!(read(store, key).await, i64::from(commits));
    }
}

async fn a_deadlock_aborts_one(store: &dyn Store) {
    let (mut one, _) = store.begin(vec![lock("d5a")]).await.unwrap();
    let (mut two, _) = store.begin(vec![lock("d5b")]).await.unwrap();
    let first = async {
        let result = one.run(vec![lock("d5b")]).await;
        if result.is_err() {
            drop(one);
        }
        result
    };
    let second = async {
        let result = two.run(vec![lock("d5a")]).await;
        if result.is_err() {
            drop(two);
        }
        result
    };
    let (first, second) = join(first, second).await;
    assert!(is_retry(&first) != is_retry(&second), "one of {first:?} and {second:?}");
    assert!(first.is_ok() != second.is_ok(), "the other of {first:?} and {second:?}");
}

async fn a_dropped_transaction_lets_go(store: &dyn Store) {
    let (mut tx, _) = store.begin(vec![put("d6", 0), append(103, "d6")]).await.unwrap();
    tx.run(vec![put("d6", 1)]).await.unwrap();
    drop(tx);
    store.transact(vec![put("d6", 0)]).await.unwrap();
    assert_eq!(read(store, "d6").await, 1);
    assert_eq!(unsent(store, 103).await, []);
}

async fn a_failed_statement_fails_the_commit(store: &dyn Store) {
    store.transact(vec![put("d9", 0)]).await.unwrap();
    let (tx, _) = store.begin(vec![lock("d9")]).await.unwrap();
    let result = tx.commit(vec![put("d9", 7), put("d9x", 0), append(104, "d9")]).await;
    assert!(is_retry(&result), "{result:?}");
    let (tx, _) = store.begin(vec![append(104, "d9"), lock("d9x")]).await.unwrap();
    let result = tx.commit(vec![put("d9x", 0), put("d9", 0)]).await;
    assert!(is_retry(&result), "{result:?}");
    let result = store.transact(vec![append(104, "d9"), put("d9", 2)]).await;
    assert!(is_retry(&result), "{result:?}");
    assert_eq!((read(store, "d9").await, read(store, "d9x").await), (1, 0));
    assert_eq!(unsent(store, 104).await, []);
}

async fn a_waiter_gives_up(store: &dyn Store) {
    let (holder, _) = store.begin(vec![put("held", 0)]).await.unwrap();
    let (mut waiter, _) = store.begin(vec![put("beside", 0), append(105, "beside")]).await.unwrap();
    let answer = waiter.run(vec![lock("held")]).await;
    assert!(is_retry(&answer), "before the holder is silent for too long: {answer:?}");
    drop(waiter);
    assert_eq!(holder.commit(vec![put("held", 1)]).await, Ok(()), "the holder goes on");
    assert_eq!((read(store, "held").await, read(store, "beside").await), (2, 0));
    assert_eq!(unsent(store, 105).await, []);
}

async fn a_silent_holder_lets_go(store: &dyn Store) {
    let (silent, _) = store.begin(vec![put("silent", 0)]).await.unwrap();
    let mut tries = 0;
    while let Err(fault) = store.transact(vec![put("silent", 0)]).await {
        assert!(matches!(fault, Fault::Retry(_)), "{fault}");
        tries += 1;
        assert!(tries < 20, "it holds on");
    }
    let late = silent.commit(vec![put("silent", 1)]).await;
    assert!(late.is_err(), "its transaction is over");
    assert_eq!(read(store, "silent").await, 1);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use chrono::{DateTime, Utc};
    use model::store::{Settings, StoreServer};
    use ports::Task;

    use super::super::sequences::TABLES;
    use super::*;

    struct Tokio {
        start: tokio::time::Instant,
    }

    #[async_trait]
    impl Runtime for Tokio {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            self.start.elapsed()
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

    #[tokio::test]
    async fn statements_hold_on_the_store_model() {
        let runtime = Arc::new(Tokio { start: tokio::time::Instant::now() });
        let settings = Settings {
            lock_timeout: Duration::from_millis(300),
            statement_timeout: Duration::from_millis(500),
            idle_in_transaction_timeout: Duration::from_millis(500),
        };
        for statement in statements() {
            let server = StoreServer::new(settings, runtime.clone());
            let store = server.client("one", runtime.clone());
            store.prepare(&TABLES).await.unwrap();
            println!("{}", statement.name);
            (statement.run)(&store, &*runtime).await;
        }
    }
}
