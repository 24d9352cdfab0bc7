//! Random programs against the queue model: nothing is lost, doubled, over the prefetch or told
//! untruthfully. Never looks inside the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use ports::{QueueSpec, Record};
use proptest::prelude::*;

use super::{ChannelId, Queues, Settings};

const LIMIT: u32 = 3;
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Open { prefetch: u16 },
    Take { channel: usize, max: usize },
    Ack { channel: usize, nth: usize },
    Reject { channel: usize, nth: usize },
    Requeue { channel: usize, nth: usize },
    Close { channel: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (channel, nth) = (0..4_usize, 0..4_usize);
    prop_oneof![
        4 => Just(Step::Publish),
        1 => (1..4_u16).prop_map(|prefetch| Step::Open { prefetch }),
        4 => (channel.clone(), 1..4_usize).prop_map(|(channel, max)| Step::Take { channel, max }),
        3 => (channel.clone(), nth.clone()).prop_map(|(channel, nth)| Step::Ack { channel, nth }),
        1 => (channel.clone(), nth.clone()).prop_map(|(channel, nth)| Step::Reject { channel, nth }),
        2 => (channel.clone(), nth).prop_map(|(channel, nth)| Step::Requeue { channel, nth }),
        1 => channel.prop_map(|channel| Step::Close { channel }),
        1 => (1..8_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A client with several channels, and what it knows.
struct Run {
    queues: Queues,
    now: Duration,
    published: BTreeSet<String>,
    acked: BTreeSet<String>,
    /// Keys that some channel took.
    seen: BTreeSet<String>,
    /// Channels with their prefetch and their unsettled tags.
    channels: Vec<(ChannelId, usize, BTreeMap<u64, String>)>,
}

impl Run {
    fn new() -> Self {
        let settings = Settings { ack_timeout: ACK_TIMEOUT, ..Settings::default() };
        let mut queues = Queues::new(settings);
        let (name, dead_letters) = ("jobs".into(), Some("dead".into()));
        queues.declare(&QueueSpec { name, delivery_limit: LIMIT, dead_letters }).unwrap();
        Run {
            queues,
            now: Duration::ZERO,
            published: BTreeSet::new(),
            acked: BTreeSet::new(),
            seen: BTreeSet::new(),
            channels: Vec::new(),
        }
    }

    /// The nth unsettled tag of a channel, if there are such.
    fn tag(&mut self, channel: usize, nth: usize) -> Option<(ChannelId, u64, String)> {
        let (id, _, held) = self.channels.get_mut(channel)?;
        let tag = *held.keys().nth(nth)?;
        held.remove(&tag).map(|key| (*id, tag, key))
    }

    fn apply(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Publish => {
                let key = format!("{:03}", self.published.len());
                let to = "jobs".into();
                let headers = Vec::new();
                let record =
                    Record { to, key: key.as_str().into(), headers, payload: Bytes::new() };
                self.queues.publish(record, now).unwrap();
                self.published.insert(key);
            }
            Step::Open { prefetch } => {
                let id = self.queues.consume("client", "jobs", prefetch, now).unwrap();
                self.channels.push((id, prefetch.into(), BTreeMap::new()));
            }
            Step::Take { channel, max } => self.take(channel, max),
            Step::Ack { channel, nth } => {
                if let Some((id, tag, key)) = self.tag(channel, nth) {
                    self.queues.settle(id, &[tag], &[], now).unwrap();
                    assert!(self.acked.insert(key), "acked twice");
                }
            }
            Step::Reject { channel, nth } => {
                if let Some((id, tag, _)) = self.tag(channel, nth) {
                    self.queues.settle(id, &[], &[tag], now).unwrap();
                }
            }
            Step::Requeue { channel, nth } => {
                if let Some((id, tag, _)) = self.tag(channel, nth) {
                    self.queues.requeue(id, &[tag], now).unwrap();
                }
            }
            Step::Close { channel } => {
                if channel < self.channels.len() {
                    self.queues.close(self.channels.remove(channel).0, now);
                }
            }
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.queues.expire(self.now);
                self.channels.retain(|(id, _, _)| self.queues.held(*id).is_some());
            }
        }
    }

    fn take(&mut self, channel: usize, max: usize) {
        let Some((id, _, held)) = self.channels.get_mut(channel) else { return };
        for delivery in self.queues.take(*id, max).unwrap() {
            let key = delivery.record.key.to_string();
            assert_eq!(delivery.redelivered, delivery.returns > 0);
            assert!(delivery.redelivered || !self.seen.contains(&key), "{key} was seen before");
            assert!(delivery.returns <= LIMIT);
            assert!(!self.acked.contains(&key), "{key} was acked");
            self.seen.insert(key.clone());
            held.insert(delivery.tag, key);
        }
    }

    fn check(&self) {
        for (id, prefetch, held) in &self.channels {
            let unacked = self.queues.held(*id).unwrap();
            assert!(held.len() <= unacked && unacked <= *prefetch);
        }
        let ready = self.queues.ready("jobs").chain(self.queues.ready("dead"));
        let unacked = self.queues.unacked_of("jobs").map(|(_, message)| message);
        let mut everywhere: Vec<String> =
            ready.chain(unacked).map(|message| message.record.key.to_string()).collect();
        everywhere.extend(self.acked.iter().cloned());
        everywhere.sort();
        let published: Vec<String> = self.published.iter().cloned().collect();
        assert_eq!(everywhere, published, "each message is at one place");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_message_is_lost_doubled_or_misreported(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.apply(step);
            run.check();
        }
    }
}
