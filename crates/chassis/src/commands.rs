//! The way in for commands, timers and results: a bounded queue in front of the batch. Never drops
//! an input that it took.

use std::sync::Arc;
use std::time::Duration;

use ports::{Runtime, timeout};
use tokio::sync::{mpsc, oneshot};

use crate::http::Problem;
use crate::slot::Slot;
use crate::{Input, Reply};

/// An input on its way, and where its reply goes.
pub(crate) struct Command<F> {
    pub(crate) slot: Slot<F>,
    pub(crate) reply: oneshot::Sender<Option<Reply>>,
}

/// Why a command got no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The queue is full or the service is leaving: nothing was done.
    #[error("the service is busy")]
    Full,
    /// No reply in time: it may still be done. Repeat with the same Idempotency-Key.
    #[error("no reply in time")]
    Late,
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full => Problem::unavailable("the service is busy; nothing was done, try again"),
            Busy::Late => Problem::unavailable(
                "no answer in time: the request may still be carried out; repeat it with the same \
                 Idempotency-Key to learn how it ended",
            ),
        }
    }
}

/// Sends inputs to a service's batch.
pub struct Commands<F> {
    pub(crate) queue: mpsc::Sender<Command<F>>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) reply_timeout: Duration,
}

impl<F> Clone for Commands<F> {
    fn clone(&self) -> Self {
        let (queue, runtime) = (self.queue.clone(), self.runtime.clone());
        Commands { queue, runtime, reply_timeout: self.reply_timeout }
    }
}

impl<F> Commands<F> {
    /// Hands in a command and waits for its reply, which comes after the commit.
    pub async fn submit(&self, input: Input<F>) -> Result<Reply, Busy> {
        self.settle(Slot::command(input)).await
    }

    /// The same for anything that has a reply.
    pub(crate) async fn settle(&self, slot: Slot<F>) -> Result<Reply, Busy> {
        let (reply, replied) = oneshot::channel();
        self.queue.try_send(Command { slot, reply }).map_err(|_| Busy::Full)?;
        match timeout(self.runtime.as_ref(), self.reply_timeout, replied).await {
            Some(Ok(Some(reply))) => Ok(reply),
            // A rule that answers no command broke its contract; the caller sees it as late.
            Some(Ok(None) | Err(_)) | None => Err(Busy::Late),
        }
    }

    /// Hands in a timer or a result, waits for room, and returns when its batch is committed.
    pub(crate) async fn hand_in(&self, input: Input<F>) -> Result<(), Busy> {
        self.hand_in_slot(Slot::command(input)).await
    }

    /// The same for anything.
    pub(crate) async fn hand_in_slot(&self, slot: Slot<F>) -> Result<(), Busy> {
        let (reply, replied) = oneshot::channel();
        self.queue.send(Command { slot, reply }).await.map_err(|_| Busy::Full)?;
        replied.await.map(drop).map_err(|_| Busy::Late)
    }

    /// The runtime, for ids and times of a request.
    pub fn runtime(&self) -> &dyn Runtime {
        self.runtime.as_ref()
    }
}
