//! Clients of the servers that are no node of the world: they take what a node wants, do nothing with
//! it, and go. Never change a row or an offset.

use std::sync::Arc;
use std::time::Duration;

use ports::{EventLog, Op, Polled, Store, Tx};

use super::{Cluster, Node};

/// A stranger's name.
const STRANGER: &str = "stranger";

impl Cluster {
    /// A member that reads nothing joins the group that the node is in, if it is in one, and leaves after
    /// so long.
    pub(super) fn crowd(&self, node: &Node, long: Duration) -> bool {
        let joined = self.state().places.get(&*node.name).and_then(|place| place.joined.clone());
        let Some((group, topics)) = joined else { return false };
        let cluster = self.clone();
        self.aside(async move {
            let client = cluster.shared.log.client(STRANGER, cluster.server_runtime());
            let Ok(mut consumer) = client.subscribe(&group, &topics).await else { return };
            let until = cluster.elapsed() + long;
            while cluster.elapsed() < until {
                // It commits nothing: whoever comes next gets what it has read.
                if let Ok(Polled::Revoked(partitions)) = consumer.poll(1).await {
                    consumer.release(partitions).await;
                }
                madsim::time::sleep(Duration::from_millis(100)).await;
            }
            consumer.close().await;
        });
        true
    }

    /// A transaction of somebody else takes these rows first, if there are some and they are free, and rolls
    /// back after so long.
    pub(crate) async fn occupy(&self, node: &Node, ops: &[Op], long: Duration) -> bool {
        let Some(tx) = self.take(node, ops).await else { return false };
        self.aside(async move {
            madsim::time::sleep(long).await;
            drop(tx);
        });
        true
    }

    /// Somebody else takes the rows of `wanted`, if there are some and they are free, and then waits for those
    /// of `held`, which the node's open transaction has.
    pub(crate) async fn entangle(
        &self,
        node: &Node,
        wanted: &[Op],
        held: &[Op],
        long: Duration,
    ) -> bool {
        let Some(mut tx) = self.take(node, wanted).await else { return false };
        let (held, server) = (taking(held), self.server_runtime());
        self.aside(async move {
            // It gets them when the other one has been aborted, or gives up with its time.
            drop(ports::timeout(&*server, long, tx.run(held)).await);
            drop(tx);
        });
        // Its wait begins before the node's own.
        madsim::time::sleep(Duration::from_micros(1)).await;
        true
    }

    /// A stranger's transaction that has the rows which these operations take; `None` where they take none,
    /// or somebody else has them already.
    async fn take(&self, node: &Node, ops: &[Op]) -> Option<Box<dyn Tx>> {
        let ops = taking(ops);
        if ops.is_empty() {
            return None;
        }
        let server = self.server_runtime();
        let client = self.database(&node.database).client(STRANGER, server.clone());
        let begun = client.begin(ops);
        let (tx, _) = ports::timeout(&*server, Duration::from_millis(1), begun).await?.ok()?;
        Some(tx)
    }

    /// Remembers the group of a node.
    pub(crate) fn joins(&self, node: &Node, group: &str, topics: &[Arc<str>]) {
        if let Some(place) = self.state().places.get_mut(&*node.name) {
            place.joined = Some((group.into(), topics.to_vec()));
        }
    }
}

/// Those that take rows which another transaction then has to wait for.
fn taking(ops: &[Op]) -> Vec<Op> {
    let takes = |op: &&Op| match op {
        Op::Lock { keys, .. } => !keys.is_empty(),
        Op::Insert { rows, .. } => !rows.is_empty(),
        _ => false,
    };
    ops.iter().filter(takes).cloned().collect()
}
