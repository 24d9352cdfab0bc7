//! Waiting for rows to change while a request is open. A wake-up comes from this instance's own
//! commits alone: it shortens a wait, and is never the truth. Reads nothing itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, FutureExt, select};
use ports::{Runtime, timeout};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::Stop;

/// Wakes up those who wait for rows to change.
#[derive(Clone)]
pub struct Watch {
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Rung after a commit that put rows with an index value.
    pub(crate) changed: Arc<Notify>,
    pub(crate) stop: Stop,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something may have changed: here, or it is time to look for changes of others.
    Look,
    /// The service is leaving.
    Leave,
}

impl Watch {
    /// The runtime, for time.
    pub fn runtime(&self) -> &dyn Runtime {
        self.runtime.as_ref()
    }

    /// From here on a commit on this instance is heard, until [`Watch::wait`] returns.
    pub fn listen(&self) -> Heard {
        Heard(self.changed.clone().notified_owned())
    }

    /// Waits for a commit on this instance, at most so long.
    pub async fn wait(&self, heard: Heard, longest: Duration) -> Woken {
        self.unless_leaving(timeout(self.runtime(), longest, heard.0).map(drop)).await
    }

    /// Waits so long, whatever happens: a burst of commits is one look.
    pub async fn rest(&self, pause: Duration) -> Woken {
        self.unless_leaving(self.runtime.sleep(pause)).await
    }

    async fn unless_leaving(&self, wait: impl Future<Output = ()>) -> Woken {
        match select(pin!(self.stop.until_asked()), pin!(wait)).await {
            Either::Left(_) => Woken::Leave,
            Either::Right(_) => Woken::Look,
        }
    }
}

/// Hears of a commit.
pub struct Heard(OwnedNotified);
