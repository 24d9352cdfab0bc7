//! What Orders decides, as pure functions: the saga, and what an order costs. Never touches a row,
//! never asks for the time.

mod pricing;
mod saga;

pub use pricing::{Price, Stamp, Unpriced, newer, price};
pub use saga::{
    Action, Cancel, Fact, Late, Payment, Placed, REASON_CHARS_MAX, Saga, Stock, Terminal, decide,
};
