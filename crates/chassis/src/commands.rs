//! The way in for commands, timers and results: a bounded queue in front of the batch. Never drops
//! an input that it took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{Key, Runtime, timeout};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::http::Problem;
use crate::slot::Slot;
use crate::{Input, Reply, Settings};

/// An input on its way, and where its reply goes.
pub(crate) struct Command<F> {
    pub(crate) slot: Slot<F>,
    pub(crate) reply: ReplyTo,
}

/// Where the reply of a command goes. While it is there, the command is in flight.
pub(crate) struct ReplyTo {
    sender: oneshot::Sender<Option<Reply>>,
    _in_flight: Option<InFlight>,
}

impl ReplyTo {
    /// Gives the reply; its caller may have stopped waiting.
    pub(crate) fn send(self, reply: Option<Reply>) {
        let _ = self.sender.send(reply);
    }
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
    /// A command with the same id is in flight, and was not done in time (saga-rules 17).
    #[error("a twin is in flight")]
    Twin,
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full => Problem::unavailable("the service is busy; nothing was done, try again"),
            Busy::Late => Problem::unavailable(
                "no answer in time: the request may still be carried out; repeat it with the same \
                 Idempotency-Key to learn how it ended",
            ),
            Busy::Twin => {
                let title = "A request with this Idempotency-Key is in flight";
                let detail = "the first request with this Idempotency-Key is not done yet; repeat \
                              it with the same key to learn how it ended";
                let problem = Problem::new(409, "request-in-flight", title, detail);
                Problem { retry_after_s: Some(1), ..problem }
            }
        }
    }
}

/// Sends inputs to a service's batch.
pub struct Commands<F> {
    queue: mpsc::Sender<Command<F>>,
    runtime: Arc<dyn Runtime>,
    reply_timeout: Duration,
    twin_wait: Duration,
    ids: InFlightIds,
    /// One permit a bulk request that this instance carries out.
    pub(crate) bulks: Arc<Semaphore>,
}

impl<F> Clone for Commands<F> {
    fn clone(&self) -> Self {
        Commands {
            queue: self.queue.clone(),
            runtime: self.runtime.clone(),
            reply_timeout: self.reply_timeout,
            twin_wait: self.twin_wait,
            ids: self.ids.clone(),
            bulks: self.bulks.clone(),
        }
    }
}

impl<F> Commands<F> {
    pub(crate) fn new(
        queue: mpsc::Sender<Command<F>>,
        runtime: Arc<dyn Runtime>,
        settings: &Settings,
    ) -> Self {
        let Settings { reply_timeout, twin_wait, bulks_max, .. } = *settings;
        let bulks = Arc::new(Semaphore::new(bulks_max));
        Commands { queue, runtime, reply_timeout, twin_wait, ids: InFlightIds::default(), bulks }
    }

    /// Hands in a command and waits for its reply, which comes after the commit. The twin of a
    /// command that is in flight on this instance waits less; one that is in flight on another
    /// instance holds this one's batch at the inbox row until it has ended.
    pub async fn submit(&self, input: Input<F>) -> Result<Reply, Busy> {
        self.start(input)?.reply().await
    }

    /// The same for anything that has a reply.
    pub(crate) async fn settle(&self, slot: Slot<F>) -> Result<Reply, Busy> {
        self.enqueue(slot, None)?.reply().await
    }

    /// Hands in a command. Commands that one caller starts are decided in that order.
    pub(crate) fn start(&self, input: Input<F>) -> Result<Started, Busy> {
        let in_flight = input.id.clone().map(|id| self.ids.enter(id));
        self.enqueue(Slot::command(input), in_flight)
    }

    fn enqueue(&self, slot: Slot<F>, in_flight: Option<InFlight>) -> Result<Started, Busy> {
        let (sender, replied) = oneshot::channel();
        let twin = in_flight.as_ref().is_some_and(|in_flight| in_flight.twin);
        let reply = ReplyTo { sender, _in_flight: in_flight };
        self.queue.try_send(Command { slot, reply }).map_err(|_| Busy::Full)?;
        let wait = if twin { self.twin_wait.min(self.reply_timeout) } else { self.reply_timeout };
        let (runtime, until) = (self.runtime.clone(), self.runtime.elapsed() + wait);
        Ok(Started { replied, twin, runtime, until })
    }

    /// Hands in a timer or a result, waits for room, and returns when its batch is committed.
    pub(crate) async fn hand_in(&self, input: Input<F>) -> Result<(), Busy> {
        self.hand_in_slot(Slot::command(input)).await
    }

    /// The same for anything.
    pub(crate) async fn hand_in_slot(&self, slot: Slot<F>) -> Result<(), Busy> {
        let (sender, replied) = oneshot::channel();
        let reply = ReplyTo { sender, _in_flight: None };
        self.queue.send(Command { slot, reply }).await.map_err(|_| Busy::Full)?;
        replied.await.map(drop).map_err(|_| Busy::Late)
    }

    /// The runtime, for ids and times of a request.
    pub fn runtime(&self) -> &dyn Runtime {
        self.runtime.as_ref()
    }

    /// Whether another command finds room now.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.capacity() > 0
    }

    /// When a request that begins now stops waiting, by the monotonic clock.
    pub(crate) fn patience(&self) -> Duration {
        self.runtime.elapsed() + self.reply_timeout
    }
}

/// A command that was handed in.
pub(crate) struct Started {
    replied: oneshot::Receiver<Option<Reply>>,
    twin: bool,
    runtime: Arc<dyn Runtime>,
    until: Duration,
}

impl Started {
    /// Waits for its reply.
    pub(crate) async fn reply(self) -> Result<Reply, Busy> {
        let wait = self.until.saturating_sub(self.runtime.elapsed());
        match timeout(self.runtime.as_ref(), wait, self.replied).await {
            Some(Ok(Some(reply))) => Ok(reply),
            None if self.twin => Err(Busy::Twin),
            // A rule that answers no command broke its contract; the caller sees it as late.
            Some(Ok(None) | Err(_)) | None => Err(Busy::Late),
        }
    }
}

/// How many commands of each id are in flight on this instance.
#[derive(Clone, Default)]
struct InFlightIds(Arc<Mutex<BTreeMap<Key, usize>>>);

impl InFlightIds {
    fn enter(&self, id: Key) -> InFlight {
        let mut ids = self.lock();
        let count = ids.entry(id.clone()).or_insert(0);
        let twin = *count > 0;
        *count += 1;
        drop(ids);
        InFlight { ids: self.clone(), id, twin }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One command in flight; it is none any more when this is dropped.
struct InFlight {
    ids: InFlightIds,
    id: Key,
    /// Whether another one was in flight before it.
    twin: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut ids = self.ids.lock();
        if let Some(count) = ids.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                ids.remove(&self.id);
            }
        }
    }
}
