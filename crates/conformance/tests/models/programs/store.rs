//! Programs on the store model, on local mode's store, and on stores that lie.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all};
use local::Local;
use ports::{Key, Op, Outcome, Reply, Row, Rows, Runtime, Store, Table, Tx};
use shakedown_conformance::programs::store::StorePrograms;
use shakedown_conformance::store::{Loss, Session, StoreBackend, Writers};
use shakedown_conformance::{NotApplicable, Unseen};

use super::{honest, lying};
use crate::mutants::store::{LyingStore, StoreLie};
use crate::store::InProcess;

/// What is wrong with a store, and the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// What was seen once is seen again.
    Stale,
    /// A commit is confirmed, and rolled back.
    LosesCommit,
    /// Another one wrote it.
    OtherBody,
    /// Nothing is locked until it is written.
    NoLocks,
    /// Any version may be written over, and nothing is locked before.
    NoVersions,
    /// A commit has no answer, and is done.
    NoAnswer,
}

const LIES: [(Lie, &str); 6] = [
    (Lie::Stale, "stale read"),
    (Lie::LosesCommit, "stale read"),
    (Lie::OtherBody, "dirty read"),
    (Lie::NoLocks, "cycle"),
    (Lie::NoVersions, "versions"),
    (Lie::NoAnswer, "answers"),
];

pub async fn all(runtime: &Arc<dyn Runtime>) -> Vec<String> {
    // With nothing but the losses of a link.
    let model = with(StoreLie::Nothing, runtime).await;
    let mut wrong = honest("Store, model", &StorePrograms::on(&model), 500).await;
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path(), runtime.clone()).unwrap();
    let local = InProcess::on(&local, runtime.clone()).await;
    wrong.extend(honest("Store, local mode", &StorePrograms::on(&local), 100).await);
    let backend = with(StoreLie::SaysNotDone, runtime).await;
    let programs = StorePrograms::on(&backend);
    wrong.extend(lying("SaysNotDone", "lost commit", &programs, 200).await);
    let lies = LIES.map(|(lie, rule)| async move {
        let backend = Lying { truth: InProcess::on_the_model(runtime.clone()).await, lie };
        lying(&format!("{lie:?}"), rule, &StorePrograms::on(&backend), 100).await
    });
    wrong.extend(join_all(lies).await.into_iter().flatten());
    wrong
}

async fn with(lie: StoreLie, runtime: &Arc<dyn Runtime>) -> LyingStore {
    LyingStore { truth: InProcess::on_the_model(runtime.clone()).await, lie }
}

struct Lying {
    truth: InProcess,
    lie: Lie,
}

#[async_trait]
impl StoreBackend for Lying {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn writers(&self) -> Writers {
        self.truth.writers()
    }

    fn store(&self) -> Arc<dyn Store> {
        let seen = Arc::default();
        Arc::new(Client { truth: self.truth.store(), lie: self.lie, seen })
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        self.truth.flaky().await
    }

    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        self.truth.losing(loss, call).await
    }

    async fn restart(&self) -> Result<(), Unseen> {
        self.truth.restart().await
    }

    async fn session(&self) -> Result<Box<dyn Session>, Unseen> {
        self.truth.session().await
    }
}

type Seen = Arc<Mutex<BTreeMap<Key, Row>>>;

struct Client {
    truth: Arc<dyn Store>,
    lie: Lie,
    seen: Seen,
}

/// The replies to locks as the lie has them.
fn told(lie: Lie, seen: &Seen, mut replies: Vec<Reply>) -> Vec<Reply> {
    let mut seen = seen.lock().unwrap();
    for reply in &mut replies {
        let Reply::Rows(rows) = reply else { continue };
        for (key, row) in rows.iter_mut() {
            match lie {
                Lie::Stale => *row = seen.entry(key.clone()).or_insert(row.clone()).clone(),
                Lie::OtherBody if row.version > 0 => row.body = "\"other\"".to_owned(),
                _ => {}
            }
        }
    }
    replies
}

impl Client {
    /// The rows of these locks as they are, without the locks.
    async fn look(&self, ops: &[Op]) -> Outcome<Vec<Reply>> {
        let mut replies = Vec::new();
        for op in ops {
            let Op::Lock { table, keys } = op else { continue };
            let read = vec![Op::Read { table, keys: keys.clone() }];
            let found = self.truth.read(read).await?;
            let mut rows: Rows = keys.iter().map(|key| (key.clone(), Row::default())).collect();
            if let Some(Reply::Rows(found)) = found.into_iter().next() {
                rows.extend(found);
            }
            replies.push(Reply::Rows(rows));
        }
        Ok(replies)
    }
}

#[async_trait]
impl Store for Client {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.truth.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let (truth, replies) = match self.lie {
            Lie::NoLocks | Lie::NoVersions => {
                let (tx, _) = self.truth.begin(Vec::new()).await?;
                (tx, self.look(&ops).await?)
            }
            _ => self.truth.begin(ops).await?,
        };
        let replies = told(self.lie, &self.seen, replies);
        let client = Client { truth: self.truth.clone(), lie: self.lie, seen: self.seen.clone() };
        Ok((Box::new(Open { truth, client }), replies))
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        self.truth.read(ops).await
    }
}

struct Open {
    truth: Box<dyn Tx>,
    client: Client,
}

#[async_trait]
impl Tx for Open {
    async fn run(&mut self, mut ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let locks = matches!(ops[0], Op::Lock { .. });
        if locks && matches!(self.client.lie, Lie::NoLocks | Lie::NoVersions) {
            return self.client.look(&ops).await;
        }
        if let (Op::Put { table, rows }, Lie::NoVersions) = (&mut ops[0], self.client.lie) {
            let keys = rows.keys().cloned().collect();
            let there = self.truth.run(vec![Op::Lock { table, keys }]).await?;
            if let Some(Reply::Rows(there)) = there.into_iter().next() {
                rows.iter_mut().for_each(|(key, row)| row.version = there[key].version);
            }
        }
        Ok(told(self.client.lie, &self.client.seen, self.truth.run(ops).await?))
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        match self.client.lie {
            Lie::LosesCommit => Ok(()),
            Lie::NoAnswer => {
                self.truth.commit(ops).await?;
                Err(ports::Fault::unknown("no answer"))
            }
            _ => self.truth.commit(ops).await,
        }
    }
}
