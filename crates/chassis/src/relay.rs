//! The relay: sends the outbox, and nobody else does. It holds a lease a shard, sends the same bytes
//! until they are confirmed, and never has two unconfirmed rows of a key in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use envelope::Envelope;
use futures_util::future::{join, select};
use ports::{
    Channel, Fault, Key, Op, OutboxRow, Outcome, Outgoing, Record, Reply, Rows, Shard, timeout,
};

use crate::app::Shared;
use crate::look::seconds;
use crate::stop::Working;
use crate::tables::{Lease, lease_key};
use crate::touched::document;
use crate::transaction::{clock, lease_row, rows};
use crate::{LEASES, Settings, Trace, meters};

/// At most so many times [`Settings::relay_max`] rows of a shard are read to find one that can be sent.
const WINDOW_MAX: usize = 16;

/// Of so many rows one key is too few: most of what was read waits for the same ones.
const CROWD: usize = 8;

/// Where a row goes and under which key: what is kept in order.
type Path = (Channel, Arc<str>, Key);

/// A path whose first row could not be sent.
struct Failing {
    tries: u32,
    /// When to try again, by this node's monotonic clock.
    again: Duration,
}

/// A lease that this instance holds.
struct Held {
    /// The version of its row: the fencing token.
    version: i64,
    /// It is ours at least until then, by this node's monotonic clock.
    until: Duration,
}

/// The store's clock as it was read, so that a renewal need not read it again. Both clocks are taken
/// to run at the same pace for the length of a lease.
#[derive(Clone, Copy)]
struct StoreClock {
    read: DateTime<Utc>,
    /// Between these two it was read, by this node's monotonic clock.
    asked: Duration,
    answered: Duration,
}

impl StoreClock {
    /// What it shows by now, or a little less: by as much as [`StoreClock::doubt`].
    fn at(&self, elapsed: Duration) -> DateTime<Utc> {
        self.read + elapsed.saturating_sub(self.answered)
    }

    fn doubt(&self) -> Duration {
        self.answered - self.asked
    }
}

/// The relay of one instance.
struct Relay {
    shared: Arc<Shared>,
    held: BTreeMap<Shard, Held>,
    /// As it was last read, with the leases or in a transaction.
    clock: Option<StoreClock>,
    failing: BTreeMap<Path, Failing>,
    /// How many rows of a shard are read. It grows while rows that fail take up all that was read.
    window: usize,
    /// When the service had done its last batch, by the store's clock: what others appended later
    /// is for others to send.
    until: Option<DateTime<Utc>>,
}

/// What one round of sending came to.
struct Round {
    sent: usize,
    failed: usize,
    /// Whether rows were left, of what was read or behind it.
    left: bool,
}

pub(crate) async fn run(shared: Arc<Shared>, working: Working) {
    let mut relay = Relay::new(shared);
    // What hangs at the end is sent again by the next holder: the same bytes, ahead of later rows.
    select(pin!(relay.work(&working)), pin!(working.until_late())).await;
    if let Err(fault) = relay.give_up().await {
        tracing::debug!(service = relay.shared.settings.service, %fault, "leases run out");
    }
}

impl Relay {
    fn new(shared: Arc<Shared>) -> Self {
        let window = shared.settings.relay_max;
        let (held, failing) = (BTreeMap::new(), BTreeMap::new());
        Relay { shared, held, clock: None, failing, window, until: None }
    }

