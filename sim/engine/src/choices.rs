//! Keyed choices: a number is a function of the seed, a site, an entity, and how often that pair was
//! asked. A harmless edit elsewhere does not reshuffle a world. Never a shared sequence.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

/// The choices of one world.
#[derive(Debug)]
pub struct Choices {
    seed: u64,
    asked: Mutex<BTreeMap<u64, u64>>,
}

impl Choices {
    /// All choices of this seed.
    pub fn new(seed: u64) -> Self {
        Choices { seed, asked: Mutex::default() }
    }

    /// A number below `below`, which is at least 1.
    pub fn below(&self, site: &str, entity: &str, below: u64) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        hash.update(site.as_bytes());
        hash.update(&[0]);
        hash.update(entity.as_bytes());
        let key = hash.digest();
        let occurrence = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(key).or_insert(0);
            *count += 1;
            *count
        };
        hash.update(&occurrence.to_le_bytes());
        hash.digest() % below.max(1)
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
}
