//! Cases on the store port: sequences whose answers must be those of the store model, and the
//! statements D1–D9 of the broker contract. Never names a backend.

mod cases;
mod sequences;
mod statements;

pub use cases::{Loss, Session, StoreBackend, cases};
pub use sequences::{
    GROUPS, ITEMS, Seen, Step, TABLES, group, item, keys, outgoing, random_sequence, range, replay,
    rows, sequences,
};
pub use statements::{Statement, Writers, statements};
