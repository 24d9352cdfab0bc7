//! Leaving: a signal that tasks wait for, and a count of those still at work. Never kills anything.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells the tasks of a service to finish, and waits for them.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<bool>>,
    working: Arc<watch::Sender<()>>,
}

/// Held by a task for as long as it works.
#[derive(Debug)]
pub(crate) struct Working {
    asked: watch::Receiver<bool>,
    _working: watch::Receiver<()>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Stop { asked: Arc::new(watch::Sender::new(false)), working: Arc::default() }
    }

    pub(crate) fn working(&self) -> Working {
        Working { asked: self.asked.subscribe(), _working: self.working.subscribe() }
    }

    /// Asks every task to finish what it has in hand and end.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Waits until every task has ended.
    pub async fn ended(&self) {
        self.working.closed().await;
    }
}

impl Working {
    /// Whether the task should end.
    pub(crate) fn asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until the task should end.
    pub(crate) async fn until_asked(&self) {
        let mut asked = self.asked.clone();
        // The sender lives in every clone of the Stop; when all are gone, nobody can ask any more,
        // and the service is being dropped: that is an end too.
        let _ = asked.wait_for(|asked| *asked).await;
    }
}
