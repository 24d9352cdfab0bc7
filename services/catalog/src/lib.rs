//! The catalog service: rules, rows, HTTP and wiring.
