//! Programs on the store: concurrent transactions on a few keys. [`generate`] makes them, [`StorePrograms`] runs
//! them, [`judge`] judges.

mod generate;
mod history;
mod monitor;
mod run;
mod transactions;

pub use generate::{Step, generate};
pub use history::Event;
pub use monitor::judge;
pub use run::StorePrograms;

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
