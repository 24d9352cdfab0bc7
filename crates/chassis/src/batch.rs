//! The batch: whatever waits (records, commands, timers, results) becomes one transaction. Never
//! waits for more to come, never commits half an input.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use ports::{Fault, Offsets, Partition};
use tokio::sync::{mpsc, oneshot};

use crate::app::Shared;
use crate::commands::{Command, ReplyTo};
use crate::consume::{Done, Work};
use crate::slot::{Ended, Slot, Source};
use crate::stop::Working;
use crate::transaction::Failed;
use crate::{Handler, Reason, transaction};

/// The loop that turns what waits into transactions.
pub(crate) struct Batches<H: Handler> {
    shared: Arc<Shared>,
    handler: Arc<H>,
    commands: mpsc::Receiver<Command<H::Fact>>,
    work: mpsc::Receiver<Work>,
    /// Came out of turn: it shares its transaction with nothing.
    alone: Option<Work>,
}

/// Everything that waited, and whom to tell.
struct Gathered<F> {
    slots: Vec<Slot<F>>,
    replies: Vec<(usize, ReplyTo)>,
    epochs: BTreeMap<Partition, u64>,
    done: Vec<oneshot::Sender<Done>>,
}

impl<H: Handler> Batches<H> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        handler: Arc<H>,
        commands: mpsc::Receiver<Command<H::Fact>>,
        work: mpsc::Receiver<Work>,
    ) -> Self {
        Batches { shared, handler, commands, work, alone: None }
    }

    pub(crate) async fn run(mut self, working: Working) {
        loop {
            let mut gathered = Gathered {
                slots: Vec::new(),
                replies: Vec::new(),
                epochs: BTreeMap::new(),
                done: Vec::new(),
            };
            match self.alone.take() {
                Some(work) => gathered.work(&*self.handler, work),
                None => {
                    if !self.wait(&mut gathered, &working).await {
                        return;
                    }
                    self.gather(&mut gathered);
                }
            }
            if gathered.slots.is_empty() {
                continue;
            }
            if !self.carry_out(gathered, &working).await {
                return;
            }
        }
    }

    /// Waits for the first input. `false`: the service leaves and nothing waits.
    async fn wait(&mut self, gathered: &mut Gathered<H::Fact>, working: &Working) -> bool {
        if working.last() {
            // Who comes from here on hears that nothing was done.
            self.commands.close();
            self.work.close();
            self.gather(gathered);
            return !gathered.slots.is_empty() || self.alone.is_some();
        }
        let first = {
            // A service without commands, or without a topic, has that way in closed: the other one
            // goes on, and only leaving ends the loop.
            let (command, work) = (open(&mut self.commands), open(&mut self.work));
            let (command, work) = (pin!(command), pin!(work));
            match select(select(command, work), pin!(working.until_last())).await {
                Either::Left((Either::Left((command, _)), _)) => Some(Either::Left(command)),
                Either::Left((Either::Right((work, _)), _)) => Some(Either::Right(work)),
                Either::Right(_) => None,
            }
        };
        match first {
            Some(Either::Left(command)) => gathered.command(command),
            Some(Either::Right(work)) => self.take(gathered, work),
            // Nothing came, but something may have since: the next look closes the ways in.
            None => {}
        }
        true
    }

    fn take(&mut self, gathered: &mut Gathered<H::Fact>, work: Work) {
        match work.alone {
            true => self.alone = Some(work),
            false => gathered.work(&*self.handler, work),
        }
    }

    /// Takes what waits besides, up to the largest batch and a portion of records. Commands get the
    /// first half of it: neither a backlog of records nor a flood of commands shuts the others out.
    fn gather(&mut self, gathered: &mut Gathered<H::Fact>) {
        let batch_max = self.shared.settings.batch_max;
        while gathered.slots.len() < batch_max.div_ceil(2) {
            match self.commands.try_recv() {
                Ok(command) => gathered.command(command),
                Err(_) => break,
            }
        }
        while gathered.slots.len() < batch_max && self.alone.is_none() {
            match self.work.try_recv() {
                Ok(work) => self.take(gathered, work),
                Err(_) => break,
            }
        }
        while gathered.slots.len() < batch_max {
            match self.commands.try_recv() {
                Ok(command) => gathered.command(command),
                Err(_) => break,
            }
        }
    }

    /// Runs the batch until it is committed. `false`: the service leaves and its store does not
    /// answer; whoever waits learns nothing, and everything comes again.
    async fn carry_out(&self, gathered: Gathered<H::Fact>, working: &Working) -> bool {
        let Gathered { mut slots, replies, epochs, done } = gathered;
        let begun = self.shared.ports.runtime.elapsed();
        let mut ended: Vec<Ended> = Vec::with_capacity(slots.len());
        let Some(whole) = self.until_settled(&mut slots, &epochs, working).await else {
            return false;
        };
        match whole {
            Ok(outcomes) => ended = outcomes,
            // Something in it cannot be, and never will: one at a time finds out what.
            Err(reason) => {
                tracing::warn!(service = self.shared.settings.service, %reason,
                    "a batch is refused; taking its inputs one by one");
                for slot in &mut slots {
                    let one = std::slice::from_mut(slot);
                    match self.until_settled(one, &epochs, working).await {
                        Some(Ok(outcome)) => ended.extend(outcome),
                        Some(Err(reason)) => {
                            one[0].refuse(reason);
                            match self.until_settled(one, &epochs, working).await {
                                Some(Ok(outcome)) => ended.extend(outcome),
                                Some(Err(reason)) => panic!("a dead letter is refused: {reason}"),
                                None => return false,
                            }
                        }
                        None => return false,
                    }
                }
            }
        }
        let took = self.shared.ports.runtime.elapsed().saturating_sub(begun);
        self.shared.count(&slots, &ended, took);
        let mut result = Done { next: Offsets::new(), fenced: Vec::new() };
        for (slot, ended) in slots.iter().zip(&ended) {
            slot.account(ended, &mut result);
        }
        for sender in done {
            // Its consumer may be gone: then it reads again from the position.
            let _ = sender.send(result.clone());
        }
        for (at, sender) in replies {
            let reply = match &mut ended[at] {
                Ended::Applied(reply) | Ended::Repeated(reply) => reply.take(),
                Ended::Refused(reason) => Some(reason.to_reply()),
                Ended::Parked | Ended::Skipped | Ended::Fenced => None,
            };
            sender.send(reply);
        }
        true
    }

    /// Repeats the transaction until it is definitely committed or refused. After an unknown commit
    /// the repeat finds its own inbox rows and positions, and applies nothing twice. `None`: leaving.
    async fn until_settled(
        &self,
        slots: &mut [Slot<H::Fact>],
        epochs: &BTreeMap<Partition, u64>,
        working: &Working,
    ) -> Option<Result<Vec<Ended>, Reason>> {
        let mut failures = 0;
        // After an unknown commit the repeat finds everything done, and cannot tell what was new.
        let mut unknown = false;
        loop {
            match transaction::run(&self.shared, &*self.handler, slots, epochs).await {
                Ok(committed) => {
                    if committed.appended || unknown {
                        self.shared.appended.notify_one();
                    }
                    if committed.changed || unknown {
                        self.shared.changed.notify_waiters();
                    }
                    if committed.drainable || unknown {
                        self.shared.drainable.notify_one();
                    }
                    return Some(Ok(committed.ended));
                }
                Err(Failed::Rule(reason)) => return Some(Err(reason)),
                Err(Failed::Store(Fault::Refused(cause))) => {
                    return Some(Err(Reason::new("store_refused", cause.to_string())));
                }
                Err(Failed::Store(fault @ (Fault::Retry(_) | Fault::Unknown(_)))) => {
                    unknown |= matches!(fault, Fault::Unknown(_));
                    if working.asked() && failures > 3 {
                        return None;
                    }
                    tracing::debug!(service = self.shared.settings.service, %fault, failures,
                        "a batch was not committed; again");
                    self.shared.back_off("batch", &mut failures).await;
                }
            }
        }
    }
}

/// The next of a channel; of a closed one never.
async fn open<T>(channel: &mut mpsc::Receiver<T>) -> T {
    match channel.recv().await {
        Some(next) => next,
        None => std::future::pending().await,
    }
}

impl<F> Gathered<F> {
    fn command(&mut self, command: Command<F>) {
        self.replies.push((self.slots.len(), command.reply));
        self.slots.push(command.slot);
    }

    fn work<H: Handler<Fact = F>>(&mut self, handler: &H, work: Work) {
        self.epochs.extend(work.epochs);
        self.slots.extend(work.records.into_iter().map(|taken| Slot::record(handler, taken)));
        self.done.push(work.done);
    }
}

impl<F> Slot<F> {
    /// What its end means for the consumer it came from.
    fn account(&self, ended: &Ended, done: &mut Done) {
        let Source::Log { partition, offset } = &self.head.source else { return };
        match ended {
            Ended::Fenced => done.fenced.push(partition.clone()),
            Ended::Applied(_)
            | Ended::Repeated(_)
            | Ended::Refused(_)
            | Ended::Parked
            | Ended::Skipped => {
                let next = done.next.entry(partition.clone()).or_insert(0);
                *next = (*next).max(offset + 1);
            }
        }
    }
}
