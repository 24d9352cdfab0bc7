//! Stores that lie: a model behind a wrapper.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use ports::{Fault, Op, Outcome, Reply, Runtime, Store, Table, Tx};
use shakedown_conformance::NotApplicable;
use shakedown_conformance::store::{Loss, StoreBackend, Writers};

use crate::store;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreLie {
    /// Nothing: D2 agrees, so that it is the others' lies that it sees.
    Nothing,
    /// A commit without an answer is said to have had no effect (D2).
    SaysNotDone,
    /// A commit whose reply is lost is rolled back (D2).
    LosesBoth,
    /// A commit of a failed transaction is confirmed (D9).
    SaysDone,
}

/// Loses replies by forgetting them, and requests by dropping the call.
pub struct LyingStore {
    pub truth: store::InProcess,
    pub lie: StoreLie,
}

#[async_trait]
impl StoreBackend for LyingStore {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn writers(&self) -> Writers {
        self.truth.writers()
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(LyingClient { truth: self.truth.store(), lie: self.lie })
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        Ok(self.truth.store())
    }

    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        if loss == Loss::Reply && self.lie != StoreLie::LosesBoth {
            call.await?;
        }
        match self.lie {
            StoreLie::SaysNotDone => Err(Fault::retry("not done")),
            StoreLie::Nothing | StoreLie::LosesBoth | StoreLie::SaysDone => {
                Err(Fault::unknown("no answer"))
            }
        }
    }
}

struct LyingClient {
    truth: Arc<dyn Store>,
    lie: StoreLie,
}

#[async_trait]
impl Store for LyingClient {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.truth.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let (truth, replies) = self.truth.begin(ops).await?;
        Ok((Box::new(LyingTx { truth, lie: self.lie }), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.truth.read(ops).await
    }
}

struct LyingTx {
    truth: Box<dyn Tx>,
    lie: StoreLie,
}

#[async_trait]
impl Tx for LyingTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.truth.run(ops).await
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let outcome = self.truth.commit(ops).await;
        if self.lie == StoreLie::SaysDone { Ok(()) } else { outcome }
    }
}
