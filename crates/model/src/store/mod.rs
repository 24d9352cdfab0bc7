//! The store model: keyed versioned rows in transactions with key locks, waits, deadlocks and
//! time-outs, and an outbox (broker-contract D1–D9). A pure state machine behind an in-process
//! port client. Never reads a clock, draws a random number or does IO.

mod client;
mod db;
mod outbox;
mod table;
#[cfg(test)]
mod tests;
mod tx;

pub use client::{StoreClient, StoreServer};
pub use db::{Answer, Db, Instant, Settings, TxId};
