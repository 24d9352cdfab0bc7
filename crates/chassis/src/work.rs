//! Timers and the outside world: claim what is due, call with a stable key outside any transaction,
//! hand in the result as an input. Never decides what a result means.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::{join_all, select};
use ports::{Fault, Key, Op, Outcome, Range, Reply, Row, Rows, Table, timeout};
use std::pin::pin;

use crate::app::Shared;
use crate::stop::Working;
use crate::{Commands, Handler, Input};

/// What is due: rows of a table whose index column, an instant as [`Due::at`] writes it, has come.
#[derive(Debug, Clone)]
pub struct Due {
    /// Where.
    pub table: &'static Table,
    /// Position of the column.
    pub column: usize,
    /// Calls at the same time.
    pub parallel: usize,
    /// How long a claim holds: after it, what was not settled is due again. Longer than the call's
    /// own time-out.
    pub claim: Duration,
}

impl Due {
    /// An instant as an index value: it sorts in the order of time.
    pub fn at(instant: DateTime<Utc>) -> String {
        instant.to_rfc3339_opts(SecondsFormat::Millis, true)
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

pub(crate) async fn run<H: Handler, O: Outside<H::Fact>>(
    shared: Arc<Shared<H>>,
    due: Due,
    outside: O,
    commands: Commands<H::Fact>,
    working: Working,
) {
    let mut failures = 0;
    while !working.asked() {
        let woken = shared.due.notified();
        match claim(&shared, &due).await {
            Ok(rows) if rows.is_empty() => {
                failures = 0;
                let wait = timeout(shared.ports.runtime.as_ref(), shared.settings.idle, woken);
                select(pin!(wait), pin!(working.until_asked())).await;
            }
            Ok(rows) => {
                failures = 0;
                join_all(rows.iter().map(|(key, row)| call(&outside, &commands, key, row))).await;
            }
            Err(fault) => {
                tracing::warn!(service = shared.settings.service, table = due.table.name, %fault,
                    "could not claim what is due");
                shared.back_off("work", &mut failures).await;
            }
        }
    }
}

async fn call<F, O: Outside<F>>(outside: &O, commands: &Commands<F>, key: &Key, row: &Row) {
    for input in outside.call(key, row).await {
        // The service is leaving: the claim runs out and somebody else calls again.
        if commands.hand_in(input).await.is_err() {
            return;
        }
    }
}

/// Takes rows that are due and makes them due again when the claim ends. Looks first, without the
/// writer: most of the time nothing is due.
async fn claim<H: Handler>(shared: &Shared<H>, due: &Due) -> Outcome<Vec<(Key, Row)>> {
    let store = &shared.ports.store;
    let first = |reply: Option<Reply>| match reply {
        Some(Reply::Listed(rows)) => rows,
        other => panic!("a list answered {other:?}"),
    };
    let now = match store.read(vec![Op::Now]).await?.pop() {
        Some(Reply::Now(now)) => now,
        other => panic!("the clock answered {other:?}"),
    };
    let range = Range {
        column: due.column,
        from: String::new(),
        to: Due::at(now + Duration::from_millis(1)),
        after: None,
        descending: false,
        limit: due.parallel,
    };
    let look = Range { limit: 1, ..range.clone() };
    let seen = store.read(vec![Op::List { table: due.table, range: look }]).await?;
    if first(seen.into_iter().next()).is_empty() {
        return Ok(Vec::new());
    }
    let (tx, replies) = store.begin(vec![Op::Claim { table: due.table, range }]).await?;
    let claimed = first(replies.into_iter().next());
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
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
