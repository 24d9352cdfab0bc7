//! A look at a service from outside its loops: does each dependency answer, how far behind are outbox
//! and consumers. Through ports and runtime alone, so that it works in worlds; bounded in time and
//! size, and shared by all who ask within a second. Never takes a lock in the store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use ports::{Channel, Key, Op, Outcome, Partition, Reply, Runtime, Shard, timeout};
use tokio::sync::Mutex;

use crate::app::Shared;
use crate::letters::{OPEN_SINCE, PARKED, SINCE};
use crate::page::List;
use crate::tables::{lease_key, position_key};
use crate::touched::document;
use crate::transaction::{clock, listed, rows};
use crate::vitals::Seen;
use crate::{
    DEAD_LETTERS, Handler, LEASES, Lease, LetterStanding, POSITIONS, Position, Sample, meters,
};

/// How long a dependency has to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a look is good for: whoever asks within it gets the same.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// So many unsent rows of a shard are counted: enough to see a backlog, few enough to read.
const UNSENT_MAX: usize = 100;
/// So many open letters, and keys with some, are counted.
const DEAD_MAX: usize = 1000;

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// When, by the node's monotonic clock.
    pub(crate) at: Duration,
    /// What the loops noted.
    pub(crate) seen: Seen,
    /// The store; `Err` says what is wrong.
    pub(crate) store: Result<(), String>,
    /// The log; `None` where nothing is read from it or sent to it.
    pub(crate) log: Option<Result<(), String>>,
    /// The queue; `None` likewise.
    pub(crate) queue: Option<Result<(), String>>,
    /// Of each shard whether its lease is held, and whether by this instance. Empty where the store
    /// did not answer.
    pub(crate) leases: BTreeMap<Shard, Held>,
    /// Gauges, as far as what they need answered.
    pub(crate) gauges: Vec<Sample>,
}

/// Who may send a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Ours,
    Others,
    Nobody,
}

/// The last look, and one at a time.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// With when it ended, by the node's monotonic clock: whoever waited for it takes it.
    last: Mutex<Option<(Duration, Look)>>,
}

impl Looks {
    /// The last look, or a new one where that is too old.
    pub(crate) async fn get<H: Handler>(&self, shared: &Shared, handler: &H) -> Look {
        let mut last = self.last.lock().await;
        let elapsed = || shared.ports.runtime.elapsed();
        match last.as_ref() {
            Some((ended, look)) if elapsed().saturating_sub(*ended) < GOOD_FOR => look.clone(),
            Some(_) | None => {
                let look = look(shared, handler).await;
                last.insert((elapsed(), look)).1.clone()
            }
        }
    }
}

type Ends = BTreeMap<Partition, (i64, i64)>;

async fn look<H: Handler>(shared: &Shared, handler: &H) -> Look {
    let at = shared.ports.runtime.elapsed();
    let seen = shared.vitals.seen();
    let ((log, ends), queue) = join(look_at_log(shared, &seen), look_at_queue(shared, &seen)).await;
    let mut look =
        Look { at, seen, store: Ok(()), log, queue, leases: BTreeMap::new(), gauges: Vec::new() };
    match read_store(shared, handler, &look.seen, &ends).await {
        Ok(read) => {
            look.gauges = read.gauges;
            look.leases = read.leases;
        }
        Err(cause) => look.store = Err(cause),
    }
    let age = at.saturating_sub(look.seen.message).as_secs_f64();
    if look.seen.consumer.is_some() || look.seen.jobs.is_some() {
        look.gauges.push(Sample::new(&meters::CONSUMER_LAST_MESSAGE_AGE, age));
    }
    let dependencies =
        [("store", Some(&look.store)), ("log", look.log.as_ref()), ("queue", look.queue.as_ref())];
    let up = dependencies.into_iter().filter_map(|(name, state)| {
        let up = if state?.is_ok() { 1.0 } else { 0.0 };
        Some(Sample::labelled(&meters::DEPENDENCY_UP, [name], up))
    });
    look.gauges.extend(up.collect::<Vec<_>>());
    look
}

/// Waits for a dependency, not too long.
async fn probe<T>(
    runtime: &dyn Runtime,
    call: impl Future<Output = Outcome<T>>,
) -> Result<T, String> {
    match timeout(runtime, PROBE_TIMEOUT, call).await {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(fault)) => Err(fault.to_string()),
        None => Err(format!("no answer within {} ms", PROBE_TIMEOUT.as_millis())),
    }
}

fn of_channel(seen: &Seen, channel: Channel) -> impl Iterator<Item = &Arc<str>> {
    seen.reached.iter().filter(move |(to, _)| *to == channel).map(|(_, name)| name)
}

/// Whether the log answers, and the ends of all partitions that are read.
async fn look_at_log(shared: &Shared, seen: &Seen) -> (Option<Result<(), String>>, Ends) {
    let runtime = shared.ports.runtime.as_ref();
    let log = &shared.ports.log;
    let sent_to = of_channel(seen, Channel::Topic).filter(|_| seen.topics.is_empty());
    let topics: Vec<&Arc<str>> = seen.topics.iter().chain(sent_to.take(1)).collect();
    let asked = topics.iter().map(|topic| probe(runtime, log.watermarks(topic)));
    let mut ends = Ends::new();
    let mut state = None;
    for answer in join_all(asked).await {
        match answer {
            Ok(read) => {
                ends.extend(read);
                state = state.or(Some(Ok(())));
            }
            Err(cause) => state = Some(Err(cause)),
        }
    }
    ends.retain(|partition, _| seen.topics.contains(&partition.topic));
    (state, ends)
}

