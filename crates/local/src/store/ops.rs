//! Operations as SQL on one SQLite connection. Never opens or ends a transaction. Statement texts
//! are the same for each call, so that the connection's statement cache finds them.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ports::{
    Channel, Fault, Key, Op, OutboxRow, Outcome, Outgoing, Range, Reply, Row, Rows, Shard, Table,
    headers,
};
use rusqlite::types::{ToSql, ToSqlOutput, Value};
use rusqlite::{Connection, ErrorCode, params, params_from_iter};

pub(super) const SENT: &str = "DELETE FROM outbox WHERE id = ?1";
pub(super) const UNSENT: &str = "SELECT id, at, channel, destination, key, headers, payload
     FROM outbox WHERE shard = ?1 ORDER BY id LIMIT ?2";

/// What an error of SQLite means before the commit. Only bad data and bad SQL are final: a full
/// disk, a lock or a broken file may be mended, and must not turn inputs into dead letters.
pub(super) fn classify(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            Fault::refused(error.to_string())
        }
        Some(ErrorCode::Unknown | ErrorCode::ParameterOutOfRange | ErrorCode::ApiMisuse) => {
            Fault::refused(error.to_string())
        }
        Some(_) => Fault::retry(error.to_string()),
        None => Fault::refused(error.to_string()),
    }
}

/// What an error of the commit itself means: busy is before it, all else leaves it open.
pub(super) fn classify_commit(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Fault::retry(error.to_string())
        }
        Some(ErrorCode::ConstraintViolation) => Fault::refused(error.to_string()),
        _ => Fault::unknown(error.to_string()),
    }
}

/// Applies operations in order. After an error the transaction has to be rolled back.
pub(super) fn apply(
    connection: &Connection,
    ops: Vec<Op>,
    now: DateTime<Utc>,
) -> Outcome<Vec<Reply>> {
    ops.into_iter().map(|op| apply_one(connection, op, now)).collect()
}

/// Whether an operation reads committed rows only, and needs no writer.
pub(super) fn is_read(op: &Op) -> bool {
    matches!(op, Op::Read { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now)
}

fn apply_one(connection: &Connection, op: Op, now: DateTime<Utc>) -> Outcome<Reply> {
    let reply = match op {
        Op::Insert { table, rows } => {
            check_arity(table, &rows)?;
            insert(connection, table, rows).map(Reply::Rows)
        }
        Op::Lock { table, keys } => load(connection, table, keys, true).map(Reply::Rows),
        Op::Read { table, keys } => load(connection, table, keys, false).map(Reply::Rows),
        Op::Put { table, rows } => {
            check_arity(table, &rows)?;
            match put(connection, table, rows) {
                Ok(false) => return Err(Fault::retry("a row has another version")),
                written => written.map(|_| Reply::Done),
            }
        }
        Op::Delete { table, keys } => delete(connection, table, keys).map(|()| Reply::Done),
        Op::Append { rows } => append(connection, rows, now).map(|()| Reply::Done),
        Op::Sent { ids } => sent(connection, ids).map(|()| Reply::Done),
        // One writer at a time: no other transaction holds any row.
        Op::Claim { table, range } | Op::List { table, range } => {
            if range.column >= table.index.len() {
                return Err(Fault::refused("no such index column"));
            }
            list(connection, table, &range).map(Reply::Listed)
        }
        Op::Unsent { shard, limit } => unsent(connection, shard, limit).map(Reply::Outbox),
        Op::Now => Ok(Reply::Now(now)),
    };
    reply.map_err(|error| classify(&error))
}

fn check_arity(table: &Table, rows: &Rows) -> Outcome<()> {
    let fits = rows.values().all(|row| row.index.len() == table.index.len());
    fits.then_some(()).ok_or_else(|| Fault::refused("a row's index values do not fit its table"))
}

/// Column names in quotes, each after a comma.
fn columns(table: &Table, form: impl Fn(usize, &str) -> String) -> String {
    table.index.iter().enumerate().map(|(at, column)| form(at, column)).collect()
}

fn select(table: &Table) -> String {
    let names = columns(table, |_, name| format!(", \"{name}\""));
    format!("SELECT key, version, body{names} FROM \"{}\"", table.name)
}

/// `INSERT` that leaves a present key alone; parameters are version, body, key, index columns.
pub(super) fn insert_sql(table: &Table) -> String {
    let names = columns(table, |_, name| format!(", \"{name}\""));
    let values = columns(table, |at, _| format!(", ?{}", at + 4));
    format!(
        "INSERT INTO \"{}\" (version, body, key{names}) VALUES (?1, ?2, ?3{values})
         ON CONFLICT (key) DO NOTHING",
        table.name
    )
}

fn values<'a>(version: &'a i64, row: &'a Row, key: &'a Key) -> Vec<&'a dyn ToSql> {
    let mut values: Vec<&dyn ToSql> = vec![version, &row.body, key];
    values.extend(row.index.iter().map(|value| value as &dyn ToSql));
    values
}

