//! The tables of the Notifications API. Never decides.

use chassis::Document;
use chrono::{DateTime, Utc};
use contract::{NotificationChannel, OrderId};
use envelope::{EventId, rfc3339_millis};
use ports::Table;
use serde::{Deserialize, Serialize};

use crate::rules::Told;

/// One row an order that ended: what was told last.
pub static ORDERS: Table = Table { name: "orders", index: &[] };
/// One row a notification, under `order|type|channel|revision`. `told` is the order and the
/// revision, with a space between, which no id has.
pub static NOTIFICATIONS: Table = Table { name: "notifications", index: &["told"] };
/// Position of `told`.
pub const TOLD: usize = 0;

/// All of them, in the order in which they are locked.
pub static ALL: [&Table; 2] = [&ORDERS, &NOTIFICATIONS];

/// What the customer of an order was told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRow {
    /// Which order.
    pub order_id: OrderId,
    /// What.
    #[serde(flatten)]
    pub told: Told,
}

impl Document for OrderRow {
    const TABLE: &'static Table = &ORDERS;
    fn index(&self) -> Vec<Option<String>> {
        Vec::new()
    }
}

/// A notification that was asked for: its job is in the outbox, or sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationRow {
    /// Which order.
    pub order_id: OrderId,
    /// What is told.
    #[serde(flatten)]
    pub told: Told,
    /// By which way.
    pub channel: NotificationChannel,
    /// The job: its event id and message id.
    pub job_id: EventId,
    /// When it was asked for, by the store's clock.
    #[serde(with = "rfc3339_millis")]
    pub requested_at: DateTime<Utc>,
}

impl NotificationRow {
    /// Lowest value of `told` for an order, and the first behind the highest.
    pub fn of_order(order: &OrderId) -> (String, String) {
        (format!("{order} "), format!("{order}!"))
    }

    /// The value of `told`.
    pub fn told(order: &OrderId, revision: u32) -> String {
        format!("{order} {revision:010}")
    }
}

impl Document for NotificationRow {
    const TABLE: &'static Table = &NOTIFICATIONS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(NotificationRow::told(&self.order_id, self.told.revision))]
    }
}
