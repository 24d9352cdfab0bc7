//! Programs on the event log: a topic, a group of up to two members. [`generate`] makes them, [`LogPrograms`] runs
//! them, [`judge`] judges.

mod generate;
mod history;
mod monitor;
mod run;

pub use generate::{Step, generate};
pub use history::Event;
pub use monitor::judge;
pub use run::LogPrograms;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::fixture;

    #[test]
    fn mutated_histories_are_rejected_by_their_rule() {
        fixture::check(include_str!("mutated.jsonl"), &monitor::RULES, judge);
    }

    #[test]
    fn a_seed_is_a_program() {
        assert_eq!(generate(7), generate(7));
        assert_ne!(generate(7), generate(8));
    }
}
