//! The simulated database as a node sees it: the store model behind the gate.

use std::sync::Arc;

use async_trait::async_trait;
use model::store::StoreClient;
use ports::{Fault, Op, Outcome, Reply, Store, Table, Tx};

use crate::cluster::{Cluster, Node};
use crate::fault::{FaultKind, Server, Site};
use crate::touch::{self, Touch};

pub(crate) struct GatedStore {
    pub(crate) node: Arc<Node>,
    pub(crate) inner: StoreClient,
}

struct GatedTx {
    node: Arc<Node>,
    inner: Option<Box<dyn Tx>>,
    /// What it began with, where somebody will want those rows.
    held: Vec<Op>,
    /// The event that began it.
    begun: usize,
}

impl Drop for GatedTx {
    fn drop(&mut self) {
        if let Some(tx) = self.inner.take() {
            self.node.cluster.abandon(&self.node, tx);
        }
        self.node.cluster.end_transaction(self.begun);
    }
}

fn over() -> Fault {
    Fault::retry("the transaction is over")
}

/// The operations in few words, and what they touch, in the transaction that this event began.
fn about(node: &Node, begun: Option<usize>, ops: &[Op]) -> String {
    let begun = begun.map(Touch::Transaction);
    node.touches(|| begun.into_iter().chain(touch::ops(ops)).collect());
    words(ops)
}

/// The operations in few words, for the trace.
fn words(ops: &[Op]) -> String {
    let mut text = String::with_capacity(32 * ops.len());
    for op in ops {
        let (verb, table, n) = match op {
            Op::Insert { table, rows } => ("insert", table.name, rows.len()),
            Op::Lock { table, keys } => ("lock", table.name, keys.len()),
            Op::Put { table, rows } => ("put", table.name, rows.len()),
            Op::Delete { table, keys } => ("delete", table.name, keys.len()),
            Op::Append { rows } => ("append", "outbox", rows.len()),
            Op::Sent { ids } => ("sent", "outbox", ids.len()),
            Op::Claim { table, .. } => ("claim", table.name, 1),
            Op::Read { table, keys } => ("read", table.name, keys.len()),
            Op::List { table, .. } => ("list", table.name, 1),
            Op::Unsent { .. } => ("unsent", "outbox", 1),
            Op::Now => continue,
        };
        if n > 0 {
            let gap = if text.is_empty() { "" } else { "; " };
            for word in [gap, verb, " ", table, " "] {
                text.push_str(word);
            }
            match u8::try_from(n) {
                Ok(digit @ ..10) => text.push(char::from(b'0' + digit)),
                _ => text.push_str(&n.to_string()),
            }
        }
    }
    text
}

impl Cluster {
    /// What a database says to a transaction with a row that it does not take.
    fn refusal(&self, ops: &[Op]) -> Option<Fault> {
        let refuses = self.settings().refuses?;
        let refused = ops.iter().any(|op| match op {
            Op::Insert { table, rows } | Op::Put { table, rows } => {
                rows.keys().any(|key| refuses(table, key))
            }
            _ => false,
        });
        refused.then(|| Fault::refused("injected: the database does not take this row"))
    }
}

#[async_trait]
impl Store for GatedStore {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.node.open(Server::Store)?;
        self.inner.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut begun = 0;
        let about = || {
            begun = self.node.touches(|| touch::ops(&ops));
            words(&ops)
        };
        let call = self.node.enter(Site::Begin, about).await?;
        if let Some(long) = call.lasting(FaultKind::Locked)
            && self.node.cluster.occupy(&self.node, &ops, long).await
        {
            call.meet(&self.node);
        }
        let entangled = self.node.awaits(FaultKind::Deadlock);
        let held = if entangled { ops.clone() } else { Vec::new() };
        let answer = self.inner.begin(ops).await.map(|(inner, replies)| {
            let (node, inner) = (self.node.clone(), Some(inner));
            let tx: Box<dyn Tx> = Box::new(GatedTx { node, inner, held, begun });
            (tx, replies)
        });
        self.node.leave(call, answer).await
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let call = self.node.enter(Site::Read, || about(&self.node, None, &ops)).await?;
        let answer = self.inner.read(ops).await;
        self.node.leave(call, answer).await
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let call = self.node.enter(Site::Commit, || about(&self.node, None, &ops)).await?;
        let answer = match self.node.cluster.refusal(&ops) {
            _ if call.lost() => Ok(Vec::new()),
            Some(refused) => Err(refused),
            None => self.inner.transact(ops).await,
        };
        self.node.leave(call, answer).await
    }
}

#[async_trait]
impl Tx for GatedTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let (node, begun) = (&self.node, Some(self.begun));
        let call = node.enter(Site::Run, || about(node, begun, &ops)).await?;
        let cluster = &self.node.cluster;
        let met = match (call.lasting(FaultKind::Locked), call.lasting(FaultKind::Deadlock)) {
            (Some(long), _) => cluster.occupy(&self.node, &ops, long).await,
            (_, Some(long)) => cluster.entangle(&self.node, &ops, &self.held, long).await,
            (None, None) => false,
        };
        if met {
            call.meet(&self.node);
        }
        let answer = self.inner.as_mut().ok_or_else(over)?.run(ops).await;
        self.node.leave(call, answer).await
    }

    async fn commit(mut self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let (node, begun) = (&self.node, Some(self.begun));
        let call = node.enter(Site::Commit, || about(node, begun, &ops)).await?;
        // A request that never arrived: the server sees a broken link, and rolls back.
        if call.lost() {
            return self.node.leave(call, Ok(())).await;
        }
        let inner = self.inner.take().ok_or_else(over)?;
        let answer = match self.node.cluster.refusal(&ops) {
            // A statement that fails ends its transaction.
            Some(refused) => Err(refused),
            None => inner.commit(ops).await,
        };
        self.node.leave(call, answer).await
    }
}
