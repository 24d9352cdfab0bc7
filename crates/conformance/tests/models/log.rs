//! The log model, and local mode's log on it. Both use the model's default time-outs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use local::Local;
use model::log::{Assignor, CommitError, Log, LogServer, MemberId, Settings};
use ports::{EventLog, Offsets, Outcome, Partition, Record, Runtime, TopicSpec};
use shakedown_conformance::log::{
    Apart, Appended, BareMember, Committed, Ending, Life, LogBackend, Lost, Sent, Transaction, Who,
    before_the_kill,
};
use shakedown_conformance::{NotApplicable, Observed};

const NO_LINK: NotApplicable =
    NotApplicable("in process: no link; the simulator loses replies around the port's calls");

const NO_IDS: NotApplicable =
    NotApplicable("its producers have no ids: what comes again is written again (K9)");

const NO_REPLICAS: NotApplicable = NotApplicable("it has no replicas");

const NO_COMMITTER: NotApplicable = NotApplicable("nothing is committed but by a call of the port");

const OURS_ALONE: NotApplicable = NotApplicable("nothing but the port leads to its log");

enum Server {
    Model(LogServer),
    Local(Local),
}

pub struct InProcess {
    server: Server,
    runtime: Arc<dyn Runtime>,
    settings: Settings,
    topics: AtomicU32,
}

impl InProcess {
    pub fn on_the_model(runtime: Arc<dyn Runtime>) -> Self {
        // As the adapter and local mode.
        InProcess::of(
            Settings { assignor: Assignor::CooperativeSticky, ..Settings::default() },
            runtime,
        )
    }

    /// That waits less for a poll.
    pub fn impatient(runtime: Arc<dyn Runtime>) -> Self {
        let (assignor, max_poll_interval) = (Assignor::CooperativeSticky, Duration::from_secs(60));
        InProcess::of(Settings { assignor, max_poll_interval, ..Settings::default() }, runtime)
    }

    /// With eager rebalances.
    pub fn eager(runtime: Arc<dyn Runtime>) -> Self {
        InProcess::of(Settings { assignor: Assignor::Range, ..Settings::default() }, runtime)
    }

    fn of(settings: Settings, runtime: Arc<dyn Runtime>) -> Self {
        let server = Server::Model(LogServer::new(settings.clone()));
        InProcess { server, runtime, settings, topics: AtomicU32::new(0) }
    }

    pub fn on(local: Local, runtime: Arc<dyn Runtime>) -> Self {
        let server = Server::Local(local);
        InProcess { server, runtime, settings: Settings::default(), topics: AtomicU32::new(0) }
    }

    /// The log, where the test can reach it, and the time on it.
    pub fn reach<T>(&self, work: impl FnOnce(&mut Log, Duration) -> T) -> Result<T, NotApplicable> {
        let now = self.runtime.elapsed();
        match &self.server {
            Server::Model(server) => Ok(server.with(|log| work(log, now))),
            Server::Local(_) => Err(OURS_ALONE),
        }
    }
}

#[async_trait]
impl LogBackend for InProcess {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn session_timeout(&self) -> Duration {
        self.settings.session_timeout
    }

    fn heartbeat(&self) -> Duration {
        self.settings.heartbeat
    }

    fn max_poll_interval(&self) -> Duration {
        self.settings.max_poll_interval
    }

    async fn topic(&self, partitions: i32) -> Arc<str> {
        let n = self.topics.fetch_add(1, Ordering::Relaxed);
        let spec = TopicSpec { name: format!("topic-{n}").into(), partitions };
        self.client("admin").await.declare(std::slice::from_ref(&spec)).await.unwrap();
        spec.name
    }

    async fn client(&self, name: &str) -> Arc<dyn EventLog> {
        match &self.server {
            Server::Model(server) => Arc::new(server.client(name, self.runtime.clone())),
            Server::Local(local) => local.log(),
        }
    }

    async fn kill_a_member(&self, life: &Life) -> Result<Duration, NotApplicable> {
        let client = self.client("doomed").await;
        // Dropped without a close: no process is needed, its heartbeats end.
        drop(before_the_kill(&*client, life).await);
        Ok(self.runtime.elapsed())
    }

    async fn resend_without_idempotence(&self, batch: Vec<Record>) -> Observed {
        let client = self.client("plain").await;
        for _ in 0..2 {
            assert!(client.produce(batch.clone()).await.iter().all(Result::is_ok));
        }
        Ok(())
    }

    async fn break_before_the_answer(
        &self,
        _: Vec<Record>,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        Err(NO_LINK)
    }

    async fn lose_until_late(
        &self,
        _: Lost,
        _: Vec<Record>,
        _: Vec<Record>,
    ) -> Result<[Vec<Outcome<()>>; 2], NotApplicable> {
        Err(NO_LINK)
    }

    async fn producer_id(&self) -> Result<i64, NotApplicable> {
        Err(NO_IDS)
    }

    async fn send(&self, _: Sent, _: Record) -> Result<Appended, NotApplicable> {
        Err(NO_IDS)
    }

