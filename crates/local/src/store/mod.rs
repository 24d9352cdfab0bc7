//! The store port on an SQLite file: one file for each service. Never shares a writer between two
//! transactions, and never answers a commit before the file is synced.

mod ops;
pub(crate) mod schema;
mod sqlite;

pub use sqlite::SqliteStore;

#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod tests;
