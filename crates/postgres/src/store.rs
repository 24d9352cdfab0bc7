//! The store on a pool of connections. A transaction owns its connection. Never waits for one
//! statement before it sends the next of the same call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use ports::{Fault, Op, Outcome, Reply, Store, Table, Tx};

use crate::about::About;
use crate::address::Address;
use crate::classify::{During, classify, keeps_session, silent};
use crate::pipeline::{self, Call, Loading};
use crate::placeholders::Placeholders;
use crate::pool::{Lease, Pool, Results};
use crate::schema::{self, STEPS, Standing};
use crate::statement::{self, Statement};

/// Connections of a store where nothing else is said.
const CONNECTIONS: usize = 8;

/// A service's schema in a PostgreSQL database (15 or later).
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(crate) pool: Arc<Pool>,
    schema: Arc<str>,
    tables: Arc<RwLock<BTreeSet<&'static str>>>,
}

impl PostgresStore {
    /// Connects to the server at `url` (`postgres://user@host:port/database`, for TLS with libpq's
    /// parameters `sslmode`, `sslrootcert`, `sslcert` and `sslkey`), for tables in `schema`
    /// (`[a-z_][a-z0-9_]*`). `Refused` where one of the two cannot be read.
    pub async fn connect(url: &str, schema: &str) -> Outcome<Self> {
        Self::connect_with(url, schema, CONNECTIONS).await
    }

    /// The same, with at most `connections` (at least 1) open at a time.
    pub async fn connect_with(url: &str, schema: &str, connections: usize) -> Outcome<Self> {
        let address = Address::parse(url)?;
        if !statement::is_plain(schema) {
            return Err(Fault::refused("not a name for a schema"));
        }
        let pool = Arc::new(Pool::new(address, schema, connections.max(1)));
        pool.lease().await?.give_back();
        Ok(PostgresStore { pool, schema: schema.into(), tables: Arc::default() })
    }

    /// How the schema stands to what [`Store::prepare`] would make of it; changes nothing. `Refused` where it
    /// would refuse.
    pub async fn standing(&self, tables: &[&'static Table]) -> Outcome<Standing> {
        let lease = self.pool.lease().await?;
        let standing = schema::standing(&lease, &self.schema, tables).await?;
        lease.give_back();
        Ok(standing)
    }

    /// Who the server is, and what we may do there; changes nothing.
    pub async fn about(&self) -> Outcome<About> {
        let lease = self.pool.lease().await?;
        let about = About::ask(&lease, &self.schema).await?;
        lease.give_back();
        Ok(about)
    }

    /// `Refused` for a table that was not prepared: no later try would find it.
    fn check_tables(&self, ops: &[Op]) -> Outcome<()> {
        let known = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let missing = |op: &Op| table_of(op).is_some_and(|table| !known.contains(table.name));
        if ops.iter().any(missing) {
            return Err(Fault::refused("no such table"));
        }
        Ok(())
    }

    async fn open(&self) -> Outcome<PostgresTx> {
        let lease = self.pool.lease().await?;
        Ok(PostgresTx {
            lease: Some(lease),
            store: self.clone(),
            begun: false,
            in_flight: false,
            wrote: false,
            placeholders: Placeholders::default(),
        })
    }
}

fn table_of(op: &Op) -> Option<&'static Table> {
    match op {
        Op::Insert { table, .. }
        | Op::Lock { table, .. }
        | Op::Put { table, .. }
        | Op::Delete { table, .. }
        | Op::Claim { table, .. }
        | Op::Read { table, .. }
        | Op::List { table, .. } => Some(table),
        Op::Append { .. } | Op::Sent { .. } | Op::Unsent { .. } | Op::Now => None,
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        let lease = self.pool.lease().await?;
        schema::bring_up(&lease, &self.schema, tables, &STEPS).await?;
        lease.give_back();
        let mut known = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(tables.iter().map(|table| table.name));
        Ok(())
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut tx = self.open().await?;
        let replies = tx.call(&ops, End::Open).await?;
        Ok((Box::new(tx), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        if !ops.iter().all(pipeline::is_read) {
            return Err(Fault::refused("not a read"));
        }
        self.check_tables(&ops)?;
        let mut lease = self.pool.lease().await?;
        let (calls, spans) = plan(&ops, End::Open)?;
        lease.prepare(&calls).await?;
        let results = lease.run(&calls).await;
        let results = results.ok_or_else(|| silent(During::Statement))?;
        let rows: Result<Vec<_>, _> = results.into_iter().collect();
        let replies = rows.and_then(|rows| replies(&ops, &spans, rows));
        let replies = replies.map_err(|error| classify(&error, During::Statement))?;
        lease.give_back();
        Ok(replies)
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.open().await?.call(&ops, End::Commit).await
    }
}

/// The calls of all operations, and how many each operation has.
fn plan(ops: &[Op], end: End) -> Outcome<(Vec<Call<'_>>, Vec<usize>)> {
    let mut calls = Vec::new();
    let mut spans = Vec::with_capacity(ops.len());
    for (at, op) in ops.iter().enumerate() {
        let load = match end == End::Open && !changed(op, &ops[at + 1..]) {
            true => Loading::Later,
            false => Loading::Now,
        };
        let more = pipeline::calls(op, load)?;
        spans.push(more.len());
        calls.extend(more);
    }
    Ok((calls, spans))
}

/// Whether later operations may change rows of its table.
fn changed(op: &Op, later: &[Op]) -> bool {
    later.iter().any(|later| {
        matches!(later, Op::Put { .. } | Op::Delete { .. }) && table_of(later) == table_of(op)
    })
}

fn replies(
    ops: &[Op],
    spans: &[usize],
    rows: Vec<Vec<tokio_postgres::Row>>,
) -> Result<Vec<Reply>, tokio_postgres::Error> {
    let mut rest = &rows[..];
    let mut replies = Vec::with_capacity(ops.len());
    for (op, span) in ops.iter().zip(spans) {
        let (own, others) = rest.split_at_checked(*span).unwrap_or((rest, &[]));
        replies.push(pipeline::reply(op, own)?);
        rest = others;
    }
    Ok(replies)
}

/// Whether a call ends its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Commit,
}

/// What was under way when a statement failed: the last of its call or not, in a call that commits or not.
fn during(last: bool, commits: bool) -> During {
    match (commits, last) {
        (true, true) => During::Commit,
        (true, false) => During::StatementBeforeCommit,
        (false, _) => During::Statement,
    }
}

struct PostgresTx {
    /// `None` once the transaction has ended.
    lease: Option<Lease>,
    store: PostgresStore,
    begun: bool,
    /// A call was sent and not all of its answers came.
    in_flight: bool,
    /// There is something that a commit has to keep.
    wrote: bool,
    placeholders: Placeholders,
}

impl PostgresTx {
    /// The beginning where it is the first, the operations, the end where it is the last: in one round
    /// trip, and another one where an insert met rows that were there.
    async fn call(&mut self, ops: &[Op], end: End) -> Outcome<Vec<Reply>> {
        let result = self.try_call(ops, end).await;
        if result.is_err() {
            self.abandon();
        }
        result
    }

