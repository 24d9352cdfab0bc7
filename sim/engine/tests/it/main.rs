//! The engine on small systems of its own.

mod lints;
mod planted;
