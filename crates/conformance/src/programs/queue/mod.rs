//! Programs on the job queue: [`generate`] makes them, [`QueuePrograms`] runs them, [`judge`] judges.

mod generate;
mod history;
mod monitor;
mod run;
mod states;

pub use generate::{Fate, Step, generate};
pub use history::{Event, Place};
pub use monitor::judge;
pub use run::{Pace, QueuePrograms};

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

    #[test]
    fn one_program_in_ten_loses_a_link() {
        let rough = |seed: &u64| {
            let hurt = |step: &Step| matches!(step, Step::Cut { .. } | Step::PublishAndLose { .. });
            generate(*seed).iter().any(hurt)
        };
        let count = (0..1_000).filter(rough).count();
        assert!((60..=140).contains(&count), "{count} of 1000");
    }
}
