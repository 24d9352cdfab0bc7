//! What was committed, in order, and the proof that it might as well have happened one after the other:
//! the same operations, run one transaction at a time on the model, see the same locked rows and leave the
//! same rows behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use model::store::{Db, Instant, Settings};
use ports::{Key, Op, OutboxRow, Outcome, Reply, Row, Rows, Store, Table, Tx};

use crate::turns::Turns;

/// One transaction that was committed.
type Committed = Vec<(Op, Reply)>;

/// Keys that were written or locked.
type Touched = BTreeMap<&'static Table, BTreeSet<Key>>;

/// A store whose transactions take turns, statement by statement, and are written down.
pub struct Interleaved {
    store: Arc<dyn Store>,
    history: Arc<History>,
}

/// What happened in a database.
pub struct History {
    turns: Turns,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    tables: BTreeSet<&'static Table>,
    committed: Vec<Committed>,
    /// Outbox rows as the relay read them, by id.
    outbox: BTreeMap<i64, (Key, Bytes)>,
}

impl History {
    /// Nothing yet.
    pub fn new(turns: Turns) -> Arc<History> {
        Arc::new(History { turns, seen: Mutex::default() })
    }

    /// A client of the database that writes down here.
    pub fn of(self: &Arc<Self>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Interleaved { store, history: self.clone() })
    }

    /// The turns that it takes.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs everything again, one after the other, and compares. How many transactions there were; an
    /// error says which one saw something else.
    pub async fn check(&self, store: &dyn Store) -> Result<usize, String> {
        let (db, keys) = self.replay()?;
        let tables: Vec<_> = keys.keys().copied().collect();
        store.prepare(&tables).await.map_err(|fault| fault.to_string())?;
        for (table, keys) in keys {
            let serial: Rows = keys
                .iter()
                .filter_map(|key| Some((key.clone(), db.row(table, key)?.clone())))
                .collect();
            let read = store.read(vec![Op::Read { table, keys }]).await;
            let real = rows(read.map_err(|fault| fault.to_string())?.pop());
            same(&format!("at the end, {}", table.name), &serial, &real)?;
        }
        self.outbox_in_order()?;
        Ok(self.lock().committed.len())
    }

    fn replay(&self) -> Result<(Db, Touched), String> {
        let seen = self.lock();
        let mut db = Db::new(Settings::default());
        let tables: Vec<_> = seen.tables.iter().copied().collect();
        db.prepare(&tables).map_err(|fault| fault.to_string())?;
        let mut keys = Touched::new();
        let now = Instant { elapsed: Duration::ZERO, wall: DateTime::UNIX_EPOCH };
        for (at, committed) in seen.committed.iter().enumerate() {
            let tx = db.begin("serial".into(), now);
            for (op, real) in committed {
                let Some((op, real)) = locking(op, real) else { continue };
                let (table, touched) = touched(&op);
                keys.entry(table).or_default().extend(touched);
                let what = format!("transaction {at}, {}", table.name);
                let mut answers = db.submit(tx, vec![op], now);
                let answer = answers.pop().ok_or(format!("{what}: waits for a lock, alone"))?.1;
                let serial = answer.map_err(|fault| format!("{what}: {fault}"))?.pop();
                if let Some(real) = real {
                    same(&what, &rows(serial), &real)?;
                }
            }
            db.commit(tx, Vec::new(), now);
        }
        Ok((db, keys))
    }

    /// The rows of one key have rising ids in the order of their commits (broker-contract D1).
    fn outbox_in_order(&self) -> Result<(), String> {
        let seen = self.lock();
        let mut appended: BTreeMap<Key, Vec<Bytes>> = BTreeMap::new();
        for (op, _) in seen.committed.iter().flatten() {
            let Op::Append { rows } = op else { continue };
            for row in rows {
                appended.entry(row.key.clone()).or_default().push(row.payload.clone());
            }
        }
        let mut sent: BTreeMap<Key, Vec<Bytes>> = BTreeMap::new();
        for (key, payload) in seen.outbox.values() {
            sent.entry(key.clone()).or_default().push(payload.clone());
        }
        match appended == sent {
            true => Ok(()),
            false => Err("the outbox gave other rows than were appended, or another order".into()),
        }
    }
}

