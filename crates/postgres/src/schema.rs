//! The layout of a service's schema: versioned steps in order, each in a transaction of its own under one lock,
//! then the service's tables. Never touches what a newer program made, and never makes up the values of an
//! index column: rows carry them beside their bodies, and only their service knows them.

use std::collections::{BTreeMap, BTreeSet};

use ports::{Fault, Outcome, Table, columns};

use crate::classify::During;
use crate::pool::Lease;
use crate::statement::is_plain;

/// Every step of the layout, the first to version 1. A released step never changes; a new one is added behind
/// it. It may be run on rows of any age, and finds the service's tables as the last release left them.
///
/// 1: what there was before versions were written down, so that such a schema only gets its number.
pub(crate) static STEPS: [&str; 1] = ["CREATE TABLE IF NOT EXISTS outbox (\
     id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shard int NOT NULL, \
     at timestamptz NOT NULL DEFAULT clock_timestamp(), channel int NOT NULL, \
     destination text NOT NULL, key text COLLATE \"C\" NOT NULL, headers bytea NOT NULL, \
     payload bytea NOT NULL);\n\
     CREATE INDEX IF NOT EXISTS outbox_shard ON outbox (shard, id);\n"];

/// The columns that step 1 would otherwise take for its own.
const OUTBOX: [&str; 8] =
    ["id", "shard", "at", "channel", "destination", "key", "headers", "payload"];

/// The columns of every table of rows.
const OWN: [&str; 3] = ["key", "version", "body"];

/// Tables that are not the service's.
const TAKEN: [&str; 2] = ["outbox", "schema_version"];

/// Who writes the version down.
const BY: &str = concat!("shakedown ", env!("CARGO_PKG_VERSION"));

/// How a schema stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The version of its layout, 0 where none is written down.
    pub version: i32,
    /// The version that this program makes.
    pub known: i32,
    /// Whether all is there. Otherwise the next [`ports::Store::prepare`] has something to do.
    pub ready: bool,
}

/// What is in a schema.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    exists: bool,
    version: i32,
    tables: BTreeMap<String, BTreeSet<String>>,
    indexes: BTreeSet<String>,
}

/// Brings the schema to the last step and creates the tables that do not exist. Where all is there it changes
/// nothing, waits for nobody, and needs no right to. `Refused` where a newer program made it, or where a table has
/// other columns.
///
/// After an error the connection may be in a transaction: close it.
pub(crate) async fn bring_up(
    lease: &Lease,
    schema: &str,
    tables: &[&Table],
    steps: &[&str],
) -> Outcome<()> {
    while next(schema, &look(lease, schema).await?, tables, steps)?.is_some() {
        // The session's limits are for calls; a step may take its time, and others wait for it.
        let begin = "BEGIN READ WRITE; SET LOCAL lock_timeout = '300s'; SET LOCAL statement_timeout = '300s'; \
                     SELECT pg_advisory_xact_lock(7305428190246531)";
        lease.run_text(begin, During::Statement).await?;
        // Somebody else may have done it meanwhile.
        let todo = next(schema, &look(lease, schema).await?, tables, steps)?;
        let step = format!("{}COMMIT", todo.unwrap_or_default());
        lease.run_text(&step, During::Commit).await?;
    }
    Ok(())
}

/// How the schema stands; changes nothing. `Refused` as in [`bring_up`].
pub(crate) async fn standing(lease: &Lease, schema: &str, tables: &[&Table]) -> Outcome<Standing> {
    let found = look(lease, schema).await?;
    let ready = next(schema, &found, tables, &STEPS)?.is_none();
    Ok(Standing { version: found.version, known: count(&STEPS), ready })
}

fn count(steps: &[&str]) -> i32 {
    i32::try_from(steps.len()).expect("a short list")
}

