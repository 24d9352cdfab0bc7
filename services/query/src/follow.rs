//! Changes of orders as streams. An event is an order as it is now, under the number of its last
//! change: an order that changes twice between two looks comes once, with both changes in it, and
//! nothing has to be kept for those who come later. The database is the truth, whichever instance
//! wrote it; a commit on this one only shortens the wait. Never writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use chassis::http::{Event, Problem, event_stream};
use chassis::page::read_row;
use chassis::{Document, Watch, Woken, document};
use contract::OrderId;
use ports::{Key, Op, Outcome, Range, Reply, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Follow;
use crate::http::order_json;
use crate::rows::{CHANGED, Changes, LAST, OrderRow};

/// Most events of one look.
const EVENTS_MAX: usize = 100;

/// Gives streams to those who follow orders.
#[derive(Clone)]
pub(crate) struct Followers {
    store: Arc<dyn Store>,
    watch: Watch,
    settings: Follow,
    free: Arc<Semaphore>,
}

impl Followers {
    pub(crate) fn new(store: Arc<dyn Store>, watch: Watch, settings: Follow) -> Self {
        let free = Arc::new(Semaphore::new(settings.streams_max));
        Followers { store, watch, settings, free }
    }

    /// A stream of this order, or of all, of what comes behind the cursor. Without one it begins
    /// with the order as it is, or for all orders with the next change.
    pub(crate) async fn follow(
        &self,
        order: Option<OrderId>,
        after: Option<u64>,
    ) -> Result<Response, Problem> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            let detail = format!(
                "this instance streams to {} clients already; try again, or look at the list",
                self.settings.streams_max
            );
            return Err(Problem::unavailable(detail));
        };
        let last = read_row::<Changes>(self.store.as_ref(), &LAST.into()).await?;
        let last = last.unwrap_or_default().last;
        if after.is_some_and(|after| after > last) {
            return Err(Problem::invalid(
                "Last-Event-ID is ahead of the last change: it is from another database, or from \
                 before a restore; follow without it, and look at the list for what was missed",
            ));
        }
        let after = after.unwrap_or(if order.is_some() { 0 } else { last });
        let stream = Stream {
            beat_at: self.watch.runtime().elapsed() + self.settings.heartbeat,
            followers: self.clone(),
            order: order.map(|order| order.key()),
            after,
            looked: false,
            _permit: permit,
        };
        Ok(event_stream(after, stream, Stream::next))
    }
}

/// One client's stream.
struct Stream {
    followers: Followers,
    /// `None`: all orders.
    order: Option<Key>,
    /// The number of the last change that was sent.
    after: u64,
    beat_at: Duration,
    looked: bool,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// The next events, or none for a heartbeat. The end: the service is leaving.
    async fn next(mut self) -> Option<(Vec<Event>, Stream)> {
        let Followers { watch, settings, .. } = self.followers.clone();
        loop {
            let pause = if self.looked { settings.look_pause } else { Duration::ZERO };
            if watch.rest(pause).await == Woken::Leave {
                return None;
            }
            self.looked = true;
            let heard = watch.listen();
            let rows = self.look().await.unwrap_or_else(|fault| {
                tracing::warn!(%fault, "a stream could not look for changes");
                Vec::new()
            });
            let now = watch.runtime().elapsed();
            if !rows.is_empty() || now >= self.beat_at {
                self.beat_at = now + settings.heartbeat;
                let events = rows.iter().map(event).collect();
                self.after = rows.last().map_or(self.after, |row| row.changed);
                return Some((events, self));
            }
            let longest = settings.look_every.min(self.beat_at - now);
            if watch.wait(heard, longest).await == Woken::Leave {
                return None;
            }
        }
    }

    /// The orders that changed since, in the order of their changes.
    async fn look(&self) -> Outcome<Vec<OrderRow>> {
        let op = match &self.order {
            Some(order) => {
                Op::Read { table: OrderRow::TABLE, keys: BTreeSet::from([order.clone()]) }
            }
            None => Op::List {
                table: OrderRow::TABLE,
                range: Range {
                    column: CHANGED,
                    from: OrderRow::number(self.after + 1),
                    // Behind every number.
                    to: ":".to_owned(),
                    after: None,
                    descending: false,
                    limit: EVENTS_MAX,
                },
            },
        };
        let rows = match self.followers.store.read(vec![op]).await?.pop() {
            Some(Reply::Rows(rows)) => rows.into_iter().map(|(_, row)| row).collect(),
            Some(Reply::Listed(rows)) => rows.into_iter().map(|(_, row)| row).collect(),
            _ => Vec::new(),
        };
        let orders = rows.iter().filter_map(document::<OrderRow>);
        Ok(orders.filter(|order| order.changed > self.after).collect())
    }
}

fn event(row: &OrderRow) -> Event {
    Event { id: row.changed, name: "order", data: order_json(row) }
}
