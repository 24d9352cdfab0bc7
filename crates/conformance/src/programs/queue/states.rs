//! The states that a message may be in. Never which one it is: where the history leaves that open,
//! there are several.

use std::collections::BTreeSet;

use super::history::Place;
use crate::Release;

/// More states than this of one message are too many to tell.
pub(super) const BOUND: usize = 64;

/// Where a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// In no queue.
    Gone,
    /// In a queue: which, what its server counts there, and why it died before.
    In(Place, Count, Option<Reason>),
}

/// What a server counts of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count {
    /// How often it came back.
    returns: u32,
    /// How many deliveries failed, where a release tells them (R33).
    failures: u32,
}

impl Count {
    /// What a delivery says.
    pub(super) fn told(self) -> u32 {
        if self.returns > 0 { self.returns } else { self.failures }
    }
}

/// Why a message died (broker-contract R20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Rejected,
    DeliveryLimit,
}

impl Reason {
    pub(super) fn text(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }
}

/// What decides where a message goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    pub(super) release: Release,
    pub(super) limit: u32,
    pub(super) dead_letters: bool,
    /// Channels that were dropped and may still get a message and return it, by queue.
    pub(super) ending_jobs: u32,
    pub(super) ending_dead: u32,
}

impl Rules {
    /// The state after a return by the client: each counts (R15, R16).
    pub(super) fn returned(&self, state: State) -> State {
        match state {
            State::In(Place::Jobs, count, _) if count.returns >= self.limit => {
                self.died(state, Reason::DeliveryLimit)
            }
            State::In(place, count, reason) => {
                State::In(place, Count { returns: count.returns + 1, ..count }, reason)
            }
            State::Gone => State::Gone,
        }
    }

    /// The state after the end of the channel that held it.
    pub(super) fn failed(&self, state: State) -> State {
        self.returned(self.with_failure(state))
    }

    fn with_failure(&self, state: State) -> State {
        match state {
            State::In(Place::Jobs, count, reason) if self.tells_failures() => {
                State::In(Place::Jobs, Count { failures: count.failures + 1, ..count }, reason)
            }
            other => other,
        }
    }

    /// Whether a message whose return is its last gives its channel room for two (R12).
    pub(super) fn credits_twice(&self) -> bool {
        self.release < (3, 11)
    }

    /// Whether a dead letter tells failures, until it comes back (R33).
    fn tells_failures(&self) -> bool {
        ((4, 0)..(4, 3)).contains(&self.release)
    }

    /// The state after a rejection.
    pub(super) fn rejected(&self, state: State) -> State {
        self.died(self.with_failure(state), Reason::Rejected)
    }

    /// The state after a death: dead letters themselves are dropped, others count as their release does (R33).
    fn died(&self, state: State, reason: Reason) -> State {
        match state {
            State::In(Place::Jobs, count, _) if self.dead_letters => {
                // A rejection, or the return that was one too many.
                let returns = if self.release >= (4, 3) { count.returns + 1 } else { 0 };
                State::In(Place::Dead, Count { returns, ..count }, Some(reason))
            }
            _ => State::Gone,
        }
    }

    /// The states of a message that comes into this one while channels end.
    pub(super) fn arriving(&self, state: State) -> BTreeSet<State> {
        let mut states = BTreeSet::from([state]);
        let all = [(Place::Jobs, self.ending_jobs), (Place::Dead, self.ending_dead)];
        for (place, ending) in all {
            for _ in 0..ending {
                states = self.perhaps_returned(&states, place);
            }
        }
        states
    }

    /// Each as it is, or once back where a channel on this queue held it unseen: it failed, or the server returned it,
    /// for it crossed the end of its consumer.
    pub(super) fn perhaps_returned(
        &self,
        states: &BTreeSet<State>,
        place: Place,
    ) -> BTreeSet<State> {
        let there = |state: &&State| matches!(state, State::In(at, ..) if *at == place);
        let more = states.iter().filter(there);
        let more = more.flat_map(|state| [self.failed(*state), self.returned(*state)]);
        states.iter().copied().chain(more).collect()
    }

    /// As [`Self::perhaps_returned`], where others end meanwhile.
    pub(super) fn perhaps_returned_and_on(
        &self,
        states: &BTreeSet<State>,
        place: Place,
    ) -> BTreeSet<State> {
        let once = self.perhaps_returned(states, place);
        let new = once.difference(states).flat_map(|state| self.arriving(*state));
        states.iter().copied().chain(new).collect()
    }
}