fn read_row(row: &rusqlite::Row<'_>, table: &Table) -> rusqlite::Result<(Key, Row)> {
    let key = Key::from(row.get_ref(0)?.as_str()?);
    let index = (0..table.index.len()).map(|at| row.get(at + 3)).collect::<Result<_, _>>()?;
    Ok((key, Row { version: row.get(1)?, body: row.get(2)?, index }))
}

fn insert(connection: &Connection, table: &Table, rows: Rows) -> rusqlite::Result<Rows> {
    let mut existing = BTreeSet::new();
    let mut statement = connection.prepare_cached(&insert_sql(table))?;
    for (key, row) in rows {
        if statement.execute(&values(&1, &row, &key)[..])? == 0 {
            existing.insert(key);
        }
    }
    load(connection, table, existing, false)
}

/// Rows by key; absent ones too where that is asked, at version 0.
fn load(
    connection: &Connection,
    table: &Table,
    keys: BTreeSet<Key>,
    absent: bool,
) -> rusqlite::Result<Rows> {
    let mut found = Rows::new();
    if keys.is_empty() {
        return Ok(found);
    }
    let mut statement = connection.prepare_cached(&load_sql(table))?;
    for key in keys {
        let mut rows = statement.query([&key])?;
        match rows.next()? {
            Some(row) => found.insert(key, read_row(row, table)?.1),
            None if absent => found.insert(key, Row::default()),
            None => None,
        };
    }
    Ok(found)
}

/// By key.
pub(super) fn load_sql(table: &Table) -> String {
    select(table) + " WHERE key = ?1"
}

/// Parameters are version, body, key, index columns.
pub(super) fn update_sql(table: &Table) -> String {
    let sets = columns(table, |at, name| format!(", \"{name}\" = ?{}", at + 4));
    format!(
        "UPDATE \"{}\" SET version = ?1, body = ?2{sets} WHERE key = ?3 AND version = ?1 - 1",
        table.name
    )
}

/// By key.
pub(super) fn delete_sql(table: &Table) -> String {
    format!("DELETE FROM \"{}\" WHERE key = ?1", table.name)
}

