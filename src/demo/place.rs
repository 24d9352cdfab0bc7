//! The demo's orders: so many customers at a time, each with an order in hand that it follows to the
//! end.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::plan::Plan;
use crate::customers::{Customers, Posted, Usual};
use crate::progress::Progress;

/// An order that ended.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its id.
    pub order_id: String,
    /// From the POST to the final state in the read model.
    pub took: Duration,
    /// As Query shows it.
    pub order: Value,
}

impl Placed {
    /// `confirmed`, or the reason of its cancellation.
    pub fn end(&self) -> &str {
        match self.order["status"].as_str() {
            Some("cancelled") => self.order["terminal"]["reason"].as_str().unwrap_or("cancelled"),
            Some(status) => status,
            None => "unknown",
        }
    }
}

/// Places every basket, `clients` at a time, and follows each order to its end.
pub async fn order(
    customers: &Customers,
    plan: &Plan,
    clients: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<Placed>> {
    let usual = Usual::default();
    let usual = &usual;
    let placed = stream::iter(plan.baskets.iter().enumerate()).map(|(number, basket)| async move {
        let Posted { order_id, took } = customers.place(number, basket).await?;
        // Waiting for a price at the very start is no part of an order's life.
        let begun = customers.runtime.elapsed().saturating_sub(took);
        let (took, order) = customers.follow(&order_id, begun, usual).await?;
        progress.step();
        anyhow::Ok(Placed { order_id, took, order })
    });
    placed.buffer_unordered(clients).try_collect().await
}
