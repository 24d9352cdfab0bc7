//! The store: one writer connection that a transaction owns as long as it lives, and connections
//! for reads beside it. Never lets a connection with an open transaction be used by another.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Fault, Op, Outcome, Reply, Runtime, Store, Table, Tx, timeout};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::OwnedMutexGuard;

use super::{ops, schema};
use crate::folder;

/// How long a transaction waits for the writer before it answers `Retry`.
const WRITER_WAIT: Duration = Duration::from_secs(5);

/// How long SQLite waits for another process that uses the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Connections for reads that are kept open.
const IDLE_READERS: usize = 2;

/// A service's database in one file.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    runtime: Arc<dyn Runtime>,
    writer: Arc<tokio::sync::Mutex<Connection>>,
    readers: Mutex<Vec<Connection>>,
}

impl SqliteStore {
    /// Opens the file, or creates it. Its clock is that of `runtime`. `Retry` where another process holds it,
    /// `Refused` where it cannot be used.
    pub fn open(path: &Path, runtime: Arc<dyn Runtime>) -> Outcome<Self> {
        let writer =
            connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
                .map_err(|error| unopened(path, &error))?;
        let shared = Shared {
            path: path.to_path_buf(),
            runtime,
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            readers: Mutex::new(Vec::new()),
        };
        Ok(SqliteStore { shared: Arc::new(shared) })
    }

    async fn writer(&self) -> Outcome<SqliteTx> {
        let lock = self.shared.writer.clone().lock_owned();
        let Some(writer) = timeout(&*self.shared.runtime, WRITER_WAIT, lock).await else {
            return Err(Fault::retry("the writer is busy"));
        };
        Ok(SqliteTx { writer: Some(writer), runtime: self.shared.runtime.clone(), changes: 0 })
    }

    fn reader(&self) -> rusqlite::Result<Connection> {
        let idle = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| connect(&self.shared.path, OpenFlags::SQLITE_OPEN_READ_ONLY), Ok)
    }

    fn keep(&self, reader: Connection) {
        let mut readers = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }
}

fn unopened(path: &Path, error: &rusqlite::Error) -> Fault {
    let said = format!("{}: {}", path.display(), folder::unusable(error));
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Fault::retry(said),
        _ => Fault::refused(said),
    }
}

/// WAL, so that reads do not wait for the writer; FULL, so that a commit is synced (D8).
fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_WAIT)?;
    if access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
    }
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Runs work that blocks, by the runtime, and gives its result back.
fn blocking<T>(runtime: &dyn Runtime, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let mut work = Some(work);
    let mut result = Err(Fault::retry("the work did not run"));
    runtime.block(&mut || {
        if let Some(work) = work.take() {
            result = work();
        }
    });
    result
}

#[async_trait]
impl Store for SqliteStore {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        let mut tx = self.writer().await?;
        let runtime = tx.runtime.clone();
        blocking(&*runtime, || {
            tx.start()?;
            schema::prepare(tx.connection()?, tables)?;
            tx.commit_now()
        })
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut tx = self.writer().await?;
        let runtime = tx.runtime.clone();
        let replies = blocking(&*runtime, || {
            tx.start()?;
            tx.apply(ops)
        })?;
        Ok((Box::new(tx), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        if !ops.iter().all(ops::is_read) {
            return Err(Fault::refused("not a read"));
        }
        let now = self.shared.runtime.now();
        blocking(&*self.shared.runtime, || {
            let reader = self.reader().map_err(|error| ops::classify(&error))?;
            let replies = ops::apply(&reader, ops, now);
            self.keep(reader);
            replies
        })
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let mut tx = self.writer().await?;
        let runtime = tx.runtime.clone();
        blocking(&*runtime, || {
            tx.start()?;
            let replies = tx.apply(ops)?;
            tx.finish()?;
            Ok(replies)
        })
    }
}

struct SqliteTx {
    /// `None` once the transaction has ended.
    writer: Option<OwnedMutexGuard<Connection>>,
    runtime: Arc<dyn Runtime>,
    /// The connection's count of changes when the transaction began.
    changes: u64,
}

impl SqliteTx {
    fn connection(&self) -> Outcome<&Connection> {
        self.writer.as_deref().ok_or_else(|| Fault::retry("the transaction was rolled back"))
    }

    fn start(&mut self) -> Outcome<()> {
        let connection = self.connection()?;
        if !connection.is_autocommit() {
            execute(connection, "ROLLBACK").map_err(|error| ops::classify(&error))?;
        }
        let changes = connection.total_changes();
        execute(connection, "BEGIN IMMEDIATE").map_err(|error| ops::classify(&error))?;
        self.changes = changes;
        Ok(())
    }

    fn apply(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let replies = ops::apply(self.connection()?, ops, self.runtime.now());
        if replies.is_err() {
            self.roll_back();
        }
        replies
    }

    /// Commits. Where no row was written there is nothing to sync: rolls back.
    fn finish(&mut self) -> Outcome<()> {
        if self.connection()?.total_changes() != self.changes {
            return self.commit_now();
        }
        self.roll_back();
        Ok(())
    }

    fn commit_now(&mut self) -> Outcome<()> {
        let committed = execute(self.connection()?, "COMMIT");
        self.roll_back();
        committed.map_err(|error| ops::classify_commit(&error))
    }

    /// Gives the writer back without an open transaction. Where the rollback fails, the next one to
    /// start tries again.
    fn roll_back(&mut self) {
        if let Some(writer) = self.writer.take()
            && !writer.is_autocommit()
            && let Err(error) = execute(&writer, "ROLLBACK")
        {
            tracing::warn!(%error, "rollback failed");
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[async_trait]
impl Tx for SqliteTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let runtime = self.runtime.clone();
        blocking(&*runtime, || self.apply(ops))
    }

    async fn commit(mut self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let runtime = self.runtime.clone();
        blocking(&*runtime, || {
            self.apply(ops)?;
            self.finish()
        })
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        self.roll_back();
    }
}
