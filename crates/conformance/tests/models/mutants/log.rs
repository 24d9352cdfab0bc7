//! Logs that lie: a model behind a wrapper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ports::{
    Consumer, EventLog, Fault, Fetched, Offsets, Outcome, Partition, Polled, Record, Runtime,
    TopicSpec,
};
use shakedown_conformance::log::{
    Apart, Appended, BareMember, Committed, Ending, Groups, Life, Link, LogBackend, Lost, Sent,
    Transaction, Who, before_the_kill,
};
use shakedown_conformance::{NotApplicable, Observed};

use crate::log;

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLie {
    /// Another hash chooses the partition.
    OtherHash,
    /// The high watermark is one too low.
    LowWatermark,
    /// A producer of the same name is known again, and what it sends again left out.
    Dedup,
    /// A batch is written from its end.
    LastFirst,
    /// One record that is refused takes its batch with it.
    RefusesTogether,
    /// A group without offsets begins at the end.
    BeginsAtTheEnd,
    /// A commit is of the last offset, not of the next.
    LastNotNext,
    /// Only a higher offset is committed.
    NeverBack,
    /// All partitions are revoked in each rebalance.
    Eager,
    /// A close is silent.
    SilentClose,
    /// A kill says goodbye.
    PoliteKill,
    /// What is not held is left out of a commit in silence.
    CommitsWhatItCan,
    /// A seek changes nothing.
    NoSeek,
    /// A pause changes nothing.
    NoPause,
    /// A declaration is content with any count.
    AnyCount,
    /// What its client sends again is written again.
    WritesAgain,
    /// The numbers of batches mean nothing.
    NoNumbers,
    /// A duplicate is an error.
    DuplicateFails,
    /// What was not heard of was not done.
    SaysNotDone,
    /// No replica is asked.
    NoReplicas,
    /// The last stored offset is committed, a lower one too.
    StoresBack,
    /// What is read is committed.
    CommitsWhatItReads,
    /// The library's defaults commit nothing.
    CarefulDefaults,
    /// A commit of any generation is taken, or of none.
    AnyGeneration,
    /// A commit of any epoch is taken.
    AnyEpoch,
    /// Who does not poll is out, and its commits are said to count.
    SaysCommitted,
    /// What is aborted counts.
    NoAborts,
    /// What is behind an open transaction is shown, what is in it, too.
    NoStall,
    /// What is deleted is there.
    NoDeletion,
    /// Compaction leaves the newest record alone, not the newest of each key.
    CompactsToOne,
    /// A record that was confirmed dies with the leader.
    LosesConfirmed,
    /// Groups need no coordinator.
    NoCoordinator,
    /// No record is older than the one before it.
    TimeRises,
}

impl LogLie {
    /// All of them, with the statements that each breaks.
    pub const ALL: [(LogLie, &'static [&'static str]); 33] = [
        (LogLie::OtherHash, &["K1"]),
        (LogLie::LowWatermark, &["K3", "K4"]),
        (LogLie::Dedup, &["K5", "K9"]),
        (LogLie::LastFirst, &["K10"]),
        (LogLie::RefusesTogether, &["K12"]),
        (LogLie::BeginsAtTheEnd, &["K15"]),
        (LogLie::LastNotNext, &["K16"]),
        (LogLie::NeverBack, &["K16"]),
        (LogLie::Eager, &["K22"]),
        (LogLie::SilentClose, &["K24"]),
        (LogLie::PoliteKill, &["K24"]),
        (LogLie::CommitsWhatItCan, &["K25"]),
        (LogLie::NoSeek, &[""]),
        (LogLie::NoPause, &[""]),
        (LogLie::AnyCount, &["K2"]),
        (LogLie::WritesAgain, &["K6"]),
        (LogLie::NoNumbers, &["K6", "K8"]),
        (LogLie::DuplicateFails, &["K7"]),
        (LogLie::SaysNotDone, &["K11"]),
        (LogLie::NoReplicas, &["K13"]),
        (LogLie::StoresBack, &["K17"]),
        (LogLie::CommitsWhatItReads, &["K18"]),
        (LogLie::CarefulDefaults, &["K18"]),
        (LogLie::AnyGeneration, &["K19", "K20"]),
        (LogLie::AnyEpoch, &["K21"]),
        (LogLie::SaysCommitted, &["K23"]),
        (LogLie::NoAborts, &["K28"]),
        (LogLie::NoStall, &["K28"]),
        (LogLie::NoDeletion, &["K32"]),
        (LogLie::CompactsToOne, &["K33"]),
        (LogLie::LosesConfirmed, &["K4"]),
        (LogLie::NoCoordinator, &["K27"]),
        (LogLie::TimeRises, &["K34"]),
    ];
}

