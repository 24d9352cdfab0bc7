//! Programs on the store, from a seed: two or three clients, each with its transactions one after the
//! other. Any sublist of a program is one.

use crate::programs::choices::Choices;

/// Keys of a program.
pub(super) const KEYS: usize = 3;

/// An operation of a client. What it needs and does not find, an open transaction say, makes it do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Locks keys, in a transaction that it opens if none is open.
    Lock {
        /// Which client.
        client: usize,
        /// Which keys.
        keys: Vec<usize>,
    },
    /// Writes over what was read, or over an older version.
    Put {
        /// Which client.
        client: usize,
        /// Which key; nothing happens where the transaction did not read it.
        key: usize,
        /// Over the version before the one that was read.
        stale: bool,
    },
    /// Commits.
    Commit {
        /// Which client.
        client: usize,
    },
    /// Drops the transaction.
    RollBack {
        /// Which client.
        client: usize,
    },
    /// Reads all keys without a transaction.
    Read {
        /// Which client.
        client: usize,
    },
    /// Lets the others go first.
    Wait {
        /// Which client.
        client: usize,
        /// So many times.
        turns: usize,
    },
    /// A whole transaction on a link that is lost while it commits.
    Lose {
        /// Which client.
        client: usize,
        /// Which key it writes.
        key: usize,
        /// The commit arrives, and only its reply is lost.
        arrives: bool,
    },
}

impl Step {
    pub(super) fn client(&self) -> usize {
        match self {
            Step::Lock { client, .. }
            | Step::Put { client, .. }
            | Step::Commit { client }
            | Step::RollBack { client }
            | Step::Read { client }
            | Step::Wait { client, .. }
            | Step::Lose { client, .. } => *client,
        }
    }
}

/// The program of this seed.
pub fn generate(seed: u64) -> Vec<Step> {
    let mut choices = Choices::of(seed);
    let clients = choices.between(2, 3);
    let mut steps = Vec::new();
    for client in 0..clients {
        for _ in 0..choices.between(1, 3) {
            transaction(&mut choices, client, &mut steps);
        }
    }
    // One in ten loses a link.
    if choices.one_in(10) {
        let (client, key) = (choices.below(clients), choices.below(KEYS));
        let at = choices.below(steps.len() + 1);
        steps.insert(at, Step::Lose { client, key, arrives: choices.one_in(2) });
    }
    steps
}

fn transaction(choices: &mut Choices, client: usize, steps: &mut Vec<Step>) {
    let turns = choices.below(4);
    steps.push(Step::Wait { client, turns });
    let keys = some(choices);
    steps.push(Step::Lock { client, keys: keys.clone() });
    let mut written = keys;
    if choices.one_in(4) {
        // Out of order: two of these may wait for each other (broker-contract D5).
        let more = some(choices);
        steps.push(Step::Lock { client, keys: more.clone() });
        written.extend(more);
    }
    for _ in 0..choices.between(0, 3) {
        let key = written[choices.below(written.len())];
        steps.push(Step::Put { client, key, stale: choices.one_in(12) });
    }
    if choices.one_in(4) {
        steps.push(Step::Read { client });
    }
    let end = choices.one_in(5);
    steps.push(if end { Step::RollBack { client } } else { Step::Commit { client } });
}

/// One key or more.
fn some(choices: &mut Choices) -> Vec<usize> {
    let first = choices.below(KEYS);
    let mut keys: Vec<_> = (0..KEYS).filter(|_| choices.one_in(2)).collect();
    if !keys.contains(&first) {
        keys.push(first);
    }
    keys
}
