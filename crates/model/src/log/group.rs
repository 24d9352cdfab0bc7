//! A consumer group's coordinator: members, generations, eager rebalances, committed offsets.
//! Never reads a record, and never remembers what a member that left believed to own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ports::{Fault, Offsets, Partition};

use super::state::Settings;
use super::topics::Topics;

/// A member's id: rises in the order of joining and is never used again.
pub type MemberId = u64;

/// Why a commit was not taken. The committed offsets are unchanged (broker-contract K19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitError {
    /// UNKNOWN_MEMBER_ID: it was expelled, or it left.
    UnknownMember,
    /// ILLEGAL_GENERATION: the group went on without asking it.
    IllegalGeneration,
    /// REBALANCE_IN_PROGRESS: the group waits for its leader's assignment (CompletingRebalance).
    RebalanceInProgress,
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownPartition,
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Fault {
        match error {
            CommitError::UnknownMember => Fault::refused("UNKNOWN_MEMBER_ID"),
            CommitError::IllegalGeneration => Fault::refused("ILLEGAL_GENERATION"),
            CommitError::RebalanceInProgress => Fault::retry("REBALANCE_IN_PROGRESS"),
            CommitError::UnknownPartition => Fault::refused("UNKNOWN_TOPIC_OR_PARTITION"),
        }
    }
}

/// What the coordinator tells a member that polls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is no member (any more): what it held is lost. Join anew.
    Unknown,
    /// The group rebalances and waits for this member to give up what it holds.
    Revoke,
    /// It holds nothing and waits for the others, in this generation.
    Wait(i32),
    /// Its partitions in this new generation. Given once, but for an empty set.
    Assigned(i32, Vec<Partition>),
    /// Nothing new: read on.
    Stable,
}

#[derive(Debug, Clone)]
struct Member {
    name: Arc<str>,
    topics: BTreeSet<Arc<str>>,
    assigned: Vec<Partition>,
    /// It was told its partitions and has not given them up: the rebalance waits for it.
    holds: bool,
    heartbeat_at: Duration,
    polled_at: Duration,
}

/// The states of AK's `ClassicGroup`, but for Dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    /// Until all gave up what they hold, or this instant, at which the others are expelled.
    Preparing(Duration),
    /// Until the leader, the oldest member, shows up with the assignment.
    Completing,
    Stable,
}

/// One group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    phase: Phase,
    generation: i32,
    members: BTreeMap<MemberId, Member>,
    committed: Offsets,
    changed: bool,
}

impl Default for Group {
    fn default() -> Self {
        Group {
            phase: Phase::Empty,
            generation: 0,
            members: BTreeMap::new(),
            committed: Offsets::new(),
            changed: false,
        }
    }
}

/// What a group's methods need to see of the rest.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    pub now: Duration,
    pub settings: &'a Settings,
    pub topics: &'a Topics,
}

