//! Timers and the outside world: claim what is due, in the transaction that makes it so or by looking;
//! call with a stable key outside any transaction; hand in the result as an input. Never decides what a
//! result means.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::{Either, select};
use ports::{Fault, Key, Op, Outcome, Row, Rows, Runtime, Table, timeout};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::app::Shared;
use crate::claim::{self, Claimed};
use crate::stop::{Stage, Working};
use crate::{Commands, Input};

/// What is due: rows of a table whose index column, an instant as [`Due::at`] writes it, has come.
#[derive(Debug, Clone)]
pub struct Due {
    /// Where.
    pub table: &'static Table,
    /// Position of the column.
    pub column: usize,
    /// Calls at the same time.
    pub parallel: usize,
    /// How long a claim holds: after it, what was not settled is due again, and the call is dropped.
    /// Longer than the call's own time-out.
    pub claim: Duration,
}

impl Due {
    /// An instant as an index value: it sorts in the order of time.
    pub fn at(instant: DateTime<Utc>) -> String {
        envelope::format_time(&instant)
    }
}

/// Something outside this service: a gateway, a mail server, a clock.
#[async_trait]
pub trait Outside<F>: Send + Sync + 'static {
    /// Calls it for a claimed row. What comes back is handed in; nothing means: due again when the
    /// claim ends. The call's own key must be stable: it is repeated after a crash.
    async fn call(&self, key: &Key, row: &Row) -> Vec<Input<F>>;
}

/// An outside that answers at once: a timer that turns a due key and its row into an input.
pub struct Timer<T>(pub T);

#[async_trait]
impl<F: Send + Sync + 'static, T> Outside<F> for Timer<T>
where
    T: Fn(&Key, &Row) -> Input<F> + Send + Sync + 'static,
{
    async fn call(&self, key: &Key, row: &Row) -> Vec<Input<F>> {
        vec![(self.0)(key, row)]
    }
}

/// Where the calls for one [`Due`] are begun, as many at a time as it allows.
pub(crate) struct Desk {
    due: Due,
    places: Arc<Semaphore>,
    /// Rung after a commit that made rows due and found no place for them.
    overdue: Notify,
    start: Box<dyn Fn((Key, Row), OwnedSemaphorePermit) + Send + Sync>,
}

impl Desk {
    pub(crate) fn new<F: Send + Sync + 'static, O: Outside<F>>(
        shared: &Shared,
        due: Due,
        outside: O,
        commands: Commands<F>,
    ) -> Self {
        let (service, limit) = (shared.settings.service, due.claim);
        let (runtime, stop) = (shared.ports.runtime.clone(), shared.stop.clone());
        let outside = Arc::new(outside);
        let start = move |row: (Key, Row), place: OwnedSemaphorePermit| {
            let (outside, commands) = (outside.clone(), commands.clone());
            let working = stop.working(Stage::Intake);
            let (late, clock) = (working.until_late(), runtime.clone());
            let calling = async move {
                let _held = (place, working);
                let call = call(service, &*clock, outside.as_ref(), &commands, &row, limit);
                select(pin!(call), pin!(late)).await;
            };
            runtime.spawn("call", Box::pin(calling));
        };
        let places = Arc::new(Semaphore::new(due.parallel));
        Desk { due, places, overdue: Notify::new(), start: Box::new(start) }
    }
}

/// Rows that a transaction makes due and claims in the same breath, each with a place for its call:
/// nobody has to look for them. Dropped, it gives the places back.
#[derive(Default)]
pub(crate) struct ClaimedAtOnce {
    calls: Vec<(Arc<Desk>, (Key, Row), OwnedSemaphorePermit)>,
    /// Desks with rows that found no place.
    full: Vec<Arc<Desk>>,
}

