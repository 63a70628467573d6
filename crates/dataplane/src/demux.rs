//! What a datagram on the shared UDP port is (RFC 3948 section 2).

/// The kinds of datagram on UDP 4500.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// IKE behind the four zero octets of the non-ESP marker.
    Ike,
    /// A NAT keepalive: one octet 0xFF.
    Keepalive,
    /// A WireGuard message: type 1 to 4 in little-endian order with a length that it has.
    WireGuard,
    /// ESP: the first word is an SPI.
    Esp,
    /// Nothing of these: shorter than any of them.
    Runt,
}

/// Octets of the non-ESP marker.
pub const NON_ESP_MARKER: usize = 4;

/// Names the kind of `datagram`.
#[must_use]
pub fn classify(datagram: &[u8]) -> Kind {
    let Some(word) = datagram.first_chunk::<4>() else {
        return if datagram == [0xff] { Kind::Keepalive } else { Kind::Runt };
    };
    match (u32::from_le_bytes(*word), datagram.len()) {
        (0, _) => Kind::Ike,
        (1, 148) | (2, 92) | (3, 64) => Kind::WireGuard,
        (4, 32..) => Kind::WireGuard,
        _ => Kind::Esp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_datagram_is_exactly_what_its_first_word_and_length_say(
            word in prop_oneof![any::<[u8; 4]>(), (0..6_u8).prop_map(|t| [t, 0, 0, 0])],
            length in 0..200_usize,
        ) {
            let mut datagram = word.to_vec();
            datagram.resize(length, 0xab);
            let word = datagram.first_chunk::<4>().copied();
            let expected = match (word, length) {
                (None, 1) if datagram[0] == 0xff => Kind::Keepalive,
                (None, _) => Kind::Runt,
                (Some([0, 0, 0, 0]), _) => Kind::Ike,
                (Some([1, 0, 0, 0]), 148) => Kind::WireGuard,
                (Some([2, 0, 0, 0]), 92) => Kind::WireGuard,
                (Some([3, 0, 0, 0]), 64) => Kind::WireGuard,
                (Some([4, 0, 0, 0]), n) if n >= 32 => Kind::WireGuard,
                _ => Kind::Esp,
            };
            prop_assert_eq!(classify(&datagram), expected);
        }

        /// Every length that a datagram can have.
        #[test]
        fn a_wireguard_message_is_one_of_four_words_with_a_length_that_it_has(
            word in prop_oneof![any::<u32>(), 0..8_u32, (0..8_u32).prop_map(u32::swap_bytes)],
        ) {
            let mut datagram = vec![0xff; 65_535];
            datagram[..4].copy_from_slice(&word.to_le_bytes());
            for length in 4..=datagram.len() {
                let expected = match word {
                    0 => Kind::Ike,
                    1 if length == 148 => Kind::WireGuard,
                    2 if length == 92 => Kind::WireGuard,
                    3 if length == 64 => Kind::WireGuard,
                    4 if length >= 32 => Kind::WireGuard,
                    _ => Kind::Esp,
                };
                prop_assert_eq!(classify(&datagram[..length]), expected, "{:x} {}", word, length);
            }
        }

        #[test]
        fn no_spi_that_we_allocate_can_be_taken_for_anything_else(spi in any::<u32>(), length in 4..2000_usize) {
            prop_assume!(sa::Spi(spi).is_allocatable());
            let mut datagram = spi.to_be_bytes().to_vec();
            datagram.resize(length, 0);
            prop_assert_eq!(classify(&datagram), Kind::Esp);
        }
    }
}
