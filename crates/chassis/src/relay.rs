//! The relay: sends the outbox, and nobody else does. It holds a lease a shard, sends the same bytes
//! until they are confirmed, and never has two unconfirmed rows of a key in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, select};
use ports::{Channel, Key, Op, OutboxRow, Outcome, Record, Reply, Rows, Shard, timeout};

use crate::app::Shared;
use crate::stop::Working;
use crate::tables::Lease;
use crate::touched::document;
use crate::transaction::{clock, lease_row, rows};
use crate::{Handler, LEASES};

/// The relay of one instance.
struct Relay<H: Handler> {
    shared: Arc<Shared<H>>,
    /// Versions of the leases that this instance holds: its fencing tokens.
    held: BTreeMap<Shard, i64>,
    /// When they were last renewed, by this node's monotonic clock; taken before the request.
    renewed: Duration,
}

/// What one round of sending came to.
struct Round {
    sent: usize,
    failed: usize,
}

pub(crate) async fn run<H: Handler>(shared: Arc<Shared<H>>, working: Working) {
    let mut relay = Relay { shared, held: BTreeMap::new(), renewed: Duration::ZERO };
    let mut failures = 0;
    loop {
        let leaving = working.asked();
        match relay.round().await {
            Ok(Round { sent: 0, failed: 0 }) => {
                failures = 0;
                if leaving {
                    return;
                }
                // A commit since the round left a permit: then this does not wait.
                let Shared { ports, settings, appended, .. } = relay.shared.as_ref();
                let wait = timeout(ports.runtime.as_ref(), settings.idle, appended.notified());
                select(pin!(wait), pin!(working.until_asked())).await;
            }
            Ok(Round { sent: 1.., .. }) => failures = 0,
            Ok(Round { .. }) => relay.rest(leaving, &mut failures).await,
            Err(fault) => {
                tracing::debug!(service = relay.shared.settings.service, %fault, "relay");
                // Whatever it was, the leases may be another's now: look again.
                relay.held.clear();
                relay.rest(leaving, &mut failures).await;
            }
        }
        if leaving && failures > 3 {
            return;
        }
    }
}

impl<H: Handler> Relay<H> {
    async fn rest(&self, leaving: bool, failures: &mut u32) {
        if leaving && *failures > 3 {
            return;
        }
        self.shared.back_off("relay", failures).await;
    }

    async fn round(&mut self) -> Outcome<Round> {
        let elapsed = self.shared.ports.runtime.elapsed();
        let settings = &self.shared.settings;
        let all = self.held.len() == usize::from(settings.shards);
        if !all || elapsed.saturating_sub(self.renewed) > settings.lease / 3 {
            self.acquire().await?;
        }
        let unsent = self.unsent().await?;
        if unsent.is_empty() {
            return Ok(Round { sent: 0, failed: 0 });
        }
        let shards: BTreeSet<Shard> = unsent.iter().map(|row| row.outgoing.shard).collect();
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
        let mut failed = 0;
        for (row, outcome) in outcomes {
            match outcome {
                Ok(()) => {
                    sent.insert(row.id);
                }
                // Whatever it is: the same bytes again, before later rows of this key.
                Err(fault) => {
                    failed += 1;
                    tracing::debug!(service = self.shared.settings.service, to = %row.outgoing.to,
                        key = %row.outgoing.key, %fault, "not sent; again later");
                }
            }
        }
        let round = Round { sent: sent.len(), failed };
        if !sent.is_empty() {
            self.renew(shards, vec![Op::Sent { ids: sent }]).await?;
        }
        Ok(round)
    }

    /// Of the held shards' rows, the first of each key.
    async fn unsent(&self) -> Outcome<Vec<OutboxRow>> {
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let limit = self.shared.settings.relay_max;
        let reads = self.held.keys().map(|&shard| Op::Unsent { shard, limit }).collect();
        let mut keys: BTreeSet<(Channel, Arc<str>, Key)> = BTreeSet::new();
        let mut first = Vec::new();
        for reply in self.shared.ports.store.read(reads).await? {
            let Reply::Outbox(rows) = reply else {
                panic!("the store answered {reply:?} where outbox rows were due")
            };
            for row in rows {
                let outgoing = &row.outgoing;
                if keys.insert((outgoing.channel, outgoing.to.clone(), outgoing.key.clone())) {
                    first.push(row);
                }
            }
        }
        first.truncate(limit);
        Ok(first)
    }

    /// Takes leases that are free or run out, and renews our own.
    async fn acquire(&mut self) -> Outcome<()> {
        let settings = &self.shared.settings;
        let before = self.shared.ports.runtime.elapsed();
        let keys = (0..settings.shards).map(lease_key).collect();
        let read = vec![Op::Now, Op::Read { table: &LEASES, keys }];
        let mut replies = self.shared.ports.store.read(read).await?.into_iter();
        let now_ms = clock(replies.next()).timestamp_millis();
        let leases = rows(replies.next());
        self.held.clear();
        let mut wanted = BTreeSet::new();
        for shard in 0..settings.shards {
            let row = leases.get(&lease_key(shard)).cloned().unwrap_or_default();
            let lease: Option<Lease> = document(&row);
            let free = lease.is_none_or(|l| l.owner == settings.instance || l.until_ms <= now_ms);
            if free {
                self.held.insert(shard, row.version);
                wanted.insert(shard);
            }
        }
        if !wanted.is_empty() {
            self.renew(wanted, Vec::new()).await?;
        }
        self.renewed = before;
        Ok(())
    }

    /// Puts these leases anew at the versions we hold, and does `ops` in the same transaction: if
    /// another took one of them meanwhile, nothing is done.
    async fn renew(&mut self, shards: BTreeSet<Shard>, mut ops: Vec<Op>) -> Outcome<()> {
        let settings = &self.shared.settings;
        let (tx, replies) = self.shared.ports.store.begin(vec![Op::Now]).await?;
        let now_ms = clock(replies.into_iter().next()).timestamp_millis();
        let until_ms = now_ms + settings.lease.as_millis() as i64;
        let lease = Lease { owner: settings.instance.clone(), until_ms };
        let leases: Rows =
            shards.iter().map(|s| (lease_key(*s), lease_row(&lease, self.held[s]))).collect();
        ops.push(Op::Put { table: &LEASES, rows: leases });
        tx.commit(ops).await?;
        for shard in shards {
            self.held.entry(shard).and_modify(|version| *version += 1);
        }
        Ok(())
    }
}

fn lease_key(shard: Shard) -> Key {
    format!("outbox/{shard}").into()
}

fn records(rows: &[OutboxRow]) -> Vec<Record> {
    rows.iter()
        .map(|row| {
            let ports::Outgoing { to, key, headers, payload, .. } = row.outgoing.clone();
            Record { to, key, headers, payload }
        })
        .collect()
}
