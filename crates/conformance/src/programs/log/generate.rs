//! Programs on the event log, from a seed. Any sublist of a program is one.

use crate::programs::choices::Choices;

/// Members of a group at a time.
pub(super) const MEMBERS: usize = 2;

/// Partitions of the topic.
pub(super) const PARTITIONS: i32 = 2;

/// An operation. What it needs and does not find, a member say, makes it do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Produces a batch.
    Produce {
        /// The keys of its records.
        keys: Vec<usize>,
    },
    /// Joins the group.
    Join {
        /// In which place.
        member: usize,
    },
    /// Polls all members in turn.
    Poll {
        /// So many times.
        times: usize,
    },
    /// Commits what the member has read, but for the last few.
    Commit {
        /// Which member.
        member: usize,
        /// So few.
        back: i64,
    },
    /// Commits a partition that the member does not hold.
    CommitForeign {
        /// Which member.
        member: usize,
    },
    /// Goes back in a partition.
    Seek {
        /// Which member.
        member: usize,
        /// So far.
        back: i64,
    },
    /// Stops or resumes the reading of a partition.
    Pause {
        /// Which member.
        member: usize,
        /// Stops it.
        paused: bool,
    },
    /// Leaves with goodbye.
    Close {
        /// Which member.
        member: usize,
    },
    /// Leaves without.
    Kill {
        /// Which member.
        member: usize,
    },
    /// Asks for watermarks and committed offsets.
    Look,
}

impl Step {
    /// Which member it kills.
    pub(super) fn killed(&self) -> Option<usize> {
        match self {
            Step::Kill { member } => Some(*member),
            _ => None,
        }
    }
}

/// The program of this seed.
pub fn generate(seed: u64) -> Vec<Step> {
    let mut choices = Choices::of(seed);
    // One in ten: a member is killed.
    let rough = choices.one_in(10);
    let mut steps = vec![produce(&mut choices), Step::Join { member: 0 }, Step::Poll { times: 4 }];
    for _ in 0..choices.between(5, 12) {
        let step = any(&mut choices);
        steps.push(step);
    }
    if choices.one_in(3) {
        // A pause that something could break.
        steps.push(Step::Pause { member: 0, paused: true });
        steps.push(produce(&mut choices));
        steps.push(Step::Poll { times: 2 });
    }
    if rough {
        let at = choices.between(3, steps.len());
        steps.insert(at, Step::Kill { member: choices.below(MEMBERS) });
    }
    steps
}

fn any(choices: &mut Choices) -> Step {
    let member = choices.below(MEMBERS);
    match choices.below(16) {
        0..=2 => produce(choices),
        3 => Step::Join { member },
        4..=7 => Step::Poll { times: choices.between(1, 2) },
        8..=10 => Step::Commit { member, back: [0, 0, 1, 2][choices.below(4)] },
        11 => Step::Seek { member, back: choices.between(1, 3) as i64 },
        12 => Step::Pause { member, paused: !choices.one_in(3) },
        13 => Step::CommitForeign { member },
        14 => Step::Close { member },
        _ => Step::Look,
    }
}

fn produce(choices: &mut Choices) -> Step {
    Step::Produce { keys: (0..choices.between(1, 5)).map(|_| choices.below(4)).collect() }
}
