//! The simulated database as a node sees it: the store model behind the gate.

use std::sync::Arc;

use async_trait::async_trait;
use model::store::StoreClient;
use ports::{Op, Outcome, Reply, Store, Table, Tx};

use crate::cluster::Node;
use crate::fault::Site;
use crate::touch::{self, Open, Touch};

pub(crate) struct GatedStore {
    pub(crate) node: Arc<Node>,
    pub(crate) inner: StoreClient,
}

struct GatedTx {
    open: Open,
    inner: Box<dyn Tx>,
}

impl Open {
    /// The operations in few words, and what they touch.
    fn about(&self, ops: &[Op]) -> String {
        self.node.touches(|| [vec![Touch::Transaction(self.begun)], touch::ops(ops)].concat());
        words(ops)
    }
}

/// The operations in few words, for the trace.
fn words(ops: &[Op]) -> String {
    let mut text = String::new();
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
            text.push_str(&format!("{verb} {table} {n}; "));
        }
    }
    text.truncate(text.trim_end_matches("; ").len());
    text
}

#[async_trait]
impl Store for GatedStore {
    async fn prepare(&self, tables: &[&'static Table]) -> Outcome<()> {
        self.inner.prepare(tables).await
    }

    async fn begin(&self, ops: Vec<Op>) -> Outcome<(Box<dyn Tx>, Vec<Reply>)> {
        let mut begun = 0;
        let about = || {
            begun = self.node.touches(|| touch::ops(&ops));
            words(&ops)
        };
        let call = self.node.enter(Site::Begin, about).await?;
        let answer = self.inner.begin(ops).await.map(|(inner, replies)| {
            let open = Open { node: self.node.clone(), begun };
            let tx: Box<dyn Tx> = Box::new(GatedTx { open, inner });
            (tx, replies)
        });
        self.node.leave(call, answer).await
    }

    async fn read(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let about = || {
            self.node.touches(|| touch::ops(&ops));
            words(&ops)
        };
        let call = self.node.enter(Site::Read, about).await?;
        let answer = self.inner.read(ops).await;
        self.node.leave(call, answer).await
    }

    async fn transact(&self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let about = || {
            self.node.touches(|| touch::ops(&ops));
            words(&ops)
        };
        let call = self.node.enter(Site::Commit, about).await?;
        let answer = if call.lost() { Ok(Vec::new()) } else { self.inner.transact(ops).await };
        self.node.leave(call, answer).await
    }
}

#[async_trait]
impl Tx for GatedTx {
    async fn run(&mut self, ops: Vec<Op>) -> Outcome<Vec<Reply>> {
        let open = &self.open;
        let call = open.node.enter(Site::Run, || open.about(&ops)).await?;
        let answer = self.inner.run(ops).await;
        self.open.node.leave(call, answer).await
    }

    async fn commit(self: Box<Self>, ops: Vec<Op>) -> Outcome<()> {
        let GatedTx { open, inner } = *self;
        let call = open.node.enter(Site::Commit, || open.about(&ops)).await?;
        // A request that never arrived: the server sees a broken link, and rolls back.
        let answer = if call.lost() {
            drop(inner);
            Ok(())
        } else {
            inner.commit(ops).await
        };
        open.node.leave(call, answer).await
    }
}