/// The operation as it is run again: a claim took the keys that were free, which a lock takes too. `None`
/// for what holds no lock. With the rows that it saw.
fn locking(op: &Op, reply: &Reply) -> Option<(Op, Option<Rows>)> {
    Some(match (op, reply) {
        (Op::Insert { .. } | Op::Lock { .. }, Reply::Rows(rows)) => {
            (op.clone(), Some(rows.clone()))
        }
        (Op::Claim { table, .. }, Reply::Listed(listed)) => {
            let keys = listed.iter().map(|(key, _)| key.clone()).collect();
            (Op::Lock { table, keys }, Some(listed.iter().cloned().collect()))
        }
        (Op::Put { .. } | Op::Delete { .. }, _) => (op.clone(), None),
        _ => return None,
    })
}

fn touched(op: &Op) -> (&'static Table, Vec<Key>) {
    match op {
        Op::Insert { table, rows } | Op::Put { table, rows } => {
            (table, rows.keys().cloned().collect())
        }
        Op::Lock { table, keys } | Op::Delete { table, keys } => {
            (table, keys.iter().cloned().collect())
        }
        other => panic!("{other:?} holds no lock"),
    }
}

fn rows(reply: Option<Reply>) -> Rows {
    match reply {
        Some(Reply::Rows(rows)) => rows,
        Some(Reply::Done) => Rows::new(),
        other => panic!("{other:?} where rows were due"),
    }
}

fn same(what: &str, serial: &Rows, real: &Rows) -> Result<(), String> {
    let keys: BTreeSet<&Key> = serial.keys().chain(real.keys()).collect();
    for key in keys {
        let (serial, real): (Option<&Row>, Option<&Row>) = (serial.get(key), real.get(key));
        if serial != real {
            return Err(format!("{what}, {key}: one by one it is {serial:?}, and it was {real:?}"));
        }
    }
    Ok(())
}

#[async_trait]
impl Store for Interleaved {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.history.lock().tables.extend(tables);
        self.store.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut ops = ops.into_iter();
        let first: Vec<Op> = ops.next().into_iter().collect();
        let turn = self.history.turns.take(false).await;
        let (tx, mut replies) = self.store.begin(first.clone()).await?;
        drop(turn);
        let done = first.into_iter().zip(replies.iter().cloned()).collect();
        let mut tx = OneByOne { tx, history: self.history.clone(), done };
        replies.extend(tx.run(ops.collect()).await?);
        Ok((Box::new(tx), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let replies = self.store.read(ops).await?;
        for reply in &replies {
            let Reply::Outbox(rows) = reply else { continue };
            let shown = |row: &OutboxRow| (row.outgoing.key.clone(), row.outgoing.payload.clone());
            self.history.lock().outbox.extend(rows.iter().map(|row| (row.id, shown(row))));
        }
        Ok(replies)
    }
}

/// A transaction that waits for its turn before each statement.
struct OneByOne {
    tx: Box<dyn Tx>,
    history: Arc<History>,
    done: Committed,
}

#[async_trait]
impl Tx for OneByOne {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let mut replies = Vec::with_capacity(ops.len());
        for op in ops {
            let turn = self.history.turns.take(false).await;
            let reply = self.tx.run(vec![op.clone()]).await?.pop().expect("a reply an operation");
            drop(turn);
            self.done.push((op, reply.clone()));
            replies.push(reply);
        }
        Ok(replies)
    }

    async fn commit(mut self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        self.run(ops).await?;
        let OneByOne { tx, history, done } = *self;
        let turn = history.turns.take(true).await;
        tx.commit(Vec::new()).await?;
        // Before the next commit may go.
        history.lock().committed.push(done);
        drop(turn);
        Ok(())
    }
}
