//! Runs programs on a backend, each client beside the others, and writes down what it shows. Never judges.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::lock::Mutex as AsyncMutex;
use ports::{Key, Op, Outcome, Reply, Row, Rows, Store, Tx};

use super::generate::{KEYS, Step, generate};
use super::history::{Event, Seen};
use super::judge;
use crate::programs::{Answer, Programs, Trial};
use crate::store::{Loss, StoreBackend, TABLES};

/// Programs on this backend.
pub struct StorePrograms<'a> {
    backend: &'a dyn StoreBackend,
    runs: AtomicU64,
    /// The backend has one flaky client at a time.
    flaky: AsyncMutex<()>,
}

impl<'a> StorePrograms<'a> {
    /// On this backend, whose tables are prepared.
    pub fn on(backend: &'a dyn StoreBackend) -> Self {
        StorePrograms { backend, runs: AtomicU64::new(0), flaky: AsyncMutex::new(()) }
    }
}

#[async_trait]
impl Programs for StorePrograms<'_> {
    type Step = Step;

    fn program(&self, seed: u64) -> Vec<Step> {
        generate(seed)
    }

    async fn trial(&self, _: usize, steps: &[Step]) -> Trial {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let run =
            Run { programs: self, number, next: AtomicU32::new(1), history: Mutex::default() };
        let clients = steps.iter().map(|step| step.client() + 1).max().unwrap_or(0);
        join_all((0..clients).map(|client| run.client(client, steps))).await;
        run.finish().await;
        let history = run.history.into_inner().unwrap_or_else(PoisonError::into_inner);
        Trial::of(&history, Event::met, judge)
    }
}

struct Run<'a> {
    programs: &'a StorePrograms<'a>,
    /// No other run has its keys.
    number: u64,
    next: AtomicU32,
    history: Mutex<Vec<Event>>,
}

/// An open transaction, and the versions that it knows.
struct Open {
    number: u32,
    tx: Box<dyn Tx>,
    versions: BTreeMap<usize, i64>,
    writes: usize,
}

