//! The whole log: topics and groups. Pure: time comes with each call, chance not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ports::{Fetched, Offsets, Partition, Record, TopicSpec};

use super::assignor::Assignor;
use super::group::{CommitError, Env, Group, MemberId, Step};
use super::topics::{AppendError, DeclareError, Records, Topics};

/// Time-outs and limits of the server and its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A member without heartbeats for so long is expelled (broker-contract K24).
    pub session_timeout: Duration,
    /// How often a member's heartbeat goes out, beside its processing.
    pub heartbeat: Duration,
    /// A member that doesn't poll for so long is expelled (K23); also how long a rebalance waits.
    pub max_poll_interval: Duration,
    /// How the groups rebalance (K22).
    pub assignor: Assignor,
    /// How long a poll waits for something to give.
    pub poll_wait: Duration,
    /// The largest record: key, headers and payload together, in bytes (K12).
    pub record_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            session_timeout: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            assignor: Assignor::default(),
            poll_wait: Duration::from_millis(250),
            record_bytes_max: 1_000_000,
        }
    }
}

/// The names of topics with new records and of groups whose members have news.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub topics: BTreeSet<Arc<str>>,
    pub groups: BTreeSet<Arc<str>>,
}

/// Topics, records, groups and committed offsets. `now` is monotonic and common to all callers.
#[derive(Debug, Clone, Default)]
pub struct Log {
    settings: Settings,
    topics: Topics,
    groups: BTreeMap<Arc<str>, Group>,
    last_member: MemberId,
    changed: Changed,
}

impl Log {
    /// An empty log.
    pub fn new(settings: Settings) -> Self {
        Log { settings, ..Log::default() }
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Creates a topic; an equal one that exists is fine. Groups that wait for it rebalance.
    pub fn declare(&mut self, now: Duration, topic: &TopicSpec) -> Result<(), DeclareError> {
        if self.topics.declare(topic)? {
            let env = Env { now, settings: &self.settings, topics: &self.topics };
            for (name, group) in &mut self.groups {
                group.topic_created(env, &topic.name);
                if group.take_changed() {
                    self.changed.groups.insert(name.clone());
                }
            }
        }
        Ok(())
    }

    /// The declared topics, by name.
    pub fn topics(&self) -> Vec<TopicSpec> {
        self.topics.specs()
    }

    /// Where the record will go, or why nowhere. Nothing is visible yet: follow with
    /// [`Log::append_at`]. A keyless record takes the next turn (K1).
    pub fn place(&mut self, record: &Record) -> Result<Partition, AppendError> {
        let headers = record.headers.iter().map(|(name, value)| name.len() + value.len());
        let bytes = record.key.len() + record.payload.len() + headers.sum::<usize>();
        if bytes > self.settings.record_bytes_max {
            return Err(AppendError::TooLarge);
        }
        self.topics.place(record)
    }

    /// Appends behind the last record: partition and offset.
    pub fn append(
        &mut self,
        record: Record,
        at: DateTime<Utc>,
    ) -> Result<(Partition, i64), AppendError> {
        let partition = self.place(&record)?;
        let offset = self.topics.get(&partition).ok_or(AppendError::UnknownTopic)?.end();
        self.append_at(&partition, offset, record, at)?;
        Ok((partition, offset))
    }

    /// Appends at this offset, not below the partition's high watermark: from a journal, or what
    /// was [placed](Log::place) and persisted before.
    pub fn append_at(
        &mut self,
        partition: &Partition,
        offset: i64,
        record: Record,
        at: DateTime<Utc>,
    ) -> Result<(), AppendError> {
        let records = self.topics.get_mut(partition).ok_or(AppendError::UnknownTopic)?;
        records.append(partition.clone(), offset, record, at)?;
        self.changed.topics.insert(partition.topic.clone());
        Ok(())
    }

    /// Uses up offsets without records, as transaction markers do (K3). Unknown partition: nothing.
    pub fn skip(&mut self, partition: &Partition, count: i64) {
        if let Some(records) = self.topics.get_mut(partition) {
            records.skip(count);
        }
    }

    /// Drops the records below `offset`: retention (K32). Unknown partition: nothing.
    pub fn trim(&mut self, partition: &Partition, offset: i64) {
        if let Some(records) = self.topics.get_mut(partition) {
            records.trim(offset);
        }
    }

    /// Drops the records behind which their key stands again: compaction (K33). Unknown partition: nothing.
    pub fn compact(&mut self, partition: &Partition) {
        if let Some(records) = self.topics.get_mut(partition) {
            records.compact();
        }
    }

    /// The partition's high watermark stands still: what is appended from now on is acknowledged and
    /// not visible yet (K4).
    pub fn hide(&mut self, partition: &Partition) {
        if let Some(records) = self.topics.get_mut(partition) {
            records.stick(true);
        }
    }

    /// The partitions' high watermarks go on to the end.
    pub fn show(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(records) = self.topics.get_mut(partition) {
                records.stick(false);
                self.changed.topics.insert(partition.topic.clone());
            }
        }
    }

    /// A coordinator that has just come up gives every member its time anew: the session and what it
    /// may take between polls.
    pub fn resume(&mut self, now: Duration) {
        for (name, group) in &mut self.groups {
            group.resume(Env { now, settings: &self.settings, topics: &self.topics });
            self.changed.groups.insert(name.clone());
        }
    }

