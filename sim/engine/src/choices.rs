//! Keyed choices: a number is a function of the seed, a site, an entity, and how often that pair was
//! asked. A harmless edit elsewhere does not reshuffle a world. Never a shared sequence.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A choice that a plan makes in place of its seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// What for, as the code that asks calls it: `commit`, `skew`.
    pub site: String,
    /// For whom: a node, say.
    pub entity: String,
    /// The how-manieth time that this pair asks, from 1.
    pub nth: u64,
    /// What it gets; modulo the number of possibilities.
    pub value: u64,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chosen { site, entity, nth, value } = self;
        write!(f, "choice {value} for {site} of {entity}, time {nth}")
    }
}

/// The choices of one world.
#[derive(Debug)]
pub struct Choices {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How often each pair was asked, by its hash.
    asked: LiteMap<u64, u64>,
    /// What is hashed, for its allocation.
    pair: Vec<u8>,
    /// Made by the plan, and not asked for yet; by the hash of their pair.
    chosen: BTreeMap<(u64, u64), Chosen>,
}

impl Choices {
    /// All choices of this seed.
    pub fn new(seed: u64) -> Self {
        Choices::with(seed, &[])
    }

    /// All choices of this seed but those that the plan makes.
    pub fn with(seed: u64, chosen: &[Chosen]) -> Self {
        let mut state = State::default();
        for it in chosen {
            let key = xxh3_64_with_seed(write(&mut state.pair, &it.site, &it.entity), seed);
            state.chosen.insert((key, it.nth), it.clone());
        }
        Choices { seed, state: Mutex::new(state) }
    }

    /// A number below `below`, which is at least 1.
    pub fn below(&self, site: &str, entity: &str, below: u64) -> u64 {
        let mut state = self.state();
        let State { asked, pair, chosen } = &mut *state;
        let key = xxh3_64_with_seed(write(pair, site, entity), self.seed);
        let occurrence = asked.entry(key).or_insert(0);
        *occurrence += 1;
        if !chosen.is_empty()
            && let Some(chosen) = chosen.remove(&(key, *occurrence))
        {
            return chosen.value % below.max(1);
        }
        pair.extend(occurrence.to_le_bytes());
        xxh3_64_with_seed(pair, self.seed) % below.max(1)
    }

    /// Choices of the plan that nobody has asked for.
    pub fn unasked(&self) -> Vec<Chosen> {
        self.state().chosen.values().cloned().collect()
    }

    /// True once in `n` times.
    pub fn one_in(&self, site: &str, entity: &str, n: u64) -> bool {
        self.below(site, entity, n) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// Where there is none.
    pub fn of<'a, T>(&self, site: &str, entity: &str, all: &'a [T]) -> &'a T {
        &all[self.below(site, entity, all.len() as u64) as usize]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write<'a>(pair: &'a mut Vec<u8>, site: &str, entity: &str) -> &'a [u8] {
    pair.clear();
    pair.extend_from_slice(site.as_bytes());
    pair.push(0);
    pair.extend_from_slice(entity.as_bytes());
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_site_does_not_reshuffle() {
        let (a, b) = (Choices::new(7), Choices::new(7));
        b.below("new", "site", 10);
        let first: Vec<u64> = (0..20).map(|_| a.below("s", "e", 1000)).collect();
        let second: Vec<u64> = (0..20).map(|_| b.below("s", "e", 1000)).collect();
        assert_eq!(first, second);
        assert_ne!(first, (0..20).map(|_| a.below("s", "f", 1000)).collect::<Vec<_>>());
        assert!(first.windows(2).any(|w| w[0] != w[1]));
    }

    #[test]
    fn a_plan_can_make_single_choices_and_those_that_nobody_asks_for_are_told() {
        let chosen = |nth, value| Chosen { site: "s".into(), entity: "e".into(), nth, value };
        let stored = [chosen(2, 1007), chosen(30, 5)];
        let (seed, plan) = (Choices::new(7), Choices::with(7, &stored));
        let drawn: Vec<u64> = (0..20).map(|_| seed.below("s", "e", 1000)).collect();
        let mut wanted = drawn.clone();
        wanted[1] = 7;
        assert_eq!((0..20).map(|_| plan.below("s", "e", 1000)).collect::<Vec<_>>(), wanted);
        assert_eq!(plan.unasked(), [chosen(30, 5)]);
    }
}
