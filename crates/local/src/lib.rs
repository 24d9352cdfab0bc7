//! All three ports in one process: broker models and stores on SQLite files.

pub mod store;