    /// Low and high watermark: the first offset and the next one.
    pub fn watermarks(&self, partition: &Partition) -> Option<(i64, i64)> {
        self.topics.get(partition).map(|records| records.watermarks())
    }

    /// What a partition holds.
    pub(super) fn partition(&self, partition: &Partition) -> Option<&Records> {
        self.topics.get(partition)
    }

    /// The partitions of a topic; none if there is no such topic.
    pub fn partitions(&self, topic: &str) -> Vec<Partition> {
        self.topics.partitions(topic)
    }

    /// The records of a partition from `offset` on, in order (K4).
    pub fn records_from(
        &self,
        partition: &Partition,
        offset: i64,
    ) -> impl Iterator<Item = &Fetched> {
        self.topics.get(partition).into_iter().flat_map(move |records| records.from(offset))
    }

    /// All records of a topic, by partition and offset.
    pub fn records(&self, topic: &str) -> impl Iterator<Item = &Fetched> {
        let partitions = self.topics.partitions(topic);
        partitions.into_iter().flat_map(|partition| {
            self.topics.get(&partition).into_iter().flat_map(|records| records.from(0))
        })
    }

    /// Joins a group: the new member's id. Its partitions come with [`Log::poll`].
    pub fn join(
        &mut self,
        now: Duration,
        group: &str,
        name: &Arc<str>,
        topics: &[Arc<str>],
    ) -> MemberId {
        self.last_member += 1;
        let id = self.last_member;
        self.on(now, group, |group, env| group.join(env, id, name.clone(), topics));
        id
    }

    /// A member's sign of life (K24). Whether it still is a member.
    pub fn heartbeat(&mut self, now: Duration, group: &str, id: MemberId) -> bool {
        self.on(now, group, |group, env| group.heartbeat(env, id))
    }

    /// A member polls (K23): what it has to do.
    pub fn poll(&mut self, now: Duration, group: &str, id: MemberId) -> Step {
        self.on(now, group, |group, env| group.poll(env, id))
    }

    /// A member gave up all that it was asked to.
    pub fn release(&mut self, now: Duration, group: &str, id: MemberId) {
        self.on(now, group, |group, env| group.release(env, id));
    }

    /// A member leaves: the others get its partitions at once (K24).
    pub fn leave(&mut self, now: Duration, group: &str, id: MemberId) {
        self.on(now, group, |group, env| group.leave(env, id));
    }

    /// Commits next offsets for a member of this generation (K16, K19): all of them or none.
    pub fn commit(
        &mut self,
        now: Duration,
        group: &str,
        id: MemberId,
        generation: i32,
        next: &Offsets,
    ) -> Result<(), CommitError> {
        self.on(now, group, |group, env| group.commit(env, id, generation, next))
    }

    /// Commits next offsets for nobody, as an operator's tool does: while the group has no members (K20).
    pub fn commit_for_nobody(
        &mut self,
        now: Duration,
        group: &str,
        next: &Offsets,
    ) -> Result<(), CommitError> {
        self.on(now, group, |group, env| group.commit_for_nobody(env, next))
    }

    /// Sets a group's committed offsets without asking: from a journal.
    pub fn restore_committed(&mut self, group: &str, next: &Offsets) {
        self.groups.entry(group.into()).or_default().restore(next);
    }

    /// The committed offsets of a group; none if there is no such group.
    pub fn committed(&self, group: &str) -> Offsets {
        self.groups.get(group).map(|group| group.committed().clone()).unwrap_or_default()
    }

    /// The committed offset of a group for one partition.
    pub fn committed_at(&self, group: &str, partition: &Partition) -> Option<i64> {
        self.groups.get(group)?.committed().get(partition).copied()
    }

    /// The group's generation, 0 before its first one.
    pub fn generation(&self, group: &str) -> i32 {
        self.groups.get(group).map_or(0, Group::generation)
    }

    /// Who was told to own which partition and has not given it up, to the coordinator's knowledge.
    pub fn owners(&self, group: &str) -> BTreeMap<Partition, (MemberId, Arc<str>)> {
        self.groups.get(group).map(Group::owners).unwrap_or_default()
    }

    /// The members of a group with their names, by age.
    pub fn members(&self, group: &str) -> BTreeMap<MemberId, Arc<str>> {
        self.groups.get(group).map(Group::members).unwrap_or_default()
    }

    /// The names of all groups.
    pub fn groups(&self) -> Vec<Arc<str>> {
        self.groups.keys().cloned().collect()
    }

    /// How many records of the topic the group has not committed, over all its partitions. Counts
    /// records, not offsets: gaps (K3) are no lag.
    pub fn lag(&self, group: &str, topic: &str) -> u64 {
        let partitions = self.topics.partitions(topic);
        let behind = partitions.iter().map(|partition| {
            let next = self.committed_at(group, partition).unwrap_or(0);
            self.records_from(partition, next).count() as u64
        });
        behind.sum()
    }

    /// What changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    fn on<T>(
        &mut self,
        now: Duration,
        name: &str,
        work: impl FnOnce(&mut Group, Env<'_>) -> T,
    ) -> T {
        let env = Env { now, settings: &self.settings, topics: &self.topics };
        let key = match self.groups.get_key_value(name) {
            Some((key, _)) => key.clone(),
            None => name.into(),
        };
        let group = self.groups.entry(key.clone()).or_default();
        let result = work(group, env);
        if group.take_changed() {
            self.changed.groups.insert(key);
        }
        result
    }
}
