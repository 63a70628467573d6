//! Contents that prove themselves: octet `n` of a stream follows from the seed and `n` alone.

use crate::random::SplitMix;

/// Octets that no cipher produces by chance and that a capture looks for. Every payload of the lab
/// that crosses a tunnel to be looked for starts with them or repeats them.
pub const MARKER: &[u8; 16] = b"VGW-LAB-CLEARTXT";

/// How often the marker stands in a pattern: once in so many octets, so that each full-sized
/// packet of a stream holds it at least once.
const MARKER_EVERY: usize = 512;

/// One period of a pattern. A stream repeats it with the number of the period mixed in.
const PERIOD: usize = 1 << 16;

/// A repeatable stream of octets.
#[derive(Clone, Debug)]
pub struct Pattern {
    block: Vec<u8>,
}

/// Where a stream first differs from what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first octet that differs.
    pub at: u64,
}

impl Pattern {
    /// The stream of a seed. It holds [`MARKER`] in every 512 octets.
    pub fn new(seed: u64) -> Pattern {
        let mut random = SplitMix::new(seed);
        let mut block: Vec<u8> = std::iter::repeat_with(|| random.next_u64().to_le_bytes())
            .take(PERIOD / 8)
            .flatten()
            .collect();
        for chunk in block.chunks_mut(MARKER_EVERY) {
            chunk[8..8 + MARKER.len()].copy_from_slice(MARKER);
        }
        Pattern { block }
    }

    /// Writes the octets of the stream from `offset` on.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let start = ((offset + done as u64) % PERIOD as u64) as usize;
            let run = (PERIOD - start).min(out.len() - done);
            out[done..done + run].copy_from_slice(&self.block[start..start + run]);
            done += run;
        }
        self.stamp(offset, out);
    }

    /// Compares octets that came from `offset` on.
    pub fn check(&self, offset: u64, octets: &[u8]) -> Result<(), Difference> {
        let mut expected = vec![0; octets.len()];
        self.fill(offset, &mut expected);
        if expected == octets {
            return Ok(());
        }
        let at = expected.iter().zip(octets).position(|(a, b)| a != b).unwrap_or(0);
        Err(Difference { at: offset + at as u64 })
    }

    /// The first eight octets of each chunk are the chunk's number, so that no two periods are
    /// equal and an exchanged or repeated packet shows.
    fn stamp(&self, offset: u64, out: &mut [u8]) {
        let every = MARKER_EVERY as u64;
        let end = offset + out.len() as u64;
        let mut chunk = offset / every;
        while chunk * every < end {
            for (index, octet) in (chunk * every..).zip(chunk.to_be_bytes()) {
                if index >= offset && index < end {
                    out[(index - offset) as usize] = octet;
                }
            }
            chunk += 1;
        }
    }
}

/// Whether octets hold the marker.
pub fn holds_marker(octets: &[u8]) -> bool {
    octets.windows(MARKER.len()).any(|window| window == MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_stream_gives_the_same_octets() {
        let pattern = Pattern::new(3);
        let mut whole = vec![0; 3 * PERIOD + 777];
        pattern.fill(0, &mut whole);
        for (offset, length) in [(0, 10), (509, 20), (PERIOD - 3, 1000), (2 * PERIOD + 5, 700)] {
            let mut part = vec![0; length];
            pattern.fill(offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + length]);
        }
    }

    #[test]
    fn a_changed_or_exchanged_octet_is_found_where_it_is() {
        let pattern = Pattern::new(3);
        let mut octets = vec![0; 200_000];
        pattern.fill(1000, &mut octets);
        assert_eq!(pattern.check(1000, &octets), Ok(()));
        assert!(
            pattern.check(1000 + PERIOD as u64, &octets).is_err(),
            "a period later is another content"
        );
        octets[150_000] ^= 1;
        assert_eq!(pattern.check(1000, &octets), Err(Difference { at: 151_000 }));
    }

    #[test]
    fn every_full_sized_packet_holds_the_marker() {
        let mut octets = vec![0; 100_000];
        Pattern::new(9).fill(0, &mut octets);
        assert!(octets.chunks_exact(1200).all(holds_marker));
    }
}
