//! The brokers' state in an SQLite file. Never reads it but at start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use model::log::Log;
use model::queue::{Effect, Message, Queues};
use ports::{Fetched, Offsets, Partition, QueueSpec, Record, TopicSpec, headers};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};

use crate::folder;

/// How long SQLite waits for another process that uses the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// So many waits, and it counts as a file that cannot be written.
const BUSY_WAITS: u32 = 12;

const SCHEMA_VERSION: i64 = 2;
const SCHEMA: &str = "
    CREATE TABLE topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE records (
        topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, at_us INTEGER NOT NULL,
        key TEXT NOT NULL, headers BLOB NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (topic, part, off)) WITHOUT ROWID, STRICT;
    CREATE TABLE offsets (
        grp TEXT NOT NULL, topic TEXT NOT NULL, part INTEGER NOT NULL, next INTEGER NOT NULL,
        PRIMARY KEY (grp, topic, part)) WITHOUT ROWID, STRICT;
    CREATE TABLE queues (
        name TEXT PRIMARY KEY, delivery_limit INTEGER NOT NULL, dead_letters TEXT
        ) WITHOUT ROWID, STRICT;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY, queue TEXT NOT NULL, key TEXT NOT NULL, headers BLOB NOT NULL,
        payload BLOB NOT NULL, returns INTEGER NOT NULL) STRICT;
";

/// The file.
pub(super) struct Journal {
    connection: Connection,
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub topics: Vec<TopicSpec>,
    pub records: Vec<Fetched>,
    pub offsets: BTreeMap<(Arc<str>, Partition), i64>,
    pub queues: Vec<QueueSpec>,
    pub messages: Vec<Message>,
    pub effects: Vec<Effect>,
    /// The offsets behind `records`; not written.
    pub next: BTreeMap<Partition, i64>,
}

impl Round {
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.records.is_empty()
            && self.offsets.is_empty()
            && self.queues.is_empty()
            && self.messages.is_empty()
            && self.effects.is_empty()
    }
}

/// 0 is a new file.
fn check(version: i64) -> Result<(), String> {
    match version {
        0 | SCHEMA_VERSION => Ok(()),
        newer if newer > SCHEMA_VERSION => Err(format!(
            "made by a newer version: {newer}, this binary knows {SCHEMA_VERSION}; use the newer binary"
        )),
        older => Err(format!(
            "made by an older version: {older}, this binary knows {SCHEMA_VERSION} alone; use the \
             older binary, or an empty folder"
        )),
    }
}

impl Journal {
    /// Opens the file, or creates it with its tables. The error is a text for people.
    pub fn open(path: &Path) -> Result<Self, String> {
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_WAIT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // FULL syncs the log at each commit; WAL's NORMAL would lose the last ones with the power.
            connection.pragma_update(None, "synchronous", "full")?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                let version = format!("PRAGMA user_version = {SCHEMA_VERSION};");
                connection.execute_batch(&format!("BEGIN; {SCHEMA} {version} COMMIT;"))?;
            }
            Ok((connection, version))
        };
        let (connection, version) = open().map_err(|error| folder::unusable(&error))?;
        check(version)?;
        Ok(Journal { connection })
    }

    /// The topics in a file that exists; changes nothing. The error is as in [`Journal::open`].
    pub fn standing(path: &Path) -> Result<Vec<TopicSpec>, String> {
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = open().map_err(|error| folder::unusable(&error))?;
        check(version)?;
        let mut topics = Vec::new();
        if version != 0 {
            Journal { connection }.each(TOPICS, |row| {
                topics.push(topic(row)?);
                Ok(Ok(()))
            })?;
        }
        Ok(topics)
    }

    /// The file's name, for people.
    pub fn path(&self) -> &str {
        self.connection.path().unwrap_or_default()
    }

    /// Writes all of it, synced, or nothing. Waits for another process that uses the file, a minute at most.
    pub fn write(&self, round: &Round) -> rusqlite::Result<()> {
        let tx = self.begin()?;
        write(&tx, round)?;
        tx.commit()
    }

    /// Takes the writer's lock at once: where that fails, nothing was done, and it can be tried again.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        for _ in 1..BUSY_WAITS {
            match Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    tracing::warn!(file = self.path(), "another process uses it; no event is sent");
                }
                begun => return begun,
            }
        }
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }

    /// Fills an empty log.
    pub fn restore_log(&self, log: &mut Log, now: Duration) -> Result<(), String> {
        self.each(TOPICS, |row| {
            let topic = topic(row)?;
            Ok(log.declare(now, &topic).map_err(|error| format!("{topic:?}: {error:?}")))
        })?;
        let sql = "SELECT topic, part, off, at_us, key, headers, payload FROM records
                   ORDER BY topic, part, off";
        self.each(sql, |row| {
            let (partition, offset) =
                (Partition { topic: text(row, 0)?, index: row.get(1)? }, row.get(2)?);
            let at = DateTime::<Utc>::from_timestamp_micros(row.get(3)?).unwrap_or_default();
            let record = record(row, partition.topic.clone(), 4)?;
            let appended = log.append_at(&partition, offset, record, at);
            Ok(appended.map_err(|error| format!("{partition}@{offset}: {error:?}")))
        })?;
        self.each("SELECT grp, topic, part, next FROM offsets", |row| {
            let partition = Partition { topic: text(row, 1)?, index: row.get(2)? };
            let next = Offsets::from([(partition, row.get(3)?)]);
            log.restore_committed(&text(row, 0)?, &next);
            Ok(Ok(()))
        })
    }

    /// Fills a server without queues. All messages come back as redelivered, with a return more: a killed
    /// process writes down no return, and which of them were on a channel it never did. That alone makes
    /// no dead letter, whatever the limit.
    pub fn restore_queues(&self, queues: &mut Queues, now: Duration) -> Result<(), String> {
        let returned = self.connection.execute("UPDATE messages SET returns = returns + 1", []);
        returned.map_err(|error| error.to_string())?;
        self.each("SELECT name, delivery_limit, dead_letters FROM queues", |row| {
            let dead_letters: Option<String> = row.get(2)?;
            let dead_letters = dead_letters.map(Arc::from);
            let spec = QueueSpec { name: text(row, 0)?, delivery_limit: row.get(1)?, dead_letters };
            Ok(queues.declare(&spec).map_err(|fault| fault.to_string()))
        })?;
        let sql = "SELECT id, queue, returns, key, headers, payload FROM messages ORDER BY id";
        self.each(sql, |row| {
            let record = record(row, text(row, 1)?, 3)?;
            let (id, returns) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get(2)?);
            let message = Message { id, record, redelivered: true, returns, failures: 0 };
            Ok(queues.insert(message, now).map_err(|fault| fault.to_string()))
        })
    }

    fn each(
        &self,
        sql: &str,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<Result<(), String>>,
    ) -> Result<(), String> {
        let mut read = || -> rusqlite::Result<Result<(), String>> {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let Err(text) = take(row)? {
                    return Ok(Err(text));
                }
            }
            Ok(Ok(()))
        };
        read().unwrap_or_else(|error| Err(folder::unusable(&error)))
    }
}