impl Group {
    /// Whether something changed since this was last asked that members wait for.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn join(&mut self, env: Env, id: MemberId, name: Arc<str>, topics: &[Arc<str>]) {
        self.advance(env);
        let member = Member {
            name,
            topics: topics.iter().cloned().collect(),
            assigned: Vec::new(),
            holds: false,
            heartbeat_at: env.now,
            polled_at: env.now,
        };
        self.members.insert(id, member);
        self.prepare(env);
        self.advance(env);
    }

    /// Rebalances if a member wants this topic, which is new.
    pub fn topic_created(&mut self, env: Env, topic: &str) {
        if self.members.values().any(|member| member.topics.contains(topic)) {
            self.prepare(env);
            self.advance(env);
        }
    }

    /// Keeps the session alive (K24). Whether it still is a member.
    pub fn heartbeat(&mut self, env: Env, id: MemberId) -> bool {
        self.advance(env);
        self.complete_by(id);
        match self.members.get_mut(&id) {
            Some(member) => {
                member.heartbeat_at = env.now;
                true
            }
            None => false,
        }
    }

    /// Restarts the poll interval (K23) and says what the member has to do.
    pub fn poll(&mut self, env: Env, id: MemberId) -> Step {
        self.advance(env);
        self.complete_by(id);
        let Some(member) = self.members.get_mut(&id) else { return Step::Unknown };
        member.polled_at = env.now;
        match self.phase {
            Phase::Preparing(_) if member.holds => Step::Revoke,
            Phase::Empty | Phase::Preparing(_) | Phase::Completing => Step::Wait(self.generation),
            Phase::Stable if member.holds => Step::Stable,
            Phase::Stable => {
                member.holds = !member.assigned.is_empty();
                Step::Assigned(self.generation, member.assigned.clone())
            }
        }
    }

    /// The member gave up what it held, and joins the next generation.
    pub fn release(&mut self, env: Env, id: MemberId) {
        if let (Phase::Preparing(_), Some(member)) = (self.phase, self.members.get_mut(&id)) {
            member.holds = false;
        }
        self.advance(env);
    }

    pub fn leave(&mut self, env: Env, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.prepare(env);
        }
        self.advance(env);
    }

    /// Takes the offsets, if the member is of the current generation (K19). Like Kafka it doesn't
    /// ask whether the member owns the partitions: [`super::Reader`] does.
    pub fn commit(
        &mut self,
        env: Env,
        id: MemberId,
        generation: i32,
        next: &Offsets,
    ) -> Result<(), CommitError> {
        self.advance(env);
        if !self.members.contains_key(&id) {
            return Err(CommitError::UnknownMember);
        }
        if generation != self.generation {
            return Err(CommitError::IllegalGeneration);
        }
        if self.phase == Phase::Completing {
            return Err(CommitError::RebalanceInProgress);
        }
        if next.keys().any(|partition| env.topics.get(partition).is_none()) {
            return Err(CommitError::UnknownPartition);
        }
        self.restore(next);
        Ok(())
    }

    /// Sets committed offsets without asking, as from a journal.
    pub fn restore(&mut self, next: &Offsets) {
        self.committed.extend(next.iter().map(|(partition, offset)| (partition.clone(), *offset)));
    }

    pub fn committed(&self) -> &Offsets {
        &self.committed
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Who was told to own what: partitions with the member's id and name.
    pub fn owners(&self) -> BTreeMap<Partition, (MemberId, Arc<str>)> {
        let held = self.members.iter().filter(|(_, member)| member.holds);
        held.flat_map(|(id, member)| {
            let owner = (*id, member.name.clone());
            member.assigned.iter().map(move |partition| (partition.clone(), owner.clone()))
        })
        .collect()
    }

    /// The members, by age.
    pub fn members(&self) -> BTreeMap<MemberId, Arc<str>> {
        self.members.iter().map(|(id, member)| (*id, member.name.clone())).collect()
    }

    fn prepare(&mut self, env: Env) {
        if !matches!(self.phase, Phase::Preparing(_)) {
            self.phase = Phase::Preparing(env.now + env.settings.max_poll_interval);
        }
        self.changed = true;
    }

    /// Expels who is too late, and ends the rebalance once nobody holds anything.
    fn advance(&mut self, env: Env) {
        let (now, settings) = (env.now, env.settings);
        let overdue = matches!(self.phase, Phase::Preparing(deadline) if now >= deadline);
        let before = self.members.len();
        self.members.retain(|_, member| {
            now.saturating_sub(member.heartbeat_at) < settings.session_timeout
                && now.saturating_sub(member.polled_at) < settings.max_poll_interval
                && !(overdue && member.holds)
        });
        if self.members.len() < before {
            self.prepare(env);
        }
        if self.members.is_empty() {
            self.phase = Phase::Empty;
        } else if matches!(self.phase, Phase::Preparing(_))
            && self.members.values().all(|member| !member.holds)
        {
            self.generation += 1;
            self.assign(env.topics);
            self.phase = Phase::Completing;
            self.changed = true;
        }
    }

    /// The leader's SyncGroup ends the rebalance.
    fn complete_by(&mut self, id: MemberId) {
        if self.phase == Phase::Completing && self.members.keys().next() == Some(&id) {
            self.phase = Phase::Stable;
            self.changed = true;
        }
    }

    /// Range assignment: each topic's partitions in consecutive stretches, the members by age; the
    /// first ones get one more where it doesn't come out even.
    fn assign(&mut self, topics: &Topics) {
        let mut wanted: BTreeMap<Arc<str>, Vec<MemberId>> = BTreeMap::new();
        for (id, member) in &mut self.members {
            member.assigned.clear();
            for topic in &member.topics {
                wanted.entry(topic.clone()).or_default().push(*id);
            }
        }
        for (topic, ids) in wanted {
            let count = topics.count(&topic) as usize;
            let (each, more) = (count / ids.len(), count % ids.len());
            let mut partitions = topics.partitions(&topic).into_iter();
            for (place, id) in ids.iter().enumerate() {
                let share = each + usize::from(place < more);
                if let Some(member) = self.members.get_mut(id) {
                    member.assigned.extend(partitions.by_ref().take(share));
                }
            }
        }
    }
}
