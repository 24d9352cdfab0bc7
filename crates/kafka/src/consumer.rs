//! The port's side of a group member: asks the member's thread, one thing at a time. Never touches
//! the client library itself.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use ports::{Consumer, Fault, Fetched, Offsets, Outcome, Partition, Polled};
use tokio::sync::{mpsc as replies, oneshot};

use crate::settings::Clients;
use crate::worker::{Command, Worker};

/// A member of a group. Dropped, it leaves the group without a commit: the client library knows no
/// silent end but that of its process.
pub(crate) struct KafkaConsumer {
    commands: mpsc::Sender<Command>,
    replies: replies::Receiver<Outcome<Polled>>,
    /// A poll was asked for and its reply has not been taken.
    asked: bool,
    /// What a dropped poll, or one that asked for fewer, left.
    ready: VecDeque<Outcome<Polled>>,
    close_deadline: Duration,
}

fn gone() -> Fault {
    Fault::refused("the consumer's thread has ended")
}

impl KafkaConsumer {
    // The client library's poll blocks, and its consumer wants one thread that polls it.
    #[allow(clippy::disallowed_methods)]
    pub async fn join(clients: &Clients, group: &str, topics: &[Arc<str>]) -> Outcome<Self> {
        let (commands, receiver) = mpsc::channel();
        let (sender, replies) = replies::channel(1);
        let (started, start) = oneshot::channel();
        let (clients, group, topics) = (clients.clone(), group.to_owned(), topics.to_vec());
        let close_deadline = clients.settings.close_deadline;
        std::thread::spawn(move || match Worker::join(&clients, &group, topics) {
            Ok(worker) => {
                if started.send(Ok(())).is_ok() {
                    worker.run(receiver, sender);
                }
            }
            Err(fault) => drop(started.send(Err(fault))),
        });
        start.await.map_err(|_| gone())??;
        Ok(KafkaConsumer {
            commands,
            replies,
            asked: false,
            ready: VecDeque::new(),
            close_deadline,
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Outcome<T> {
        let (sender, reply) = oneshot::channel();
        self.commands.send(command(sender)).map_err(|_| gone())?;
        reply.await.map_err(|_| gone())
    }

    /// Takes the reply of a poll that was asked for before. Cancel-safe.
    async fn take_reply(&mut self) -> Outcome<()> {
        let reply = self.replies.recv().await.ok_or_else(gone)?;
        self.asked = false;
        self.ready.push_back(reply);
        Ok(())
    }

    /// Drops records that were read before a change of position or of owner.
    fn forget(&mut self, gone: impl Fn(&Fetched) -> bool) {
        for reply in &mut self.ready {
            if let Ok(Polled::Records(records)) = reply {
                records.retain(|record| !gone(record));
            }
        }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        let max = max.max(1);
        loop {
            match self.ready.pop_front() {
                Some(Ok(Polled::Records(mut records))) => {
                    if records.len() > max {
                        let rest = records.split_off(max);
                        self.ready.push_front(Ok(Polled::Records(rest)));
                    }
                    return Ok(Polled::Records(records));
                }
                Some(reply) => return reply,
                None => {}
            }
            if !self.asked {
                self.commands.send(Command::Poll(max)).map_err(|_| gone())?;
                self.asked = true;
            }
            self.take_reply().await?;
        }
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        if next.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Commit(next.clone(), reply)).map_err(|_| gone())?;
        // It may have been sent before the thread ended.
        answer.await.map_err(|_| Fault::unknown("the consumer's thread has ended"))?
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        if self.ask(|reply| Command::Release(revoked, reply)).await.is_err() {
            tracing::warn!("released after the consumer's thread has ended");
        }
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        if self.asked {
            self.take_reply().await?;
        }
        self.forget(|record| next.contains_key(&record.partition));
        let next = next.clone();
        self.ask(|reply| Command::Seek(next, reply)).await?
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        if self.commands.send(Command::Pause(partitions.to_vec(), paused)).is_err() {
            tracing::warn!("paused after the consumer's thread has ended");
        }
    }

    // The deadline is real time, on the adapter's own runtime.
    #[allow(clippy::disallowed_methods)]
    async fn close(self: Box<Self>) {
        let goodbye = self.ask(Command::Close);
        if tokio::time::timeout(self.close_deadline, goodbye).await.is_err() {
            tracing::warn!("leaving the group takes longer than its deadline");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // In place of the member's thread.
    #[allow(clippy::disallowed_methods)]
    #[tokio::test]
    async fn a_commit_is_unknown_where_the_thread_ends_in_it_and_refused_behind_its_end() {
        let (commands, receiver) = mpsc::channel();
        let (_, replies) = replies::channel(1);
        let (ready, close_deadline) = (VecDeque::new(), Duration::ZERO);
        let mut consumer = KafkaConsumer { commands, replies, asked: false, ready, close_deadline };
        let next = Offsets::from([(Partition { topic: "t".into(), index: 0 }, 1)]);
        let thread = std::thread::spawn(move || drop(receiver.recv()));
        let unknown = consumer.commit(&next).await;
        assert!(matches!(unknown, Err(Fault::Unknown(_))), "{unknown:?}");
        thread.join().unwrap();
        let refused = consumer.commit(&next).await;
        assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    }
}
