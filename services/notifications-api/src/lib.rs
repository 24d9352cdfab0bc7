//! The notifications-api service: rules, rows, HTTP and wiring.
