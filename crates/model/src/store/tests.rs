//! Statements D1–D8 of the broker contract on the model, its client's waiting, and a random search
//! for lost updates. Never sleeps: time is a number.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use ports::{
    Channel, Fault, Key, Op, Outcome, Outgoing, Range, Reply, Row, Rows, Runtime, Store, Table,
    Task,
};
use proptest::prelude::*;

use super::{Answer, Db, Instant, Settings, StoreServer, TxId};

static ACCOUNTS: Table = Table { name: "accounts", index: &["due"] };

fn at(ms: u64) -> Instant {
    Instant { elapsed: Duration::from_millis(ms), wall: DateTime::<Utc>::UNIX_EPOCH }
}

fn db() -> Db {
    let mut db = Db::new(Settings::default());
    db.prepare(&[&ACCOUNTS]).unwrap();
    db
}

fn begin(db: &mut Db) -> TxId {
    db.begin("a".into(), at(0))
}

fn row(version: i64, body: &str) -> Row {
    Row { version, index: vec![None], body: body.into() }
}

fn due(version: i64, value: &str) -> Row {
    Row { version, index: vec![Some(value.into())], body: "{}".into() }
}

fn rows<const N: usize>(rows: [(&str, Row); N]) -> Rows {
    rows.into_iter().map(|(key, row)| (key.into(), row)).collect()
}

fn put<const N: usize>(given: [(&str, Row); N]) -> Vec<Op> {
    vec![Op::Put { table: &ACCOUNTS, rows: rows(given) }]
}

fn lock<const N: usize>(keys: [&str; N]) -> Vec<Op> {
    vec![Op::Lock { table: &ACCOUNTS, keys: keys.into_iter().map(Key::from).collect() }]
}

fn outgoing(shard: u16, key: &str) -> Outgoing {
    Outgoing {
        shard,
        channel: Channel::Topic,
        to: "orders.events".into(),
        key: key.into(),
        headers: Vec::new(),
        payload: Bytes::from_static(b"{}"),
    }
}

fn append(key: &str) -> Vec<Op> {
    vec![Op::Append { rows: vec![outgoing(0, key)] }]
}

fn range(from: &str, to: &str, limit: usize) -> Range {
    Range { column: 0, from: from.into(), to: to.into(), after: None, descending: false, limit }
}

fn ids(db: &Db) -> Vec<i64> {
    db.outbox().map(|row| row.id).collect()
}

fn ok(answers: &[Answer], tx: TxId) -> Vec<Reply> {
    match answers.iter().find(|(id, _)| *id == tx) {
        Some((_, Ok(replies))) => replies.clone(),
        other => panic!("expected an answer for {tx:?}, got {other:?}"),
    }
}

fn is_retry(answers: &[Answer], tx: TxId) -> bool {
    answers.iter().any(|(id, result)| *id == tx && matches!(result, Err(Fault::Retry(_))))
}

#[test]
fn d1_ids_are_drawn_before_the_commit_and_never_reused() {
    let mut db = db();
    let (early, late) = (begin(&mut db), begin(&mut db));
    ok(&db.submit(early, append("a"), at(0)), early);
    ok(&db.commit(late, append("b"), at(0)), late);
    assert_eq!(ids(&db), [2], "the later id is committed first");
    db.rollback(early, at(0));
    let third = begin(&mut db);
    ok(&db.commit(third, append("a"), at(0)), third);
    assert_eq!(ids(&db), [2, 3], "a rollback gives no id back");
    let sent = begin(&mut db);
    ok(&db.commit(sent, vec![Op::Sent { ids: BTreeSet::from([3, 99]) }], at(0)), sent);
    let fourth = begin(&mut db);
    ok(&db.commit(fourth, append("a"), at(0)), fourth);
    assert_eq!(ids(&db), [2, 4], "nor does a deletion");
}

