//! Commits on a thread of its own, with a time-out. The client library's commit has none: it waits for a
//! coordinator that does not answer as long as that takes (K27). Never has two commits under way.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ports::{Fault, Outcome};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

use crate::faults::{Call, fault};

/// The committer of a member.
pub(crate) struct Committer {
    lists: mpsc::Sender<TopicPartitionList>,
    answers: mpsc::Receiver<KafkaResult<()>>,
    thread: JoinHandle<()>,
    limit: Duration,
    /// A commit has no answer yet.
    waiting: bool,
}

impl Committer {
    /// Waits for each answer so long.
    // A thread of the adapter.
    #[allow(clippy::disallowed_methods)]
    pub fn new<C: ConsumerContext + 'static>(
        consumer: Arc<BaseConsumer<C>>,
        limit: Duration,
    ) -> Self {
        let (lists, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let thread = thread::spawn(move || {
            while let Ok(list) = asked.recv() {
                // Whoever gave up waiting may be gone.
                let _ = answered.send(consumer.commit(&list, CommitMode::Sync));
            }
        });
        Committer { lists, answers, thread, limit, waiting: false }
    }

    /// Commits. `Unknown` where the answer takes too long; `Retry`, without an effect, as long as it does.
    pub fn commit(&mut self, list: TopicPartitionList) -> Outcome<()> {
        if self.waiting && self.answers.try_recv().is_err() {
            return Err(Fault::retry("the commit before has no answer yet"));
        }
        self.waiting = false;
        let gone = || Fault::unknown("the committer's thread has ended");
        self.lists.send(list).map_err(|_| gone())?;
        match self.answers.recv_timeout(self.limit) {
            Ok(answer) => answer.map_err(|error| fault(Call::Commit, &error)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.waiting = true;
                Err(Fault::unknown("no answer to the commit in time"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    /// Lets go of the consumer: before this returns, or when the answer is there that it waits for.
    pub fn end(self) {
        let Committer { lists, answers, thread, waiting, .. } = self;
        drop(lists);
        if waiting && answers.try_recv().is_err() {
            tracing::warn!("a commit has no answer yet: the member leaves the group when it has");
        } else if thread.join().is_err() {
            tracing::error!("the committer's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the other ends of its channels in place of its thread.
    #[allow(clippy::disallowed_methods)]
    fn bare() -> (Committer, mpsc::Receiver<TopicPartitionList>, mpsc::Sender<KafkaResult<()>>) {
        let (lists, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let (thread, limit) = (thread::spawn(|| {}), Duration::from_millis(20));
        (Committer { lists, answers, thread, limit, waiting: false }, asked, answered)
    }

    fn commit(committer: &mut Committer) -> Outcome<()> {
        committer.commit(TopicPartitionList::new())
    }

    #[test]
    fn without_an_answer_in_time_it_is_unknown_and_none_follows_it_until_there_is_one() {
        let (mut committer, asked, answered) = bare();
        assert!(matches!(commit(&mut committer), Err(Fault::Unknown(_))));
        assert!(matches!(commit(&mut committer), Err(Fault::Retry(_))));
        assert_eq!(asked.try_iter().count(), 1);
        answered.send(Ok(())).unwrap();
        answered.send(Ok(())).unwrap();
        assert_eq!(commit(&mut committer), Ok(()));
    }

    #[test]
    fn it_is_unknown_where_the_thread_has_ended() {
        let (mut committer, asked, answered) = bare();
        drop(answered);
        assert!(matches!(commit(&mut committer), Err(Fault::Unknown(_))), "in it");
        drop(asked);
        assert!(matches!(commit(&mut committer), Err(Fault::Unknown(_))), "before it");
    }
}
