//! This saga in simulated worlds: workload, invariants, scenarios, and the sim binary.
