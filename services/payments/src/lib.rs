//! The payments service: rules, rows, HTTP and wiring.
