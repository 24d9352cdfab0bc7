//! The orders service: rules, rows, HTTP and wiring.
