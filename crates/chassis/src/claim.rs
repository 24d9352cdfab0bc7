//! Claims: rows whose instant has come, locked for whoever takes them (SKIP LOCKED). Looks first, in one
//! round trip and without the writer: most of the time nothing is due.

use chrono::{DateTime, Utc};
use ports::{Key, Op, Outcome, Range, Row, Store, Table, Tx};

use crate::Due;
use crate::page::BEHIND_ALL;
use crate::transaction::{clock, listed};

/// Rows that are due, and the transaction that has them: at least one.
pub(crate) struct Claimed {
    /// The store's clock when it was looked at.
    pub(crate) now: DateTime<Utc>,
    pub(crate) tx: Box<dyn Tx>,
    pub(crate) rows: Vec<(Key, Row)>,
}

/// Claims the rows whose instant in the column is the earliest, of those before `until`, which is told
/// the store's clock; at most so many. `None`: there are none that somebody else does not have.
pub(crate) async fn claim(
    store: &dyn Store,
    table: &'static Table,
    column: usize,
    limit: usize,
    until: impl FnOnce(DateTime<Utc>) -> DateTime<Utc>,
) -> Outcome<Option<Claimed>> {
    let range = |to, limit| Range {
        column,
        from: String::new(),
        to,
        after: None,
        descending: false,
        limit,
    };
    let look = Op::List { table, range: range(BEHIND_ALL.to_owned(), 1) };
    let mut replies = store.read(vec![Op::Now, look]).await?.into_iter();
    let (now, first) = (clock(replies.next()), listed(replies.next()));
    let until = Due::at(until(now));
    let due = |(_, row): &(Key, Row)| row.index[column].as_ref().is_some_and(|at| *at < until);
    if !first.first().is_some_and(due) {
        return Ok(None);
    }
    let (tx, replies) = store.begin(vec![Op::Claim { table, range: range(until, limit) }]).await?;
    let rows = listed(replies.into_iter().next());
    Ok((!rows.is_empty()).then_some(Claimed { now, tx, rows }))
}
