//! How a service's loops run: sizes and times, each with its reason. Never read from here: given.

use std::time::Duration;

use crate::Metrics;

const DAY: Duration = Duration::from_secs(86_400);

/// Sizes and times of one service's loops.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service's name: its consumer group.
    pub service: &'static str,
    /// This instance's name, unique among the instances: the owner of its leases.
    pub instance: String,
    /// Most inputs in one transaction. Large enough to share a commit, small enough to lock briefly.
    pub batch_max: usize,
    /// Commands that may wait; more are answered 503.
    pub commands_max: usize,
    /// How long a caller waits for the reply of its command.
    pub reply_timeout: Duration,
    /// How long the twin of a command in flight waits for its reply; then it is answered 409
    /// (saga-rules 17).
    pub twin_wait: Duration,
    /// Bulk requests at a time; each has a few dozen commands in the queue, and all of them together
    /// leave most of it to others.
    pub bulks_max: usize,
    /// Outbox shards. Fixed for a database's life: a key's shard must not change.
    pub shards: u16,
    /// How long a shard's lease lasts without renewal. A dead holder's shards rest this long.
    pub lease: Duration,
    /// How long the relay and the workers wait where nothing wakes them.
    pub idle: Duration,
    /// Between two commits of offsets to the log while records flow: its copy of a position is for
    /// whoever looks from outside, and may lag. A commit is a round trip in which nothing is read.
    pub offsets_every: Duration,
    /// Most outbox rows in one sending.
    pub relay_max: usize,
    /// A batch that takes longer is slow: its consumer polls on meanwhile, with everything paused.
    pub patience: Duration,
    /// A batch that takes longer hangs: its consumer polls no more, so that the group takes it for
    /// dead in the end and others get its partitions (broker-contract K23).
    pub stall: Duration,
    /// How long what is in hand may take when the service is asked to leave, all in all, and when
    /// partitions are revoked. Then it is dropped, and others repeat it. Shorter than what the
    /// process has before it is killed.
    pub drain: Duration,
    /// How long an event's outcome is known: longer than a producer may repeat it. Redelivery itself
    /// is stopped by the position.
    pub keep_events: Duration,
    /// How long a command's outcome is known under its Idempotency-Key.
    pub keep_commands: Duration,
    /// How long a closed dead letter can be looked at.
    pub keep_letters: Duration,
    /// How often what has expired is deleted, about.
    pub sweep: Duration,
    /// Most rows that one transaction deletes: few, so that it is short.
    pub sweep_max: usize,
    /// Between two such transactions.
    pub sweep_pause: Duration,
    /// First pause after a failed attempt; it doubles up to [`Settings::backoff_max`], with jitter.
    pub backoff: Duration,
    /// Longest pause after a failed attempt.
    pub backoff_max: Duration,
    /// What is counted where; silent by default.
    pub metrics: Metrics,
}

impl Settings {
    /// The defaults for a service's instance.
    pub fn new(service: &'static str, instance: impl Into<String>) -> Self {
        Settings {
            service,
            instance: instance.into(),
            batch_max: 256,
            commands_max: 1024,
            reply_timeout: Duration::from_secs(10),
            twin_wait: Duration::from_secs(5),
            bulks_max: 4,
            shards: 4,
            lease: Duration::from_secs(10),
            idle: Duration::from_millis(500),
            offsets_every: Duration::from_secs(1),
            relay_max: 512,
            patience: Duration::from_secs(1),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(4),
            keep_events: 7 * DAY,
            keep_commands: DAY,
            keep_letters: 90 * DAY,
            sweep: Duration::from_secs(60),
            sweep_max: 500,
            sweep_pause: Duration::from_millis(100),
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            metrics: Metrics::silent(),
        }
    }
}
