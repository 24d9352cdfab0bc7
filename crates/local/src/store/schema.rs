//! The layout of a service's file: versioned steps in order, then the service's tables. Never touches what a
//! newer program made, and never makes up the values of an index column: rows carry them beside their bodies.

use std::path::Path;

use ports::{Fault, Outcome, Table};
use rusqlite::{Connection, OpenFlags};

use super::ops::classify;

/// Every step of the layout, the first to version 1 (`PRAGMA user_version`). A released step never changes.
///
/// 1: what there was before versions were written down, so that such a file only gets its number.
const STEPS: [&str; 1] = ["CREATE TABLE IF NOT EXISTS outbox (
         id INTEGER PRIMARY KEY AUTOINCREMENT, shard INTEGER NOT NULL, at INTEGER NOT NULL,
         channel INTEGER NOT NULL, destination TEXT NOT NULL, key TEXT NOT NULL,
         headers BLOB NOT NULL, payload BLOB NOT NULL);
     CREATE INDEX IF NOT EXISTS outbox_shard ON outbox (shard, id);\n"];

/// The columns of every table of rows.
const OWN: [&str; 3] = ["key", "version", "body"];

/// Brings the file to the last step and creates the tables that do not exist, in the caller's transaction.
/// `Refused` for a name that is not `[a-z_]+` or is the outbox's, where a newer program made the file, and
/// where a table has other columns.
pub(super) fn prepare(connection: &Connection, tables: &[&Table]) -> Outcome<()> {
    let version = version(connection)?;
    let run = |sql: &str| connection.execute_batch(sql).map_err(|error| classify(&error));
    for step in STEPS.iter().skip(version) {
        run(step)?;
    }
    run(&format!("PRAGMA user_version = {}", STEPS.len()))?;
    for table in tables {
        check_names(table)?;
        match columns(connection, table.name)? {
            Some(found) => check_columns(connection, table, &found)?,
            None => run(&create(table))?,
        }
    }
    Ok(())
}

/// The version of the layout in a service's file, 0 where none is written down; changes nothing. `Refused` as in
/// [`ports::Store::prepare`].
pub(crate) fn standing(path: &Path, tables: &[&Table]) -> Outcome<usize> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = connection.map_err(|error| classify(&error))?;
    let version = version(&connection)?;
    // Step 1 leaves tables alone; a later one may be what they wait for.
    let checked = if version.max(1) == STEPS.len() { tables } else { &[] };
    for table in checked {
        if let Some(found) = columns(&connection, table.name)? {
            check_columns(&connection, table, &found)?;
        }
    }
    Ok(version)
}

fn version(connection: &Connection) -> Outcome<usize> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let version = version.map_err(|error| classify(&error))?;
    let known = STEPS.len();
    usize::try_from(version).ok().filter(|version| *version <= known).ok_or_else(|| {
        Fault::refused(format!(
            "{} was made by a newer version: {version}, this binary knows {known}; use the newer binary",
            name(connection)
        ))
    })
}

/// The columns of a table that exists.
fn columns(connection: &Connection, table: &str) -> Outcome<Option<Vec<String>>> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        statement.query_map([table], |row| row.get(0))?.collect()
    };
    let found = read().map_err(|error| classify(&error))?;
    Ok(Some(found).filter(|found| !found.is_empty()))
}

fn check_columns(connection: &Connection, table: &Table, found: &[String]) -> Outcome<()> {
    let wanted: Vec<&str> = OWN.iter().chain(table.index).copied().collect();
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let Some(said) = ports::columns::difference(&wanted, &found) else { return Ok(()) };
    Err(Fault::refused(format!(
        "{}: table {} {said}: another version made it, and there is no step between the two; use \
         that version, or an empty folder",
        name(connection),
        table.name
    )))
}

fn name(connection: &Connection) -> &str {
    connection.path().unwrap_or_default()
}

fn check_names(table: &Table) -> Outcome<()> {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let bad = |column: &&str| !plain(column) || OWN.contains(column);
    if !plain(table.name) || table.name == "outbox" || table.index.iter().any(bad) {
        return Err(Fault::refused(format!("not a name for a table or column: {}", table.name)));
    }
    Ok(())
}

fn create(table: &Table) -> String {
    let name = table.name;
    let columns: String = table.index.iter().map(|column| format!(", \"{column}\" TEXT")).collect();
    let mut sql = format!(
        "CREATE TABLE \"{name}\" (key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL,
             body TEXT NOT NULL{columns}) WITHOUT ROWID;\n"
    );
    for column in table.index {
        sql += &format!(
            "CREATE INDEX \"{name}_{column}\" ON \"{name}\" (\"{column}\", key)
                 WHERE \"{column}\" IS NOT NULL;\n"
        );
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTES: Table = Table { name: "notes", index: &["due"] };
    static GREW: Table = Table { name: "notes", index: &["due", "changed"] };
    static BARE: Table = Table { name: "notes", index: &[] };

    fn said(outcome: Outcome<()>) -> String {
        match outcome {
            Err(Fault::Refused(said)) => said.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_file_of_another_version_is_refused_with_what_differs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = Connection::open(file.path()).unwrap();
        prepare(&connection, &[&NOTES]).unwrap();
        prepare(&connection, &[&NOTES]).unwrap();
        assert_eq!(standing(file.path(), &[&NOTES]), Ok(1));
        let path = file.path().display().to_string();
        let lacks = said(prepare(&connection, &[&GREW]));
        assert!(lacks.contains(&path) && lacks.contains("notes lacks changed"), "{lacks}");
        assert!(said(prepare(&connection, &[&BARE])).contains("notes has also due"));
        assert!(said(standing(file.path(), &[&GREW]).map(drop)).contains("lacks changed"));
        connection.pragma_update(None, "user_version", 2).unwrap();
        let newer = said(prepare(&connection, &[&NOTES]));
        assert!(newer.contains("a newer version: 2, this binary knows 1"), "{newer}");
    }

    #[test]
    fn a_file_without_a_version_gets_its_number_and_keeps_its_rows() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = Connection::open(file.path()).unwrap();
        connection.execute_batch(&format!("{}{}", STEPS[0], create(&NOTES))).unwrap();
        connection.execute("INSERT INTO notes VALUES ('a', 1, '{}', NULL)", []).unwrap();
        assert_eq!(standing(file.path(), &[&NOTES]), Ok(0));
        prepare(&connection, &[&NOTES]).unwrap();
        assert_eq!(standing(file.path(), &[&NOTES]), Ok(1));
        let rows = connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0));
        assert_eq!(rows, Ok(1));
    }
}
