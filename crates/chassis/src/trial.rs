//! Crash loops: which records are handled alone, and which one is given up, when a process dies of
//! what it handles. Pure; the marks it asks for are part of a position, written before the handling.
//!
//! A record that ends the process leaves no trace but this: the partition is claimed again and its
//! position has not moved. That happens to idle partitions too, so nobody is accused for it; from the
//! second such claim on, what is handled next is marked first. A process that did not die of it takes its
//! mark back. Marked without progress, the records
//! are handled one by one, each in a transaction that has nothing else in it, and the one that was
//! alone twice is given up: it becomes a dead letter. So a record that comes alone ends the process
//! three times, one among others four times.

use serde::{Deserialize, Serialize};

/// Marks of a record or a job alone after which it is given up.
pub(crate) const MARKS_MAX: u32 = 2;
/// Claims without progress, the present one included, from which on marks are made.
const CLAIMS_MAX: u32 = 2;

/// What was about to be handled, as it stands in a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Behind the last record in hand.
    pub upto: i64,
    /// How often it was about to be handled since the position last moved.
    pub marks: u32,
    /// Records below this offset are taken one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_until: Option<i64>,
}

/// What to do with the first records of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nobody is suspected.
    Handle,
    /// Mark this, then handle all that is in hand.
    MarkAll(Trial),
    /// Mark this, then handle the first record alone, without records of other partitions too.
    MarkFirst(Trial),
    /// Give the first record up.
    GiveUp,
}

/// What to do with records in hand from offset `first` up to, but not including, `end`; `only` where
/// nothing else is in hand.
pub(crate) fn step(
    claims: u32,
    trial: Option<&Trial>,
    (first, end): (i64, i64),
    only: bool,
) -> Step {
    let alone =
        |marks, until| Step::MarkFirst(Trial { upto: first + 1, marks, alone_until: Some(until) });
    match trial {
        None if claims < CLAIMS_MAX => Step::Handle,
        None if only => alone(1, end),
        None => Step::MarkAll(Trial { upto: end, marks: 1, alone_until: None }),
        Some(&Trial { upto, alone_until: None, .. }) => alone(1, upto),
        Some(&Trial { upto, marks, alone_until: Some(until) }) => match upto == first + 1 {
            true if marks >= MARKS_MAX => Step::GiveUp,
            true => alone(marks + 1, until),
            false => alone(1, until),
        },
    }
}

/// What is left of a trial when the position moved to `next`.
pub(crate) fn after(trial: Option<&Trial>, next: i64) -> Option<Trial> {
    let until = trial?.alone_until.filter(|until| next < *until)?;
    Some(Trial { upto: next, marks: 0, alone_until: Some(until) })
}

/// What is left of a trial when a process that made one of its marks did not die of it; `None` where it has none.
/// One mark is as good as another: who took back first does not matter.
pub(crate) fn without(trial: &Trial) -> Option<Option<Trial>> {
    let marks = trial.marks.checked_sub(1)?;
    Some(trial.alone_until.map(|_| Trial { marks, ..trial.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles offsets `0..end` with one record that ends the process; gives the number of crashes
    /// and what was given up.
    fn run(end: i64, deadly: Option<i64>) -> (u32, Vec<i64>) {
        let (mut next, mut claims, mut trial) = (0, 1, None);
        let (mut crashes, mut dead) = (0, Vec::new());
        while next < end {
            let handled = match step(claims, trial.as_ref(), (next, end), end == 1) {
                Step::Handle => end,
                Step::MarkAll(mark) => {
                    trial = Some(mark);
                    end
                }
                Step::MarkFirst(mark) => {
                    trial = Some(mark);
                    next + 1
                }
                Step::GiveUp => {
                    dead.push(next);
                    next += 1;
                    (claims, trial) = (0, after(trial.as_ref(), next));
                    continue;
                }
            };
            if deadly.is_some_and(|offset| (next..handled).contains(&offset)) {
                crashes += 1;
                claims += 1;
                assert!(crashes < 20, "it never gives up");
            } else {
                next = handled;
                (claims, trial) = (0, after(trial.as_ref(), next));
            }
        }
        (crashes, dead)
    }

    #[test]
    fn a_record_alone_ends_the_process_three_times_and_is_given_up() {
        assert_eq!(run(1, Some(0)), (3, vec![0]));
    }

    #[test]
    fn one_of_many_is_found_and_the_others_are_handled() {
        for deadly in 0..9 {
            let (crashes, dead) = run(9, Some(deadly));
            assert_eq!(dead, [deadly]);
            assert_eq!(crashes, 4, "{deadly}");
        }
    }

    #[test]
    fn marks_that_are_taken_back_accuse_nobody() {
        let mark = |trial: Option<&Trial>| match step(9, trial, (5, 6), true) {
            Step::MarkFirst(mark) => mark,
            other => panic!("{other:?}"),
        };
        // One after the other, and two at once.
        let first = mark(None);
        let none = without(&first).unwrap();
        let second = mark(none.as_ref());
        assert_eq!(second.marks, 1);
        let both = mark(Some(&first));
        assert_eq!(both.marks, 2);
        let one = without(&both).unwrap().unwrap();
        assert_eq!(without(&one).unwrap().unwrap().marks, 0);
        // Never below nothing.
        assert_eq!(without(&Trial { marks: 0, ..first }), None);
    }

    #[test]
    fn claims_without_records_accuse_nobody() {
        let idle = step(9, None, (5, 6), false);
        assert_eq!(idle, Step::MarkAll(Trial { upto: 6, marks: 1, alone_until: None }));
        assert_eq!(run(9, None), (0, vec![]));
        assert_eq!(after(None, 6), None);
    }
}
