//! The one generator of the core: seeded at construction, so that a seed tells
//! the whole story of a run.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// A seeded generator.
#[derive(Clone, PartialEq, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The generator that `seed` names.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// An index below `len`; 0 when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        if len <= 1 { 0 } else { self.0.random_range(0..len) }
    }

    /// 128 random bits.
    pub fn bits(&mut self) -> u128 {
        self.0.random()
    }
}
