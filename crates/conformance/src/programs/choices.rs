//! Choices from a seed. Never asks a clock or the system.

/// A stream of numbers, the same for the same seed (SplitMix64, Steele and others 2014).
#[derive(Debug, Clone)]
pub(crate) struct Choices(u64);

impl Choices {
    /// Of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        // Neighbouring seeds are far from each other.
        Choices(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// A number below this one, which is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream() {
        let of = |seed| {
            let mut choices = Choices::of(seed);
            (0..8).map(|_| choices.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let mut choices = Choices::of(1);
        assert!((0..100).all(|_| (2..=4).contains(&choices.between(2, 4))));
    }
}
