//! The notifications-worker service: rules, rows, HTTP and wiring.