/// Of what only another lie is about.
const OTHER: NotApplicable = NotApplicable("another lie is about this");

/// Topic, key and payload of what was produced.
type Produced = Arc<Mutex<BTreeSet<(Arc<str>, Arc<str>, Vec<u8>)>>>;

pub struct LyingLog {
    truth: log::InProcess,
    lie: LogLie,
    produced: Produced,
}

impl LyingLog {
    pub fn new(truth: log::InProcess, lie: LogLie) -> Self {
        LyingLog { truth, lie, produced: Arc::default() }
    }
}

#[async_trait]
impl LogBackend for LyingLog {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn session_timeout(&self) -> Duration {
        self.truth.session_timeout()
    }

    fn heartbeat(&self) -> Duration {
        self.truth.heartbeat()
    }

    fn keeps_time(&self) -> Observed {
        Ok(())
    }

    fn max_poll_interval(&self) -> Duration {
        self.truth.max_poll_interval()
    }

    fn groups(&self) -> Groups {
        match self.lie {
            LogLie::AnyEpoch => Groups::LedByBrokers,
            _ => Groups::LedByMembers,
        }
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        self.truth.topic(partitions).await
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        let truth = self.truth.client(name).await;
        Arc::new(Client { truth, lie: self.lie, produced: self.produced.clone() })
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        if self.lie != LogLie::PoliteKill {
            return self.truth.kill_a_member(life).await;
        }
        let at = self.runtime().elapsed();
        let client = self.truth.client("doomed").await;
        before_the_kill(&*client, life).await.close().await;
        Ok(at)
    }

    async fn resend_without_idempotence(&self, batch: Vec<Record>) -> Observed {
        let client = self.client("plain").await;
        client.produce(batch.clone()).await;
        client.produce(batch).await;
        Ok(())
    }

    async fn break_before_the_answer(
        &self,
        batch: Vec<Record>,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        self.only(LogLie::WritesAgain)?;
        let client = self.client("idempotent").await;
        client.produce(batch.clone()).await;
        Ok(client.produce(batch).await)
    }

    async fn lose_until_late(
        &self,
        lost: Lost,
        batch: Vec<Record>,
        next: Vec<Record>,
    ) -> Result<[Vec<Outcome<()>>; 2], NotApplicable> {
        self.only(LogLie::SaysNotDone)?;
        let client = self.client("impatient").await;
        let outcomes = vec![Err(Fault::retry("it takes long")); batch.len()];
        if lost == Lost::Replies {
            client.produce(batch).await;
        }
        Ok([outcomes, client.produce(next).await])
    }

    async fn producer_id(&self) -> Result<i64, NotApplicable> {
        self.only(LogLie::NoNumbers)?;
        Ok(1)
    }

    async fn send(&self, _: Sent, record: Record) -> Result<Appended, NotApplicable> {
        self.only(LogLie::NoNumbers)?;
        let appended = self.truth.reach(|log, _| log.append(record, DateTime::UNIX_EPOCH))?;
        Ok(Appended::At(appended.unwrap().1))
    }

    async fn answers_as_a_duplicate(&self) -> Result<(Arc<dyn EventLog>, Arc<str>), NotApplicable> {
        self.only(LogLie::DuplicateFails)?;
        Ok((self.client("one").await, self.topic(1).await))
    }

    async fn kill_the_leader(&self, topic: &Arc<str>) -> Observed {
        self.only(LogLie::LosesConfirmed)?;
        let partition = Partition { topic: topic.clone(), index: 0 };
        Ok(self.truth.reach(|log, _| log.trim(&partition, 1))?)
    }

    async fn apart(&self) -> Result<Apart, NotApplicable> {
        self.only(LogLie::NoCoordinator)?;
        let (client, topic) = (self.client("one").await, self.topic(1).await);
        let coordinator = Box::new(Nothing);
        Ok(Apart { client, group: format!("{topic}.group"), topic, coordinator })
    }

    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable> {
        self.only(LogLie::NoReplicas)?;
        Ok(self.topic(1).await)
    }