    async fn answers_as_a_duplicate(&self) -> Result<(Arc<dyn EventLog>, Arc<str>), NotApplicable> {
        Err(NO_IDS)
    }

    async fn kill_the_leader(&self, _: &Arc<str>) -> Observed {
        Err(NO_REPLICAS.into())
    }

    async fn apart(&self) -> Result<Apart, NotApplicable> {
        Err(NO_LINK)
    }

    async fn topic_short_of_replicas(&self) -> Result<Arc<str>, NotApplicable> {
        Err(NO_REPLICAS)
    }

    async fn enough_replicas(&self, _: &Arc<str>) -> Observed {
        Err(NO_REPLICAS.into())
    }

    async fn produce_to_the_leader(&self, _: Record) -> Result<Outcome<()>, NotApplicable> {
        Err(NO_REPLICAS)
    }

    async fn produce_at(&self, record: Record, at: DateTime<Utc>) -> Observed {
        Ok(self.reach(|log, _| log.append(record, at).map(drop).unwrap())?)
    }

    /// The model has no transactions, but what others' do to a reader: records that are not visible
    /// yet, and offsets without a record.
    async fn begin(
        &self,
        batch: Vec<Record>,
        ending: Ending,
    ) -> Result<Box<dyn Transaction>, NotApplicable> {
        let Server::Model(server) = &self.server else { return Err(OURS_ALONE) };
        let partition = Partition { topic: batch[0].to.clone(), index: 0 };
        let at = self.runtime.now();
        server.with(|log| {
            log.hide(&partition);
            match ending {
                Ending::Commits => {
                    batch.into_iter().for_each(|record| log.append(record, at).map(drop).unwrap());
                }
                Ending::Aborts => log.skip(&partition, batch.len() as i64),
            }
        });
        Ok(Box::new(Open { server: server.clone(), partition }))
    }

    async fn delete_below(&self, partition: &Partition, offset: i64) -> Observed {
        Ok(self.reach(|log, _| log.trim(partition, offset))?)
    }

    async fn compacted_topic(&self) -> Result<Arc<str>, NotApplicable> {
        self.reach(|_, _| ())?;
        Ok(self.topic(1).await)
    }

    async fn compact(&self, topic: &Arc<str>) -> Observed {
        Ok(self.reach(|log, _| log.compact(&Partition { topic: topic.clone(), index: 0 }))?)
    }

    async fn store_offsets(
        &self,
        _: &str,
        _: &Partition,
        _: &[&[i64]],
    ) -> Result<Vec<Option<i64>>, NotApplicable> {
        Err(NO_COMMITTER)
    }

    async fn read_by_default(&self, _: &str, _: &Arc<str>, _: usize) -> Observed {
        Err(NO_COMMITTER.into())
    }

    async fn bare_member(
        &self,
        group: &str,
        topic: &Arc<str>,
    ) -> Result<Box<dyn BareMember>, NotApplicable> {
        let Server::Model(server) = &self.server else { return Err(OURS_ALONE) };
        let topics = [topic.clone()];
        let id = self.reach(|log, now| log.join(now, group, &"bare".into(), &topics))?;
        let (server, runtime) = (server.clone(), self.runtime.clone());
        Ok(Box::new(Bare { server, runtime, group: group.to_owned(), id }))
    }
}

struct Open {
    server: LogServer,
    partition: Partition,
}

#[async_trait]
impl Transaction for Open {
    async fn end(self: Box<Self>) {
        self.server.with(|log| {
            log.skip(&self.partition, 1);
            log.show(std::slice::from_ref(&self.partition));
        });
    }
}

struct Bare {
    server: LogServer,
    runtime: Arc<dyn Runtime>,
    group: String,
    id: MemberId,
}

impl Bare {
    fn with<T>(&self, work: impl FnOnce(&mut Log, Duration) -> T) -> T {
        self.server.with(|log| work(log, self.runtime.elapsed()))
    }
}

#[async_trait]
impl BareMember for Bare {
    async fn sync(&mut self) {
        self.with(|log, now| log.poll(now, &self.group, self.id));
    }

    async fn commit(&mut self, who: Who, next: &Offsets) -> Committed {
        let answer = self.with(|log, now| {
            let generation = log.generation(&self.group);
            let mut commit = |id, generation| log.commit(now, &self.group, id, generation, next);
            match who {
                Who::Member => commit(self.id, generation),
                Who::MemberBefore => commit(self.id, generation - 1),
                Who::Stranger => commit(self.id + 1, generation),
                Who::Nobody => log.commit_for_nobody(now, &self.group, next),
            }
        });
        match answer {
            Ok(()) => Committed::Taken,
            Err(CommitError::UnknownMember) => Committed::UnknownMember,
            Err(CommitError::IllegalGeneration) => Committed::IllegalGeneration,
            Err(CommitError::RebalanceInProgress) => Committed::RebalanceInProgress,
            Err(CommitError::UnknownPartition) => panic!("the case commits what there is"),
        }
    }

    async fn leave(&mut self) {
        self.with(|log, now| log.leave(now, &self.group, self.id));
    }
}
