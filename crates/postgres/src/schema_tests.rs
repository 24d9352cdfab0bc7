//! What is to be done to a schema, as a table; and on a real server, at SHAKEDOWN_POSTGRES, that it is done.
//! Without that address the latter say so and pass, unless SHAKEDOWN_REQUIRE_SERVERS=1.

use std::time::{SystemTime, UNIX_EPOCH};

use ports::{Op, Reply, Row, Store};

use tokio_postgres::error::SqlState;

use super::*;
use crate::PostgresStore;
use crate::pipeline::Call;
use crate::statement::Statement;

static LEASE: Table = Table { name: "lease", index: &["due", "owner"] };
static BARE: Table = Table { name: "order", index: &[] };
static LEASE_GREW: Table = Table { name: "lease", index: &["due", "owner", "changed"] };

const TWO_STEPS: [&str; 2] = [STEPS[0], "ALTER TABLE outbox ADD COLUMN note text;\n"];

fn found(version: i32, tables: &[(&str, &[&str])]) -> Found {
    let columns = |columns: &[&str]| columns.iter().map(|name| (*name).to_owned()).collect();
    let tables = tables.iter().map(|(name, of)| ((*name).to_owned(), columns(of)));
    Found { exists: true, version, tables: tables.collect(), indexes: BTreeSet::new() }
}

fn refusal(found: &Found, tables: &[&Table]) -> String {
    next("shop", found, tables, &STEPS).unwrap_err().to_string()
}

#[test]
fn a_newer_layout_is_refused_with_both_versions() {
    let said = refusal(&found(2, &[]), &[]);
    assert!(said.contains("a newer version: 2, this binary knows 1"), "{said}");
}

#[test]
fn an_unversioned_layout_of_today_is_adopted_and_another_is_not() {
    let todo = next("shop", &found(0, &[("outbox", &OUTBOX)]), &[], &STEPS).unwrap().unwrap();
    assert!(todo.contains("INSERT INTO schema_version") && !todo.contains("CREATE SCHEMA"));
    let said = refusal(&found(0, &[("outbox", &["id", "topic"])]), &[]);
    assert!(said.contains("shop.outbox lacks shard") && said.contains("has also topic"), "{said}");
}

#[test]
fn a_table_with_other_columns_is_refused_by_name() {
    let ready = found(1, &[("lease", &["key", "version", "body", "due", "owner"])]);
    let said = refusal(&ready, &[&LEASE_GREW]);
    assert!(said.contains("table shop.lease lacks changed"), "{said}");
    let newer = found(1, &[("order", &["key", "version", "body", "changed"])]);
    let said = refusal(&newer, &[&BARE]);
    assert!(said.contains("table shop.order has also changed"), "{said}");
}

/// A table may wait for a step to come, and before the first one nothing is written into what will be refused.
#[test]
fn columns_are_checked_once_no_step_can_change_them() {
    let unversioned =
        found(0, &[("outbox", &OUTBOX), ("lease", &["key", "version", "body", "due", "owner"])]);
    assert!(refusal(&unversioned, &[&LEASE_GREW]).contains("lacks changed"));
    let todo = next("shop", &unversioned, &[&LEASE_GREW], &TWO_STEPS).unwrap().unwrap();
    assert!(todo.contains("VALUES (1, "), "{todo}");
}

#[test]
fn only_what_is_missing_is_created() {
    let mut ready = found(1, &[("lease", &["key", "version", "body", "due", "owner"])]);
    ready.indexes = ["lease_due", "lease_owner"].map(str::to_owned).into();
    assert_eq!(next("shop", &ready, &[&LEASE], &STEPS), Ok(None));
    ready.indexes.remove("lease_owner");
    let todo = next("shop", &ready, &[&LEASE], &STEPS).unwrap().unwrap();
    assert!(todo.contains("\"lease_owner\"") && !todo.contains("CREATE TABLE"), "{todo}");
    let todo = next("shop", &ready, &[&BARE], &STEPS).unwrap().unwrap();
    assert!(todo.contains("CREATE TABLE \"order\"") && !todo.contains("lease"), "{todo}");
}

