//! A node's runtime: madsim's clock and tasks, keyed choices, and an end. A node that was cut off
//! sleeps for ever.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use ports::{Runtime, Task};

use crate::cluster::Node;

/// Simulated time begins here.
const EPOCH_MS: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

/// Longest single sleep: nothing in a world waits longer, and `Duration::MAX` must not overflow.
const SLEEP_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The wall clock of a world without skew, at this time since its start.
pub(crate) fn wall(elapsed: Duration) -> DateTime<Utc> {
    let start = DateTime::from_timestamp_millis(EPOCH_MS).unwrap_or_default();
    start + TimeDelta::from_std(elapsed).unwrap_or_default()
}

/// [`Runtime`] of one incarnation of a node.
#[derive(Clone)]
pub struct NodeRuntime {
    pub(crate) node: Arc<Node>,
}

#[async_trait]
impl Runtime for NodeRuntime {
    fn now(&self) -> DateTime<Utc> {
        let skew_ms = self.node.skew_ms.load(Ordering::Relaxed);
        wall(self.elapsed()) + TimeDelta::milliseconds(skew_ms)
    }

    fn elapsed(&self) -> Duration {
        self.node.cluster.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration.min(SLEEP_MAX)).await;
        if self.node.is_cut() {
            pending::<()>().await;
        }
    }

    fn spawn(&self, _name: &'static str, task: Task) {
        if !self.node.is_cut() {
            // The handle is not needed: a panic in the task unwinds the whole world.
            drop(self.node.handle.spawn(task));
        }
    }

    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64 {
        self.node.cluster.choices().below(site, &[&self.node.name, "/", entity].concat(), below)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        work();
    }
}