const TOPICS: &str = "SELECT name, partitions FROM topics";

fn topic(row: &Row<'_>) -> rusqlite::Result<TopicSpec> {
    Ok(TopicSpec { name: text(row, 0)?, partitions: row.get(1)? })
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

/// Key, headers and payload from three columns.
fn record(row: &Row<'_>, to: Arc<str>, column: usize) -> rusqlite::Result<Record> {
    let headers = headers::decode(row.get_ref(column + 1)?.as_blob()?)
        .ok_or(rusqlite::Error::InvalidQuery)?;
    let payload = Bytes::copy_from_slice(row.get_ref(column + 2)?.as_blob()?);
    Ok(Record { to, key: text(row, column)?, headers, payload })
}

fn write(connection: &Connection, round: &Round) -> rusqlite::Result<()> {
    for topic in &round.topics {
        let sql = "INSERT INTO topics VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        connection.prepare_cached(sql)?.execute(params![&*topic.name, topic.partitions])?;
    }
    let mut insert =
        connection.prepare_cached("INSERT INTO records VALUES (?1,?2,?3,?4,?5,?6,?7)")?;
    for Fetched { partition, offset, at, record } in &round.records {
        let (topic, at) = (&*partition.topic, at.timestamp_micros());
        let headers = headers::encode(&record.headers);
        let row =
            params![topic, partition.index, offset, at, &*record.key, headers, &*record.payload];
        insert.execute(row)?;
    }
    for ((group, partition), next) in &round.offsets {
        let sql = "INSERT INTO offsets VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO UPDATE SET next = excluded.next";
        let row = params![&**group, &*partition.topic, partition.index, next];
        connection.prepare_cached(sql)?.execute(row)?;
    }
    for queue in &round.queues {
        let sql = "INSERT INTO queues VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let row = params![&*queue.name, queue.delivery_limit, queue.dead_letters.as_deref()];
        connection.prepare_cached(sql)?.execute(row)?;
    }
    for message in &round.messages {
        insert_message(connection, message)?;
    }
    for effect in &round.effects {
        match effect {
            Effect::Deleted { id } => delete_message(connection, *id)?,
            Effect::DeadLettered { from, message } => {
                delete_message(connection, *from)?;
                insert_message(connection, message)?;
            }
            Effect::Returned { id, returns } => {
                let sql = "UPDATE messages SET returns = ?2 WHERE id = ?1";
                connection.prepare_cached(sql)?.execute(params![id.cast_signed(), returns])?;
            }
        }
    }
    Ok(())
}

fn insert_message(connection: &Connection, message: &Message) -> rusqlite::Result<()> {
    let Message { id, record, returns, .. } = message;
    let (key, headers) = (&*record.key, headers::encode(&record.headers));
    let row = params![id.cast_signed(), &*record.to, key, headers, &*record.payload, returns];
    connection.prepare_cached("INSERT INTO messages VALUES (?1,?2,?3,?4,?5,?6)")?.execute(row)?;
    Ok(())
}

fn delete_message(connection: &Connection, id: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM messages WHERE id = ?1")?
        .execute(params![id.cast_signed()])?;
    Ok(())
}