#[test]
fn names_that_would_not_be_plain_sql_are_refused() {
    static QUOTE: Table = Table { name: "a\"; DROP", index: &[] };
    static OUTBOX: Table = Table { name: "outbox", index: &[] };
    static VERSION: Table = Table { name: "schema_version", index: &[] };
    static COLUMN: Table = Table { name: "a", index: &["version"] };
    let ready = found(1, &[]);
    for table in [&QUOTE, &OUTBOX, &VERSION, &COLUMN] {
        assert!(matches!(next("shop", &ready, &[table], &STEPS), Err(Fault::Refused(_))));
    }
    assert!(next("shop", &ready, &[&LEASE, &BARE], &STEPS).is_ok());
}

/// A store on a fresh schema of a real server.
async fn real(what: &str) -> Option<(String, PostgresStore)> {
    let url = std::env::var("SHAKEDOWN_POSTGRES").ok().filter(|url| !url.is_empty());
    let Some(url) = url else {
        let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "SHAKEDOWN_REQUIRE_SERVERS=1 wants SHAKEDOWN_POSTGRES");
        eprintln!("not run: SHAKEDOWN_POSTGRES is not set");
        return None;
    };
    #[expect(clippy::disallowed_methods, reason = "a name that no other run has")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let schema = format!("schema_{what}_{now}");
    let store = PostgresStore::connect(&url, &schema).await.unwrap();
    Some((schema, store))
}

async fn text(store: &PostgresStore, sql: &str) {
    let lease = store.pool.lease().await.unwrap();
    let sql = format!("BEGIN READ WRITE; {sql}; COMMIT");
    lease.run_text(&sql, During::Commit).await.unwrap();
    lease.give_back();
}

async fn ask(store: &PostgresStore, sql: &str) -> Vec<Vec<Option<String>>> {
    let lease = store.pool.lease().await.unwrap();
    let rows = lease.ask(sql).await.unwrap();
    lease.give_back();
    rows
}

async fn step(store: &PostgresStore, schema: &str, steps: &[&str]) -> Outcome<()> {
    bring_up(&store.pool.lease().await?, schema, &[&LEASE], steps).await
}

