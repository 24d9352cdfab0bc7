//! Nodes that stand still and go on, and clocks that jump. Never touches what a node holds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use madsim::runtime::Handle;

use super::Cluster;
use crate::fault::{FaultKind, FaultSpec};

/// How long a node may take to come to a transaction's end.
const SOON: Duration = Duration::from_millis(1_500);

impl Cluster {
    /// The node stands still for so long: none of its tasks runs, while servers and time go on.
    /// Whether it was up and not frozen yet.
    pub fn freeze(&self, name: &str, long: Duration) -> bool {
        let Some(node) = self.running(name) else { return false };
        if node.frozen.swap(true, Ordering::Relaxed) {
            return false;
        }
        let of_node = |client: &&str| **client == *node.client;
        let open = self
            .database(&node.database)
            .with(|database| database.open_clients().filter(of_node).count());
        self.note(name, "frozen", format!("{}, {open} transactions open", node.client));
        Handle::current().pause(node.handle.id());
        self.lose_channels(&node.client, long);
        if long < Duration::MAX {
            let (cluster, name) = (self.clone(), name.to_owned());
            self.aside(async move {
                madsim::time::sleep(long).await;
                // Another incarnation may run by now, and be frozen.
                if cluster.runs(&name, &node) && !cluster.stays_broken(&name) {
                    cluster.thaw(&name);
                }
            });
        }
        true
    }

    /// The node stands still at its next call that would end a transaction, or soon if it makes none.
    pub(super) fn freeze_soon(&self, name: &str) {
        self.state().soon.insert(name.to_owned());
        let (cluster, name) = (self.clone(), name.to_owned());
        self.aside(async move {
            madsim::time::sleep(SOON).await;
            if cluster.state().soon.remove(&name) {
                cluster.freeze(&name, Duration::MAX);
            }
        });
    }

    /// It goes on where it stood.
    pub(super) fn thaw(&self, name: &str) {
        let Some(node) = self.running(name) else { return };
        if node.frozen.swap(false, Ordering::Relaxed) {
            self.note(name, "thawed", node.client.clone());
            Handle::current().resume(node.handle.id());
        }
    }

    /// The node's wall clock jumps.
    pub(super) fn jump(&self, fault: &FaultSpec) -> bool {
        let Some(node) = self.running(&fault.node) else { return false };
        let by_ms = i64::try_from(fault.for_ms).unwrap_or(i64::MAX);
        let by_ms = if fault.kind == FaultKind::ClockBack { -by_ms } else { by_ms };
        node.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
        true
    }

    /// The node's clock is right again.
    pub(super) fn set_right(&self, name: &str) {
        if let Some(node) = self.running(name) {
            node.skew_ms.store(0, Ordering::Relaxed);
        }
    }
}