/// `false` where a row had another version.
fn put(connection: &Connection, table: &Table, rows: Rows) -> rusqlite::Result<bool> {
    let (mut inserts, mut updates) = (
        connection.prepare_cached(&insert_sql(table))?,
        connection.prepare_cached(&update_sql(table))?,
    );
    for (key, row) in rows {
        let next = row.version.saturating_add(1);
        let statement = if row.version == 0 { &mut inserts } else { &mut updates };
        if statement.execute(&values(&next, &row, &key)[..])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn delete(connection: &Connection, table: &Table, keys: BTreeSet<Key>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&delete_sql(table))?;
    keys.iter().try_for_each(|key| statement.execute([key]).map(drop))
}

fn append(
    connection: &Connection,
    rows: Vec<Outgoing>,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox (shard, at, channel, destination, key, headers, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for row in rows {
        let channel = match row.channel {
            Channel::Topic => 0,
            Channel::Queue => 1,
        };
        let headers = headers::encode(&row.headers);
        let at = now.timestamp_micros();
        let payload = &row.payload[..];
        statement.execute(params![row.shard, at, channel, row.to, row.key, headers, payload])?;
    }
    Ok(())
}

fn sent(connection: &Connection, ids: BTreeSet<i64>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(SENT)?;
    ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
}

/// Parameters are lowest and highest value, limit, and where to go on behind.
pub(super) fn list_sql(table: &Table, range: &Range) -> String {
    let column = format!("\"{}\"", table.index[range.column]);
    let (beyond, order) = if range.descending { ("<", "DESC") } else { (">", "ASC") };
    let mut sql = format!("{} WHERE {column} >= ?1 AND {column} < ?2", select(table));
    if range.after.is_some() {
        sql += &format!(" AND ({column}, key) {beyond} (?4, ?5)");
    }
    sql + &format!(" ORDER BY {column} {order}, key {order} LIMIT ?3")
}

fn list(
    connection: &Connection,
    table: &Table,
    range: &Range,
) -> rusqlite::Result<Vec<(Key, Row)>> {
    let limit = i64::try_from(range.limit).unwrap_or(i64::MAX);
    let mut values = vec![
        ToSqlOutput::from(range.from.as_str()),
        ToSqlOutput::from(range.to.as_str()),
        ToSqlOutput::Owned(Value::Integer(limit)),
    ];
    if let Some((value, key)) = &range.after {
        values.extend([ToSqlOutput::from(value.as_str()), ToSqlOutput::from(&**key)]);
    }
    let mut statement = connection.prepare_cached(&list_sql(table, range))?;
    statement.query_map(params_from_iter(values), |row| read_row(row, table))?.collect()
}

fn unsent(connection: &Connection, shard: Shard, limit: usize) -> rusqlite::Result<Vec<OutboxRow>> {
    let mut statement = connection.prepare_cached(UNSENT)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![shard, limit], |row| {
        let channel = if row.get::<_, i64>(2)? == 0 { Channel::Topic } else { Channel::Queue };
        let at = DateTime::from_timestamp_micros(row.get(1)?).unwrap_or_default();
        let headers = headers::decode(row.get_ref(5)?.as_blob()?);
        let outgoing = Outgoing {
            shard,
            channel,
            to: row.get_ref(3)?.as_str()?.into(),
            key: row.get_ref(4)?.as_str()?.into(),
            headers: headers.ok_or(rusqlite::Error::InvalidQuery)?,
            payload: Bytes::copy_from_slice(row.get_ref(6)?.as_blob()?),
        };
        Ok(OutboxRow { id: row.get(0)?, at, outgoing })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    #[test]
    fn errors_are_classified_by_what_the_caller_may_do() {
        use rusqlite::ffi;
        let name = |fault| match fault {
            Fault::Retry(_) => "retry",
            Fault::Refused(_) => "refused",
            Fault::Unknown(_) => "unknown",
        };
        let table = [
            (ffi::SQLITE_BUSY, "retry", "retry"),
            (ffi::SQLITE_LOCKED, "retry", "retry"),
            (ffi::SQLITE_FULL, "retry", "unknown"),
            (ffi::SQLITE_IOERR, "retry", "unknown"),
            (ffi::SQLITE_CANTOPEN, "retry", "unknown"),
            (ffi::SQLITE_CORRUPT, "retry", "unknown"),
            (ffi::SQLITE_READONLY, "retry", "unknown"),
            (ffi::SQLITE_CONSTRAINT, "refused", "refused"),
            (ffi::SQLITE_TOOBIG, "refused", "unknown"),
            (ffi::SQLITE_ERROR, "refused", "unknown"),
        ];
        for (code, statement, commit) in table {
            assert_eq!(name(classify(&failure(code))), statement, "{code}");
            assert_eq!(name(classify_commit(&failure(code))), commit, "{code}");
        }
        let missing = rusqlite::Error::QueryReturnedNoRows;
        assert_eq!(name(classify(&missing)), "refused");
    }
}