    /// Sends until the service leaves and nothing is left that its own batches appended.
    async fn work(&mut self, working: &Working) {
        let mut failures = 0;
        loop {
            let leaving = working.last();
            let round = self.round(leaving).await;
            if round.is_ok() {
                let now = self.shared.ports.runtime.elapsed();
                self.shared.vitals.note(|seen| seen.relay = Some(now));
            }
            match round {
                Ok(Round { sent: 1.., left, .. }) if left || leaving => failures = 0,
                Ok(Round { failed: 0, .. }) if leaving => return,
                // Rows that fail have pauses of their own.
                Ok(_) if !leaving => {
                    failures = 0;
                    // A commit since the round left a permit: then this does not wait.
                    let Shared { ports, appended, .. } = self.shared.as_ref();
                    let wait = timeout(ports.runtime.as_ref(), self.idle(), appended.notified());
                    select(pin!(wait), pin!(working.until_last())).await;
                }
                Ok(_) => self.shared.back_off("relay", &mut failures).await,
                Err(fault) => {
                    tracing::debug!(service = self.shared.settings.service, %fault, "relay");
                    // Whatever it was, the leases may be another's now: look again.
                    self.held.clear();
                    self.shared.back_off("relay", &mut failures).await;
                }
            }
            if leaving && failures > 3 {
                return;
            }
        }
    }

    /// How long there is nothing to do unless something is appended.
    fn idle(&self) -> Duration {
        let elapsed = self.shared.ports.runtime.elapsed();
        let pauses = self.failing.values().map(|failing| failing.again.saturating_sub(elapsed));
        pauses.min().unwrap_or(Duration::MAX).min(self.shared.settings.idle)
    }

    async fn round(&mut self, leaving: bool) -> Outcome<Round> {
        let elapsed = self.shared.ports.runtime.elapsed();
        let Settings { shards, lease, .. } = self.shared.settings;
        let soon = self.held.values().any(|held| held.until < elapsed + lease * 2 / 3);
        if self.held.len() < usize::from(shards) {
            self.acquire().await?;
        } else if soon {
            self.renew(self.held.keys().copied().collect(), lease, Vec::new()).await?;
        }
        if leaving && self.until.is_none() {
            let now = self.shared.ports.store.read(vec![Op::Now]).await?;
            self.until = Some(clock(now.into_iter().next()));
        }
        let (unsent, left) = self.unsent(leaving).await?;
        if unsent.is_empty() {
            return Ok(Round { sent: 0, failed: 0, left });
        }
        let shards: BTreeSet<Shard> = unsent.iter().map(|row| row.outgoing.shard).collect();
        // The read may have taken its time, and another instance the lease meanwhile. From here on
        // nothing is waited for: each sending begins under a lease.
        let elapsed = self.shared.ports.runtime.elapsed();
        if !shards.iter().all(|shard| self.held[shard].until > elapsed) {
            return Err(Fault::retry("a lease ran out before its rows could be sent"));
        }
        let (topics, jobs): (Vec<OutboxRow>, Vec<OutboxRow>) =
            unsent.into_iter().partition(|row| row.outgoing.channel == Channel::Topic);
        let (log, queue) = (&self.shared.ports.log, &self.shared.ports.queue);
        let produce = async {
            if topics.is_empty() { Vec::new() } else { log.produce(records(&topics)).await }
        };
        let publish = async {
            if jobs.is_empty() { Vec::new() } else { queue.publish(records(&jobs)).await }
        };
        let (produced, published) = join(produce, publish).await;
        let outcomes = topics.iter().zip(produced).chain(jobs.iter().zip(published));
        let mut sent = BTreeSet::new();
        let mut appended = Vec::new();
        let mut failed = 0;
        for (row, outcome) in outcomes {
            self.shared.settings.metrics.count(&meters::OUTBOX_PUBLISH, &[word(&outcome)]);
            match outcome {
                Ok(()) => {
                    self.failing.remove(&path(row));
                    sent.insert(row.id);
                    appended.push(row.at);
                }
                // Whatever it is: the same bytes again, before later rows of this key.
                Err(fault) => {
                    failed += 1;
                    self.failed(row);
                    log_failure(self.shared.settings.service, row, &fault);
                }
            }
        }
        let round = Round { sent: sent.len(), failed, left };
        if !sent.is_empty() {
            let lease = self.shared.settings.lease;
            let confirmed = vec![Op::Sent { ids: sent }];
            let now = match self.renew(shards, lease, confirmed.clone()).await {
                Ok(now) => now,
                Err(fault) => {
                    // The lease may be another's by now. What is confirmed goes all the same: else rows that
                    // take longer than a lease would be sent by one instance after the other for ever.
                    self.shared.ports.store.transact(confirmed).await?;
                    return Err(fault);
                }
            };
            for at in appended {
                let metrics = &self.shared.settings.metrics;
                metrics.add(&meters::OUTBOX_COMMIT_TO_ACK, &[], seconds(now - at));
            }
        }
        Ok(round)
    }

