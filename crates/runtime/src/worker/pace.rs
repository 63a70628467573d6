//! When a worker looks again.

use std::thread;
use std::time::{Duration, Instant};

/// How long packets gather.
const REST: Duration = Duration::from_micros(50);
/// Rounds that follow each other within this time are a stream; a lone packet is nobody's batch.
const STREAM: Duration = Duration::from_micros(500);
/// Octets of a round that is worth its system calls.
const FULL: usize = 32 << 10;

/// Small packets that come one by one are worked off in batches: after a round that brought little,
/// soon after another round, the worker rests for a moment before it looks again, as network
/// adapters do (interrupt moderation). Super-packets are not held up.
#[derive(Debug)]
pub(super) struct Pace {
    /// The begin of this round, and of the one before it.
    begun: Instant,
    before: Option<Instant>,
    octets: usize,
    /// There was more than this round took.
    left: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), before: None, octets: 0, left: true }
    }

    /// Before the worker waits for what comes.
    pub(super) fn rest(&self) {
        if self.wants_rest() {
            thread::sleep(REST);
        }
    }

    /// Something came.
    pub(super) fn begin(&mut self, now: Instant) {
        self.before = Some(std::mem::replace(&mut self.begun, now));
        self.octets = 0;
        self.left = false;
    }

    /// A batch of so many octets was taken.
    pub(super) fn took(&mut self, octets: usize) {
        self.octets += octets;
    }

    /// The round ends, and not for lack of packets.
    pub(super) fn leaves_some(&mut self) {
        self.left = true;
    }

    fn wants_rest(&self) -> bool {
        let stream = self.before.is_some_and(|before| self.begun - before < STREAM);
        stream && !self.left && (1..FULL).contains(&self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker's round `after` the one before it.
    fn round(pace: &mut Pace, after: Duration, octets: usize, left: bool) -> bool {
        pace.begin(pace.begun + after);
        pace.took(octets);
        if left {
            pace.leaves_some();
        }
        pace.wants_rest()
    }

    #[test]
    fn only_small_rounds_of_a_stream_rest() {
        let mut pace = Pace::new();
        let (soon, late) = (Duration::from_micros(100), Duration::from_millis(1));
        assert!(!pace.wants_rest(), "nothing came yet");
        assert!(!round(&mut pace, late, 100, false), "a lone packet");
        assert!(round(&mut pace, soon, 100, false), "a second one soon after it");
        assert!(!round(&mut pace, soon, 65_000, false), "a super-packet");
        assert!(!round(&mut pace, soon, 100, true), "others wait already");
        assert!(!round(&mut pace, soon, 0, false), "a command, no packet");
        assert!(!round(&mut pace, late, 100, false), "a lone packet again");
    }
}
