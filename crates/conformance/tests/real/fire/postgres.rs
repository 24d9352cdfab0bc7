//! PostgreSQL's adapter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use ports::{Fault, Op, Outcome, Reply, Runtime, Store, timeout};
use postgres::PostgresStore;
use shakedown_conformance::store::{ITEMS, TABLES, item, keys, rows};
use shakedown_conformance::{Case, NotApplicable, Observed};
use tokio_postgres::{Client, NoTls};

use super::soon;
use crate::control::{self, KILL_POSTGRES};
use crate::proxy::Proxy;

pub struct Fire {
    url: String,
    run: String,
    schemas: AtomicU32,
    runtime: Arc<dyn Runtime>,
}

/// All cases.
pub fn cases() -> Vec<Case<Fire>> {
    let case = |claim, run: for<'a> fn(&'a Fire) -> BoxFuture<'a, Observed>| {
        Case::new("", claim, "all", run)
    };
    vec![
        case("goes on after a cut link", |fire| Box::pin(a_cut_link(fire))),
        case("goes on over a slow link", |fire| Box::pin(a_slow_link(fire))),
        case("goes on after an operator has ended its sessions", |fire| {
            Box::pin(ended_sessions(fire))
        }),
        case("goes on after a kill of the server", |fire| Box::pin(a_kill(fire))),
        case("goes on when a missing table is there again", |fire| Box::pin(a_missing_table(fire))),
        case("whom the server does not know is refused", |fire| Box::pin(an_unknown_user(fire))),
        case("a commit into silence ends as unknown, a read as not done", |fire| {
            Box::pin(unknown_by_silence(fire))
        }),
        case("a commit is unknown where its session is ended on the way", |fire| {
            Box::pin(unknown_by_an_end(fire))
        }),
        case(
            "a commit that waits for its standby is unknown, and done, where its session is ended",
            |fire| Box::pin(unknown_by_an_end_behind_the_commit(fire)),
        ),
        case("a step of the layout whose answer is lost is unknown", |fire| {
            Box::pin(an_unknown_step(fire))
        }),
        case("dropped with a transaction open, it lets go", |fire| Box::pin(dropped_open(fire))),
    ]
}

impl Fire {
    pub fn at(url: &str, run: &str, runtime: Arc<dyn Runtime>) -> Self {
        let (url, run) = (url.to_owned(), format!("{run}_fire").replace('-', "_"));
        Fire { url, run, schemas: AtomicU32::new(0), runtime }
    }

    fn schema(&self) -> String {
        format!("{}_{}", self.run, self.schemas.fetch_add(1, Ordering::Relaxed))
    }

    async fn store(&self, schema: &str) -> (Proxy, PostgresStore) {
        let (proxy, url) = Proxy::before(&self.url, 5432);
        let store = PostgresStore::connect_with(&url, schema, 2).await.unwrap();
        store.prepare(&TABLES).await.unwrap();
        (proxy, store)
    }

    async fn new_store(&self) -> (Proxy, PostgresStore) {
        self.store(&self.schema()).await
    }

    /// As an operator, beside the adapter.
    async fn sql(&self, sql: &str) {
        self.session(async |client| client.batch_execute(sql).await.unwrap()).await;
    }

    /// A session as an operator's, beside the adapter.
    async fn session<T>(&self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        let work = async {
            let done = work(&client).await;
            // That ends the connection.
            drop(client);
            done
        };
        let (driven, done) = join(connection, work).await;
        driven.unwrap();
        done
    }

