//! Operations as calls of statements, and the rows that came back as replies. Never sends anything.

use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ports::{
    Channel, Fault, Key, Op, OutboxRow, Outcome, Outgoing, Range, Reply, Row, Rows, Shard, Table,
    headers,
};
use tokio_postgres::types::ToSql;

use crate::statement::Statement;

/// A value of a statement.
pub(crate) type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement with its values.
pub(crate) struct Call<'a> {
    pub(crate) statement: Statement,
    pub(crate) parameters: Vec<Parameter<'a>>,
}

impl<'a> Call<'a> {
    pub(crate) fn bare(statement: Statement) -> Self {
        Call { statement, parameters: Vec::new() }
    }

    pub(crate) fn of_keys(statement: Statement, keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let keys: Vec<&str> = keys.into_iter().map(|key| &**key).collect();
        Call { statement, parameters: vec![Box::new(keys)] }
    }
}

/// Whether an operation may run without a transaction.
pub(crate) fn is_read(op: &Op) -> bool {
    matches!(op, Op::Read { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now)
}

/// Whether an operation may have written something that a commit has to keep.
pub(crate) fn writes(op: &Op) -> bool {
    match op {
        Op::Insert { rows, .. } | Op::Put { rows, .. } => !rows.is_empty(),
        Op::Delete { keys, .. } => !keys.is_empty(),
        Op::Append { rows } => !rows.is_empty(),
        Op::Sent { ids } => !ids.is_empty(),
        Op::Lock { .. } | Op::Claim { .. } => false,
        Op::Read { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now => false,
    }
}

/// When an insert asks for the rows whose keys were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loading {
    /// In the same round trip, whether there are any or not.
    Now,
    /// In another one if there are any, which is seldom: its reply has them at version 0.
    Later,
}

/// The calls that an operation takes; none for an empty set.
pub(crate) fn calls(op: &Op, load: Loading) -> Outcome<Vec<Call<'_>>> {
    Ok(match op {
        Op::Insert { table, rows } => {
            check_arity(table, rows)?;
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let insert = write(Statement::Insert(table), table, rows.iter().collect(), false);
            match load {
                Loading::Later => vec![insert],
                Loading::Now => vec![insert, Call::of_keys(Statement::Load(table), rows.keys())],
            }
        }
        Op::Put { table, rows } => {
            check_arity(table, rows)?;
            put(table, rows)
        }
        Op::Lock { keys, .. } | Op::Read { keys, .. } | Op::Delete { keys, .. }
            if keys.is_empty() =>
        {
            Vec::new()
        }
        Op::Lock { table, keys } => vec![
            Call::of_keys(Statement::Lock(table), keys),
            Call::of_keys(Statement::Load(table), keys),
        ],
        Op::Read { table, keys } => vec![Call::of_keys(Statement::Load(table), keys)],
        Op::Delete { table, keys } => vec![Call::of_keys(Statement::Delete(table), keys)],
        Op::Append { rows } if rows.is_empty() => Vec::new(),
        Op::Append { rows } => vec![append(rows)],
        Op::Sent { ids } if ids.is_empty() => Vec::new(),
        Op::Sent { ids } => {
            let ids: Vec<i64> = ids.iter().copied().collect();
            vec![Call { statement: Statement::Sent, parameters: vec![Box::new(ids)] }]
        }
        Op::Claim { table, range } => vec![list(table, range, true)?],
        Op::List { table, range } => vec![list(table, range, false)?],
        Op::Unsent { shard, limit } => {
            let parameters: Vec<Parameter<'_>> =
                vec![Box::new(i32::from(*shard)), Box::new(limit_of(*limit))];
            vec![Call { statement: Statement::Unsent, parameters }]
        }
        Op::Now => vec![Call::bare(Statement::Now)],
    })
}

fn check_arity(table: &Table, rows: &Rows) -> Outcome<()> {
    let fits = rows.values().all(|row| row.index.len() == table.index.len());
    fits.then_some(()).ok_or_else(|| Fault::refused("a row's index values do not fit its table"))
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Keys, versions where they count, bodies and index columns, each as an array.
fn write<'a>(
    statement: Statement,
    table: &Table,
    rows: Vec<(&'a Key, &'a Row)>,
    versions: bool,
) -> Call<'a> {
    let keys: Vec<&str> = rows.iter().map(|(key, _)| &***key).collect();
    let mut parameters: Vec<Parameter<'a>> = vec![Box::new(keys)];
    if versions {
        let versions: Vec<i64> = rows.iter().map(|(_, row)| row.version).collect();
        parameters.push(Box::new(versions));
    }
    let bodies: Vec<&str> = rows.iter().map(|(_, row)| row.body.as_str()).collect();
    parameters.push(Box::new(bodies));
    for column in 0..table.index.len() {
        let value = |(_, row): &(&'a Key, &'a Row)| row.index.get(column)?.as_deref();
        let values: Vec<Option<&str>> = rows.iter().map(value).collect();
        parameters.push(Box::new(values));
    }
    Call { statement, parameters }
}

