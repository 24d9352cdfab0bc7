//! All three ports in one process, for demos and development: the broker models with their state in
//! an SQLite file, and a store file for each service. Never confirms what is not synced, and never
//! shares its folder with another process.
#![warn(missing_docs)]

mod brokers;
pub mod folder;
mod runtime;
pub mod store;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ports::{EventLog, Fault, JobQueue, Outcome, Runtime, Store};

use brokers::{Brokers, LocalLog, LocalQueue};
pub use runtime::TokioRuntime;
use store::SqliteStore;

/// The brokers and the databases in a folder.
///
/// The folder stays locked until this, and every log, queue and consumer from it, is dropped.
pub struct Local {
    dir: PathBuf,
    runtime: Arc<dyn Runtime>,
    brokers: Arc<Brokers>,
}

impl Local {
    /// Opens the folder, or creates it, and restores what was confirmed. `Refused` where another
    /// process uses it, or where its files are not ours.
    pub fn open(dir: &Path, runtime: Arc<dyn Runtime>) -> Outcome<Local> {
        let failed = |error: io::Error| Fault::refused(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Fault::refused(format!(
                "{}: another process uses this folder. Stop it, or choose another folder.",
                dir.display()
            )),
            TryLockError::Error(error) => failed(error),
        })?;
        let brokers = Brokers::open(&dir.join("brokers.db"), runtime.clone(), lock)?;
        Ok(Local { dir: dir.to_path_buf(), runtime, brokers: Arc::new(brokers) })
    }

    /// The event log.
    pub fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(LocalLog::new(self.brokers.clone(), self.runtime.clone()))
    }

    /// The job queues.
    pub fn queue(&self) -> Arc<dyn JobQueue> {
        Arc::new(LocalQueue::new(self.brokers.clone(), self.runtime.clone()))
    }

    /// The database of a service, whose name is of `[a-z0-9_-]`; `brokers` is taken.
    pub fn store(&self, service: &str) -> Outcome<Arc<dyn Store>> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if service.is_empty() || service == "brokers" || !service.chars().all(plain) {
            return Err(Fault::refused(format!("{service:?} cannot name a database")));
        }
        let path = self.dir.join(format!("{service}.db"));
        Ok(Arc::new(SqliteStore::open(&path, self.runtime.clone())?))
    }
}
