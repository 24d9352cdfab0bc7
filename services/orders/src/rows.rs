//! The tables of Orders. Never holds a row that no rule wrote.

use chassis::{Document, Due};
use ports::Table;

use crate::rules::{Price, Saga};

/// One row an order, stubs included. `deadline` is there while the order is open: what the sweeper
/// looks for. `stub_since` is there for a stub: facts without an order, by age. `created` is there for
/// an order: what lists go by.
pub static SAGAS: Table = Table { name: "sagas", index: &["deadline", "stub_since", "created"] };
/// Position of `deadline` in the index of [`SAGAS`].
pub const DEADLINE: usize = 0;
/// Position of `stub_since` in the index of [`SAGAS`].
pub const STUB_SINCE: usize = 1;
/// Position of `created` in the index of [`SAGAS`].
pub const CREATED: usize = 2;

/// One row a product: the replica of the catalog's prices.
pub static PRICES: Table = Table { name: "prices", index: &[] };

/// In the order in which they are locked.
pub static TABLES: [&Table; 2] = [&SAGAS, &PRICES];

impl Document for Saga {
    const TABLE: &'static Table = &SAGAS;

    fn index(&self) -> Vec<Option<String>> {
        let deadline = self.deadline.filter(|_| self.is_open()).map(Due::at);
        let at = Some(Due::at(self.created_at));
        let (stub_since, created) = if self.placed.is_none() { (at, None) } else { (None, at) };
        vec![deadline, stub_since, created]
    }
}

impl Document for Price {
    const TABLE: &'static Table = &PRICES;

    fn index(&self) -> Vec<Option<String>> {
        Vec::new()
    }
}