fn put<'a>(table: &'static Table, rows: &'a Rows) -> Vec<Call<'a>> {
    let (new, old): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, row)| row.version == 0);
    let mut calls = Vec::new();
    for (statement, rows, versions) in
        [(Statement::Create(table), new, false), (Statement::Update(table), old, true)]
    {
        if !rows.is_empty() {
            let count = limit_of(rows.len());
            let mut call = write(statement, table, rows, versions);
            call.parameters.push(Box::new(count));
            calls.push(call);
        }
    }
    calls
}

fn append(rows: &[Outgoing]) -> Call<'_> {
    let channel = |row: &Outgoing| match row.channel {
        Channel::Topic => 0i32,
        Channel::Queue => 1,
    };
    let parameters: Vec<Parameter<'_>> = vec![
        Box::new(rows.iter().map(|row| i32::from(row.shard)).collect::<Vec<_>>()),
        Box::new(rows.iter().map(channel).collect::<Vec<_>>()),
        Box::new(rows.iter().map(|row| &*row.to).collect::<Vec<_>>()),
        Box::new(rows.iter().map(|row| &*row.key).collect::<Vec<_>>()),
        Box::new(rows.iter().map(|row| headers::encode(&row.headers)).collect::<Vec<_>>()),
        Box::new(rows.iter().map(|row| &row.payload[..]).collect::<Vec<_>>()),
    ];
    Call { statement: Statement::Append, parameters }
}

fn list<'a>(table: &'static Table, range: &'a Range, claim: bool) -> Outcome<Call<'a>> {
    if range.column >= table.index.len() {
        return Err(Fault::refused("no such index column"));
    }
    let mut parameters: Vec<Parameter<'a>> =
        vec![Box::new(&*range.from), Box::new(&*range.to), Box::new(limit_of(range.limit))];
    if let Some((value, key)) = &range.after {
        parameters.push(Box::new(value.as_str()));
        parameters.push(Box::new(&**key));
    }
    let statement = Statement::List {
        table,
        column: range.column,
        descending: range.descending,
        after: range.after.is_some(),
        claim,
    };
    Ok(Call { statement, parameters })
}

/// What the calls of an operation gave, as its reply. `results` are theirs alone.
pub(crate) fn reply(
    op: &Op,
    results: &[Vec<tokio_postgres::Row>],
) -> Result<Reply, tokio_postgres::Error> {
    let rows = results.last().map_or(&[][..], Vec::as_slice);
    Ok(match op {
        Op::Insert { table, rows: inserted } => {
            let mut existing = match results {
                [_, loaded] => read_rows(loaded, table)?,
                _ => inserted.keys().map(|key| (key.clone(), Row::default())).collect(),
            };
            for row in results.first().into_iter().flatten() {
                existing.remove(row.try_get::<_, &str>(0)?);
            }
            Reply::Rows(existing)
        }
        Op::Lock { table, keys } => {
            let mut found = read_rows(rows, table)?;
            for key in keys {
                if !found.contains_key(key) {
                    found.insert(key.clone(), Row::default());
                }
            }
            Reply::Rows(found)
        }
        Op::Read { table, .. } => Reply::Rows(read_rows(rows, table)?),
        Op::Claim { table, .. } | Op::List { table, .. } => {
            Reply::Listed(rows.iter().map(|row| read_row(row, table)).collect::<Result<_, _>>()?)
        }
        Op::Unsent { shard, .. } => {
            let outbox = rows.iter().map(|row| read_outbox_row(row, *shard));
            Reply::Outbox(outbox.collect::<Result<_, _>>()?)
        }
        Op::Now => match rows.first() {
            Some(row) => Reply::Now(DateTime::<Utc>::from(row.try_get::<_, SystemTime>(0)?)),
            None => Reply::Done,
        },
        Op::Put { .. } | Op::Delete { .. } | Op::Append { .. } | Op::Sent { .. } => Reply::Done,
    })
}

fn read_rows(rows: &[tokio_postgres::Row], table: &Table) -> Result<Rows, tokio_postgres::Error> {
    rows.iter().map(|row| read_row(row, table)).collect()
}

fn read_row(row: &tokio_postgres::Row, table: &Table) -> Result<(Key, Row), tokio_postgres::Error> {
    let index = (0..table.index.len()).map(|at| row.try_get(at + 3)).collect::<Result<_, _>>()?;
    let key = row.try_get::<_, &str>(0)?.into();
    Ok((key, Row { version: row.try_get(1)?, body: row.try_get(2)?, index }))
}

fn read_outbox_row(
    row: &tokio_postgres::Row,
    shard: Shard,
) -> Result<OutboxRow, tokio_postgres::Error> {
    let headers = headers::decode(row.try_get(5)?);
    let channel = if row.try_get::<_, i32>(2)? == 0 { Channel::Topic } else { Channel::Queue };
    let outgoing = Outgoing {
        shard,
        channel,
        to: row.try_get::<_, &str>(3)?.into(),
        key: row.try_get::<_, &str>(4)?.into(),
        headers: headers.expect("the outbox holds headers as they were encoded"),
        payload: Bytes::copy_from_slice(row.try_get(6)?),
    };
    Ok(OutboxRow { id: row.try_get(0)?, at: row.try_get::<_, SystemTime>(1)?.into(), outgoing })
}