impl Run<'_> {
    fn note(&self, event: Event) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn key(&self, key: usize) -> Key {
        format!("{}-k{key}", self.number).into()
    }

    fn lock(&self, keys: &[usize]) -> Vec<Op> {
        let keys = keys.iter().map(|key| self.key(*key)).collect();
        vec![Op::Lock { table: TABLES[1], keys }]
    }

    fn put(&self, key: usize, version: i64, body: &str) -> Vec<Op> {
        let row = Row { version, index: Vec::new(), body: format!("\"{body}\"") };
        vec![Op::Put { table: TABLES[1], rows: Rows::from_iter([(self.key(key), row)]) }]
    }

    /// What a reply shows of all these keys.
    fn rows(&self, replies: &[Reply], keys: &[usize]) -> BTreeMap<String, Seen> {
        let Some(Reply::Rows(rows)) = replies.first() else { return BTreeMap::new() };
        let seen = |key: &usize| {
            let row = rows.get(&self.key(*key)).cloned().unwrap_or_default();
            let body = if row.version == 0 { "" } else { row.body.trim_matches('"') };
            (format!("k{key}"), (row.version, body.to_owned()))
        };
        keys.iter().map(seen).collect()
    }

    async fn client(&self, client: usize, steps: &[Step]) {
        let store = self.programs.backend.store();
        let mut open: Option<Open> = None;
        for step in steps.iter().filter(|step| step.client() == client) {
            turn().await;
            open = self.step(&*store, open, step).await;
        }
        self.roll_back(open);
    }

    async fn step(&self, store: &dyn Store, open: Option<Open>, step: &Step) -> Option<Open> {
        match step {
            Step::Lock { keys, .. } => self.locked(store, open, keys).await,
            Step::Put { key, stale, .. } => self.written(open?, *key, *stale).await,
            Step::Commit { .. } => {
                let Open { number: tx, tx: committing, .. } = open?;
                let answer = Answer::of(&committing.commit(Vec::new()).await);
                self.note(Event::Committed { tx, answer, lossy: false });
                None
            }
            Step::RollBack { .. } => {
                self.roll_back(open);
                None
            }
            Step::Read { .. } => {
                self.read(store).await;
                open
            }
            Step::Wait { turns, .. } => {
                for _ in 0..*turns {
                    turn().await;
                }
                open
            }
            Step::Lose { key, arrives, .. } => {
                // Its own locks would wait for it.
                self.roll_back(open);
                self.lose(*key, *arrives).await;
                None
            }
        }
    }

    fn roll_back(&self, open: Option<Open>) {
        if let Some(Open { number, tx, .. }) = open {
            drop(tx);
            self.note(Event::RolledBack { tx: number });
        }
    }

    fn failed<T>(&self, tx: u32, outcome: Outcome<T>) -> Option<T> {
        let answer = Answer::of(&outcome);
        if outcome.is_err() {
            self.note(Event::Failed { tx, answer });
        }
        outcome.ok()
    }

    async fn locked(&self, store: &dyn Store, open: Option<Open>, keys: &[usize]) -> Option<Open> {
        let (mut open, replies) = match open {
            Some(mut open) => {
                self.note(Event::Locking { tx: open.number });
                let outcome = open.tx.run(self.lock(keys)).await;
                let replies = self.failed(open.number, outcome)?;
                (open, replies)
            }
            None => {
                let number = self.number();
                self.note(Event::Locking { tx: number });
                let (tx, replies) = self.failed(number, store.begin(self.lock(keys)).await)?;
                (Open { number, tx, versions: BTreeMap::new(), writes: 0 }, replies)
            }
        };
        let rows = self.rows(&replies, keys);
        let version = |key: &usize| Some((*key, rows.get(&format!("k{key}"))?.0));
        open.versions.extend(keys.iter().filter_map(version));
        self.note(Event::Locked { tx: open.number, rows });
        Some(open)
    }

    async fn written(&self, mut open: Open, key: usize, stale: bool) -> Option<Open> {
        let Some(version) = open.versions.get(&key).copied() else { return Some(open) };
        let over = if stale && version > 0 { version - 1 } else { version };
        open.writes += 1;
        let body = format!("t{}w{}", open.number, open.writes);
        let outcome = open.tx.run(self.put(key, over, &body)).await;
        self.failed(open.number, outcome)?;
        self.note(Event::Put { tx: open.number, key: format!("k{key}"), over, body });
        open.versions.insert(key, over + 1);
        Some(open)
    }

    async fn read(&self, store: &dyn Store) {
        let (tx, all) = (self.number(), Vec::from_iter(0..KEYS));
        self.note(Event::Reading { tx });
        let keys = all.iter().map(|key| self.key(*key)).collect();
        let outcome = store.read(vec![Op::Read { table: TABLES[1], keys }]).await;
        if let Some(replies) = self.failed(tx, outcome) {
            self.note(Event::Read { tx, rows: self.rows(&replies, &all) });
        }
    }

    async fn lose(&self, key: usize, arrives: bool) {
        let _alone = self.programs.flaky.lock().await;
        let Ok(store) = self.programs.backend.flaky().await else { return };
        // The same once on a key that nobody reads: then it is the commit that is lost, not its preparation. What
        // writes nothing is not committed.
        let mut warm = self.lock(&[KEYS]);
        warm.push(Op::Delete { table: TABLES[1], keys: [self.key(KEYS)].into() });
        if store.transact(warm).await.is_err() {
            return;
        }
        let Some(open) = self.locked(&*store, None, &[key]).await else { return };
        let loss = if arrives { Loss::Reply } else { Loss::Request };
        let Some(Open { number: tx, tx: open, .. }) = self.written(open, key, false).await else {
            return;
        };
        let commit = open.commit(Vec::new());
        let answer = Answer::of(&self.programs.backend.losing(loss, commit).await);
        self.note(Event::Committed { tx, answer, lossy: true });
    }

    /// Reads all under locks: whoever's fate is open has met it then.
    async fn finish(&self) {
        let (store, all): (Arc<dyn Store>, _) =
            (self.programs.backend.store(), Vec::from_iter(0..KEYS));
        loop {
            match store.begin(self.lock(&all)).await {
                Ok((_tx, replies)) => {
                    return self.note(Event::Final { rows: self.rows(&replies, &all) });
                }
                Err(ports::Fault::Retry(_)) => {}
                Err(fault) => panic!("no final read: {fault}"),
            }
        }
    }
}

/// The other clients go first: calls in process need not wait for anything.
async fn turn() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