    fn failed(&mut self, row: &OutboxRow) {
        let new = Failing { tries: 0, again: Duration::ZERO };
        let failing = self.failing.entry(path(row)).or_insert(new);
        let pause = self.shared.pause("relay", &mut failing.tries);
        failing.again = self.shared.ports.runtime.elapsed() + pause;
    }

    /// Of the held shards' rows the first of each key, unless it failed just now: what failed least
    /// often first, and of each shard as much as of the others. And whether there are more.
    async fn unsent(&mut self, leaving: bool) -> Outcome<(Vec<OutboxRow>, bool)> {
        if self.held.is_empty() {
            self.failing.clear();
            return Ok((Vec::new(), false));
        }
        let Settings { relay_max, .. } = self.shared.settings;
        let limit = self.window;
        let reads = self.held.keys().map(|&shard| Op::Unsent { shard, limit }).collect();
        let elapsed = self.shared.ports.runtime.elapsed();
        let mut paths: BTreeSet<Path> = BTreeSet::new();
        let mut first = Vec::new();
        let (mut crowded, mut left) = (false, false);
        for reply in self.shared.ports.store.read(reads).await? {
            let Reply::Outbox(rows) = reply else {
                panic!("the store answered {reply:?} where outbox rows were due")
            };
            let full = rows.len() == limit;
            left |= full;
            let mut turn = 0;
            for row in rows {
                let path = path(&row);
                let failing = self.failing.get(&path);
                let (tries, again) = failing.map_or((0, Duration::ZERO), |f| (f.tries, f.again));
                let ours = self.until.is_none_or(|until| row.at <= until);
                let new = paths.insert(path);
                turn += usize::from(tries == 0 && new);
                if new && ours && (leaving || again <= elapsed) {
                    first.push((tries, turn, row));
                } else {
                    left = true;
                }
            }
            crowded |= full && turn <= limit / CROWD;
        }
        self.window = match (crowded, self.failing.is_empty()) {
            (true, _) => (self.window * 2).min(relay_max * WINDOW_MAX),
            (false, true) => relay_max,
            (false, false) => self.window,
        };
        self.failing.retain(|path, _| paths.contains(path));
        first.sort_by_key(|(tries, turn, _)| (*tries, *turn));
        left |= first.len() > relay_max;
        first.truncate(relay_max);
        Ok((first.into_iter().map(|(_, _, row)| row).collect(), left))
    }

    /// Takes leases that are free or run out, and renews our own.
    async fn acquire(&mut self) -> Outcome<()> {
        let (settings, runtime) = (&self.shared.settings, &self.shared.ports.runtime);
        let asked = runtime.elapsed();
        let keys = (0..settings.shards).map(lease_key).collect();
        let read = vec![Op::Now, Op::Read { table: &LEASES, keys }];
        let mut replies = self.shared.ports.store.read(read).await?.into_iter();
        let clock = StoreClock { read: clock(replies.next()), asked, answered: runtime.elapsed() };
        let now_ms = clock.read.timestamp_millis();
        let leases = rows(replies.next());
        self.held.clear();
        let mut wanted = BTreeSet::new();
        for shard in 0..settings.shards {
            let row = leases.get(&lease_key(shard)).cloned().unwrap_or_default();
            let lease: Option<Lease> = document(&row);
            let free = lease.is_none_or(|l| l.owner == settings.instance || l.until_ms <= now_ms);
            if free {
                self.held.insert(shard, Held { version: row.version, until: Duration::ZERO });
                wanted.insert(shard);
            }
        }
        self.clock = Some(clock);
        if !wanted.is_empty() {
            self.renew(wanted, self.shared.settings.lease, Vec::new()).await?;
        }
        Ok(())
    }

