//! Waiting for a batch that takes long, without making the group wait: polls go on, with everything
//! paused, so that a revocation is heard. Never reads a record to be handled before the batch is done.

use std::pin::pin;

use futures_util::future::{Either, select};
use ports::{Fault, Outcome, Partition, Polled, timeout};
use tokio::sync::oneshot;

use super::{Done, Held, Member};

/// The batch loop has ended, or dropped what it had.
fn leaving(_: oneshot::error::RecvError) -> Fault {
    Fault::retry("the service is leaving")
}

impl Member<'_> {
    /// What became of the records in hand.
    pub(super) async fn outcome(&mut self, mut batch: oneshot::Receiver<Done>) -> Outcome<Done> {
        let runtime = self.shared.ports.runtime.clone();
        let patience = self.shared.settings.patience;
        if let Some(done) = timeout(&*runtime, patience, &mut batch).await {
            return done.map_err(leaving);
        }
        // Only now: a pause costs the client what it has fetched ahead.
        self.pause(true);
        let done = self.outwait(&mut batch).await;
        self.pause(false);
        done
    }

    fn pause(&mut self, paused: bool) {
        let held: Vec<Partition> = self.held.keys().cloned().collect();
        self.consumer.pause(&held, paused);
    }

    async fn outwait(&mut self, batch: &mut oneshot::Receiver<Done>) -> Outcome<Done> {
        let runtime = self.shared.ports.runtime.clone();
        let until = runtime.elapsed() + self.shared.settings.stall;
        let mut failures = 0;
        loop {
            if runtime.elapsed() > until {
                return batch.await.map_err(leaving);
            }
            let polled = match select(&mut *batch, pin!(self.consumer.poll(1))).await {
                Either::Left((done, _)) => return done.map_err(leaving),
                Either::Right((polled, _)) => polled,
            };
            if polled.is_ok() {
                self.note(false);
            }
            match polled {
                // Fetched before the pause.
                Ok(Polled::Records(records)) => self.later.extend(records),
                Ok(Polled::Assigned(added)) => {
                    self.rebalanced("assigned");
                    self.consumer.pause(&added, true);
                    self.added = true;
                    self.held.extend(added.into_iter().map(|p| (p, Held::default())));
                }
                Ok(Polled::Revoked(revoked)) => {
                    self.rebalanced("revoked");
                    if let Some(done) = self.give_up(revoked, batch).await? {
                        return Ok(done);
                    }
                }
                Ok(Polled::Lost(lost)) => {
                    self.rebalanced("lost");
                    self.forget(&lost);
                }
                Err(Fault::Retry(_)) => self.shared.back_off("poll", &mut failures).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Lets the batch finish, which may hold records of what is revoked; not for longer than a drain.
    /// A batch that hangs is left to itself: the next owner's claim fences what it does to these
    /// partitions, and its other ones are ours.
    async fn give_up(
        &mut self,
        revoked: Vec<Partition>,
        batch: &mut oneshot::Receiver<Done>,
    ) -> Outcome<Option<Done>> {
        let runtime = self.shared.ports.runtime.clone();
        let done = match timeout(&*runtime, self.shared.settings.drain, batch).await {
            Some(done) => Some(done.map_err(leaving)?),
            None => {
                tracing::warn!(
                    service = self.shared.settings.service,
                    partitions = revoked.len(),
                    "a batch hangs; its partitions go to another instance without waiting for it"
                );
                None
            }
        };
        if let Some(done) = &done {
            self.keep_offsets(done);
            self.commit(3).await;
        }
        self.forget(&revoked);
        self.consumer.release(revoked).await;
        Ok(done)
    }
}
