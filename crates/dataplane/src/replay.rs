//! The anti-replay window (RFC 4303 section 3.4.3 and appendix A), as a ring of words that never
//! shifts (RFC 6479).

/// Which sequence numbers were seen. One writer; checked before the ICV, updated only after it.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    /// Highest sequence number that authenticated; 0 before the first.
    top: u64,
    window: u64,
    words: Box<[u64]>,
    esn: bool,
}

/// Why a sequence number is refused before the ICV is even looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Seen already, or zero.
    Replayed,
    /// Left of the window.
    TooOld,
}

impl ReplayWindow {
    /// A window of `packets`, which is brought into 64..=8192.
    pub(crate) fn new(packets: u32, esn: bool) -> Self {
        let window = u64::from(packets.clamp(64, 8192));
        // One word more than the window spans, so that the word being cleared is never in it.
        let words = usize::try_from(window.div_ceil(64)).unwrap_or(128) + 1;
        Self { top: 0, window, words: vec![0; words.next_power_of_two()].into_boxed_slice(), esn }
    }

    /// The whole sequence number of a packet that shows its lower 32 bits (appendix A2.2).
    pub(crate) fn infer(&self, low: u32) -> u64 {
        if !self.esn {
            return u64::from(low);
        }
        let (top_high, top_low) = (self.top >> 32, self.top & 0xffff_ffff);
        let low = u64::from(low);
        let high = if top_low >= self.window - 1 {
            // The window lies in one subspace: what is left of it is of the next one.
            if low >= top_low - (self.window - 1) { top_high } else { top_high.wrapping_add(1) }
        } else {
            // The window reaches into the subspace before.
            let edge = (top_low.wrapping_sub(self.window - 1)) & 0xffff_ffff;
            if low >= edge && top_high > 0 { top_high - 1 } else { top_high }
        };
        ((high & 0xffff_ffff) << 32) | low
    }

    /// Whether `sequence` may still be new.
    pub(crate) fn check(&self, sequence: u64) -> Result<(), Refused> {
        if sequence == 0 {
            return Err(Refused::Replayed);
        }
        if sequence > self.top {
            return Ok(());
        }
        if self.top - sequence >= self.window {
            return Err(Refused::TooOld);
        }
        let (word, bit) = self.place(sequence);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(Refused::Replayed) }
    }

    /// Marks an authenticated sequence number, which [`Self::check`] let pass. Returns whether it is
    /// the new highest one.
    pub(crate) fn mark(&mut self, sequence: u64) -> bool {
        let advances = sequence > self.top;
        if advances {
            let (old, new) = (self.top / 64, sequence / 64);
            let count = self.words.len() as u64;
            for word in old + 1..=new.min(old.saturating_add(count)) {
                // Clearing at most the whole ring: further words are the same ones again.
                let place = usize::try_from(word % count).unwrap_or(0);
                self.words[place] = 0;
            }
            if new - old > count {
                self.words.fill(0);
            }
            self.top = sequence;
        }
        let (word, bit) = self.place(sequence);
        self.words[word] |= bit;
        advances
    }

    fn place(&self, sequence: u64) -> (usize, u64) {
        let word = (sequence / 64) % self.words.len() as u64;
        (usize::try_from(word).unwrap_or(0), 1 << (sequence % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_ring_agrees_with_a_set_of_all_numbers_ever_seen(
            window in prop_oneof![Just(64_u32), Just(100), Just(1024), Just(8192)],
            steps in proptest::collection::vec(
                (prop_oneof![0..200_u64, 0..20_000_u64, Just(1)], any::<bool>()), 1..300),
        ) {
            let mut ring = ReplayWindow::new(window, false);
            let (mut seen, mut top) = (BTreeSet::new(), 0_u64);
            for (distance, forward) in steps {
                let sequence = if forward { top + distance } else { top.saturating_sub(distance) };
                let new = sequence != 0
                    && !seen.contains(&sequence)
                    && (sequence > top || top - sequence < u64::from(window));
                prop_assert_eq!(ring.check(sequence).is_ok(), new, "{} top {}", sequence, top);
                if new {
                    prop_assert_eq!(ring.mark(sequence), sequence > top);
                    seen.insert(sequence);
                    top = top.max(sequence);
                }
            }
        }

        #[test]
        fn extended_numbers_are_inferred_within_the_window_and_ahead_of_it(
            start in prop_oneof![1..10_000_u64, 0xffff_0000..0x1_0001_0000_u64, 0x5_ffff_f000..0x6_0000_1000_u64],
            ahead in 0..1_000_000_u64,
            behind in 0..1024_u64,
        ) {
            let mut ring = ReplayWindow::new(1024, true);
            ring.mark(start);
            let next = start + ahead;
            prop_assert_eq!(ring.infer(next as u32), next);
            let late = start.saturating_sub(behind).max(1);
            prop_assert_eq!(ring.infer(late as u32), late);
        }
    }

    #[test]
    fn a_jump_of_many_windows_forgets_everything_before() {
        let mut ring = ReplayWindow::new(64, true);
        for sequence in 1..=64 {
            ring.mark(sequence);
        }
        ring.mark(1 << 40);
        assert_eq!(ring.check(64), Err(Refused::TooOld));
        assert_eq!(ring.check(1 << 40), Err(Refused::Replayed));
        for back in 1..64 {
            assert_eq!(ring.check((1 << 40) - back), Ok(()));
        }
    }
}
