//! When a worker looks again.

use std::thread;
use std::time::{Duration, Instant};

/// How long packets gather.
const REST: Duration = Duration::from_micros(50);
/// A wait that is shorter than this was for the next packet of a dense stream.
const DENSE: Duration = Duration::from_micros(10);
/// Packets that make a rest worth while. The acknowledgements of a bulk flow are fewer, and it waits
/// for them.
const CROWD: usize = 4;
/// Octets of a round that is worth its system calls.
const FULL: usize = 32 << 10;

/// Small packets that come one by one are worked off in batches: in a dense stream of them the worker
/// rests for a moment before it looks again, as network adapters do (interrupt moderation).
/// Super-packets, lone packets and acknowledgements are not held up.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long the worker waited for this round, and whether it rested before.
    waited: Duration,
    rested: bool,
    packets: usize,
    octets: usize,
    /// There was more than this round took.
    left: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { waited: Duration::MAX, rested: false, packets: 0, octets: 0, left: true }
    }

    /// Before the worker waits for what comes; the time from which it waits.
    pub(super) fn rest(&mut self) -> Instant {
        self.rested = self.wants_rest();
        if self.rested {
            thread::sleep(REST);
        }
        Instant::now()
    }

    /// Something came after so long.
    pub(super) fn begin(&mut self, waited: Duration) {
        *self = Self { waited, rested: self.rested, packets: 0, octets: 0, left: false };
    }

    /// What was taken, as pairs of packets and their octets.
    pub(super) fn took(&mut self, taken: impl Iterator<Item = (usize, usize)>) {
        for (packets, octets) in taken {
            self.packets += packets;
            self.octets += octets;
        }
    }

    /// The round ends, and not for lack of packets.
    pub(super) fn leaves_some(&mut self) {
        self.left = true;
    }

    fn wants_rest(&self) -> bool {
        let dense = !self.rested && self.packets > 0 && self.waited < DENSE;
        !self.left && self.octets < FULL && (dense || self.packets >= CROWD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker's round, and whether it rests afterwards.
    fn round(pace: &mut Pace, waited: u64, packets: usize, octets: usize, left: bool) -> bool {
        pace.begin(Duration::from_micros(waited));
        pace.took(std::iter::once((packets, packets * octets)));
        if left {
            pace.leaves_some();
        }
        pace.rest();
        pace.rested
    }

    #[test]
    fn only_small_rounds_of_a_dense_stream_rest() {
        let mut pace = Pace::new();
        assert!(!pace.wants_rest(), "nothing came yet");
        assert!(!round(&mut pace, 500, 1, 100, false), "a lone packet");
        assert!(round(&mut pace, 2, 1, 100, false), "the next one at once");
        assert!(round(&mut pace, 0, 12, 100, false), "the rest was worth while");
        assert!(!round(&mut pace, 0, 2, 60, false), "it was not");
        assert!(!round(&mut pace, 40, 2, 60, false), "acknowledgements of a bulk flow");
        assert!(!round(&mut pace, 2, 1, 65_000, false), "a super-packet");
        assert!(!round(&mut pace, 0, 64, 100, true), "others wait already");
        assert!(!round(&mut pace, 0, 0, 0, false), "a command, no packet");
    }
}
