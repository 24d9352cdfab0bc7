//! A data folder as it stands, for who wants to know before a start. Never creates or changes anything in it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use ports::{Outcome, Table};

use crate::brokers;
use crate::store::schema;

/// Whether another process uses the folder.
pub fn in_use(dir: &Path) -> io::Result<bool> {
    let lock = match File::open(dir.join("lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        lock => lock?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether this program can open the database of a service with these tables. `None`: there is none yet, and the
/// start makes it. `Refused` where another version made it.
pub fn database(dir: &Path, service: &str, tables: &[&Table]) -> Outcome<Option<usize>> {
    let path = dir.join(format!("{service}.db"));
    if !path.exists() {
        return Ok(None);
    }
    schema::standing(&path, tables).map(Some)
}

/// The same for what the brokers keep.
pub fn journal(dir: &Path) -> Outcome<Option<i64>> {
    let path = dir.join("brokers.db");
    if !path.exists() {
        return Ok(None);
    }
    brokers::standing(&path).map(Some)
}
