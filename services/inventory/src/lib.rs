//! The inventory service: rules, rows, HTTP and wiring.
