//! Draining: when the letter that held up its key is settled, those that waited behind it are applied
//! in order, by the service itself. Never out of turn: the marker says whose turn it is.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::select;
use ports::{Key, Op, Outcome, Range, timeout};

use crate::app::Shared;
use crate::letters::{DRAINABLE, DeadLetter, Marker, PARKED};
use crate::page::BEHIND_ALL;
use crate::slot::{Ask, Slot};
use crate::stop::Working;
use crate::touched::document;
use crate::transaction::{listed, rows};
use crate::{Commands, DEAD_LETTERS, Handler};

/// Keys in one look.
const KEYS_MAX: usize = 64;
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
        match round(&shared, &*handler, &commands).await {
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
) -> Outcome<usize> {
    let range = Range {
        column: DRAINABLE,
        from: String::new(),
        to: BEHIND_ALL.to_owned(),
        after: None,
        descending: false,
        limit: KEYS_MAX,
    };
    let list = vec![Op::List { table: &PARKED, range }];
    let markers = listed(shared.ports.store.read(list).await?.pop());
    let markers = markers.iter().filter_map(|(_, row)| document::<Marker>(row));
    let firsts: BTreeSet<Key> =
        markers.filter_map(|marker| Some(marker.letters.first()?.id.as_str().into())).collect();
    if firsts.is_empty() {
        return Ok(0);
    }
    let read = vec![Op::Read { table: &DEAD_LETTERS, keys: firsts }];
    let letters = rows(shared.ports.store.read(read).await?.pop());
    for letter in letters.values().filter_map(document::<DeadLetter>) {
        let slot = Slot::letter(handler, &letter, Ask::Drain);
        // The service is leaving: the next one goes on.
        if commands.hand_in_slot(slot).await.is_err() {
            break;
        }
    }
    Ok(letters.len())
}
