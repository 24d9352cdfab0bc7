//! Leaving: a signal that tasks wait for, the time that each stage has for it, and a count of those
//! still at work. Never kills anything but what its own time is up for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ports::{Runtime, Task};
use tokio::sync::{Notify, watch};

/// How much of [`crate::Settings::drain`] is over, in eighths, when the time of each stage is up, and
/// last when everything is dropped that has not ended. A stage that hangs leaves time for the next.
const TIMES: [u32; 4] = [4, 6, 7, 8];

/// A number that only rises. A `watch` would do, but for the order in which it wakes those that wait:
/// that is random, and this one's is theirs.
#[derive(Debug, Default)]
struct Level {
    reached: AtomicUsize,
    raised: Notify,
}

impl Level {
    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    fn raise(&self, to: usize) {
        self.reached.fetch_max(to, Ordering::SeqCst);
        self.raised.notify_waiters();
    }

    async fn until(&self, level: usize) {
        loop {
            // Made before the look: what is raised behind it wakes this.
            let raised = self.raised.notified();
            if self.reached() >= level {
                return;
            }
            raised.await;
        }
    }
}

/// Tells the tasks of a service to finish, and waits for them.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// 1 once it was asked.
    asked: Arc<Level>,
    /// How many of [`TIMES`] are over.
    over: Arc<Level>,
    /// Those at work at each stage.
    working: [Arc<watch::Sender<()>>; 3],
}

/// The order of leaving: each stage serves the ones before it until they have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Consumers and workers.
    Intake,
    /// The batch loop.
    Batch,
    /// The relay.
    Relay,
}

/// Held by a task for as long as it works.
#[derive(Debug)]
pub(crate) struct Working {
    stage: Stage,
    asked: Arc<Level>,
    over: Arc<Level>,
    before: Vec<Arc<watch::Sender<()>>>,
    _working: watch::Receiver<()>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Stop::default()
    }

    pub(crate) fn working(&self, stage: Stage) -> Working {
        let (before, rest) = self.working.split_at(stage as usize);
        let (asked, over) = (self.asked.clone(), self.over.clone());
        Working { stage, asked, over, before: before.to_vec(), _working: rest[0].subscribe() }
    }

    /// The task that tells each stage when its time is up, once the service was asked to leave.
    pub(crate) fn times(&self, runtime: Arc<dyn Runtime>, drain: Duration) -> Task {
        let (asked, over) = (self.asked.clone(), self.over.clone());
        Box::pin(async move {
            asked.until(1).await;
            let mut before = 0;
            for (n, eighths) in TIMES.into_iter().enumerate() {
                runtime.sleep(drain / 8 * (eighths - before)).await;
                before = eighths;
                over.raise(n + 1);
            }
        })
    }

    /// Asks every task to finish what it has in hand and end.
    pub fn ask(&self) {
        self.asked.raise(1);
    }

    /// Waits until the service is asked to leave. What is not counted as at work, such as an answer
    /// that streams, ends then by itself.
    pub async fn until_asked(&self) {
        self.asked.until(1).await;
    }

    /// Whether somebody has asked.
    pub fn asked(&self) -> bool {
        self.asked.reached() > 0
    }

    /// Waits until every task has ended: at most [`crate::Settings::drain`] after it was asked.
    pub async fn ended(&self) {
        for working in &self.working {
            working.closed().await;
        }
    }
}

impl Working {
    /// Whether the service is leaving.
    pub(crate) fn asked(&self) -> bool {
        self.asked.reached() > 0
    }

    /// Waits until the service is leaving.
    pub(crate) async fn until_asked(&self) {
        self.asked.until(1).await;
    }

    /// Whether the service is leaving and every earlier stage has ended.
    pub(crate) fn last(&self) -> bool {
        self.asked() && self.before.iter().all(|working| working.is_closed())
    }

    /// Waits for [`Working::last`].
    pub(crate) async fn until_last(&self) {
        self.until_asked().await;
        for working in &self.before {
            working.closed().await;
        }
    }

    /// Waits until the time of this stage is up: what it has in hand is then dropped, as in a crash.
    pub(crate) fn until_late(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until_over(self.stage as usize + 1)
    }

    /// Waits until the whole drain is over.
    pub(crate) fn until_gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until_over(TIMES.len())
    }

    fn until_over(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        let over = self.over.clone();
        async move { over.until(count).await }
    }
}
