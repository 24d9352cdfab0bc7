//! The texts of all statements. Never holds a value: values are parameters, sets are arrays, so
//! that each text is prepared once for a connection.
//!
//! A row at version 0 is a placeholder: it exists so that an absent key can be locked. No reader
//! sees it, and it is gone when its transaction ends.

use ports::Table;

/// A statement; what it is about, not yet its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Statement {
    Begin,
    Commit,
    Rollback,
    /// Keys, bodies, index columns. Gives the keys that were new.
    Insert(&'static Table),
    /// Keys. Locks them, with placeholders for those that are absent.
    Lock(&'static Table),
    /// Keys. Gives the rows that exist.
    Load(&'static Table),
    /// Keys, bodies, index columns, count. Writes absent rows; fails where one exists.
    Create(&'static Table),
    /// Keys, versions, bodies, index columns, count. Writes rows; fails where a version differs.
    Update(&'static Table),
    /// Keys.
    Delete(&'static Table),
    /// Keys. Removes those that are still placeholders.
    Unplace(&'static Table),
    /// From, to, limit, and value and key behind which to go on.
    List {
        table: &'static Table,
        column: usize,
        descending: bool,
        after: bool,
        claim: bool,
    },
    /// Shards, channels, destinations, keys, headers, payloads.
    Append,
    /// Ids.
    Sent,
    /// Shard and limit.
    Unsent,
    Now,
}

impl Statement {
    pub(crate) fn sql(self) -> String {
        match self {
            // Else a session writes nothing; see `pool`.
            Statement::Begin => "BEGIN READ WRITE".into(),
            Statement::Commit => "COMMIT".into(),
            Statement::Rollback => "ROLLBACK".into(),
            Statement::Insert(table) => format!("{} RETURNING old.key", insert(table)),
            // The update never happens, but PostgreSQL locks the rows that it would update: one
            // pass in key order over present and absent keys.
            Statement::Lock(table) => format!(
                "INSERT INTO \"{}\" AS old (key, version, body) \
                 SELECT new.key, 0, '' FROM unnest($1::text[]) AS new (key) \
                 ON CONFLICT (key) DO UPDATE SET version = old.version WHERE false",
                table.name
            ),
            Statement::Load(table) => format!(
                "SELECT {} FROM unnest($1::text[]) AS wanted (key) \
                 JOIN \"{}\" AS t ON t.key = wanted.key WHERE t.version > 0",
                columns(table),
                table.name
            ),
            Statement::Create(table) => {
                let count = table.index.len() + 3;
                checked(&format!("{} RETURNING 1", insert(table)), count)
            }
            Statement::Update(table) => update(table),
            Statement::Delete(table) => {
                format!("DELETE FROM \"{}\" WHERE key = ANY ($1::text[])", table.name)
            }
            Statement::Unplace(table) => format!(
                "DELETE FROM \"{}\" WHERE key = ANY ($1::text[]) AND version = 0",
                table.name
            ),
            Statement::List { table, column, descending, after, claim } => {
                list(table, table.index.get(column).unwrap_or(&"key"), descending, after, claim)
            }
            Statement::Append => "INSERT INTO outbox \
                 (shard, channel, destination, key, headers, payload) SELECT * FROM \
                 unnest($1::int[], $2::int[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])"
                .into(),
            Statement::Sent => "DELETE FROM outbox WHERE id = ANY ($1::bigint[])".into(),
            Statement::Unsent => "SELECT id, at, channel, destination, key, headers, payload \
                 FROM outbox WHERE shard = $1::int ORDER BY id LIMIT $2::bigint"
                .into(),
            Statement::Now => "SELECT clock_timestamp()".into(),
        }
    }
}

/// Fails with a division by zero, in the same round trip, where the statement does not give as many
/// rows as the parameter says.
fn checked(statement: &str, parameter: usize) -> String {
    format!(
        "WITH done AS ({statement}) \
         SELECT 1 / (count(*) = ${parameter}::bigint)::int FROM done"
    )
}

fn each(table: &Table, form: impl Fn(usize, &str) -> String) -> String {
    table.index.iter().enumerate().map(|(at, column)| form(at, column)).collect()
}

fn columns(table: &Table) -> String {
    format!("t.key, t.version, t.body{}", each(table, |_, column| format!(", t.\"{column}\"")))
}

/// Writes rows whose keys are absent or placeholders; locks those that exist and leaves them alone.
fn insert(table: &Table) -> String {
    let names = each(table, |_, column| format!(", \"{column}\""));
    let arrays = each(table, |at, _| format!(", ${}::text[]", at + 3));
    let values = each(table, |_, column| format!(", new.\"{column}\""));
    let sets = each(table, |_, column| format!(", \"{column}\" = EXCLUDED.\"{column}\""));
    format!(
        "INSERT INTO \"{}\" AS old (key, version, body{names}) \
         SELECT new.key, 1, new.body{values} \
         FROM unnest($1::text[], $2::text[]{arrays}) AS new (key, body{names}) \
         ON CONFLICT (key) DO UPDATE SET version = 1, body = EXCLUDED.body{sets} \
         WHERE old.version = 0",
        table.name
    )
}

fn update(table: &Table) -> String {
    let names = each(table, |_, column| format!(", \"{column}\""));
    let arrays = each(table, |at, _| format!(", ${}::text[]", at + 4));
    let sets = each(table, |_, column| format!(", \"{column}\" = new.\"{column}\""));
    let update = format!(
        "UPDATE \"{}\" AS t SET version = new.version + 1, body = new.body{sets} \
         FROM unnest($1::text[], $2::bigint[], $3::text[]{arrays}) \
         AS new (key, version, body{names}) \
         WHERE t.key = new.key AND t.version = new.version RETURNING 1",
        table.name
    );
    checked(&update, table.index.len() + 4)
}

fn list(table: &Table, column: &str, descending: bool, after: bool, claim: bool) -> String {
    let (beyond, order) = if descending { ("<", "DESC") } else { (">", "ASC") };
    let after = if after {
        format!(" AND (t.\"{column}\", t.key) {beyond} ($4::text, $5::text)")
    } else {
        String::new()
    };
    let lock = if claim { " FOR UPDATE SKIP LOCKED" } else { "" };
    format!(
        "SELECT {} FROM \"{}\" AS t \
         WHERE t.\"{column}\" >= $1::text AND t.\"{column}\" < $2::text AND t.version > 0{after} \
         ORDER BY t.\"{column}\" {order}, t.key {order} LIMIT $3::bigint{lock}",
        columns(table),
        table.name
    )
}

/// Whether a name can stand in a statement.
pub(crate) fn is_plain(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    name.bytes().next().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    static LEASE: Table = Table { name: "lease", index: &["due", "owner"] };
    static BARE: Table = Table { name: "order", index: &[] };

    #[test]
    fn statements_with_index_columns_number_their_parameters() {
        assert_eq!(
            Statement::Update(&LEASE).sql(),
            "WITH done AS (UPDATE \"lease\" AS t SET version = new.version + 1, body = new.body, \
             \"due\" = new.\"due\", \"owner\" = new.\"owner\" \
             FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[]) \
             AS new (key, version, body, \"due\", \"owner\") \
             WHERE t.key = new.key AND t.version = new.version RETURNING 1) \
             SELECT 1 / (count(*) = $6::bigint)::int FROM done"
        );
        let page = |table, column, claim| Statement::List {
            table,
            column,
            descending: true,
            after: true,
            claim,
        };
        assert_eq!(
            page(&LEASE, 1, true).sql(),
            "SELECT t.key, t.version, t.body, t.\"due\", t.\"owner\" FROM \"lease\" AS t \
             WHERE t.\"owner\" >= $1::text AND t.\"owner\" < $2::text AND t.version > 0 \
             AND (t.\"owner\", t.key) < ($4::text, $5::text) \
             ORDER BY t.\"owner\" DESC, t.key DESC LIMIT $3::bigint FOR UPDATE SKIP LOCKED"
        );
    }

    #[test]
    fn statements_without_index_columns_end_their_lists() {
        assert_eq!(
            Statement::Create(&BARE).sql(),
            "WITH done AS (INSERT INTO \"order\" AS old (key, version, body) \
             SELECT new.key, 1, new.body \
             FROM unnest($1::text[], $2::text[]) AS new (key, body) \
             ON CONFLICT (key) DO UPDATE SET version = 1, body = EXCLUDED.body \
             WHERE old.version = 0 RETURNING 1) \
             SELECT 1 / (count(*) = $3::bigint)::int FROM done"
        );
    }

    #[test]
    fn no_reader_sees_a_placeholder() {
        let list = Statement::List {
            table: &LEASE,
            column: 0,
            descending: false,
            after: false,
            claim: false,
        };
        for statement in [list, Statement::Load(&LEASE)] {
            assert!(statement.sql().contains("t.version > 0"), "{statement:?}");
        }
    }
}
