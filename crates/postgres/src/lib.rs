//! The store port on PostgreSQL: begin and commit take one round trip each, by pipelining. Never
//! confirms a commit unless every statement before it succeeded (broker-contract D9), and never
//! gives a connection back of whose state it is not sure.
#![warn(missing_docs)]

mod about;
mod address;
mod classify;
mod pipeline;
mod placeholders;
mod pool;
mod schema;
mod statement;
mod store;

pub use about::About;
pub use address::Address;
pub use schema::Standing;
pub use store::PostgresStore;
