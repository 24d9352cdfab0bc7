//! A consumer group's coordinator: members, generations, rebalances, committed offsets. Never reads
//! a record, and never remembers what a member that left believed to own.
//!
//! Eager and cooperative rebalances differ in when a member joins the next generation. An eager one
//! gives up all it holds first. A cooperative one joins with what it holds, reads on meanwhile, and
//! gives up what moves when it hears the assignment; then it joins once more, so that the others
//! get that (broker-contract K22).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ports::{Fault, Offsets, Partition};

use super::assignor::{Assignor, Wish};
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
    /// It is of this generation and has to give these up. Said until it has.
    Revoke(i32, Vec<Partition>),
    /// It is of this new generation, and these come to what it holds. Said once.
    Assigned(i32, Vec<Partition>),
    /// It is of this generation: read on what it holds, if anything.
    Read(i32),
}

#[derive(Debug, Clone)]
struct Member {
    name: Arc<str>,
    topics: BTreeSet<Arc<str>>,
    /// What the present generation gives it.
    assigned: BTreeSet<Partition>,
    /// Whether it acted on that: before, it may still hold what others are to get.
    synced: bool,
    /// What it was told to own and has not given up.
    held: BTreeSet<Partition>,
    /// Of that, what it was told to give up.
    releasing: BTreeSet<Partition>,
    /// It gave up partitions, which the others get in a second round.
    moved: bool,
    /// Whether the rebalance under way has heard of it: its JoinGroup.
    joined: bool,
    heartbeat_at: Duration,
    polled_at: Duration,
}