    async fn enough_replicas(&self, _: &Arc<str>) -> Observed {
        Ok(self.only(LogLie::NoReplicas)?)
    }

    async fn produce_to_the_leader(&self, record: Record) -> Result<Outcome<()>, NotApplicable> {
        self.only(LogLie::NoReplicas)?;
        Ok(self.client("leader").await.produce(vec![record]).await.remove(0))
    }

    async fn produce_at(&self, record: Record, at: DateTime<Utc>) -> Observed {
        self.truth.produce_at(record, at).await
    }

    async fn begin(
        &self,
        batch: Vec<Record>,
        ending: Ending,
    ) -> Result<Box<dyn Transaction>, NotApplicable> {
        match self.lie {
            LogLie::NoAborts => self.truth.begin(batch, Ending::Commits).await,
            LogLie::NoStall => {
                self.client("transactional").await.produce(batch).await;
                Ok(Box::new(Nothing))
            }
            _ => self.truth.begin(batch, ending).await,
        }
    }

    async fn delete_below(&self, partition: &Partition, offset: i64) -> Observed {
        match self.lie {
            LogLie::NoDeletion => Ok(()),
            _ => self.truth.delete_below(partition, offset).await,
        }
    }

    async fn compacted_topic(&self) -> Result<Arc<str>, NotApplicable> {
        self.truth.compacted_topic().await
    }

    async fn compact(&self, topic: &Arc<str>) -> Observed {
        if self.lie != LogLie::CompactsToOne {
            return self.truth.compact(topic).await;
        }
        let partition = Partition { topic: topic.clone(), index: 0 };
        self.truth.reach(|log, _| {
            let (_, high) = log.watermarks(&partition).unwrap();
            log.trim(&partition, high - 1);
        })?;
        Ok(())
    }

    async fn store_offsets(
        &self,
        _: &str,
        _: &Partition,
        rounds: &[&[i64]],
    ) -> Result<Vec<Option<i64>>, NotApplicable> {
        self.only(LogLie::StoresBack)?;
        Ok(rounds.iter().map(|round| round.last().copied()).collect())
    }

    async fn read_by_default(&self, _: &str, _: &Arc<str>, _: usize) -> Observed {
        Ok(self.only(LogLie::CarefulDefaults)?)
    }

    async fn bare_member(
        &self,
        group: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn BareMember>, NotApplicable> {
        let truth = self.truth.bare_member(group, topic).await?;
        Ok(match self.lie {
            LogLie::AnyGeneration | LogLie::AnyEpoch => Box::new(Unfenced(truth)),
            _ => truth,
        })
    }
}

impl LyingLog {
    /// What the model cannot do is done where it is lied about.
    fn only(&self, lie: LogLie) -> Result<(), NotApplicable> {
        if self.lie == lie { Ok(()) } else { Err(OTHER) }
    }
}

struct Nothing;

impl Link for Nothing {
    fn silence(&self) {}
}

#[async_trait]
impl Transaction for Nothing {
    async fn end(self: Box<Self>) {}
}

/// Whoever commits, it commits as the member that it is.
struct Unfenced(Box<dyn BareMember>);

#[async_trait]
impl BareMember for Unfenced {
    async fn sync(&mut self) {
        self.0.sync().await;
    }

    async fn commit(&mut self, _: Who, next: &Offsets) -> Committed {
        self.0.commit(Who::Member, next).await
    }

    async fn leave(&mut self) {
        self.0.leave().await;
    }
}

struct Client {
    truth: Arc<dyn EventLog>,
    lie: LogLie,
    produced: Produced,
}

#[async_trait]
impl EventLog for Client {
    async fn declare(&self, topics: &[TopicSpec]) -> Outcome<()> {
        let declared = self.truth.declare(topics).await;
        if self.lie == LogLie::AnyCount { Ok(()) } else { declared }
    }

    async fn produce(&self, mut batch: Vec<Record>) -> Vec<Outcome<()>> {
        let count = batch.len();
        match self.lie {
            LogLie::LastFirst => batch.reverse(),
            LogLie::OtherHash => {
                for record in &mut batch {
                    record.key = format!("~{}", record.key).into();
                }
            }
            LogLie::Dedup => {
                let mut produced = self.produced.lock().unwrap();
                batch.retain(|record| {
                    let id = (record.to.clone(), record.key.clone(), record.payload.to_vec());
                    produced.insert(id)
                });
            }
            _ => {}
        }
        let outcomes = self.truth.produce(batch).await;
        match self.lie {
            LogLie::RefusesTogether => {
                let refused = outcomes.iter().find(|outcome| outcome.is_err()).cloned();
                refused.map_or(outcomes, |refused| vec![refused; count])
            }
            LogLie::Dedup => vec![Ok(()); count],
            LogLie::DuplicateFails => vec![Err(Fault::unknown("it may be there twice")); count],
            _ => outcomes,
        }
    }

