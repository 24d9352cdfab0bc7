//! What comes first in a column of instants. One round trip, without the writer: most of the time
//! nothing is due.

use chrono::{DateTime, Utc};
use ports::{Op, Outcome, Range, Reply, Store, Table};

use crate::transaction::clock;

/// Behind every instant as [`crate::Due::at`] writes it: those begin with a digit.
const BEHIND_ALL: &str = ":";

/// The store's clock, and the earliest instant in the column of a table.
pub(crate) async fn first_due(
    store: &dyn Store,
    table: &'static Table,
    column: usize,
) -> Outcome<(DateTime<Utc>, Option<String>)> {
    let range = Range {
        column,
        from: String::new(),
        to: BEHIND_ALL.to_owned(),
        after: None,
        descending: false,
        limit: 1,
    };
    let mut replies = store.read(vec![Op::Now, Op::List { table, range }]).await?.into_iter();
    let now = clock(replies.next());
    let listed = match replies.next() {
        Some(Reply::Listed(rows)) => rows,
        other => panic!("a list answered {other:?}"),
    };
    let earliest = listed.into_iter().next().and_then(|(_, mut row)| row.index[column].take());
    Ok((now, earliest))
}
