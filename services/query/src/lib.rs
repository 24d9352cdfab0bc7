//! The query service: rules, rows, HTTP and wiring.
