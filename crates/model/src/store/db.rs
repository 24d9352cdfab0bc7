//! The database of the store model: open transactions, who waits for whom, and committed state.
//! Never waits itself: answers come back as a list when they are ready, and time only passes
//! through [`Db::expire`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use litemap::LiteMap;
use ports::{Fault, Key, Op, OutboxRow, Outcome, Reply, Row, Table};

use super::outbox::Outbox;
use super::table::TableState;
use super::tx::{Batch, Step, Tables, TxState, read};

/// A transaction of one [`Db`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxId(u64);

/// The answer to the batch of operations that this transaction had in flight.
pub type Answer = (TxId, Outcome<Vec<Reply>>);

/// The server's clocks at the time of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    /// Monotonic; for time-outs.
    pub elapsed: Duration,
    /// The wall clock; for [`Op::Now`] and outbox rows.
    pub wall: DateTime<Utc>,
}

/// How long the server lets a transaction wait or sit. Named as PostgreSQL names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// For one key.
    pub lock_timeout: Duration,
    /// For one operation.
    pub statement_timeout: Duration,
    /// Between two round trips: a silent holder lets go.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(5),
        }
    }
}

/// A database: tables, an outbox, and open transactions of clients.
#[derive(Debug)]
pub struct Db {
    settings: Settings,
    tables: Tables,
    outbox: Outbox,
    /// Few at a time, and the next one has the highest id.
    open: LiteMap<TxId, TxState>,
    next_tx: u64,
    /// Not later than the earliest deadline of an open transaction.
    patience: Duration,
    /// How many transactions have committed.
    commits: u64,
}

impl Db {
    /// An empty database.
    pub fn new(settings: Settings) -> Self {
        Db {
            settings,
            tables: Tables::default(),
            outbox: Outbox::new(),
            open: LiteMap::new(),
            next_tx: 1,
            patience: Duration::MAX,
            commits: 0,
        }
    }

    /// Creates the tables that do not exist. `Refused` where one exists with other columns.
    pub fn prepare(&mut self, tables: &[&'static Table]) -> Outcome<()> {
        tables.iter().try_for_each(|table| self.tables.add(table))
    }

    /// Opens a transaction, without an operation yet.
    pub fn begin(&mut self, client: Arc<str>, now: Instant) -> TxId {
        let id = TxId(self.next_tx);
        self.next_tx += 1;
        self.insert(TxState::new(id, client, now.elapsed));
        id
    }

    /// Runs operations in a transaction. Its answer is in the list, or in that of a later call
    /// when it has to wait. An answer that is a fault ended the transaction, without effect.
    pub fn submit(&mut self, tx: TxId, ops: Vec<Op>, now: Instant) -> Vec<Answer> {
        self.start(tx, ops, false, now)
    }

    /// Runs operations and commits: all writes at once, then all locks are free.
    pub fn commit(&mut self, tx: TxId, ops: Vec<Op>, now: Instant) -> Vec<Answer> {
        self.start(tx, ops, true, now)
    }

    /// Ends a transaction without effect; one that is gone already is fine.
    pub fn rollback(&mut self, tx: TxId, now: Instant) -> Vec<Answer> {
        let mut ready = VecDeque::new();
        self.end(tx, &mut ready);
        self.advance(ready, now)
    }

    /// The client's connections are gone: its transactions roll back (broker-contract D6). What it
    /// waited for is answered all the same, a commit with `Unknown`.
    pub fn disconnect(&mut self, client: &str, now: Instant) -> Vec<Answer> {
        let of_client = |tx: &&TxState| &*tx.client == client;
        let gone: Vec<TxId> = self.open.values().filter(of_client).map(|tx| tx.id).collect();
        self.cut(gone, now)
    }

    /// The server crashed and came back: committed state is kept, the rest lost
    /// (broker-contract D8).
    pub fn restart(&mut self, now: Instant) -> Vec<Answer> {
        self.outbox.skip_logged_block();
        self.cut(self.open.keys().copied().collect(), now)
    }

    /// Aborts what waited or sat too long, in the order of the deadlines.
    pub fn expire(&mut self, now: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        while self.patience <= now.elapsed {
            let deadline = |tx: &TxState| (tx.deadline(&self.settings).0, tx.id);
            let Some((due, id)) = self.open.values().map(deadline).min() else {
                self.patience = Duration::MAX;
                break;
            };
            self.patience = due;
            if due > now.elapsed {
                break;
            }
            let cause = self.open.get(&id).map_or("", |tx| tx.deadline(&self.settings).1);
            let mut ready = VecDeque::new();
            self.abort(id, Fault::retry(cause), &mut ready, &mut answers);
            answers.extend(self.advance(ready, now));
        }
        answers
    }

    /// When [`Db::expire`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.open.values().map(|tx| tx.deadline(&self.settings).0).min()
    }