#[test]
fn d3_claims_are_disjoint_and_do_not_wait() {
    let mut db = db();
    let setup = begin(&mut db);
    let given = [("a", due(0, "1")), ("b", due(0, "2")), ("c", due(0, "2")), ("d", due(0, "9"))];
    ok(&db.commit(setup, put(given), at(0)), setup);
    let claim = |limit| vec![Op::Claim { table: &ACCOUNTS, range: range("0", "5", limit) }];
    let keys = |replies: Vec<Reply>| match &replies[..] {
        [Reply::Listed(rows)] => rows.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let (one, two) = (begin(&mut db), begin(&mut db));
    assert_eq!(keys(ok(&db.submit(one, claim(2), at(0)), one)), ["a", "b"]);
    assert_eq!(keys(ok(&db.submit(two, claim(2), at(0)), two)), ["c"]);
    assert_eq!(keys(ok(&db.submit(one, claim(2), at(0)), one)), ["a", "b"], "own rows again");
    db.rollback(one, at(0));
    assert_eq!(keys(ok(&db.submit(two, claim(1), at(0)), two)), ["a"]);
}

#[test]
fn d4_an_insert_waits_for_the_fate_of_another_insert() {
    let insert = || vec![Op::Insert { table: &ACCOUNTS, rows: rows([("k", row(0, "mine"))]) }];
    for committed in [true, false] {
        let mut db = db();
        let (first, second) = (begin(&mut db), begin(&mut db));
        assert_eq!(ok(&db.submit(first, insert(), at(0)), first), [Reply::Rows(Rows::new())]);
        assert_eq!(db.submit(second, insert(), at(0)), []);
        assert!(db.is_waiting(second));
        let answers =
            if committed { db.commit(first, vec![], at(1)) } else { db.rollback(first, at(1)) };
        let existing = if committed { rows([("k", row(1, "mine"))]) } else { Rows::new() };
        assert_eq!(ok(&answers, second), [Reply::Rows(existing)]);
    }
}

#[test]
fn d5_a_deadlock_aborts_the_one_that_closes_the_cycle() {
    let mut db = db();
    let [a, b, c] = [begin(&mut db), begin(&mut db), begin(&mut db)];
    for (tx, key) in [(a, "a"), (b, "b"), (c, "c")] {
        ok(&db.submit(tx, lock([key]), at(0)), tx);
    }
    assert_eq!(db.submit(a, lock(["b"]), at(0)), []);
    assert_eq!(db.submit(b, lock(["c"]), at(0)), []);
    let answers = db.submit(c, lock(["a"]), at(0));
    assert!(is_retry(&answers, c), "{answers:?}");
    assert_eq!(ok(&answers, b), [Reply::Rows(rows([("c", Row::default())]))]);
    assert!(db.is_waiting(a));
    ok(&db.commit(b, vec![], at(0)), b);
    assert_eq!(db.open_transactions(), 1);
}

#[test]
fn d6_a_lost_connection_rolls_back_and_frees_its_locks() {
    let mut db = db();
    let (gone, other) = (begin(&mut db), db.begin("b".into(), at(0)));
    ok(&db.submit(gone, put([("k", row(0, "lost"))]), at(0)), gone);
    assert_eq!(db.commit(other, put([("k", row(0, "kept"))]), at(0)), []);
    let answers = db.disconnect("a", at(1));
    assert_eq!(ok(&answers, other), [Reply::Done]);
    assert_eq!(db.row(&ACCOUNTS, "k"), Some(&row(1, "kept")));
    assert!(is_retry(&db.submit(gone, vec![Op::Now], at(1)), gone));
}

#[test]
fn d8_a_crash_keeps_what_was_committed_and_loses_the_rest() {
    let mut db = db();
    let [kept, lost, cut] = [begin(&mut db), begin(&mut db), begin(&mut db)];
    ok(&db.commit(kept, put([("a", row(0, "kept"))]), at(0)), kept);
    ok(&db.submit(lost, put([("b", row(0, "lost"))]), at(0)), lost);
    assert_eq!(db.commit(cut, put([("b", row(0, "cut"))]), at(0)), []);
    let answers = db.restart(at(1));
    assert!(matches!(&answers[..], [(id, Err(Fault::Unknown(_)))] if *id == cut), "{answers:?}");
    assert_eq!(db.open_transactions(), 0);
    assert_eq!(db.row(&ACCOUNTS, "a"), Some(&row(1, "kept")));
    assert_eq!(db.row(&ACCOUNTS, "b"), None);
    let next = begin(&mut db);
    ok(&db.commit(next, put([("b", row(0, "free"))]), at(1)), next);
}

#[test]
fn a_put_over_another_version_fails_the_whole_transaction() {
    let mut db = db();
    let setup = begin(&mut db);
    ok(&db.commit(setup, put([("a", row(0, "1"))]), at(0)), setup);
    for version in [0, 2] {
        let tx = begin(&mut db);
        ok(&db.submit(tx, put([("b", row(0, "other"))]), at(0)), tx);
        assert!(is_retry(&db.commit(tx, put([("a", row(version, "2"))]), at(0)), tx));
    }
    assert_eq!(db.rows(&ACCOUNTS).count(), 1);
    let tx = begin(&mut db);
    ok(&db.commit(tx, put([("a", row(1, "2"))]), at(0)), tx);
    assert_eq!(db.row(&ACCOUNTS, "a"), Some(&row(2, "2")));
}

#[test]
fn plain_reads_see_committed_rows_and_a_transaction_sees_its_own() {
    let mut db = db();
    let tx = begin(&mut db);
    let reads = || {
        vec![
            Op::Read { table: &ACCOUNTS, keys: BTreeSet::from(["a".into()]) },
            Op::List { table: &ACCOUNTS, range: range("", "z", 9) },
            Op::Unsent { shard: 0, limit: 9 },
        ]
    };
    let mut ops = put([("a", due(0, "x"))]);
    ops.extend(append("a"));
    ok(&db.submit(tx, ops, at(0)), tx);
    let empty = [Reply::Rows(Rows::new()), Reply::Listed(vec![]), Reply::Outbox(vec![])];
    assert_eq!(db.read(reads(), at(0)).unwrap(), empty);
    let own = ok(&db.submit(tx, reads(), at(0)), tx);
    assert_eq!(own[0], Reply::Rows(rows([("a", due(1, "x"))])));
    assert_eq!(own[1], Reply::Listed(vec![("a".into(), due(1, "x"))]));
    assert!(matches!(&own[2], Reply::Outbox(rows) if rows.len() == 1));
    ok(&db.commit(tx, vec![], at(0)), tx);
    assert_eq!(db.read(reads(), at(0)).unwrap(), own);
}

#[test]
fn silent_holders_and_impatient_waiters_let_go() {
    let settings = Settings {
        lock_timeout: Duration::from_millis(100),
        statement_timeout: Duration::from_millis(150),
        idle_in_transaction_timeout: Duration::from_millis(250),
    };
    let mut db = Db::new(settings);
    db.prepare(&[&ACCOUNTS]).unwrap();
    let (holder, waiter) = (begin(&mut db), begin(&mut db));
    ok(&db.submit(holder, lock(["k"]), at(0)), holder);
    assert_eq!(db.submit(waiter, lock(["k"]), at(10)), []);
    assert_eq!(db.next_deadline(), Some(Duration::from_millis(110)));
    assert_eq!(db.expire(at(109)), []);
    assert!(is_retry(&db.expire(at(110)), waiter));
    let patient = db.begin("b".into(), at(200));
    assert_eq!(db.submit(patient, lock(["k"]), at(200)), []);
    ok(&db.expire(at(260)), patient);
    assert!(is_retry(&db.submit(holder, vec![Op::Now], at(260)), holder));
}

#[test]
fn an_operation_that_does_not_fit_the_tables_is_refused() {
    static OTHER: Table = Table { name: "other", index: &[] };
    static WIDER: Table = Table { name: "accounts", index: &["due", "more"] };
    let mut db = db();
    let refused = |db: &mut Db, op: Op| {
        let tx = db.begin("a".into(), at(0));
        let answers = db.submit(tx, vec![op], at(0));
        matches!(&answers[..], [(_, Err(Fault::Refused(_)))]) && db.open_transactions() == 0
    };
    assert!(refused(&mut db, Op::Lock { table: &OTHER, keys: BTreeSet::new() }));
    assert!(refused(&mut db, Op::Put { table: &ACCOUNTS, rows: rows([("a", Row::default())]) }));
    let wrong = Range { column: 1, ..range("", "z", 1) };
    assert!(refused(&mut db, Op::List { table: &ACCOUNTS, range: wrong }));
    assert!(matches!(db.prepare(&[&WIDER]), Err(Fault::Refused(_))));
    assert!(matches!(db.read(lock(["a"]), at(0)), Err(Fault::Refused(_))));
}

#[test]
fn lists_go_on_behind_a_cursor_in_both_directions() {
    let mut db = db();
    let setup = begin(&mut db);
    let given = [("c", due(0, "1")), ("a", due(0, "2")), ("b", due(0, "2")), ("d", due(0, "3"))];
    ok(&db.commit(setup, put(given), at(0)), setup);
    for descending in [false, true] {
        let mut cursor = None;
        let mut seen = Vec::new();
        loop {
            let range = Range { after: cursor.clone(), descending, ..range("1", "3", 1) };
            let op = Op::List { table: &ACCOUNTS, range };
            let replies = db.read(vec![op], at(0)).unwrap();
            let [Reply::Listed(rows)] = &replies[..] else { panic!("not a list") };
            let Some((key, row)) = rows.first() else { break };
            seen.push(key.to_string());
            cursor = Some((row.index[0].clone().unwrap(), key.clone()));
        }
        let expected = if descending { ["b", "a", "c"] } else { ["c", "a", "b"] };
        assert_eq!(seen, expected);
    }
}

/// A runtime whose time a test moves.
struct Stepped {
    ms: AtomicU64,
}

#[async_trait]
impl Runtime for Stepped {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        let due = self.elapsed() + duration;
        std::future::poll_fn(
            |_| {
                if self.elapsed() >= due { Poll::Ready(()) } else { Poll::Pending }
            },
        )
        .await;
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

type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls all futures, a millisecond a round, until all are done.
fn run(runtime: &Stepped, mut work: Vec<Work<'_>>) {
    for _ in 0..100_000 {
        work.retain_mut(|future| {
            future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        if work.is_empty() {
            return;
        }
        runtime.ms.fetch_add(1, Ordering::Relaxed);
    }
    panic!("{} futures hang", work.len());
}

fn server() -> (Arc<Stepped>, StoreServer) {
    let runtime = Arc::new(Stepped { ms: AtomicU64::new(0) });
    let server = StoreServer::new(Settings::default(), runtime.clone());
    (runtime, server)
}

#[test]
fn a_client_waits_for_a_dropped_transaction_and_for_a_silent_one() {
    let (runtime, server) = server();
    let (one, two) = (server.client("one", runtime.clone()), server.client("two", runtime.clone()));
    let work: Work<'_> = Box::pin(async {
        one.prepare(&[&ACCOUNTS]).await.unwrap();
        let (held, _) = one.begin(put([("k", row(0, "lost"))])).await.unwrap();
        let waiting = two.transact(put([("k", row(0, "kept"))]));
        let dropping = async {
            runtime.sleep(Duration::from_millis(50)).await;
            drop(held);
        };
        let ((), result) = futures_util::future::join(dropping, waiting).await;
        assert_eq!(result, Ok(vec![Reply::Done]));
        assert_eq!(runtime.elapsed().as_millis(), 50);

        let (silent, _) = one.begin(lock(["k"])).await.unwrap();
        let mut tries = 0;
        while let Err(fault) = two.transact(put([("k", row(1, "again"))])).await {
            assert!(matches!(fault, Fault::Retry(_)), "{fault}");
            tries += 1;
        }
        assert!((1..=2).contains(&tries), "{tries}");
        assert!(matches!(silent.commit(vec![]).await, Err(Fault::Retry(_))));
    });
    run(&runtime, vec![work]);
    assert_eq!(server.with(|db| db.row(&ACCOUNTS, "k").cloned()), Some(row(2, "again")));
    assert_eq!(server.with(Db::open_transactions), 0);
}

#[test]
fn a_dropped_wait_leaves_nothing_behind() {
    let (runtime, server) = server();
    let client = server.client("one", runtime.clone());
    let work: Work<'_> = Box::pin(async {
        client.prepare(&[&ACCOUNTS]).await.unwrap();
        let (held, _) = client.begin(lock(["k"])).await.unwrap();
        let waiting = client.transact(put([("k", row(0, "never"))]));
        assert!(ports::timeout(&*runtime, Duration::from_millis(5), waiting).await.is_none());
        held.commit(vec![]).await.unwrap();
    });
    run(&runtime, vec![work]);
    assert_eq!(server.with(|db| db.rows(&ACCOUNTS).count()), 0);
    assert_eq!(server.with(Db::open_transactions), 0);
}

