//! A world as one page: what happened where and when, and each record's way. Never needs a network, nor
//! anything beside its file.

mod data;
mod page;
mod ways;

pub use page::page;
