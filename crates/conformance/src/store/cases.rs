//! The store's statements as cases for the table, and D2, which needs a link that can be cut. Never
//! looks into a database but through the port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use ports::{Fault, Op, Outcome, Reply, Runtime, Store};

use super::sequences::{ITEMS, item, keys, rows};
use super::statements::{Statement, Writers, statements};
use crate::{Case, NotApplicable, Observed, Unseen};

/// What is lost with the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// What the client sends from now on.
    Request,
    /// What the server answers from now on.
    Reply,
}

/// What a case needs of a store beyond the port.
#[async_trait]
pub trait StoreBackend: Send + Sync {
    /// Measures time for the cases.
    fn runtime(&self) -> &dyn Runtime;

    /// How many transactions can be open at a time.
    fn writers(&self) -> Writers;

    /// The store, with all [`TABLES`](super::TABLES) prepared.
    fn store(&self) -> Arc<dyn Store>;

    /// A client of the same database whose link [`Self::losing`] can cut. It has one connection.
    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable>;

    /// Makes the call, which uses the flaky client, while that one's link loses this; after a while
    /// the link breaks. What the call answered.
    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()>;

    /// Kills the server, and starts it on what it has left behind. Clients of before may live on.
    async fn restart(&self) -> Result<(), Unseen>;

    /// A session for `LISTEN` and `NOTIFY`.
    async fn session(&self) -> Result<Box<dyn Session>, Unseen>;
}

/// Notifications, which the port does not have.
#[async_trait]
pub trait Session: Send + Sync {
    /// `LISTEN`.
    async fn listen(&self, channel: &str);

    /// `NOTIFY` in a transaction, which is committed or rolled back.
    async fn notify(&self, channel: &str, payload: &str, commit: bool);

    /// What it has heard since it was asked last; none may be on the way for so long.
    async fn heard(&self, quiet: Duration) -> Vec<String>;
}

/// All cases, by number.
pub fn cases() -> Vec<Case<dyn StoreBackend>> {
    let mut all = vec![
        Case::new("D7", "a notification reaches who listens when it is committed", "all", |it| {
            Box::pin(a_notification_is_not_durable(it))
        }),
        Case::new("D8", "a kill keeps what is committed, and nothing else", "all", |backend| {
            Box::pin(a_kill_keeps_what_is_committed(backend))
        }),
        Case::new("D2", "a commit whose reply is lost is unknown, and done", "all", |backend| {
            Box::pin(a_lost_commit_is_unknown(backend, Loss::Reply))
        }),
        Case::new("D2", "one that never arrived is unknown too, and not done", "all", |backend| {
            Box::pin(a_lost_commit_is_unknown(backend, Loss::Request))
        }),
    ];
    all.extend(statements().into_iter().map(as_case));
    all.sort_by_key(|case| (case.id.is_empty(), case.id));
    all
}

fn as_case(statement: Statement) -> Case<dyn StoreBackend> {
    let (id, claim) = match statement.name.split_once(' ') {
        Some((id, claim)) if id.starts_with('D') => (id, claim),
        _ => ("", statement.name),
    };
    Case::new(id, claim, "all", move |backend: &(dyn StoreBackend + 'static)| {
        let run = statement.run;
        let alone = statement.writers == Writers::Many && backend.writers() == Writers::One;
        Box::pin(async move {
            if alone {
                let why = "one writer: no other transaction is open beside it";
                return Err(NotApplicable(why).into());
            }
            run(&*backend.store(), backend.runtime()).await;
            Ok(())
        })
    })
}

/// How long a server may take to notice that a client is gone.
const PATIENCE: Duration = Duration::from_secs(10);

async fn version(store: &dyn Store, key: &str) -> i64 {
    let op = Op::Read { table: &ITEMS, keys: keys([key]) };
    match &store.read(vec![op]).await.unwrap()[..] {
        [Reply::Rows(rows)] => rows.get(key).map_or(0, |row| row.version),
        other => panic!("not rows: {other:?}"),
    }
}

