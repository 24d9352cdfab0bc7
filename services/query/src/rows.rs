//! Query's tables. Never decides, and stores nothing that can be derived but what is listed by.

use chassis::{Document, Due};
use contract::OrderId;
use ports::Table;
use serde::{Deserialize, Serialize};

use crate::rules::{Facet, Order, Payment, Placed, Product, Status, Stock, Terminal};

/// One row an order. `created` is its time; `by_status` is `status|time`. Both are absent before
/// OrderCreated came, which keeps such rows out of lists. `changed` is the number of its last change.
pub static ORDERS: Table = Table { name: "orders", index: &["created", "by_status", "changed"] };
/// Position of `created`.
pub const CREATED: usize = 0;
/// Position of `by_status`.
pub const BY_STATUS: usize = 1;
/// Position of `changed`.
pub const CHANGED: usize = 2;
/// One row a product.
pub static PRODUCTS: Table = Table { name: "products", index: &["product"] };
/// Position of `product`.
pub const PRODUCT: usize = 0;

/// One row: the number of the last change of any order. Every transaction that changes an order
/// holds it locked to its end, so that changes become visible in the order of their numbers, and
/// whoever reads behind a number misses none (broker-contract D1).
pub static CHANGES: Table = Table { name: "changes", index: &[] };
/// The key of that row.
pub const LAST: &str = "last";

/// All of them, in the order in which they are locked: the row that all transactions share last, for
/// the shortest time.
pub static ALL: [&Table; 3] = [&ORDERS, &PRODUCTS, &CHANGES];

/// An order as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "OrderText")]
pub struct OrderRow {
    /// Which.
    pub order_id: OrderId,
    /// Its facets.
    #[serde(flatten)]
    pub order: Order,
    /// Number of its last change, from 1: the cursor of a stream.
    pub changed: u64,
}

/// [`OrderRow`] as it is read: serde reads what is flattened only from a copy of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderText {
    order_id: OrderId,
    placed: Option<Facet<Placed>>,
    stock: Option<Facet<Stock>>,
    payment: Option<Facet<Payment>>,
    terminal: Option<Facet<Terminal>>,
    changed: u64,
}

impl From<OrderText> for OrderRow {
    fn from(text: OrderText) -> Self {
        let OrderText { order_id, placed, stock, payment, terminal, changed } = text;
        OrderRow { order_id, order: Order { placed, stock, payment, terminal }, changed }
    }
}

impl OrderRow {
    /// The lowest value of `by_status` for a status, and the first behind the highest.
    pub fn with_status(status: Status) -> (String, String) {
        (format!("{}|", status.name()), format!("{}}}", status.name()))
    }

    /// A change's number as an index value.
    pub fn number(changed: u64) -> String {
        format!("{changed:020}")
    }
}

/// The number of the last change of any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// From 1; 0 before the first.
    pub last: u64,
}

impl Document for Changes {
    const TABLE: &'static Table = &CHANGES;
    fn index(&self) -> Vec<Option<String>> {
        Vec::new()
    }
}

impl Document for OrderRow {
    const TABLE: &'static Table = &ORDERS;
    fn index(&self) -> Vec<Option<String>> {
        let created = self.order.placed.as_ref().map(|placed| Due::at(placed.at));
        let status = self.order.status().name();
        let by_status = created.as_ref().map(|created| format!("{status}|{created}"));
        vec![created, by_status, Some(OrderRow::number(self.changed))]
    }
}

impl Document for Product {
    const TABLE: &'static Table = &PRODUCTS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.says.product_id.to_string())]
    }
}
