//! The states that a message may be in. Never which one it is: where the history leaves that open,
//! there are several.

use std::collections::BTreeSet;

use super::history::Place;

/// More states than this of one message are too many to tell.
pub(super) const BOUND: usize = 64;

/// Where a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// In no queue.
    Gone,
    /// In a queue: which, how often it came back there, and why it died before.
    In(Place, u32, Option<Reason>),
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
    pub(super) limit: u32,
    pub(super) dead_letters: bool,
    /// Channels that were dropped and may still get a message and return it, by queue.
    pub(super) ending_jobs: u32,
    pub(super) ending_dead: u32,
}

impl Rules {
    /// The state after a return: each counts (R15, R16).
    pub(super) fn returned(&self, state: State) -> State {
        match state {
            State::In(Place::Jobs, returns, _) if returns >= self.limit => {
                self.died(state, Reason::DeliveryLimit)
            }
            State::In(place, returns, reason) => State::In(place, returns + 1, reason),
            State::Gone => State::Gone,
        }
    }

    /// The state after a death: dead letters themselves are dropped.
    pub(super) fn died(&self, state: State, reason: Reason) -> State {
        match state {
            State::In(Place::Jobs, ..) if self.dead_letters => {
                State::In(Place::Dead, 0, Some(reason))
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

    /// Each as it is, or once returned where a channel on this queue held it unseen.
    pub(super) fn perhaps_returned(
        &self,
        states: &BTreeSet<State>,
        place: Place,
    ) -> BTreeSet<State> {
        let there = |state: &&State| matches!(state, State::In(at, ..) if *at == place);
        let more = states.iter().filter(there).map(|state| self.returned(*state));
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