    async fn try_call(&mut self, ops: &[Op], end: End) -> Outcome<Vec<Reply>> {
        let mut replies = self.round_trip(ops, end).await?;
        for (op, reply) in ops.iter().zip(&mut replies) {
            if let (Op::Insert { table, .. }, Reply::Rows(existing)) = (op, reply)
                && existing.values().any(|row| row.version == 0)
            {
                let keys = existing.keys().cloned().collect();
                let load = [Op::Read { table, keys }];
                if let Some(Reply::Rows(loaded)) = self.round_trip(&load, End::Open).await?.pop() {
                    *existing = loaded;
                }
            }
        }
        Ok(replies)
    }

    async fn round_trip(&mut self, ops: &[Op], end: End) -> Outcome<Vec<Reply>> {
        self.store.check_tables(ops)?;
        let (own, spans) = plan(ops, end)?;
        self.wrote |= ops.iter().any(pipeline::writes);
        self.placeholders.sending(ops);
        let left = if end == End::Commit && self.wrote {
            self.placeholders.take()
        } else {
            BTreeMap::new()
        };
        let mut calls = Vec::with_capacity(own.len() + left.len() + 2);
        if !self.begun {
            calls.push(Call::bare(Statement::Begin));
        }
        let first = calls.len();
        calls.extend(own);
        let last = calls.len();
        calls.extend(left.iter().map(|(t, keys)| Call::of_keys(Statement::Unplace(t), keys)));
        if end == End::Commit {
            // What wrote nothing has nothing to sync.
            let ending = if self.wrote { Statement::Commit } else { Statement::Rollback };
            calls.push(Call::bare(ending));
        }
        if calls.is_empty() {
            // Sets that are empty: nothing to ask, and each operation has its own empty reply.
            return replies(ops, &spans, Vec::new())
                .map_err(|error| classify(&error, During::Statement));
        }
        let commits = end == End::Commit && self.wrote;
        let mut results = self.send(&calls, commits).await?;
        let own = results.drain(first..last).filter_map(Result::ok).collect();
        let replies = replies(ops, &spans, own).map_err(|error| {
            let during = if commits { During::Commit } else { During::Statement };
            classify(&error, during)
        })?;
        self.placeholders.answered(ops, &replies);
        if end == End::Commit
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
        Ok(replies)
    }

    /// Sends the calls and takes their answers. Ok only where all of them succeeded: a COMMIT
    /// behind a failed statement is answered with success too (broker-contract D9).
    async fn send(&mut self, calls: &[Call<'_>], commits: bool) -> Outcome<Results> {
        let gone = || Fault::retry("the transaction was rolled back");
        let lease = self.lease.as_mut().ok_or_else(gone)?;
        self.in_flight = true;
        if lease.is_closed() {
            return Err(gone());
        }
        lease.prepare(calls).await?;
        let results = lease.run(calls).await;
        let end = if commits { During::Commit } else { During::Statement };
        let results = results.ok_or_else(|| silent(end))?;
        self.begun = true;
        let last = results.len().saturating_sub(1);
        for (at, result) in results.iter().enumerate() {
            let Err(error) = result else { continue };
            self.in_flight = !keeps_session(error);
            return Err(classify(error, during(at == last, commits)));
        }
        self.in_flight = false;
        Ok(results)
    }

    /// Rolls back in the background, where the connection's state is known; closes it otherwise.
    fn abandon(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        match (self.in_flight, self.begun) {
            (true, _) => drop(lease),
            (false, true) => lease.roll_back(),
            (false, false) => lease.give_back(),
        }
    }
}

#[async_trait]
impl Tx for PostgresTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.call(&ops, End::Open).await
    }

    async fn commit(mut self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        self.call(&ops, End::Commit).await.map(drop)
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_what_was_under_way() {
        let table = [
            (true, true, During::Commit),
            (false, true, During::StatementBeforeCommit),
            (true, false, During::Statement),
            (false, false, During::Statement),
        ];
        for (last, commits, expected) in table {
            assert_eq!(during(last, commits), expected);
        }
    }
}
