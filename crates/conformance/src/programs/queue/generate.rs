//! Programs on the job queue, from a seed. Three clients with a channel each; any sublist of a
//! program is one.

use crate::programs::choices::Choices;

/// Clients of a program.
pub(super) const CLIENTS: usize = 3;

/// What becomes of a delivery that a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Done.
    Ack,
    /// Dead.
    Reject,
    /// Back.
    Return,
    /// Held on.
    Keep,
}

/// An operation. What it needs and does not find, a channel say, makes it do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The queue as it is to be; only as the first one.
    Begin {
        /// Returns that a message may have.
        limit: u32,
        /// With a dead-letter queue.
        dead_letters: bool,
    },
    /// Declares the queue again.
    Declare {
        /// The limit is as much higher.
        more: u32,
    },
    /// Publishes a batch, `nowhere` into the middle of it.
    Publish {
        /// Which client.
        client: usize,
        /// How many.
        count: usize,
        /// One of them to a queue that is not there.
        nowhere: bool,
    },
    /// Publishes a batch on a link that is lost.
    PublishAndLose {
        /// How many.
        count: usize,
        /// About so many arrive.
        arriving: usize,
    },
    /// Opens the client's channel.
    Consume {
        /// Which client.
        client: usize,
        /// From the dead-letter queue.
        dead: bool,
        /// Its prefetch.
        prefetch: u16,
    },
    /// Asks for deliveries, for a short time.
    Take {
        /// Which client.
        client: usize,
        /// At most so many.
        max: usize,
    },
    /// Settles the first deliveries that the client holds.
    Settle {
        /// Which client.
        client: usize,
        /// One for each.
        fates: Vec<Fate>,
    },
    /// Acks a tag that is not outstanding.
    Stranger {
        /// Which client.
        client: usize,
    },
    /// Drops the client's channel.
    Close {
        /// Which client.
        client: usize,
    },
    /// Cuts the client's link.
    Cut {
        /// Which client.
        client: usize,
    },
    /// Asks how many are ready.
    Depth {
        /// In the dead-letter queue.
        dead: bool,
    },
    /// Consumes and asks in a queue that is not there.
    Missing {
        /// Which client.
        client: usize,
    },
}

/// The program of this seed.
pub fn generate(seed: u64) -> Vec<Step> {
    let mut choices = Choices::of(seed);
    // One in ten: as many links are lost.
    let rough = choices.one_in(10);
    let limit = choices.below(4) as u32;
    let mut steps = vec![Step::Begin { limit, dead_letters: !choices.one_in(4) }];
    steps.push(publish(&mut choices));
    steps.push(consume(&mut choices));
    for _ in 0..choices.between(8, 24) {
        let step = any(&mut choices);
        steps.push(step);
    }
    if rough {
        let at = choices.between(3, steps.len());
        let step = match choices.one_in(3) {
            true => {
                let count = choices.between(1, 6);
                Step::PublishAndLose { count, arriving: choices.below(count + 1) }
            }
            false => Step::Cut { client: client(&mut choices) },
        };
        steps.insert(at, step);
    }
    steps
}

/// Mostly the first: what a client opened is to be used.
fn client(choices: &mut Choices) -> usize {
    let most = choices.below(CLIENTS);
    choices.below(most + 1)
}

fn any(choices: &mut Choices) -> Step {
    let client = client(choices);
    match choices.below(20) {
        0..=2 => publish(choices),
        3..=5 => consume(choices),
        6..=10 => Step::Take { client, max: choices.between(1, 5) },
        11..=15 => Step::Settle { client, fates: fates(choices) },
        16 => Step::Close { client },
        17 => Step::Depth { dead: choices.one_in(2) },
        18 => Step::Declare { more: choices.below(2) as u32 },
        _ if choices.one_in(2) => Step::Stranger { client },
        _ => Step::Missing { client },
    }
}

fn publish(choices: &mut Choices) -> Step {
    let (client, count) = (client(choices), choices.between(1, 4));
    Step::Publish { client, count, nowhere: choices.one_in(6) }
}

fn consume(choices: &mut Choices) -> Step {
    let (client, dead) = (client(choices), choices.one_in(5));
    Step::Consume { client, dead, prefetch: choices.between(1, 5) as u16 }
}

fn fates(choices: &mut Choices) -> Vec<Fate> {
    let all = [Fate::Ack, Fate::Ack, Fate::Reject, Fate::Return, Fate::Return, Fate::Keep];
    (0..choices.between(1, 3)).map(|_| all[choices.below(all.len())]).collect()
}