    /// Reads committed state, without a transaction.
    pub fn read(&self, ops: Vec<Op>, now: Instant) -> Outcome<Vec<Reply>> {
        ops.into_iter().map(|op| read(op, &self.tables, &self.outbox, None, &now)).collect()
    }

    /// Whether the answer of this transaction is still to come.
    pub fn is_waiting(&self, tx: TxId) -> bool {
        self.open.get(&tx).is_some_and(|tx| tx.blocked.is_some())
    }

    /// How many transactions have committed: where it has not risen, no row has changed.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Whose transactions are open: a client's name for each.
    pub fn open_clients(&self) -> impl Iterator<Item = &str> {
        self.open.values().map(|tx| &*tx.client)
    }

    /// How many transactions are open.
    pub fn open_transactions(&self) -> usize {
        self.open.len()
    }

    /// A table's committed rows, for verdicts. Empty where there is no such table.
    pub fn rows(&self, table: &Table) -> impl Iterator<Item = (&Key, &Row)> {
        self.state(table).into_iter().flat_map(TableState::rows)
    }

    /// Those of a table's committed rows that were written after so many commits, in the order of their last
    /// writing. What was deleted since is not told.
    pub fn rows_since(&self, table: &Table, commits: u64) -> impl Iterator<Item = (&Key, &Row)> {
        self.state(table).into_iter().flat_map(move |state| state.rows_since(commits))
    }

    /// A committed row, for verdicts.
    pub fn row(&self, table: &Table, key: &str) -> Option<&Row> {
        self.state(table)?.row(key)
    }

    fn state(&self, table: &Table) -> Option<&TableState> {
        self.tables.number(table).ok().map(|number| &self.tables.states[number])
    }

    /// The outbox's committed rows by id, for verdicts.
    pub fn outbox(&self) -> impl Iterator<Item = &OutboxRow> {
        self.outbox.rows()
    }

    fn insert(&mut self, tx: TxState) {
        self.patience = self.patience.min(tx.deadline(&self.settings).0);
        self.open.insert(tx.id, tx);
    }

    fn start(&mut self, id: TxId, ops: Vec<Op>, commit: bool, now: Instant) -> Vec<Answer> {
        let Some(tx) = self.open.get_mut(&id) else {
            return vec![(id, Err(Fault::retry("the transaction was rolled back")))];
        };
        if tx.batch.is_some() {
            return vec![(id, Err(Fault::refused("the transaction has an answer to come")))];
        }
        let replies = Vec::with_capacity(ops.len());
        tx.batch = Some(Batch { ops: ops.into(), replies, commit, op_since: now.elapsed });
        self.advance(VecDeque::from([id]), now)
    }

