//! Payments' one table. Never decides.

use chassis::{Document, Due};
use ports::Table;

use crate::rules::Payment;

/// One row an order: when the gateway is to be called for it, and when it was first heard of.
pub static PAYMENTS: Table = Table { name: "payments", index: &["due", "created"] };

/// All tables, in the order in which they are locked.
pub static ALL: [&Table; 1] = [&PAYMENTS];

/// Position of `due` in [`PAYMENTS`].
pub const DUE: usize = 0;
/// Position of `created` in [`PAYMENTS`].
pub const CREATED: usize = 1;

impl Document for Payment {
    const TABLE: &'static Table = &PAYMENTS;
    fn index(&self) -> Vec<Option<String>> {
        vec![self.due.map(Due::at), Some(Due::at(self.created_at))]
    }
}
