//! The engine on small systems of its own.

mod gate;
mod lints;
mod planted;