fn said<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Err(Fault::Refused(said)) => said.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// As it stands behind a BEGIN that was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_no_transaction_writes_nothing() {
    let Some((schema, store)) = real("alone").await else { return };
    step(&store, &schema, &STEPS).await.unwrap();
    let lock = BTreeSet::from(["a".into()]);
    let calls = [
        Call::of_keys(Statement::Lock(&LEASE), &lock),
        Call::of_keys(Statement::Delete(&LEASE), &lock),
        Call::bare(Statement::Commit),
    ];
    let mut lease = store.pool.lease().await.unwrap();
    lease.prepare(&calls).await.unwrap();
    let results = lease.run(&calls).await.unwrap();
    let states: Vec<_> = results.iter().map(|it| it.as_ref().err()?.code()).collect();
    let read_only = Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
    assert_eq!(states, [read_only, read_only, None]);
    assert_eq!(lease.ask("SELECT key FROM lease").await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_at_once_bring_up_one_schema() {
    let Some((schema, store)) = real("eight").await else { return };
    let stores: Vec<_> = (0..8).map(|_| store.clone()).collect();
    let tables: [&'static Table; 2] = [&LEASE, &BARE];
    let all = stores.iter().map(|store| store.prepare(&tables));
    for done in futures_util::future::join_all(all).await {
        assert_eq!(done, Ok(()));
    }
    let rows = ask(&store, "SELECT version::text, \"by\" FROM schema_version").await;
    assert_eq!(rows, [[Some("1".to_owned()), Some(BY.to_owned())]]);
    let standing = store.standing(&[&LEASE, &BARE]).await;
    assert_eq!(standing, Ok(Standing { version: 1, known: 1, ready: true }));
    // The same again, and eight at once for a second step.
    let all = stores.iter().map(|store| step(store, &schema, &TWO_STEPS));
    for done in futures_util::future::join_all(all).await {
        assert_eq!(done, Ok(()));
    }
    let rows = ask(&store, "SELECT count(*)::text FROM schema_version").await;
    assert_eq!(rows, [[Some("2".to_owned())]]);
    let refused = said(store.prepare(&[&LEASE]).await);
    assert!(refused.contains("newer version: 2, this binary knows 1"), "{refused}");
    assert!(said(store.standing(&[&LEASE]).await).contains("newer version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unversioned_schema_keeps_its_rows() {
    let Some((schema, store)) = real("adopted").await else { return };
    let earlier = format!(
        "CREATE SCHEMA \"{schema}\"; {} CREATE TABLE lease (key text COLLATE \"C\" PRIMARY KEY, \
         version bigint NOT NULL, body text NOT NULL, due text COLLATE \"C\", owner text COLLATE \"C\"); \
         INSERT INTO lease VALUES ('a', 1, '{{}}', '1', NULL)",
        STEPS[0]
    );
    text(&store, &earlier).await;
    let before = store.standing(&[&LEASE]).await;
    assert_eq!(before, Ok(Standing { version: 0, known: 1, ready: false }));
    store.prepare(&[&LEASE]).await.unwrap();
    let keys = [ports::Key::from("a")].into();
    let replies = store.read(vec![Op::Read { table: &LEASE, keys }]).await.unwrap();
    let row = Row { version: 1, index: vec![Some("1".into()), None], body: "{}".into() };
    assert_eq!(replies, [Reply::Rows([("a".into(), row)].into_iter().collect())]);
    let refused = said(store.prepare(&[&LEASE_GREW]).await);
    assert!(refused.contains(&format!("table {schema}.lease lacks changed")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_leaves_nothing() {
    let Some((schema, store)) = real("failing").await else { return };
    let failing = [STEPS[0], "CREATE TABLE half (key text); SELECT 1 / 0;\n"];
    assert!(step(&store, &schema, &failing).await.is_err());
    let standing = store.standing(&[&LEASE]).await.unwrap();
    assert_eq!((standing.version, standing.ready), (1, false));
    let halves = ask(&store, &format!("SELECT to_regclass('{schema}.half')::text")).await;
    assert_eq!(halves, [[None]]);
}

/// Once all is there, a start needs no right to create anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_of_creation_starts() {
    let Some((schema, store)) = real("rights").await else { return };
    store.prepare(&[&LEASE]).await.unwrap();
    let role = format!("role_{schema}");
    let rights = format!(
        "CREATE ROLE \"{role}\" LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO \"{role}\"; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{role}\""
    );
    text(&store, &rights).await;
    let lease = store.pool.lease().await.unwrap();
    lease.run_text(&format!("SET ROLE \"{role}\""), During::Statement).await.unwrap();
    assert_eq!(bring_up(&lease, &schema, &[&LEASE], &STEPS).await, Ok(()));
    let about = crate::About::ask(&lease, &schema).await.unwrap();
    assert_eq!((about.may_create, about.barred), (false, vec![]));
    assert!(bring_up(&lease, &schema, &[&LEASE, &BARE], &STEPS).await.is_err());
    drop(lease);
    text(&store, &format!("REVOKE UPDATE ON lease FROM \"{role}\"")).await;
    let lease = store.pool.lease().await.unwrap();
    lease.run_text(&format!("SET ROLE \"{role}\""), During::Statement).await.unwrap();
    let about = crate::About::ask(&lease, &schema).await.unwrap();
    assert_eq!(about.barred, ["lease"]);
    drop(lease);
    text(&store, &format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
}