    /// Lets others send at once.
    async fn give_up(&mut self) -> Outcome<()> {
        let shards: BTreeSet<Shard> = self.held.keys().copied().collect();
        if shards.is_empty() {
            return Ok(());
        }
        self.renew(shards, Duration::ZERO, Vec::new()).await.map(drop)
    }

    /// Puts these leases anew at the versions we hold, and does `ops` in the same transaction, in one
    /// round trip: if another took one of them meanwhile, nothing is done. Gives the store's clock.
    async fn renew(
        &mut self,
        shards: BTreeSet<Shard>,
        lease: Duration,
        mut ops: Vec<Op>,
    ) -> Outcome<DateTime<Utc>> {
        let settings = &self.shared.settings;
        let Some(clock) = self.clock else {
            return Err(Fault::retry("the store's clock was not read yet"));
        };
        let elapsed = self.shared.ports.runtime.elapsed();
        let until_ms = (clock.at(elapsed) + lease).timestamp_millis();
        let row = Lease { owner: settings.instance.clone(), until_ms };
        let leases: Rows = shards
            .iter()
            .map(|shard| (lease_key(*shard), lease_row(&row, self.held[shard].version)))
            .collect();
        ops.extend([Op::Put { table: &LEASES, rows: leases }, Op::Now]);
        let read = match self.shared.ports.store.transact(ops).await?.pop() {
            Some(Reply::Now(now)) => now,
            other => panic!("the store answered {other:?} where its clock was due"),
        };
        // The row may say less than this node's clock would by the doubt about the store's, and by
        // the millisecond that it is cut to.
        let until = (elapsed + lease).saturating_sub(clock.doubt() + Duration::from_millis(1));
        for held in self.held.iter_mut().filter(|(shard, _)| shards.contains(shard)) {
            held.1.version += 1;
            held.1.until = until;
        }
        let answered = self.shared.ports.runtime.elapsed();
        self.clock = Some(StoreClock { read, asked: elapsed, answered });
        Ok(read)
    }
}

/// How a send ended, as a label.
fn word(outcome: &Outcome<()>) -> &'static str {
    match outcome {
        Ok(()) => "confirmed",
        Err(Fault::Retry(_)) => "retry",
        Err(Fault::Refused(_)) => "refused",
        Err(Fault::Unknown(_)) => "unknown",
    }
}

/// A row that no broker takes for good is somebody's to look at; all else passes by itself.
fn log_failure(service: &'static str, row: &OutboxRow, fault: &Fault) {
    let Outgoing { to, key, headers, payload, .. } = &row.outgoing;
    let envelope = Envelope::read(payload).ok();
    let envelope = envelope.as_ref();
    let correlation = envelope.map(|envelope| envelope.correlation_id.as_str());
    let event = envelope.map(|envelope| envelope.event_id.as_str());
    let kind = envelope.map(|envelope| envelope.event_type.as_str());
    let trace = Trace::of_headers(headers).and_then(Result::ok).map(|trace| trace.id());
    let span = tracing::error_span!(
        "event",
        service,
        correlationId = correlation,
        eventId = event,
        eventType = kind,
        traceId = trace
    );
    span.in_scope(|| match fault {
        Fault::Refused(_) => tracing::warn!(%to, %key, %fault, "refused; again later"),
        Fault::Retry(_) | Fault::Unknown(_) => {
            tracing::debug!(%to, %key, %fault, "not sent; again later");
        }
    });
}

fn path(row: &OutboxRow) -> Path {
    let Outgoing { channel, to, key, .. } = &row.outgoing;
    (*channel, to.clone(), key.clone())
}

fn records(rows: &[OutboxRow]) -> Vec<Record> {
    rows.iter()
        .map(|row| {
            let Outgoing { to, key, headers, payload, .. } = row.outgoing.clone();
            Record { to, key, headers, payload }
        })
        .collect()
}
