//! One transaction of the store model: what it holds, what it wrote, and where it stands in its
//! batch of operations. Never changes committed state: that is the database's, at commit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use litemap::LiteMap;
use ports::{Fault, Key, Op, OutboxRow, Outcome, Outgoing, Range, Reply, Rows, Shard, Table};

use super::db::{Instant, Settings, TxId};
use super::outbox::Outbox;
use super::table::{Locked, TableState, Writes};

/// Tables in the order they were prepared.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) states: Vec<TableState>,
}

impl Tables {
    pub(super) fn add(&mut self, table: &'static Table) -> Outcome<()> {
        if let Ok(number) = self.number(table) {
            let same = self.states[number].table.index == table.index;
            return same.then_some(()).ok_or_else(|| Fault::refused("the table has other columns"));
        }
        self.states.push(TableState::new(table));
        Ok(())
    }

    pub(super) fn number(&self, table: &Table) -> Outcome<usize> {
        let same = self.states.iter().position(|state| std::ptr::eq(state.table, table));
        // The same by name is the same, where somebody describes it a second time.
        let number =
            same.or_else(|| self.states.iter().position(|state| state.table.name == table.name));
        number.ok_or_else(|| Fault::refused("no such table"))
    }
}

/// The operations of one round trip.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) ops: VecDeque<Op>,
    pub(super) replies: Vec<Reply>,
    /// Whether the transaction ends with it.
    pub(super) commit: bool,
    /// When its present operation began.
    pub(super) op_since: Duration,
}

/// The key that a transaction waits for.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) table: usize,
    pub(super) key: Key,
    pub(super) since: Duration,
}

#[derive(Debug)]
pub(super) struct TxState {
    pub(super) id: TxId,
    pub(super) client: Arc<str>,
    pub(super) writes: LiteMap<usize, Writes>,
    pub(super) held: Vec<(usize, Key)>,
    pub(super) appended: Vec<OutboxRow>,
    pub(super) sent: BTreeSet<i64>,
    pub(super) batch: Option<Batch>,
    pub(super) blocked: Option<Blocked>,
    pub(super) idle_since: Duration,
    /// Where the present operation goes on when it got the key that it waited for.
    resume: Option<Key>,
}

/// How far a transaction came.
pub(super) enum Step {
    /// The present operation is done; more may follow.
    Replied,
    /// The batch is done.
    Idle,
    /// It waits for a key.
    Blocked,
}

impl TxState {
    pub(super) fn new(id: TxId, client: Arc<str>, now: Duration) -> Self {
        TxState {
            id,
            client,
            writes: LiteMap::new(),
            held: Vec::new(),
            appended: Vec::new(),
            sent: BTreeSet::new(),
            batch: None,
            blocked: None,
            idle_since: now,
            resume: None,
        }
    }

    /// When the server loses patience with it, and what it then says.
    pub(super) fn deadline(&self, settings: &Settings) -> (Duration, &'static str) {
        match (&self.blocked, &self.batch) {
            (Some(blocked), Some(batch)) => {
                let lock = blocked.since.saturating_add(settings.lock_timeout);
                let statement = batch.op_since.saturating_add(settings.statement_timeout);
                if statement < lock {
                    (statement, "statement timeout")
                } else {
                    (lock, "lock timeout")
                }
            }
            _ => {
                let idle = self.idle_since.saturating_add(settings.idle_in_transaction_timeout);
                (idle, "idle-in-transaction timeout")
            }
        }
    }

    /// The wait is over: the key is this transaction's.
    pub(super) fn grant(&mut self) {
        if let Some(blocked) = self.blocked.take() {
            self.held.push((blocked.table, blocked.key.clone()));
            self.resume = Some(blocked.key);
        }
    }

    /// Does the next operation of the batch, or as much of its locking as is possible.
    pub(super) fn step(
        &mut self,
        tables: &mut Tables,
        outbox: &mut Outbox,
        now: &Instant,
    ) -> Outcome<Step> {
        let Some(batch) = &self.batch else { return Ok(Step::Idle) };
        let Some(op) = batch.ops.front() else { return Ok(Step::Idle) };
        let resume = &self.resume;
        let to_do = |key: &&Key| resume.as_ref().is_none_or(|from| *key > from);
        let (id, held) = (self.id, &mut self.held);
        let queued = match op {
            Op::Insert { table, rows } | Op::Put { table, rows } => {
                let number = tables.number(table)?;
                let arity = tables.states[number].table.index.len();
                if rows.values().any(|row| row.index.len() != arity) {
                    return Err(Fault::refused("a row's index values do not fit its table"));
                }
                lock(id, held, tables, number, rows.keys().filter(to_do))
            }
            Op::Lock { table, keys } | Op::Delete { table, keys } => {
                let number = tables.number(table)?;
                lock(id, held, tables, number, keys.iter().filter(to_do))
            }
            _ => None,
        };
        if let Some((table, key)) = queued {
            self.blocked = Some(Blocked { table, key, since: now.elapsed });
            return Ok(Step::Blocked);
        }
        self.resume = None;
        let op = self.batch.as_mut().and_then(|batch| batch.ops.pop_front());
        let Some(op) = op else { return Ok(Step::Idle) };
        let reply = self.apply(op, tables, outbox, now)?;
        if let Some(batch) = &mut self.batch {
            batch.replies.push(reply);
            batch.op_since = now.elapsed;
        }
        Ok(Step::Replied)
    }