async fn look(lease: &Lease, schema: &str) -> Outcome<Found> {
    let sql = format!(
        "SELECT 'schema', nspname::text, '' FROM pg_namespace WHERE nspname = '{schema}' \
         UNION ALL SELECT c.relkind::text, c.relname::text, a.attname::text FROM pg_class AS c \
         JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relnamespace = to_regnamespace('{schema}') AND c.relkind IN ('r', 'p', 'i', 'I')"
    );
    let mut found = Found::default();
    for row in lease.ask(&sql).await? {
        let [Some(kind), Some(name), Some(column)] = &row[..] else { continue };
        match kind.as_str() {
            "schema" => found.exists = true,
            "r" | "p" => {
                found.tables.entry(name.clone()).or_default().insert(column.clone());
            }
            _ => {
                found.indexes.insert(name.clone());
            }
        }
    }
    if found.tables.contains_key("schema_version") {
        let sql = format!("SELECT max(version)::text FROM \"{schema}\".schema_version");
        let version = lease.ask(&sql).await?.into_iter().flatten().flatten().next();
        found.version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
    }
    Ok(found)
}

/// What is to be done next, as the statements of one transaction; `None` where all is there.
fn next(schema: &str, found: &Found, tables: &[&Table], steps: &[&str]) -> Outcome<Option<String>> {
    let known = count(steps);
    if found.version > known {
        return Err(Fault::refused(format!(
            "schema {schema} was made by a newer version: {}, this binary knows {known}; use the \
             newer binary",
            found.version
        )));
    }
    if found.version == 0 {
        check_columns(schema, "outbox", &OUTBOX, found)?;
    }
    for table in tables {
        check_names(table)?;
        // Step 1 leaves tables alone; a later one may be what they wait for.
        if found.version.max(1) == known {
            let wanted: Vec<&str> = OWN.iter().chain(table.index).copied().collect();
            check_columns(schema, table.name, &wanted, found)?;
        }
    }
    if let Some(step) = usize::try_from(found.version).ok().and_then(|at| steps.get(at)) {
        let create = if found.exists { "" } else { &format!("CREATE SCHEMA \"{schema}\";\n") };
        let version = found.version + 1;
        return Ok(Some(format!(
            "{create}CREATE TABLE IF NOT EXISTS schema_version (version int PRIMARY KEY, \
             applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), \"by\" text NOT NULL);\n\
             {step}INSERT INTO schema_version (version, \"by\") VALUES ({version}, '{BY}');\n"
        )));
    }
    let sql: String = tables.iter().map(|table| create(table, found)).collect();
    Ok(Some(sql).filter(|sql| !sql.is_empty()))
}

/// `Refused` for a table that exists with other columns.
fn check_columns(schema: &str, table: &str, wanted: &[&str], found: &Found) -> Outcome<()> {
    let Some(found) = found.tables.get(table) else { return Ok(()) };
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let Some(said) = columns::difference(wanted, &found) else { return Ok(()) };
    Err(Fault::refused(format!(
        "table {schema}.{table} {said}: another version made it, and there is no step between the \
         two; use that version, or an empty schema"
    )))
}

fn check_names(table: &Table) -> Outcome<()> {
    let name = table.name;
    let bad = |column: &&str| !is_plain(column) || OWN.contains(column);
    if !is_plain(name) || TAKEN.contains(&name) || table.index.iter().any(bad) {
        return Err(Fault::refused(format!("not a name for a table or column: {name}")));
    }
    Ok(())
}

/// Creates what of the table does not exist.
fn create(table: &Table, found: &Found) -> String {
    let name = table.name;
    let mut sql = String::new();
    if !found.tables.contains_key(name) {
        let columns = table.index.iter().map(|column| format!(", \"{column}\" text COLLATE \"C\""));
        let columns: String = columns.collect();
        // Room in each page, so that an update of a row without a change of its index values stays
        // in its page and touches no index.
        sql += &format!(
            "CREATE TABLE \"{name}\" (key text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL, \
             body text NOT NULL{columns}) WITH (fillfactor = 80);\n"
        );
    }
    for column in table.index {
        // PostgreSQL keeps 63 bytes of a name.
        let full = format!("{name}_{column}");
        if !found.indexes.contains(&full[..full.len().min(63)]) {
            sql += &format!(
                "CREATE INDEX IF NOT EXISTS \"{full}\" ON \"{name}\" (\"{column}\", key) \
                 WHERE \"{column}\" IS NOT NULL;\n"
            );
        }
    }
    sql
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
