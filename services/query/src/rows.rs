//! Query's tables. Never decides, and stores nothing that can be derived but what is listed by.

use chassis::{Document, Due};
use contract::OrderId;
use ports::Table;
use serde::{Deserialize, Serialize};

use crate::rules::{Order, Product, Status};

/// One row an order. `created` is its time; `by_status` is `status|time`. Both are absent before
/// OrderCreated came, which keeps such rows out of lists.
pub static ORDERS: Table = Table { name: "orders", index: &["created", "by_status"] };
/// Position of `created`.
pub const CREATED: usize = 0;
/// Position of `by_status`.
pub const BY_STATUS: usize = 1;
/// One row a product.
pub static PRODUCTS: Table = Table { name: "products", index: &["product"] };
/// Position of `product`.
pub const PRODUCT: usize = 0;

/// All of them, in the order in which they are locked.
pub static ALL: [&Table; 2] = [&ORDERS, &PRODUCTS];

/// An order as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRow {
    /// Which.
    pub order_id: OrderId,
    /// Its facets.
    #[serde(flatten)]
    pub order: Order,
}

impl OrderRow {
    /// The lowest value of `by_status` for a status, and the first behind the highest.
    pub fn with_status(status: Status) -> (String, String) {
        (format!("{}|", status.name()), format!("{}}}", status.name()))
    }
}

impl Document for OrderRow {
    const TABLE: &'static Table = &ORDERS;
    fn index(&self) -> Vec<Option<String>> {
        let created = self.order.placed.as_ref().map(|placed| Due::at(placed.at));
        let status = self.order.status().name();
        let by_status = created.as_ref().map(|created| format!("{status}|{created}"));
        vec![created, by_status]
    }
}

impl Document for Product {
    const TABLE: &'static Table = &PRODUCTS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.says.product_id.to_string())]
    }
}
