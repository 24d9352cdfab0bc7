//! Retention: what is kept for a time only goes when the time is over, in small transactions with
//! pauses, found by index. Every instance does it: a claim passes over what another one has (SKIP
//! LOCKED). Never touches what has not expired, and nothing that a batch waits for: a batch locks by
//! key, and meets an expired key only where it comes again after its time.
//!
//! No table of the chassis grows with history. The outbox holds what is not sent; positions have a
//! row a partition, leases a row a shard; markers stand for keys with open letters, and go with the
//! last one; the inbox, closed letters and marks of jobs that nobody took back go here. Open letters
//! stay until somebody settles them: they are an alarm, not a history.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{Either, select};
use ports::{Key, Op, Outcome, Table};

use crate::Due;
use crate::app::Shared;
use crate::claim::{Claimed, claim};
use crate::letters::CLOSED_AT;
use crate::slot::Source;
use crate::stop::Working;
use crate::{DEAD_LETTERS, INBOX, JOB_MARKS, Settings};

/// Rows of a table that go so long after the instant in one of its index columns.
struct Sweep {
    table: &'static Table,
    column: usize,
    keep: Duration,
}

fn sweeps(settings: &Settings) -> [Sweep; 3] {
    [
        Sweep { table: &INBOX, column: 0, keep: Duration::ZERO },
        Sweep { table: &JOB_MARKS, column: 0, keep: Duration::ZERO },
        Sweep { table: &DEAD_LETTERS, column: CLOSED_AT, keep: settings.keep_letters },
    ]
}

/// Until when what a batch puts into the inbox is kept. By the node's clock, as the rows go to the
/// store in the round trip that would ask for the store's: a node that is wrong by seconds is so by
/// seconds of hours or days. What goes when is judged by the store's clock.
pub(crate) struct Expiry {
    events: Until,
    commands: Until,
}

/// An instant, written once, when it is first wanted: most batches need one of the two.
struct Until {
    at: DateTime<Utc>,
    text: OnceLock<String>,
}

impl Expiry {
    pub(crate) fn new(settings: &Settings, now: DateTime<Utc>) -> Self {
        let until = |keep: Duration| Until { at: now + keep, text: OnceLock::new() };
        Expiry { events: until(settings.keep_events), commands: until(settings.keep_commands) }
    }

    pub(crate) fn of(&self, source: &Source) -> String {
        let Until { at: until, text } = match source {
            Source::Command => &self.commands,
            Source::Log { .. } | Source::Queue | Source::Letter { .. } => &self.events,
        };
        text.get_or_init(|| Due::at(*until)).clone()
    }
}

pub(crate) async fn run(shared: Arc<Shared>, working: Working) {
    let Settings { sweep, sweep_max, sweep_pause, ref instance, .. } = shared.settings;
    let mut failures = 0;
    loop {
        // Instances that start together do not sweep together.
        let half_ms = sweep.as_millis() as u64 / 2;
        let jitter_ms = shared.ports.runtime.choose("sweep", instance, half_ms + 1);
        if leaves(&shared, Duration::from_millis(half_ms + jitter_ms), &working).await {
            return;
        }
        for table in sweeps(&shared.settings) {
            loop {
                match batch(&shared, &table, sweep_max).await {
                    Ok(gone) if gone < sweep_max => break,
                    Ok(_) => failures = 0,
                    Err(fault) => {
                        tracing::debug!(service = shared.settings.service, %fault,
                            table = table.table.name, "not swept; again later");
                        shared.back_off("sweep", &mut failures).await;
                        break;
                    }
                }
                if leaves(&shared, sweep_pause, &working).await {
                    return;
                }
            }
        }
    }
}

/// Pauses. Whether the service leaves.
async fn leaves(shared: &Shared, pause: Duration, working: &Working) -> bool {
    let pause = pin!(shared.ports.runtime.sleep(pause));
    matches!(select(pause, pin!(working.until_asked())).await, Either::Right(_)) || working.asked()
}

/// Deletes the rows that expired longest ago, at most `limit`. Gives their number.
async fn batch(shared: &Shared, sweep: &Sweep, limit: usize) -> Outcome<usize> {
    let (store, table) = (shared.ports.store.as_ref(), sweep.table);
    let until = |now| now - sweep.keep;
    let claimed = claim(store, table, sweep.column, limit, until).await?;
    let Some(Claimed { tx, rows, .. }) = claimed else { return Ok(0) };
    let keys: BTreeSet<Key> = rows.into_iter().map(|(key, _)| key).collect();
    let gone = keys.len();
    tx.commit(vec![Op::Delete { table, keys }]).await?;
    tracing::debug!(service = shared.settings.service, table = table.name, gone, "expired");
    Ok(gone)
}
