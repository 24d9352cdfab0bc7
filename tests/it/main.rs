//! The product as a whole: its command line, the services in local mode and on the models, and what the
//! repository promises about itself. One binary, for one linking.

mod bad_input;
mod cli;
mod compose;
mod doctor;
mod graph;
mod http_docs;
mod local_mode;
mod reconcile;
mod visibility;

/// Folders below `services/`, the contract apart.
const SERVICES: [&str; 7] = [
    "catalog",
    "orders",
    "inventory",
    "payments",
    "query",
    "notifications-api",
    "notifications-worker",
];
