//! Stores that lie: a model behind a wrapper.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use ports::{Fault, Op, Outcome, Reply, Runtime, Store, Table, Tx};
use shakedown_conformance::store::{Loss, Session, StoreBackend, Writers};
use shakedown_conformance::{NotApplicable, Unseen};

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
    /// The outbox is read from its end (D1).
    LastFirst,
    /// What others have claimed is claimed again (D3).
    ClaimsAll,
    /// Who runs into another is aborted, and so is the other (D5).
    AbortsBoth,
    /// A transaction is committed as it begins (D6, D8).
    AutoCommit,
    /// Nobody hears of a restart (D8).
    RestartUnnoticed,
}

impl StoreLie {
    /// All of them, with the statements that each breaks.
    pub const ALL: [(StoreLie, &'static [&'static str]); 9] = [
        (StoreLie::Nothing, &["D2", "D9"]),
        (StoreLie::SaysNotDone, &["D2"]),
        (StoreLie::LosesBoth, &["D2"]),
        (StoreLie::SaysDone, &["D9"]),
        (StoreLie::LastFirst, &["D1"]),
        (StoreLie::ClaimsAll, &["D3"]),
        (StoreLie::AbortsBoth, &["D5"]),
        (StoreLie::AutoCommit, &["D6", "D8"]),
        (StoreLie::RestartUnnoticed, &["D8"]),
    ];
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
            _ => Err(Fault::unknown("no answer")),
        }
    }

    async fn restart(&self) -> Result<(), Unseen> {
        if self.lie == StoreLie::RestartUnnoticed { Ok(()) } else { self.truth.restart().await }
    }

    async fn session(&self) -> Result<Box<dyn Session>, Unseen> {
        self.truth.session().await
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
        let (truth, replies) = match self.lie {
            StoreLie::AutoCommit => {
                let replies = self.truth.transact(ops).await?;
                (self.truth.begin(Vec::new()).await?.0, replies)
            }
            StoreLie::ClaimsAll => self.truth.begin(ops.into_iter().map(listing).collect()).await?,
            _ => self.truth.begin(ops).await?,
        };
        Ok((Box::new(LyingTx { truth, lie: self.lie }), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let mut replies = self.truth.read(ops).await?;
        if self.lie == StoreLie::LastFirst {
            for reply in &mut replies {
                if let Reply::Outbox(rows) = reply {
                    rows.reverse();
                }
            }
        }
        Ok(replies)
    }
}

/// A claim that asks nobody.
fn listing(op: Op) -> Op {
    match op {
        Op::Claim { table, range } => Op::List { table, range },
        other => other,
    }
}

struct LyingTx {
    truth: Box<dyn Tx>,
    lie: StoreLie,
}

#[async_trait]
impl Tx for LyingTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let replies = self.truth.run(ops).await;
        if self.lie == StoreLie::AbortsBoth { Err(Fault::retry("a deadlock")) } else { replies }
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let outcome = self.truth.commit(ops).await;
        if self.lie == StoreLie::SaysDone { Ok(()) } else { outcome }
    }
}
