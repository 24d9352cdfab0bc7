//! Leaving: a signal that tasks wait for, and a count of those still at work. Never kills anything.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells the tasks of a service to finish, and waits for them.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<bool>>,
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
    asked: watch::Receiver<bool>,
    before: Vec<Arc<watch::Sender<()>>>,
    _working: watch::Receiver<()>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Stop { asked: Arc::new(watch::Sender::new(false)), working: Default::default() }
    }

    pub(crate) fn working(&self, stage: Stage) -> Working {
        let (before, rest) = self.working.split_at(stage as usize);
        let (asked, _working) = (self.asked.subscribe(), rest[0].subscribe());
        Working { asked, before: before.to_vec(), _working }
    }

    /// Asks every task to finish what it has in hand and end.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Waits until the service is asked to leave. What is not counted as at work, such as an answer
    /// that streams, ends then by itself.
    pub async fn until_asked(&self) {
        let mut asked = self.asked.subscribe();
        // The sender is in this very Stop.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Whether somebody has asked.
    pub fn asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until every task has ended.
    pub async fn ended(&self) {
        for working in &self.working {
            working.closed().await;
        }
    }
}

impl Working {
    /// Whether the service is leaving.
    pub(crate) fn asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until the service is leaving.
    pub(crate) async fn until_asked(&self) {
        let mut asked = self.asked.clone();
        // The sender lives in every clone of the Stop; when all are gone, nobody can ask any more,
        // and the service is being dropped: that is an end too.
        let _ = asked.wait_for(|asked| *asked).await;
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
}