    /// Lets these transactions go on, and those that get their locks.
    fn advance(&mut self, mut ready: VecDeque<TxId>, now: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(id) = ready.pop_front() {
            let Some(tx) = self.open.get_mut(&id) else { continue };
            let stopped = loop {
                match tx.step(&mut self.tables, &mut self.outbox, &now) {
                    Ok(Step::Replied) => {}
                    stopped => break stopped,
                }
            };
            match stopped {
                Err(fault) => self.abort(id, fault, &mut ready, &mut answers),
                Ok(Step::Blocked) if self.closes_cycle(id) => {
                    self.abort(id, Fault::retry("deadlock detected"), &mut ready, &mut answers);
                }
                Ok(Step::Blocked) => {
                    let deadline = tx_deadline(&self.open, id, &self.settings);
                    self.patience = self.patience.min(deadline);
                }
                Ok(Step::Idle | Step::Replied) => self.finish(id, now, &mut ready, &mut answers),
            }
        }
        answers
    }

    /// The batch is done: answers, and commits where that was asked.
    fn finish(
        &mut self,
        id: TxId,
        now: Instant,
        ready: &mut VecDeque<TxId>,
        answers: &mut Vec<Answer>,
    ) {
        let Some(tx) = self.open.get_mut(&id) else { return };
        let Some(batch) = tx.batch.take() else { return };
        tx.idle_since = now.elapsed;
        answers.push((id, Ok(batch.replies)));
        if !batch.commit {
            self.patience = self.patience.min(tx.deadline(&self.settings).0);
            return;
        }
        let Some(tx) = self.end(id, ready) else { return };
        self.commits += 1;
        for (number, writes) in tx.writes {
            self.tables.states[number].apply(writes, self.commits);
        }
        for id in tx.sent {
            self.outbox.remove(id);
        }
        for row in tx.appended {
            self.outbox.insert(row);
        }
    }

    /// Ends a transaction with a fault for whoever waits for its answer.
    fn abort(
        &mut self,
        id: TxId,
        fault: Fault,
        ready: &mut VecDeque<TxId>,
        answers: &mut Vec<Answer>,
    ) {
        if self.end(id, ready).is_some_and(|tx| tx.batch.is_some()) {
            answers.push((id, Err(fault)));
        }
    }

    fn cut(&mut self, gone: Vec<TxId>, now: Instant) -> Vec<Answer> {
        let (mut ready, mut answers) = (VecDeque::new(), Vec::new());
        for id in &gone {
            let tx = self.open.get(id);
            let commit = tx.and_then(|tx| tx.batch.as_ref()).is_some_and(|batch| batch.commit);
            let fault = if commit {
                Fault::unknown("connection lost during the commit")
            } else {
                Fault::retry("connection lost")
            };
            self.abort(*id, fault, &mut ready, &mut answers);
        }
        answers.extend(self.advance(ready, now));
        answers
    }

    /// Takes a transaction out and hands its locks on.
    fn end(&mut self, id: TxId, ready: &mut VecDeque<TxId>) -> Option<TxState> {
        let mut tx = self.open.remove(&id)?;
        if let Some(blocked) = &tx.blocked {
            self.tables.states[blocked.table].stop_waiting(&blocked.key, id);
        }
        for (number, key) in tx.held.drain(..) {
            let Some(next) = self.tables.states[number].unlock(&key) else { continue };
            if let Some(waiter) = self.open.get_mut(&next) {
                waiter.grant();
                ready.push_back(next);
            }
        }
        Some(tx)
    }

    /// Whether the wait that `id` just began leads back to it. Each transaction waits for at most
    /// one key, and each key has one holder: the way is a chain.
    fn closes_cycle(&self, id: TxId) -> bool {
        let mut at = id;
        while let Some(blocked) = self.open.get(&at).and_then(|tx| tx.blocked.as_ref()) {
            match self.tables.states[blocked.table].holder(&blocked.key) {
                Some(holder) if holder == id => return true,
                Some(holder) => at = holder,
                None => return false,
            }
        }
        false
    }
}

fn tx_deadline(open: &LiteMap<TxId, TxState>, id: TxId, settings: &Settings) -> Duration {
    open.get(&id).map_or(Duration::MAX, |tx| tx.deadline(settings).0)
}