    /// A row is counted up while it is hurt, and soon after; what was confirmed is in it, and nothing
    /// is in it twice.
    async fn flow(&self, store: &PostgresStore, hurt: impl Future<Output = Observed>) -> Observed {
        let (closing, confirmed) = (AtomicBool::new(false), AtomicU32::new(0));
        let counting = async {
            while !closing.load(Ordering::Relaxed) {
                if self.count_up(store).await {
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
                self.runtime.sleep(Duration::from_millis(10)).await;
            }
        };
        let hurting = async {
            self.runtime.sleep(Duration::from_millis(500)).await;
            let hurt = hurt.await;
            if hurt.is_ok() {
                let before = confirmed.load(Ordering::Relaxed);
                let more = async {
                    // The first one may have been on its way.
                    while confirmed.load(Ordering::Relaxed) < before + 2 {
                        self.runtime.sleep(Duration::from_millis(20)).await;
                    }
                };
                soon(&*self.runtime, "it goes on", more).await;
            }
            closing.store(true, Ordering::Relaxed);
            hurt
        };
        let ((), hurt) = join(counting, hurting).await;
        assert_eq!(count(store).await, Ok(confirmed.into_inner().into()), "each once");
        hurt
    }

    /// Until it is known whether it was done: the version tells. Whether it was.
    async fn count_up(&self, store: &PostgresStore) -> bool {
        let Ok(version) = count(store).await else { return false };
        let put = Op::Put { table: &ITEMS, rows: rows([("count", item(version, None, None))]) };
        match store.transact(vec![put]).await {
            Ok(_) => true,
            Err(Fault::Unknown(_)) => loop {
                match count(store).await {
                    Ok(now) => break now > version,
                    Err(_) => self.runtime.sleep(Duration::from_millis(50)).await,
                }
            },
            Err(Fault::Retry(_)) => false,
            Err(refused) => panic!("{refused}"),
        }
    }
}

async fn count(store: &PostgresStore) -> Outcome<i64> {
    version(store, "count").await
}

async fn version(store: &PostgresStore, key: &str) -> Outcome<i64> {
    let replies = store.read(vec![Op::Read { table: &ITEMS, keys: keys([key]) }]).await?;
    match &replies[..] {
        [Reply::Rows(rows)] => Ok(rows.get(key).map_or(0, |row| row.version)),
        other => panic!("not rows: {other:?}"),
    }
}

fn put(key: &str) -> Vec<Op> {
    vec![Op::Put { table: &ITEMS, rows: rows([(key, item(0, None, None))]) }]
}

fn lock(key: &str) -> Vec<Op> {
    vec![Op::Lock { table: &ITEMS, keys: keys([key]) }]
}

async fn a_cut_link(fire: &Fire) -> Observed {
    let (proxy, store) = fire.new_store().await;
    let cutting = async {
        for loses_replies in [true, false, true] {
            match loses_replies {
                true => proxy.limit_replies(Some(100)),
                false => proxy.limit_requests(Some(100)),
            }
            fire.runtime.sleep(Duration::from_millis(200)).await;
            proxy.cut();
            fire.runtime.sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    };
    fire.flow(&store, cutting).await
}

async fn a_slow_link(fire: &Fire) -> Observed {
    let (proxy, store) = fire.new_store().await;
    let slowing = async {
        proxy.slow(Duration::from_millis(100));
        fire.runtime.sleep(Duration::from_secs(1)).await;
        Ok(())
    };
    fire.flow(&store, slowing).await
}

/// Ends all sessions in this schema.
fn end(schema: &str) -> String {
    // The adapter's sessions are named after their schema.
    format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{schema}'"
    )
}

async fn ended_sessions(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (_proxy, store) = fire.store(&schema).await;
    let ending = async {
        for _ in 0..5 {
            fire.sql(&end(&schema)).await;
        }
        Ok(())
    };
    fire.flow(&store, ending).await
}

async fn a_kill(fire: &Fire) -> Observed {
    let (_proxy, store) = fire.new_store().await;
    fire.flow(&store, control::run(KILL_POSTGRES, &[])).await
}

async fn a_missing_table(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (_proxy, store) = fire.store(&schema).await;
    fire.sql(&format!("ALTER TABLE {schema}.items RENAME TO away")).await;
    let missing = store.transact(put("1")).await;
    // An operator can mend it, so it is no reason to give an input up.
    assert!(matches!(missing, Err(Fault::Retry(_))), "{missing:?}");
    fire.sql(&format!("ALTER TABLE {schema}.away RENAME TO items")).await;
    fire.flow(&store, async { Ok(()) }).await
}

async fn an_unknown_user(fire: &Fire) -> Observed {
    let (scheme, rest) = fire.url.split_once("://").expect("a URL");
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let url = format!("{scheme}://nobody@{server}");
    let connecting = PostgresStore::connect(&url, "nobody");
    let refused = soon(&*fire.runtime, "an answer", connecting).await.err();
    assert!(matches!(refused, Some(Fault::Refused(_))), "{refused:?}");
    Ok(())
}

/// Longer than the adapter waits for an answer.
const LONG: Duration = Duration::from_secs(20);

async fn unknown_by_silence(fire: &Fire) -> Observed {
    let (proxy, store) = fire.new_store().await;
    assert!(store.transact(put("warm")).await.is_ok());
    assert_eq!(count(&store).await, Ok(0));
    let (tx, _) = store.begin(lock("1")).await.unwrap();
    proxy.limit_replies(Some(0));
    let silent = join(tx.commit(put("1")), count(&store));
    let (committed, read) = timeout(&*fire.runtime, LONG, silent).await.expect("an end");
    assert!(matches!(committed, Err(Fault::Unknown(_))), "{committed:?}");
    assert!(matches!(read, Err(Fault::Retry(_))), "{read:?}");
    proxy.cut();
    fire.flow(&store, async { Ok(()) }).await
}

async fn unknown_by_an_end(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (proxy, store) = fire.store(&schema).await;
    assert!(store.transact(put("warm")).await.is_ok());
    let (tx, _) = store.begin(lock("1")).await.unwrap();
    // The commit is on its way when the server ends the session: nobody hears which came first.
    proxy.limit_replies(Some(0));
    let ending = async {
        fire.runtime.sleep(Duration::from_millis(300)).await;
        fire.sql(&end(&schema)).await;
    };
    let both = join(tx.commit(put("1")), ending);
    let (committed, ()) = soon(&*fire.runtime, "an end", both).await;
    assert!(matches!(committed, Err(Fault::Unknown(_))), "{committed:?}");
    proxy.cut();
    fire.flow(&store, async { Ok(()) }).await
}

async fn unknown_by_an_end_behind_the_commit(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (_proxy, store) = fire.store(&schema).await;
    assert!(store.transact(put("warm")).await.is_ok());
    let waits = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'";
    if fire.session(async |client| client.batch_execute(waits).await).await.is_err() {
        return Err(NotApplicable("its user may not say what a commit waits for").into());
    }
    fire.sql("SELECT pg_reload_conf()").await;
    // What commits before the server has taken that up does not wait.
    let waiting = async {
        let mut tries = 0;
        loop {
            let key = tries.to_string();
            let committed = store.transact(put(&key)).await;
            if committed.is_err() {
                return (key, committed);
            }
            fire.runtime.sleep(Duration::from_millis(10)).await;
            tries += 1;
        }
    };
    let ending = async {
        fire.runtime.sleep(Duration::from_secs(2)).await;
        fire.sql(&end(&schema)).await;
    };
    let ended = timeout(&*fire.runtime, LONG, join(waiting, ending)).await;
    // First of all: every commit on this server waits by now.
    fire.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
    fire.sql("SELECT pg_reload_conf()").await;
    let ((key, committed), ()) = ended.expect("an end");
    assert!(matches!(committed, Err(Fault::Unknown(_))), "{committed:?}");
    assert_eq!(version(&store, &key).await, Ok(1), "it was done");
    Ok(())
}

async fn an_unknown_step(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (proxy, url) = Proxy::before(&fire.url, 5432);
    let store = PostgresStore::connect_with(&url, &schema, 2).await.unwrap();
    let prepared = fire.session(async |other| {
        // The step waits for somebody else's, who thinks better of it.
        other.batch_execute(&format!("BEGIN; CREATE SCHEMA {schema}")).await.unwrap();
        let losing = async {
            fire.runtime.sleep(Duration::from_secs(1)).await;
            proxy.limit_replies(Some(0));
            other.batch_execute("ROLLBACK").await.unwrap();
            fire.runtime.sleep(Duration::from_secs(1)).await;
            proxy.cut();
        };
        join(store.prepare(&TABLES), losing).await.0
    });
    let prepared = prepared.await;
    assert!(matches!(prepared, Err(Fault::Unknown(_))), "{prepared:?}");
    fire.sql(&format!("SELECT FROM {schema}.schema_version")).await;
    soon(&*fire.runtime, "again", store.prepare(&TABLES)).await.unwrap();
    fire.flow(&store, async { Ok(()) }).await
}

async fn dropped_open(fire: &Fire) -> Observed {
    let schema = fire.schema();
    let (_proxy, store) = fire.store(&schema).await;
    let (tx, _) = store.begin(put("held")).await.unwrap();
    let begun = fire.runtime.elapsed();
    drop((tx, store));
    assert!(fire.runtime.elapsed() - begun < Duration::from_secs(1), "it hangs");
    let (_proxy, other) = fire.store(&schema).await;
    let done = soon(&*fire.runtime, "the lock", other.transact(put("held"))).await;
    assert!(done.is_ok(), "as if nothing had been done: {done:?}");
    Ok(())
}
