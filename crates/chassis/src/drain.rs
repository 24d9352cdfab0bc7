//! Draining: when the letter that held up its key is settled, those that waited behind it are applied
//! in order, by the service itself. Never out of turn: the marker says whose turn it is, and how often it
//! was taken and nothing came of it. A letter that ends the process each time is given up.

use std::pin::pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::select;
use ports::{Fault, Key, Op, Outcome, Range, Row, Rows, Tx, timeout};

use crate::app::Shared;
use crate::letters::{DRAINABLE, DeadLetter, Marker, PARKED, Tried, Waiting};
use crate::page::BEHIND_ALL;
use crate::slot::{Ask, Slot};
use crate::stop::Working;
use crate::touched::document;
use crate::transaction::{clock, json, listed, rows};
use crate::{Commands, DEAD_LETTERS, Document, Due, Handler};

/// Keys in one look.
const KEYS_MAX: usize = 64;
/// How often the turn of a letter is taken in vain before it is given up: as often as a record that comes alone
/// ends the process.
const TIMES_MAX: u32 = 3;
/// Where nothing rings, it looks so many times [`crate::Settings::idle`] later: what another instance
/// left when it died.
const IDLE_TIMES: u32 = 20;

pub(crate) async fn run<H: Handler>(
    shared: Arc<Shared>,
    handler: Arc<H>,
    commands: Commands<H::Fact>,
    working: Working,
) {
    let mut failures = 0;
    while !working.asked() {
        match round(&shared, &*handler, &commands, &working).await {
            Ok(0) => {
                failures = 0;
                let idle = shared.settings.idle * IDLE_TIMES;
                let wait = timeout(&*shared.ports.runtime, idle, shared.drainable.notified());
                select(pin!(wait), pin!(working.until_asked())).await;
            }
            Ok(_) => failures = 0,
            Err(fault) => {
                tracing::debug!(service = shared.settings.service, %fault, "could not drain");
                shared.back_off("drain", &mut failures).await;
            }
        }
    }
}

/// Applies the first letter of each key where it only waits. Gives their number.
async fn round<H: Handler>(
    shared: &Shared,
    handler: &H,
    commands: &Commands<H::Fact>,
    working: &Working,
) -> Outcome<usize> {
    let range = Range {
        column: DRAINABLE,
        from: String::new(),
        to: BEHIND_ALL.to_owned(),
        after: None,
        descending: false,
        limit: KEYS_MAX,
    };
    let list = vec![Op::Now, Op::List { table: &PARKED, range }];
    let mut replies = shared.ports.store.read(list).await?.into_iter();
    let now = Due::at(clock(replies.next()));
    let mut handled = 0;
    for (key, row) in listed(replies.next()) {
        let Some(marker) = document::<Marker>(&row).filter(|marker| marker.is_free(&now)) else {
            continue;
        };
        let Some(turn) = Turn::take(shared, key, &marker, working).await? else { continue };
        let slot = Slot::letter(handler, &turn.letter, Ask::Drain { tried: turn.given_up });
        // The service is leaving: the next one goes on.
        if commands.hand_in_slot(slot).await.is_err() {
            turn.give_back(shared, working).await;
            break;
        }
        handled += 1;
    }
    Ok(handled)
}

/// The turn of a letter, which is written down before it is handled: a process that dies of it leaves that
/// behind, and nothing else.
struct Turn {
    key: Key,
    letter: DeadLetter,
    /// Until then it is ours.
    until: String,
    /// Set where it is not tried any more: so often its turn was taken, and nothing came of it.
    given_up: Option<u32>,
}

impl Turn {
    /// Takes the turn of the first letter. `None`: it is somebody else's by now.
    async fn take(
        shared: &Shared,
        key: Key,
        seen: &Marker,
        working: &Working,
    ) -> Outcome<Option<Turn>> {
        let Some(first) = seen.letters.first() else { return Ok(None) };
        let letter = Op::Read { table: &DEAD_LETTERS, keys: [first.id.as_str().into()].into() };
        let Locked { now, row, tx, more } = Locked::of(shared, &key, Some(letter)).await?;
        let letter = more.values().find_map(document::<DeadLetter>);
        let marker = row.as_ref().and_then(document::<Marker>);
        let (Some(row), Some(mut marker), Some(letter)) = (row, marker, letter) else {
            return Ok(None);
        };
        let at = Due::at(now);
        if marker.letters.first() != Some(first) || !marker.is_free(&at) {
            return Ok(None);
        }
        let times = marker.tried.as_ref().map_or(0, |tried| tried.times);
        let until = Due::at(now + shared.settings.lease);
        let mut turn = Turn { key, letter, until, given_up: None };
        if times >= TIMES_MAX {
            turn.given_up = Some(times);
            return Ok(Some(turn));
        }
        if times > 0 {
            let (service, letter) = (shared.settings.service, &turn.letter.id);
            tracing::warn!(
                service,
                letter,
                times,
                "its turn was taken and nothing came of it: the process may die of it"
            );
        }
        marker.tried = Some(Tried { times: times + 1, until: turn.until.clone() });
        let put = turn.put(row.version, &marker);
        if let Err(fault) = tx.commit(vec![put]).await {
            if let Fault::Unknown(_) = fault {
                turn.give_back(shared, working).await;
            }
            return Err(fault);
        }
        Ok(Some(turn))
    }

    /// It was not handled, and did not end the process.
    async fn give_back(&self, shared: &Shared, working: &Working) {
        shared.take_back("turn", working, || Box::pin(self.try_give_back(shared))).await;
    }

    async fn try_give_back(&self, shared: &Shared) -> Outcome<()> {
        let Locked { now, row, tx, .. } = Locked::of(shared, &self.key, None).await?;
        let marker = row.as_ref().and_then(document::<Marker>);
        let (Some(row), Some(mut marker)) = (row, marker) else { return Ok(()) };
        let ours = |first: &Waiting| first.id == self.letter.id;
        let Some(tried) = marker.tried.take().filter(|_| marker.letters.first().is_some_and(ours))
        else {
            return Ok(());
        };
        // Whoever took it since has it still.
        let until = if tried.until == self.until { Due::at(now) } else { tried.until };
        let times = tried.times.saturating_sub(1);
        marker.tried = (times > 0).then_some(Tried { times, until });
        tx.commit(vec![self.put(row.version, &marker)]).await
    }

    fn put(&self, version: i64, marker: &Marker) -> Op {
        let row = Row { version, index: marker.index(), body: json(marker) };
        Op::Put { table: &PARKED, rows: Rows::from_iter([(self.key.clone(), row)]) }
    }
}

/// A marker under its lock.
struct Locked {
    now: DateTime<Utc>,
    row: Option<Row>,
    tx: Box<dyn Tx>,
    /// What was read besides.
    more: Rows,
}

impl Locked {
    async fn of(shared: &Shared, key: &Key, more: Option<Op>) -> Outcome<Self> {
        let mut ops = vec![Op::Now, Op::Lock { table: &PARKED, keys: [key.clone()].into() }];
        ops.extend(more);
        let (tx, replies) = shared.ports.store.begin(ops).await?;
        let mut replies = replies.into_iter();
        let now = clock(replies.next());
        let row = rows(replies.next()).remove(key);
        let more = replies.next().map_or_else(Rows::new, |reply| rows(Some(reply)));
        Ok(Locked { now, row, tx, more })
    }
}
