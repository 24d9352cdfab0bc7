//! Deterministic worlds for anybody: faults, plan, choices, trace, runner.
