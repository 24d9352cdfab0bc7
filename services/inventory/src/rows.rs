//! Inventory's tables. Never decides.

use chassis::Document;
use chrono::{DateTime, Utc};
use contract::{OrderId, ProductId};
use ports::Table;
use serde::{Deserialize, Serialize};

use crate::rules::{Reservation, State, Stock};

/// One row an order.
pub static RESERVATIONS: Table = Table { name: "reservations", index: &["state"] };
/// Position of `state` in the index of [`RESERVATIONS`].
pub const STATE: usize = 0;
/// One row a product.
pub static STOCK: Table = Table { name: "stock", index: &["product"] };
/// Position of `product` in the index of [`STOCK`].
pub const PRODUCT: usize = 0;
/// One row for each accepted adjustment: the books that `on_hand` is held against.
pub static ADJUSTMENTS: Table = Table { name: "adjustments", index: &["product"] };
/// Position of `product` in the index of [`ADJUSTMENTS`].
pub const ADJUSTED: usize = 0;

/// All of them, in the order in which they are locked.
pub static ALL: [&Table; 3] = [&RESERVATIONS, &STOCK, &ADJUSTMENTS];

/// An order's reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationRow {
    /// Whose.
    pub order_id: OrderId,
    /// How it stands.
    #[serde(flatten)]
    pub reservation: Reservation,
}

impl ReservationRow {
    /// The value of `state` for a state, and the first behind it.
    pub fn in_state(state: State) -> (String, String) {
        (state.name().to_owned(), format!("{}!", state.name()))
    }
}

impl Document for ReservationRow {
    const TABLE: &'static Table = &RESERVATIONS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.reservation.state.name().to_owned())]
    }
}

/// A product's stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockRow {
    /// Which product.
    pub product_id: ProductId,
    /// Its books.
    #[serde(flatten)]
    pub stock: Stock,
}

impl Document for StockRow {
    const TABLE: &'static Table = &STOCK;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.product_id.to_string())]
    }
}

/// An accepted adjustment, under the id of its command. It outlives the inbox, so that a key that is
/// used again years later still adjusts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentRow {
    /// Which product.
    pub product_id: ProductId,
    /// Pieces, negative for less.
    pub delta: i64,
    /// Why, as the caller put it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, by the store's clock.
    #[serde(with = "envelope::rfc3339_millis")]
    pub at: DateTime<Utc>,
    /// The books after it: what the caller was answered.
    pub after: Stock,
}

impl Document for AdjustmentRow {
    const TABLE: &'static Table = &ADJUSTMENTS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.product_id.to_string())]
    }
}
