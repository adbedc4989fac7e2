//! Reproducible random numbers: the same seed gives the same numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A `SplitMix64` generator.
pub struct Rng {
    /// The seed, to repeat a run.
    pub seed: u64,
    state: AtomicU64,
}

impl Rng {
    /// Takes the seed from `CRASH_SEED`, or a random one.
    #[expect(clippy::new_without_default, reason = "the seed is a random one")]
    pub fn new() -> Self {
        let seed = match std::env::var("CRASH_SEED") {
            Ok(seed) => seed.parse().expect("CRASH_SEED is a number"),
            Err(_) => u64::from(getrandom::u32().expect("the system has random numbers")),
        };
        Self {
            seed,
            state: AtomicU64::new(seed),
        }
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(STEP, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns `true` once in `number` calls on average.
    pub fn one_in(&self, number: u64) -> bool {
        self.below(number) == 0
    }

    /// A duration from `shortest` to `longest` milliseconds.
    pub fn milliseconds(&self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(shortest + self.below(longest - shortest + 1))
    }
}