async fn look_at_queue(shared: &Shared, seen: &Seen) -> Option<Result<(), String>> {
    let runtime = shared.ports.runtime.as_ref();
    let queue = of_channel(seen, Channel::Queue).next()?;
    let depth = probe(runtime, shared.ports.queue.depth(queue)).await;
    Some(depth.map(drop))
}

/// What the store knows.
struct Stored {
    leases: BTreeMap<Shard, Held>,
    gauges: Vec<Sample>,
}

/// Everything that is read from the store, in one round trip.
async fn read_store<H: Handler>(
    shared: &Shared,
    handler: &H,
    seen: &Seen,
    ends: &Ends,
) -> Result<Stored, String> {
    let relays = seen.relay.is_some();
    let shards: Vec<Shard> = (0..shared.settings.shards).filter(|_| relays).collect();
    let mut ops = vec![
        Op::Now,
        Op::Read { table: &LEASES, keys: shards.iter().map(|shard| lease_key(*shard)).collect() },
        Op::Read { table: &POSITIONS, keys: ends.keys().map(position_key).collect() },
        Op::List { table: &DEAD_LETTERS, range: List::all(OPEN_SINCE).first(DEAD_MAX) },
        Op::List { table: &PARKED, range: List::all(SINCE).first(DEAD_MAX) },
    ];
    ops.extend(shards.iter().map(|&shard| Op::Unsent { shard, limit: UNSENT_MAX }));
    ops.extend(handler.gauge_reads());
    let read = shared.ports.store.read(ops);
    let mut replies = probe(shared.ports.runtime.as_ref(), read).await?.into_iter();

    let now = clock(replies.next());
    let leases = rows(replies.next());
    let positions = rows(replies.next());
    let (letters, parked) = (listed(replies.next()), listed(replies.next()));
    let unsent: Vec<Reply> = replies.by_ref().take(shards.len()).collect();
    let mut gauges = lag(shared.settings.service, ends, &positions);
    gauges.extend(open_letters(&letters));
    gauges.push(Sample::new(&meters::PARKED_KEYS, parked.len() as f64));
    let owner = &shared.settings.instance;
    let held = |shard: &Shard| {
        let lease: Option<Lease> = leases.get(&lease_key(*shard)).and_then(document);
        match lease.filter(|lease| lease.until_ms > now.timestamp_millis()) {
            Some(lease) if lease.owner == *owner => Held::Ours,
            Some(_) => Held::Others,
            None => Held::Nobody,
        }
    };
    let leases: BTreeMap<Shard, Held> = shards.iter().map(|shard| (*shard, held(shard))).collect();
    if relays {
        gauges.extend(outbox(unsent, now));
        let ours = leases.values().filter(|held| **held == Held::Ours).count();
        gauges.push(Sample::new(&meters::LEASE_HELD, ours as f64));
    }
    gauges.extend(handler.gauges(replies.collect(), now));
    Ok(Stored { leases, gauges })
}

/// From the position in the database, which is ahead of the log's own copy, to the end of the log: right
/// also where nobody reads any more.
fn lag(group: &'static str, ends: &Ends, positions: &ports::Rows) -> Vec<Sample> {
    let one = |(partition, (low, high)): (&Partition, &(i64, i64))| {
        let position: Option<Position> = positions.get(&position_key(partition)).and_then(document);
        let next = position.and_then(|position| position.next).unwrap_or(*low).max(*low);
        let labels = [partition.topic.to_string(), partition.index.to_string(), group.to_owned()];
        Sample::labelled(&meters::CONSUMER_LAG, labels, (high - next).max(0) as f64)
    };
    ends.iter().map(one).collect()
}

/// How many rows wait, up to a bound, and since when the first of them does.
fn outbox(unsent: Vec<Reply>, now: DateTime<Utc>) -> [Sample; 2] {
    let mut count = 0;
    let mut oldest: Option<DateTime<Utc>> = None;
    for reply in unsent {
        let Reply::Outbox(rows) = reply else {
            panic!("the store answered {reply:?} where outbox rows were due")
        };
        count += rows.len();
        oldest = oldest.into_iter().chain(rows.iter().map(|row| row.at)).min();
    }
    let age_s = oldest.map_or(0.0, |at| seconds(now - at));
    [
        Sample::new(&meters::OUTBOX_UNSENT, count as f64),
        Sample::new(&meters::OUTBOX_OLDEST_AGE, age_s),
    ]
}

/// Open letters by state and reason. Codes are constants of this code, or one of them stands for all
/// others.
fn open_letters(letters: &[(Key, ports::Row)]) -> Vec<Sample> {
    const SERIES_MAX: usize = 32;
    let mut counts: BTreeMap<(&'static str, String), usize> = BTreeMap::new();
    for (_, row) in letters {
        let LetterStanding { state, code } = LetterStanding::of(row);
        let series = (state.name(), code);
        let known = counts.len() < SERIES_MAX || counts.contains_key(&series);
        let series = if known { series } else { (series.0, "other".to_owned()) };
        *counts.entry(series).or_default() += 1;
    }
    if counts.is_empty() {
        counts.insert(("dead", "none".to_owned()), 0);
    }
    let mut samples = Vec::new();
    for ((state, code), count) in counts {
        let labels = [state.to_owned(), code];
        samples.push(Sample::labelled(&meters::DEAD_LETTERS, labels, count as f64));
    }
    samples
}

/// A span of time as a gauge; never negative: clocks may differ.
pub(crate) fn seconds(span: chrono::TimeDelta) -> f64 {
    span.to_std().unwrap_or_default().as_secs_f64()
}
