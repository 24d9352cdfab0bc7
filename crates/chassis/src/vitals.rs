//! What a service's loops let be seen: when the consumer last polled, what it holds, when the relay
//! last went round. Written by the loops, read by health and metrics. Nothing is decided on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::Channel;

/// Notes of the loops of one service, at this node's monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    seen: Mutex<Seen>,
}

/// What was seen last.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Topics that are read.
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// What is sent to besides, or read as a queue: looked at to know whether the broker answers.
    pub(crate) reached: BTreeSet<(Channel, Arc<str>)>,
    /// The group's member, where topics are read.
    pub(crate) consumer: Option<Loop>,
    /// The channel of the queue, where one is read.
    pub(crate) jobs: Option<Loop>,
    /// The relay's last round that found its store, where there is a relay.
    pub(crate) relay: Option<Duration>,
    /// When a record or job last came; at first when the service started.
    pub(crate) message: Duration,
}

/// A loop that reads.
#[derive(Debug, Default, Clone)]
pub(crate) struct Loop {
    /// Whether it is a member of its group, or has a channel.
    pub(crate) joined: bool,
    /// When it last got an answer from the broker.
    pub(crate) polled: Duration,
    /// Partitions that are its own by the group.
    pub(crate) assigned: usize,
    /// Those whose position it has claimed.
    pub(crate) claimed: usize,
}

impl Vitals {
    pub(crate) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
    }

    pub(crate) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
