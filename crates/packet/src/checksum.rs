//! The Internet checksum (RFC 1071), summed as fast as plain Rust allows, and its incremental
//! update (RFC 1624).

/// The one's complement sum of all parts, complemented. Every part but the last has an even
/// length.
#[must_use]
pub fn of(parts: &[&[u8]]) -> u16 {
    // Folded in between, so that no number of parts overflows.
    let sum = parts.iter().fold(0, |sum, part| add(u64::from(u16::from_ne_bytes(fold(sum))), part));
    !u16::from_be_bytes(fold(sum))
}

/// Adds `bytes` to the running one's-complement sum `sum`. `bytes` starts at an even offset of what
/// is summed. The sum is in the host's byte order until [`fold`].
#[must_use]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    if bytes.len() < LONG { add_short(sum, bytes) } else { add_long(sum, bytes) }
}

/// From here on lanes are worth setting up.
const LONG: usize = 128;

/// Headers: eight octets at a time, and what goes over the top comes in at the bottom.
fn add_short(sum: u64, bytes: &[u8]) -> u64 {
    let with = |sum: u64, word: u64| {
        let (sum, over) = sum.overflowing_add(word);
        sum + u64::from(over)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let total = words.iter().fold(sum, |sum, word| with(sum, u64::from_ne_bytes(*word)));
    let total = add_rest((total & 0xffff_ffff) + (total >> 32), rest);
    (total & 0xffff_ffff) + (total >> 32)
}

fn add_long(sum: u64, bytes: &[u8]) -> u64 {
    // Four independent lanes of 32-bit words in 64-bit accumulators: no carry to chain (a lane
    // takes 2^32 words before it overflows), and the compiler vectorizes it.
    let mut lanes = [sum, 0, 0, 0, 0, 0, 0, 0];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    let mut total = 0u64;
    for lane in lanes {
        total += (lane & 0xffff_ffff) + (lane >> 32);
    }
    add_rest(total, rest)
}

/// Fewer octets than would overflow anything.
fn add_rest(mut total: u64, rest: &[u8]) -> u64 {
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// The 16-bit one's-complement sum, as the two octets on the wire. The checksum itself is its
/// complement.
#[must_use]
pub fn fold(mut sum: u64) -> [u8; 2] {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "three folds of 32 bits leave 16")]
    let folded = sum as u16;
    folded.to_ne_bytes()
}

/// The sum of the pseudo-header of an IPv4 or IPv6 packet (RFC 9293 3.1, RFC 8200 8.1).
/// `addresses` are source and destination together.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, transport_len: u16) -> u64 {
    let len = u64::from(u16::from_ne_bytes(transport_len.to_be_bytes()));
    let protocol = u64::from(u16::from_ne_bytes([0, protocol]));
    add(len + protocol, addresses)
}

/// The checksum after one aligned 16-bit word changed from `old` to `new` (RFC 1624 equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    /// RFC 1624 section 4: the case that the older equation gets wrong.
    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn parts_sum_like_the_whole() {
        let octets: Vec<u8> = (0..201).collect();
        for cut in (0..200).step_by(2) {
            assert_eq!(of(&[&octets[..cut], &octets[cut..]]), of(&[&octets]));
        }
    }

    fn simple(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        [(sum >> 8) as u8, sum as u8]
    }

    proptest! {
        #[test]
        fn every_length_and_content_sums_as_rfc_1071_says(
            bytes in prop::collection::vec(any::<u8>(), 0..2000)
        ) {
            prop_assert_eq!(fold(add(0, &bytes)), simple(&bytes));
        }

        /// Whatever was summed before, and however long what is added is.
        #[test]
        fn any_running_sum_goes_on(
            sum in 0..=1_u64 << 34,
            bytes in prop::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..300)
        ) {
            let mut whole = sum.to_ne_bytes().to_vec();
            whole.extend_from_slice(&bytes);
            prop_assert_eq!(fold(add(sum, &bytes)), simple(&whole));
            prop_assert!(add(sum, &bytes) <= 1 << 40, "sums can be added to each other");
        }
    }

    #[test]
    fn the_largest_packet_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(fold(add(u64::from(u32::MAX), &bytes)), fold(add(0, &bytes)));
        assert_eq!(simple(&bytes), fold(add(0, &bytes)));
    }
}