impl ClaimedAtOnce {
    /// Claims, of the rows that these operations put, those that are due at `now`.
    pub(crate) fn of(desks: &[Arc<Desk>], ops: &mut [Op], now: DateTime<Utc>) -> Self {
        let mut claimed = ClaimedAtOnce::default();
        for desk in desks {
            let Due { table, column, claim, .. } = desk.due;
            let mut times = None;
            let puts = ops.iter_mut().filter_map(|op| match op {
                Op::Put { table: of, rows } if of.name == table.name => Some(rows),
                _ => None,
            });
            for (key, row) in puts.flatten() {
                let Some(at) = &mut row.index[column] else { continue };
                let (until, again) =
                    times.get_or_insert_with(|| (Due::at(now), Due::at(now + claim)));
                if *at > *until {
                    continue;
                }
                let Ok(place) = desk.places.clone().try_acquire_owned() else {
                    claimed.full.push(desk.clone());
                    break;
                };
                at.clone_from(again);
                let put = Row { version: row.version + 1, ..row.clone() };
                claimed.calls.push((desk.clone(), (key.clone(), put), place));
            }
        }
        claimed
    }

    /// Begins the calls: the claims are committed.
    pub(crate) fn begin(self) {
        for (desk, row, place) in self.calls {
            (desk.start)(row, place);
        }
        for desk in self.full {
            desk.overdue.notify_one();
        }
    }
}

/// Claims what is due and was not claimed by the transaction that made it so: what comes later, what
/// found no place, and what another instance left. As long as there is a place for a call; one that
/// takes long takes up its own place and nobody else's.
pub(crate) async fn run(shared: Arc<Shared>, desk: Arc<Desk>, working: Working) {
    let mut failures = 0;
    loop {
        let place = pin!(desk.places.clone().acquire_owned());
        let mut places = match select(place, pin!(working.until_asked())).await {
            Either::Left((Ok(place), _)) if !working.asked() => place,
            Either::Left(_) | Either::Right(_) => return,
        };
        let more = desk.places.available_permits() as u32;
        if let Ok(more) = desk.places.clone().try_acquire_many_owned(more) {
            places.merge(more);
        }
        match claim(&shared, &desk.due, places.num_permits()).await {
            Ok(rows) if rows.is_empty() => {
                failures = 0;
                drop(places);
                let (runtime, idle) = (shared.ports.runtime.as_ref(), shared.settings.idle);
                let wait = timeout(runtime, idle, desk.overdue.notified());
                select(pin!(wait), pin!(working.until_asked())).await;
            }
            Ok(rows) => {
                failures = 0;
                for row in rows {
                    let place = places.split(1).expect("no more rows than places");
                    (desk.start)(row, place);
                }
            }
            Err(fault) => {
                drop(places);
                tracing::warn!(service = shared.settings.service, table = desk.due.table.name,
                    %fault, "could not claim what is due");
                shared.back_off("work", &mut failures).await;
            }
        }
    }
}

/// One call, and what comes of it. When the claim ends the row is due again, for whoever takes it
/// then: a call that takes longer is dropped.
async fn call<F, O: Outside<F>>(
    service: &'static str,
    runtime: &dyn Runtime,
    outside: &O,
    commands: &Commands<F>,
    (key, row): &(Key, Row),
    limit: Duration,
) {
    let calling = outside.call(key, row);
    let Some(inputs) = timeout(runtime, limit, calling).await else {
        tracing::warn!(service, %key,
            "a call took longer than its claim; it is due again");
        return;
    };
    for input in inputs {
        // The service is leaving: the claim runs out and somebody else calls again.
        if commands.hand_in(input).await.is_err() {
            return;
        }
    }
}

/// Takes rows that are due and makes them due again when the claim ends.
async fn claim(shared: &Shared, due: &Due, limit: usize) -> Outcome<Vec<(Key, Row)>> {
    let store = shared.ports.store.as_ref();
    let until = |now| now + Duration::from_millis(1);
    let claimed = claim::claim(store, due.table, due.column, limit, until).await?;
    let Some(Claimed { now, tx, rows: claimed }) = claimed else { return Ok(Vec::new()) };
    let again = Due::at(now + due.claim);
    let rows: Rows = claimed
        .iter()
        .map(|(key, row)| {
            let mut row = row.clone();
            row.index[due.column] = Some(again.clone());
            (key.clone(), row)
        })
        .collect();
    match tx.commit(vec![Op::Put { table: due.table, rows }]).await {
        // After a lost reply the claim may stand: then it runs out by itself.
        Ok(()) => Ok(claimed),
        Err(Fault::Unknown(_)) => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}
