//! The store port on a [`Db`] in this process. Never holds the lock on it over an await; time-outs
//! of the server are driven by those who wait, through their runtime.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Fault, Op, Outcome, Reply, Runtime, Store, Table, Tx, timeout};
use tokio::sync::oneshot;

use super::db::{Answer, Db, Instant, Settings, TxId};

/// A database server and its clients in one process. Clones are the same server.
#[derive(Clone)]
pub struct StoreServer {
    shared: Arc<Shared>,
}

struct Shared {
    /// The server's clocks.
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
}

struct State {
    db: Db,
    waiting: BTreeMap<TxId, oneshot::Sender<Outcome<Vec<Reply>>>>,
}

impl State {
    fn deliver(&mut self, answers: Vec<Answer>) {
        for (tx, result) in answers {
            if let Some(waiter) = self.waiting.remove(&tx) {
                // One who stopped waiting has dropped its transaction: nobody misses the answer.
                let _ = waiter.send(result);
            }
        }
    }
}

enum Started {
    Ready(Outcome<Vec<Reply>>),
    Waits(oneshot::Receiver<Outcome<Vec<Reply>>>),
}

impl StoreServer {
    /// An empty database whose clocks are those of `runtime`: the server's own node.
    pub fn new(settings: Settings, runtime: Arc<dyn Runtime>) -> Self {
        let state = State { db: Db::new(settings), waiting: BTreeMap::new() };
        StoreServer { shared: Arc::new(Shared { runtime, state: Mutex::new(state) }) }
    }

    /// A client by this name, which sleeps by `runtime`: its node's.
    pub fn client(&self, name: &str, runtime: Arc<dyn Runtime>) -> StoreClient {
        StoreClient { server: self.clone(), name: name.into(), runtime }
    }

    /// Looks at the database, for verdicts.
    pub fn with<T>(&self, look: impl FnOnce(&Db) -> T) -> T {
        look(&self.state().db)
    }

    /// The node of that client is gone: its open transactions roll back (broker-contract D6).
    pub fn disconnect(&self, client: &str) {
        self.apply(|db, now| db.disconnect(client, now));
    }

    /// The server crashes and comes back with its committed state (broker-contract D8).
    pub fn restart(&self) {
        self.apply(Db::restart);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant { elapsed: self.shared.runtime.elapsed(), wall: self.shared.runtime.now() }
    }

    fn apply(&self, change: impl FnOnce(&mut Db, Instant) -> Vec<Answer>) {
        let now = self.now();
        let mut state = self.state();
        let answers = change(&mut state.db, now);
        state.deliver(answers);
    }

    fn expire(&self) {
        self.apply(Db::expire);
    }

    fn begin(&self, client: &Arc<str>) -> TxId {
        let now = self.now();
        let mut state = self.state();
        let answers = state.db.expire(now);
        state.deliver(answers);
        state.db.begin(client.clone(), now)
    }

    fn start(&self, tx: TxId, ops: Vec<Op>, commit: bool) -> Started {
        let now = self.now();
        let mut state = self.state();
        let answers = state.db.expire(now);
        state.deliver(answers);
        let mut answers =
            if commit { state.db.commit(tx, ops, now) } else { state.db.submit(tx, ops, now) };
        let own = answers.iter().position(|(id, _)| *id == tx).map(|at| answers.remove(at).1);
        let started = own.map_or_else(
            || {
                let (answer, receiver) = oneshot::channel();
                state.waiting.insert(tx, answer);
                Started::Waits(receiver)
            },
            Started::Ready,
        );
        state.deliver(answers);
        started
    }

    fn rollback(&self, tx: TxId) {
        let now = self.now();
        let mut state = self.state();
        state.waiting.remove(&tx);
        let answers = state.db.rollback(tx, now);
        state.deliver(answers);
    }

    /// How long nothing will expire.
    fn patience(&self) -> Duration {
        let deadline = self.state().db.next_deadline().unwrap_or(Duration::MAX);
        deadline.saturating_sub(self.shared.runtime.elapsed())
    }
}

/// [`ports::Store`] on a [`StoreServer`].
#[derive(Clone)]
pub struct StoreClient {
    server: StoreServer,
    name: Arc<str>,
    runtime: Arc<dyn Runtime>,
}

impl StoreClient {
    fn open(&self) -> ModelTx {
        let id = self.server.begin(&self.name);
        ModelTx { server: self.server.clone(), runtime: self.runtime.clone(), id, open: true }
    }
}

#[async_trait]
impl Store for StoreClient {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.server.state().db.prepare(tables)
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut tx = self.open();
        let replies = tx.call(ops, false).await?;
        Ok((Box::new(tx), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.server.state().db.read(ops, self.server.now())
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let mut tx = self.open();
        tx.call(ops, true).await
    }
}

struct ModelTx {
    server: StoreServer,
    runtime: Arc<dyn Runtime>,
    id: TxId,
    open: bool,
}

impl ModelTx {
    async fn call(&mut self, ops: Vec<Op>, commit: bool) -> Outcome<Vec<Reply>> {
        let result = match self.server.start(self.id, ops, commit) {
            Started::Ready(result) => result,
            Started::Waits(mut answer) => loop {
                match timeout(&*self.runtime, self.server.patience(), &mut answer).await {
                    Some(Ok(result)) => break result,
                    Some(Err(_)) => break Err(Fault::retry("the transaction was rolled back")),
                    None => self.server.expire(),
                }
            },
        };
        self.open = result.is_ok() && !commit;
        result
    }
}

#[async_trait]
impl Tx for ModelTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.call(ops, false).await
    }

    async fn commit(mut self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        self.call(ops, true).await.map(|_| ())
    }
}

impl Drop for ModelTx {
    fn drop(&mut self) {
        if self.open {
            self.server.rollback(self.id);
        }
    }
}