    async fn subscribe(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Box<dyn Consumer>> {
        let truth = self.truth.subscribe(group, topics).await?;
        let (lie, log) = (self.lie, self.truth.clone());
        let (held, most, newest) = (BTreeSet::new(), Offsets::new(), DateTime::UNIX_EPOCH);
        Ok(Box::new(Member { truth, lie, log, held, most, newest }))
    }

    async fn watermarks(&self, topic: &str) -> Outcome<BTreeMap<Partition, (i64, i64)>> {
        let mut marks = self.truth.watermarks(topic).await?;
        if self.lie == LogLie::LowWatermark {
            marks.values_mut().for_each(|(low, high)| *high = (*high - 1).max(*low));
        }
        Ok(marks)
    }

    async fn committed(&self, group: &str, topics: &[Arc<str>]) -> Outcome<Offsets> {
        let mut offsets = self.truth.committed(group, topics).await?;
        if self.lie == LogLie::LastNotNext {
            offsets.values_mut().for_each(|offset| *offset -= 1);
        }
        Ok(offsets)
    }
}

struct Member {
    truth: Box<dyn Consumer>,
    lie: LogLie,
    log: Arc<dyn EventLog>,
    held: BTreeSet<Partition>,
    /// The highest offset of each partition that was committed.
    most: Offsets,
    /// The newest record's time.
    newest: DateTime<Utc>,
}

#[async_trait]
impl Consumer for Member {
    async fn poll(&mut self, max: usize) -> Outcome<Polled> {
        let mut polled = self.truth.poll(max).await?;
        if let (LogLie::OtherHash, Polled::Records(records)) = (self.lie, &mut polled) {
            for fetched in records {
                fetched.record.key = fetched.record.key[1..].into();
            }
        }
        if let (LogLie::TimeRises, Polled::Records(records)) = (self.lie, &mut polled) {
            for fetched in records {
                self.newest = self.newest.max(fetched.at);
                fetched.at = self.newest;
            }
        }
        if let (LogLie::CommitsWhatItReads, Polled::Records(records)) = (self.lie, &polled) {
            let next = |it: &Fetched| (it.partition.clone(), it.offset + 1);
            self.truth.commit(&records.iter().map(next).collect()).await?;
        }
        if let Polled::Assigned(partitions) = &polled {
            self.held.extend(partitions.iter().cloned());
            if self.lie == LogLie::BeginsAtTheEnd {
                let marks = self.log.watermarks(&partitions[0].topic).await?;
                let ends = partitions.iter().map(|it| (it.clone(), marks[it].1)).collect();
                self.truth.seek(&ends).await?;
            }
        }
        Ok(polled)
    }

    async fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        let mut next = next.clone();
        match self.lie {
            LogLie::LastNotNext => next.values_mut().for_each(|offset| *offset += 1),
            LogLie::CommitsWhatItCan => next.retain(|partition, _| self.held.contains(partition)),
            LogLie::NeverBack => {
                for (partition, offset) in &mut next {
                    let most = self.most.entry(partition.clone()).or_insert(*offset);
                    *most = (*most).max(*offset);
                    *offset = *most;
                }
            }
            _ => {}
        }
        let committed = self.truth.commit(&next).await;
        if self.lie == LogLie::SaysCommitted { Ok(()) } else { committed }
    }

    async fn release(&mut self, revoked: Vec<Partition>) {
        self.truth.release(revoked).await;
    }

    async fn seek(&mut self, next: &Offsets) -> Outcome<()> {
        if self.lie == LogLie::NoSeek { Ok(()) } else { self.truth.seek(next).await }
    }

    fn pause(&mut self, partitions: &[Partition], paused: bool) {
        if self.lie != LogLie::NoPause {
            self.truth.pause(partitions, paused);
        }
    }

    async fn close(self: Box<Self>) {
        if self.lie != LogLie::SilentClose {
            self.truth.close().await;
        }
    }
}
