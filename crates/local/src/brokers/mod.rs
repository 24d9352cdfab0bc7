//! The broker models with a journal: what is produced, published, committed, acked or declared goes
//! through one writer thread, is synced, and only then becomes visible and is confirmed. Never keeps
//! state that the models do not have.

mod journal;
mod log;
mod queue;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use model::log::{Assignor, Log, LogServer};
use model::queue::{QueueServer, Settings, Version};
use ports::{Fault, Outcome, Runtime, TopicSpec};
use tokio::sync::oneshot;

pub(crate) use log::LocalLog;
pub(crate) use queue::LocalQueue;

use journal::Journal;
use writer::{Request, Work, Writer};

/// Both brokers and their writer thread. Dropped, it waits for the thread.
pub(crate) struct Brokers {
    log: LogServer,
    queues: QueueServer,
    requests: RwLock<Option<Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
}

/// The topics of the journal in a file that exists; changes nothing. `Refused` where another version made it.
pub(crate) fn standing(path: &Path) -> Outcome<Vec<TopicSpec>> {
    Journal::standing(path).map_err(|text| Fault::refused(format!("{}: {text}", path.display())))
}

impl Brokers {
    /// Restores the models from the file, and starts the writer, which holds the lock.
    pub(crate) fn open(path: &Path, runtime: Arc<dyn Runtime>, lock: File) -> Outcome<Self> {
        let failed = |text: String| Fault::refused(format!("{}: {text}", path.display()));
        // As the services run on real servers.
        let assignor = Assignor::CooperativeSticky;
        let mut log = Log::new(model::log::Settings { assignor, ..Default::default() });
        // The journal has no failures: a dead letter begins anew, as before 4.0 (broker-contract R33).
        let version = Version::V3_10;
        let settings = Settings { version, journaled: true, ..Settings::default() };
        let queues = QueueServer::new(settings, runtime.clone());
        let journal = Journal::open(path).map_err(failed)?;
        journal.restore_log(&mut log, runtime.elapsed()).map_err(failed)?;
        queues.with(|queues, now| journal.restore_queues(queues, now)).map_err(failed)?;
        let log = LogServer::over(log);
        let (requests, inbox) = std::sync::mpsc::channel();
        let writer = Writer::new(journal, log.clone(), queues.clone(), runtime);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || {
            let _lock = lock;
            writer.run(&inbox);
        });
        let thread = Some(thread.map_err(|error| failed(error.to_string()))?);
        Ok(Brokers { log, queues, requests: RwLock::new(Some(requests)), thread })
    }

    /// Has the writer do it: one outcome for each item of the work, once it is synced.
    async fn ask(&self, work: Work) -> Vec<Outcome<()>> {
        let items = work.items();
        match self.tell(work) {
            None => vec![Err(Fault::retry("the journal is closed")); items],
            Some(answer) => answer
                .await
                .unwrap_or_else(|_| vec![Err(Fault::unknown("the journal ended")); items]),
        }
    }

    /// Has the writer do it, whoever waits for the answer. `None`: there is no writer any more.
    fn tell(&self, work: Work) -> Option<oneshot::Receiver<Vec<Outcome<()>>>> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        requests.as_ref()?.send(Request { work, reply }).ok().map(|()| answer)
    }

    /// As [`Self::ask`], for work of one item.
    async fn ask_one(&self, work: Work) -> Outcome<()> {
        self.ask(work).await.into_iter().collect()
    }

    /// As [`Self::ask_one`], for what the model has done already: a fault is never without effect.
    async fn sync(&self, work: Work) -> Outcome<()> {
        self.ask_one(work).await.map_err(|fault| match fault {
            Fault::Retry(cause) | Fault::Refused(cause) | Fault::Unknown(cause) => {
                Fault::Unknown(cause)
            }
        })
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // Without a sender, the writer finishes what it has and ends.
        *self.requests.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}