/// The states of AK's `ClassicGroup`, but for Dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    /// Until all have joined, or this instant, at which the others are expelled.
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
            assigned: BTreeSet::new(),
            synced: true,
            held: BTreeSet::new(),
            releasing: BTreeSet::new(),
            moved: false,
            joined: true,
            heartbeat_at: env.now,
            polled_at: env.now,
        };
        self.prepare(env);
        self.members.insert(id, member);
        self.advance(env);
    }

    /// Rebalances if a member wants this topic, which is new.
    pub fn topic_created(&mut self, env: Env, topic: &str) {
        if self.members.values().any(|member| member.topics.contains(topic)) {
            self.prepare(env);
            self.advance(env);
        }
    }

    /// Keeps the session alive (K24). Whether it still is a member. The client library hears of a
    /// rebalance here, and joins it by itself where it has nothing to give up first.
    pub fn heartbeat(&mut self, env: Env, id: MemberId) -> bool {
        self.advance(env);
        self.complete_by(id);
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.heartbeat_at = env.now;
        self.rejoin(env, id);
        true
    }

    /// Nothing of the time until now counts.
    pub fn resume(&mut self, env: Env) {
        for member in self.members.values_mut() {
            (member.heartbeat_at, member.polled_at) = (env.now, env.now);
        }
        if let Phase::Preparing(until) = &mut self.phase {
            *until = env.now + env.settings.max_poll_interval;
        }
        self.changed = true;
    }

    /// Restarts the poll interval (K23) and says what the member has to do.
    pub fn poll(&mut self, env: Env, id: MemberId) -> Step {
        self.advance(env);
        self.complete_by(id);
        let Some(member) = self.members.get_mut(&id) else { return Step::Unknown };
        member.polled_at = env.now;
        self.rejoin(env, id);
        let generation = self.generation;
        let Some(member) = self.members.get_mut(&id) else { return Step::Unknown };
        match (self.phase, env.settings.assignor) {
            (Phase::Empty | Phase::Completing, _) => return Step::Read(generation),
            (Phase::Preparing(_), Assignor::Range) => {
                member.releasing = member.held.clone();
                return match member.held.is_empty() {
                    true => Step::Read(generation),
                    false => Step::Revoke(generation, listed(&member.releasing)),
                };
            }
            (Phase::Preparing(_), Assignor::CooperativeSticky) | (Phase::Stable, _) => {}
        }
        if !member.synced && member.releasing.is_empty() {
            member.releasing = member.held.difference(&member.assigned).cloned().collect();
            member.moved |= !member.releasing.is_empty();
        }
        if !member.releasing.is_empty() {
            return Step::Revoke(generation, listed(&member.releasing));
        }
        if member.synced {
            return Step::Read(generation);
        }
        let added = member.assigned.difference(&member.held).cloned().collect();
        member.held = member.assigned.clone();
        member.synced = true;
        if std::mem::take(&mut member.moved) {
            self.prepare(env);
        }
        self.rejoin(env, id);
        Step::Assigned(generation, added)
    }

    /// The member gave up what it was told to.
    pub fn release(&mut self, env: Env, id: MemberId) {
        let preparing = matches!(self.phase, Phase::Preparing(_));
        if let Some(member) = self.members.get_mut(&id) {
            let released = std::mem::take(&mut member.releasing);
            member.held.retain(|partition| !released.contains(partition));
            if env.settings.assignor == Assignor::Range && preparing {
                member.joined = true;
            }
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
        self.take(env, next)
    }

    /// Takes the offsets of somebody without a membership, if the group is empty (K20).
    pub fn commit_for_nobody(&mut self, env: Env, next: &Offsets) -> Result<(), CommitError> {
        self.advance(env);
        match self.phase {
            Phase::Empty => self.take(env, next),
            _ => Err(CommitError::UnknownMember),
        }
    }

    fn take(&mut self, env: Env, next: &Offsets) -> Result<(), CommitError> {
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
        let owned = |(id, member): (&MemberId, &Member)| {
            let owner = (*id, member.name.clone());
            let held = member.held.iter().map(|p| (p.clone(), owner.clone()));
            held.collect::<Vec<_>>()
        };
        self.members.iter().flat_map(owned).collect()
    }

    /// The members, by age.
    pub fn members(&self) -> BTreeMap<MemberId, Arc<str>> {
        self.members.iter().map(|(id, member)| (*id, member.name.clone())).collect()
    }

    /// Begins a rebalance, unless one waits for its members already.
    fn prepare(&mut self, env: Env) {
        if !matches!(self.phase, Phase::Preparing(_)) {
            self.phase = Phase::Preparing(env.now + env.settings.max_poll_interval);
            let eager = env.settings.assignor == Assignor::Range;
            for member in self.members.values_mut() {
                if eager {
                    // What it was not told of, it never had.
                    member.synced = true;
                }
                member.joined = eager && member.held.is_empty();
            }
        }
        self.changed = true;
    }

    /// A cooperative member joins the rebalance under way with what it holds, unless it has still to
    /// act on the last one.
    fn rejoin(&mut self, env: Env, id: MemberId) {
        if env.settings.assignor == Assignor::Range || !matches!(self.phase, Phase::Preparing(_)) {
            return;
        }
        if let Some(member) = self.members.get_mut(&id)
            && member.synced
            && member.releasing.is_empty()
        {
            member.joined = true;
        }
        self.advance(env);
    }

    /// Expels who is too late, and ends the rebalance once all have joined.
    fn advance(&mut self, env: Env) {
        let (now, settings) = (env.now, env.settings);
        let overdue = matches!(self.phase, Phase::Preparing(deadline) if now >= deadline);
        let before = self.members.len();
        self.members.retain(|_, member| {
            now.saturating_sub(member.heartbeat_at) < settings.session_timeout
                && now.saturating_sub(member.polled_at) < settings.max_poll_interval
                && (member.joined || !overdue)
        });
        if self.members.len() < before {
            self.prepare(env);
        }
        if self.members.is_empty() {
            self.phase = Phase::Empty;
        } else if matches!(self.phase, Phase::Preparing(_))
            && self.members.values().all(|member| member.joined)
        {
            self.generation += 1;
            self.assign(env);
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

    fn assign(&mut self, env: Env) {
        let wishes = self
            .members
            .iter()
            .map(|(id, member)| (*id, Wish { topics: &member.topics, held: &member.held }))
            .collect();
        let dealt = env.settings.assignor.deal(&wishes, env.topics);
        for (id, assigned) in dealt {
            if let Some(member) = self.members.get_mut(&id) {
                member.assigned = assigned;
                member.synced = false;
            }
        }
    }
}

fn listed(partitions: &BTreeSet<Partition>) -> Vec<Partition> {
    partitions.iter().cloned().collect()
}
