//! What the port's adapter never does, for the cases that are about it: the client library with other settings,
//! and requests that no client library sends by itself.

pub mod library;
pub mod wire;