/// Moves one unit from account to account under the locking rule; tells whether it committed.
async fn transfer(store: &dyn Store, from: &Key, to: &Key) -> Outcome<()> {
    let keys = BTreeSet::from([from.clone(), to.clone()]);
    let (tx, replies) = store.begin(vec![Op::Lock { table: &ACCOUNTS, keys }]).await?;
    let Some(Reply::Rows(mut rows)) = replies.into_iter().next() else { panic!("no rows") };
    for (key, change) in [(from, -1), (to, 1)] {
        let row = rows.get_mut(key).unwrap();
        let balance = row.body.parse::<i64>().unwrap_or(0) + change;
        row.body = balance.to_string();
        row.index = vec![None];
    }
    let outgoing = outgoing(0, from);
    tx.commit(vec![Op::Put { table: &ACCOUNTS, rows }, Op::Append { rows: vec![outgoing] }]).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Transfers conserve, no update is lost, and ids of a key follow its commits.
    #[test]
    fn transactions_under_the_locking_rule_have_a_serial_order(
        plans in prop::collection::vec(
            prop::collection::vec((0..4usize, 0..4usize, 0..6u64), 1..12), 2..6),
    ) {
        let names: Vec<Key> = ["a", "b", "c", "d"].into_iter().map(Key::from).collect();
        let (runtime, server) = server();
        let client = server.client("one", runtime.clone());
        run(&runtime, vec![Box::pin(async { client.prepare(&[&ACCOUNTS]).await.unwrap() })]);
        let moved = AtomicU64::new(0);
        let transfers = async |plan: &Vec<(usize, usize, u64)>| {
            for (from, to, pause) in plan {
                runtime.sleep(Duration::from_millis(*pause)).await;
                if from != to && transfer(&client, &names[*from], &names[*to]).await.is_ok() {
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let work = plans.iter().map(|plan| -> Work<'_> { Box::pin(transfers(plan)) });
        run(&runtime, work.collect());
        let mut expected = BTreeMap::new();
        let wanted = plans.iter().flatten().filter(|(from, to, _)| from != to);
        for (from, to, _) in wanted.clone() {
            *expected.entry(*from).or_insert(0i64) -= 1;
            *expected.entry(*to).or_insert(0) += 1;
        }
        prop_assert_eq!(moved.into_inner(), wanted.count() as u64, "in key order nobody deadlocks");
        for (name, balance) in expected {
            let body = server.with(|db| db.row(&ACCOUNTS, &names[name]).map(|row| row.body.clone()));
            prop_assert_eq!(body, Some(balance.to_string()));
        }
    }

    /// Versioned puts without a lock: those that commit count, and only those.
    #[test]
    fn versioned_puts_lose_no_update(steps in prop::collection::vec((0..4usize, 0..3u8), 1..60)) {
        let mut db = db();
        let mut open: BTreeMap<usize, (TxId, i64)> = BTreeMap::new();
        let mut committed = 0;
        for (who, what) in steps {
            let version = db.row(&ACCOUNTS, "k").map_or(0, |row| row.version);
            let (tx, read) = *open.entry(who).or_insert_with(|| (begin(&mut db), version));
            let answers = match what {
                0 => continue,
                1 => { open.remove(&who); db.rollback(tx, at(0)) }
                _ => {
                    open.remove(&who);
                    db.commit(tx, put([("k", row(read, &format!("{}", read + 1)))]), at(0))
                }
            };
            committed += answers.iter().filter(|(_, result)| result.is_ok()).count();
        }
        let version = db.row(&ACCOUNTS, "k").map_or(0, |row| row.version);
        prop_assert_eq!(version, committed as i64);
    }
}