async fn a_lost_commit_is_unknown(backend: &dyn StoreBackend, loss: Loss) -> Observed {
    let flaky = backend.flaky().await?;
    let put = |key: &str| Op::Put { table: &ITEMS, rows: rows([(key, item(0, None, None))]) };
    let lock = |key: &str| vec![Op::Lock { table: &ITEMS, keys: keys([key]) }];
    let (warm, key) = match loss {
        Loss::Reply => ("d2reply.warm", "d2reply"),
        Loss::Request => ("d2request.warm", "d2request"),
    };
    // The same once without a loss: then each answer of the second is the last one's.
    let (tx, _) = flaky.begin(lock(warm)).await.unwrap();
    tx.commit(vec![put(warm)]).await.unwrap();

    let (tx, _) = flaky.begin(lock(key)).await.unwrap();
    let answer = backend.losing(loss, Box::pin(tx.commit(vec![put(key)]))).await;
    assert!(
        matches!(answer, Err(Fault::Unknown(_))),
        "who hears nothing knows nothing: {answer:?}"
    );

    let store = backend.store();
    let runtime = backend.runtime();
    let begun = runtime.elapsed();
    let done = i64::from(loss == Loss::Reply);
    while version(&*store, key).await != done {
        assert!(runtime.elapsed() - begun < PATIENCE, "version {done} is not to be seen");
        runtime.sleep(Duration::from_millis(20)).await;
    }
    // Repeated with the same version it is done once in the end, whichever it was. A lock of the
    // lost transaction is let go: the server notices that its client is gone (D6).
    let again = loop {
        let again = store.transact(vec![put(key)]).await;
        if done == 1 || again.is_ok() || runtime.elapsed() - begun > PATIENCE {
            break again;
        }
    };
    match loss {
        Loss::Reply => assert!(matches!(again, Err(Fault::Retry(_))), "{again:?}"),
        Loss::Request => assert!(again.is_ok(), "{again:?}"),
    }
    assert_eq!(version(&*store, key).await, 1);
    assert_eq!(version(&*flaky, key).await, 1, "the client has a new link");
    Ok(())
}

async fn a_kill_keeps_what_is_committed(backend: &dyn StoreBackend) -> Observed {
    let store = backend.store();
    let put = |key: &str| Op::Put { table: &ITEMS, rows: rows([(key, item(0, None, None))]) };
    store.transact(vec![put("d8.committed")]).await.unwrap();
    let (open, _) = store.begin(vec![put("d8.open")]).await.unwrap();
    backend.restart().await?;
    let late = open.commit(vec![put("d8.late")]).await;
    assert!(late.is_err(), "its transaction is gone");
    let begun = backend.runtime().elapsed();
    // It is coming up.
    while store.transact(vec![put("d8.after")]).await.is_err() {
        assert!(backend.runtime().elapsed() - begun < PATIENCE, "it does not come back");
        backend.runtime().sleep(Duration::from_millis(100)).await;
    }
    let keys = ["d8.committed", "d8.open", "d8.late", "d8.after"];
    let mut versions = Vec::new();
    for key in keys {
        versions.push(version(&*store, key).await);
    }
    assert_eq!(versions, [1, 0, 0, 1], "{keys:?}");
    Ok(())
}

async fn a_notification_is_not_durable(backend: &dyn StoreBackend) -> Observed {
    const QUIET: Duration = Duration::from_millis(300);
    let (one, two) = (backend.session().await?, backend.session().await?);
    one.listen("d7").await;
    two.notify("d7", "committed", true).await;
    two.notify("d7", "rolled back", false).await;
    assert_eq!(one.heard(QUIET).await, ["committed"]);
    drop(one);
    let late = backend.session().await?;
    two.notify("d7", "while nobody listened", true).await;
    late.listen("d7").await;
    assert_eq!(late.heard(QUIET).await, Vec::<String>::new(), "nobody kept it");
    two.notify("d7", "again", true).await;
    assert_eq!(late.heard(QUIET).await, ["again"]);
    Ok(())
}
