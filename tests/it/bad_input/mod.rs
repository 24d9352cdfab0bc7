//! Bad input for every route, topic and queue of the whole shop: what must become of it, and what must
//! hold after each. The tables are printed into docs/bad-input.md, and held against it.

mod fields;
mod page;
mod poison;
mod records;
mod requests;
mod shop;
