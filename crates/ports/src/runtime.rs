//! Clock, sleep, tasks and choices of one node. The only door to time and chance.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::{Either, select};

/// A task to spawn.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a node gives the code that runs on it.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// This node's wall clock. It may be skewed and may jump: information, never an order.
    fn now(&self) -> DateTime<Utc>;

    /// Monotonic since some instant; for measuring and time-outs.
    fn elapsed(&self) -> Duration;

    /// Sleeps at least this long, by the monotonic clock. Rounded up to one millisecond.
    async fn sleep(&self, duration: Duration);

    /// Starts a task on this node. A panic in it ends the node (exit 70; in simulation the world
    /// fails).
    fn spawn(&self, name: &'static str, task: Task);

    /// A number below `below` (at least 1), chosen at random for `site` and `entity`. In simulation
    /// it is a function of the seed, the two names and how often they were asked.
    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64;

    /// Runs code that blocks the thread, without stalling other tasks.
    fn block(&self, work: &mut dyn FnMut());
}

/// Waits for `future`, at most `limit`. `None` when the time ran out; the future is then dropped.
pub async fn timeout<F: Future>(
    runtime: &dyn Runtime,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    match select(pin!(future), runtime.sleep(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