    /// An operation whose keys are all held.
    fn apply(
        &mut self,
        op: Op,
        tables: &mut Tables,
        outbox: &mut Outbox,
        now: &Instant,
    ) -> Outcome<Reply> {
        Ok(match op {
            Op::Insert { table, rows } => {
                let number = tables.number(table)?;
                Reply::Rows(self.insert(&tables.states[number], number, rows))
            }
            Op::Lock { table, keys } => {
                let number = tables.number(table)?;
                let writes = self.writes.get(&number);
                let seen = |key: &Key| tables.states[number].seen(writes, key).cloned();
                Reply::Rows(
                    keys.into_iter()
                        .map(|key| (key.clone(), seen(&key).unwrap_or_default()))
                        .collect(),
                )
            }
            Op::Put { table, rows } => {
                let number = tables.number(table)?;
                self.put(&tables.states[number], number, rows)?
            }
            Op::Delete { table, keys } => {
                let writes = self.writes.entry(tables.number(table)?).or_default();
                writes.extend(keys.into_iter().map(|key| (key, None)));
                Reply::Done
            }
            Op::Append { rows } => {
                self.append(rows, outbox, now);
                Reply::Done
            }
            Op::Sent { ids } => {
                self.appended.retain(|row| !ids.contains(&row.id));
                self.sent.extend(ids);
                Reply::Done
            }
            Op::Claim { table, range } => self.claim(tables, table, &range)?,
            Op::Read { .. } | Op::List { .. } | Op::Unsent { .. } | Op::Now => {
                read(op, tables, outbox, Some(self), now)?
            }
        })
    }

    fn insert(&mut self, table: &TableState, number: usize, rows: Rows) -> Rows {
        let writes = self.writes.entry(number).or_default();
        let mut existing = Rows::new();
        for (key, mut row) in rows {
            match table.seen(Some(writes), &key) {
                Some(found) => drop(existing.insert(key, found.clone())),
                None => {
                    row.version = 1;
                    writes.insert(key, Some(row));
                }
            }
        }
        existing
    }

    fn put(&mut self, table: &TableState, number: usize, rows: Rows) -> Outcome<Reply> {
        let writes = self.writes.entry(number).or_default();
        for (key, mut row) in rows {
            if table.seen(Some(writes), &key).map_or(0, |found| found.version) != row.version {
                return Err(Fault::retry("a row has another version"));
            }
            row.version += 1;
            writes.insert(key, Some(row));
        }
        Ok(Reply::Done)
    }

    fn append(&mut self, rows: Vec<Outgoing>, outbox: &mut Outbox, now: &Instant) {
        let row = |outgoing| OutboxRow { id: outbox.draw(), at: now.wall, outgoing };
        self.appended.extend(rows.into_iter().map(row));
    }

    fn claim(&mut self, tables: &mut Tables, table: &Table, range: &Range) -> Outcome<Reply> {
        let number = tables.number(table)?;
        let state = &mut tables.states[number];
        check_column(state, range)?;
        let free = |key: &Key| state.holder(key).is_none_or(|holder| holder == self.id);
        let claimed = state.list(self.writes.get(&number), range, free);
        for (key, _) in &claimed {
            if state.lock(key, self.id) == Some(Locked::Taken) {
                self.held.push((number, key.clone()));
            }
        }
        Ok(Reply::Listed(claimed))
    }
}

/// Locks key after key; tells the first for which it has to wait.
fn lock<'a>(
    id: TxId,
    held: &mut Vec<(usize, Key)>,
    tables: &mut Tables,
    number: usize,
    keys: impl Iterator<Item = &'a Key>,
) -> Option<(usize, Key)> {
    for key in keys {
        match tables.states[number].lock(key, id) {
            None => {}
            Some(Locked::Taken) => held.push((number, key.clone())),
            Some(Locked::Queued) => return Some((number, key.clone())),
        }
    }
    None
}

/// Committed rows, and where it is asked within a transaction its own writes too.
pub(super) fn read(
    op: Op,
    tables: &Tables,
    outbox: &Outbox,
    tx: Option<&TxState>,
    now: &Instant,
) -> Outcome<Reply> {
    Ok(match op {
        Op::Read { table, keys } => {
            let number = tables.number(table)?;
            let writes = tx.and_then(|tx| tx.writes.get(&number));
            let seen =
                |key: Key| tables.states[number].seen(writes, &key).cloned().map(|row| (key, row));
            Reply::Rows(keys.into_iter().filter_map(seen).collect())
        }
        Op::List { table, range } => {
            let number = tables.number(table)?;
            check_column(&tables.states[number], &range)?;
            let writes = tx.and_then(|tx| tx.writes.get(&number));
            Reply::Listed(tables.states[number].list(writes, &range, |_| true))
        }
        Op::Unsent { shard, limit } => Reply::Outbox(unsent(outbox, tx, shard, limit)),
        Op::Now => Reply::Now(now.wall),
        _ => return Err(Fault::refused("not a read")),
    })
}

fn unsent(outbox: &Outbox, tx: Option<&TxState>, shard: Shard, limit: usize) -> Vec<OutboxRow> {
    let committed = outbox.of_shard(shard);
    let Some(tx) = tx else { return committed.take(limit).cloned().collect() };
    let unsent = |row: &&OutboxRow| !tx.sent.contains(&row.id);
    let mut rows: Vec<OutboxRow> = committed.filter(unsent).take(limit).cloned().collect();
    rows.extend(tx.appended.iter().filter(|row| row.outgoing.shard == shard).cloned());
    rows.sort_by_key(|row| row.id);
    rows.truncate(limit);
    rows
}

fn check_column(table: &TableState, range: &Range) -> Outcome<()> {
    let known = range.column < table.table.index.len();
    known.then_some(()).ok_or_else(|| Fault::refused("no such index column"))
}
