//! Randomness from a seed, and the few shapes that are drawn.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of its own for each purpose, so that one draw more in one place moves nothing in
/// another.
#[derive(Clone)]
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// The generator itself, for who wants a `RngCore`.
    pub(crate) fn into_rng(self) -> ChaCha8Rng {
        self.0
    }

    pub(crate) fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.0.next_u64() % span
    }

    pub(crate) fn index(&mut self, count: usize) -> usize {
        (self.0.next_u64() % count.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, in_thousand: u32) -> bool {
        in_thousand > 0 && self.0.next_u32() % 1000 < in_thousand
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.chance(500)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(crate) fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    pub(crate) fn fill(&mut self, octets: &mut [u8]) {
        self.0.fill_bytes(octets);
    }
}
