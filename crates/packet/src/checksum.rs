//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// The one's complement sum of all parts, complemented. Every part but the last has an even
/// length.
#[must_use]
pub fn of(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let mut words = part.chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        }
        match *words.remainder() {
            [a] => sum += u64::from(a) << 24,
            [a, b] => sum += u64::from(u16::from_be_bytes([a, b])) << 16,
            [a, b, c] => sum += u64::from(u32::from_be_bytes([a, b, c, 0])),
            _ => {}
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
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
}
