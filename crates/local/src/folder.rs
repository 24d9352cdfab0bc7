//! A data folder as it stands, for who wants to know before a start. Never creates or changes anything in it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use ports::{Fault, Outcome, Table, TopicSpec};
use rusqlite::{Connection, ErrorCode, OpenFlags};

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
/// start makes it. `Refused` where another version made it, or where it is damaged.
pub fn database(dir: &Path, service: &str, tables: &[&Table]) -> Outcome<Option<usize>> {
    let path = dir.join(format!("{service}.db"));
    if !path.exists() {
        return Ok(None);
    }
    read(&path, |file| file.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())))?;
    schema::standing(&path, tables).map(Some)
}

/// How many rows of a table in the database of a service have ever been written. `None`: there is no such table.
pub fn written(dir: &Path, service: &str, table: &Table) -> Outcome<Option<i64>> {
    let path = dir.join(format!("{service}.db"));
    read(&path, |file| {
        if !file.table_exists(None, table.name)? {
            return Ok(None);
        }
        let sql = format!("SELECT count(*) FROM \"{}\" WHERE version > 0", table.name);
        file.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(Some)
    })
}

/// Reads a file that exists. `Refused` with its name where that fails.
fn read<T>(path: &Path, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Outcome<T> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let done = file.and_then(|file| work(&file));
    done.map_err(|error| Fault::refused(format!("{}: {}", path.display(), unusable(&error))))
}

/// The topics that the brokers keep; otherwise as [`database`].
pub fn journal(dir: &Path) -> Outcome<Option<Vec<TopicSpec>>> {
    let path = dir.join("brokers.db");
    if !path.exists() {
        return Ok(None);
    }
    brokers::standing(&path).map(Some)
}

/// Why a topic that has `count` partitions is not the wanted one, and what to do.
pub fn other_partitions(wanted: &TopicSpec, count: i32) -> String {
    format!(
        "topic {} has {count} partitions, and {} are wanted; they are fixed when it is made: set \
         partitions = {count}, or use an empty folder",
        wanted.name, wanted.partitions
    )
}

/// Why a file cannot be used, and, where it is damaged, what to do.
pub(crate) fn unusable(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            format!("{error}; restore it from a copy, or use an empty folder")
        }
        _ => error.to_string(),
    }
}
