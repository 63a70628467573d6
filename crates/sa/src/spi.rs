//! ESP Security Parameters Index (RFC 4303 section 2.1).

use std::fmt;

/// The 32-bit number that names one inbound ESP SA at its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl Spi {
    /// Whether we may hand out this SPI for one of our inbound SAs.
    ///
    /// 0 is the non-ESP marker (RFC 3948 2.2), 1..=255 are reserved (RFC 4303 2.1), and
    /// 0x01000000..=0x04ffffff would collide on the wire with the four WireGuard message types
    /// (a little-endian type octet and three reserved octets). The whole octet is avoided, so that
    /// the demultiplexer never depends on the reserved octets being zero.
    #[must_use]
    pub fn is_allocatable(self) -> bool {
        self.0 > 255 && !(1..=4).contains(&(self.0 >> 24))
    }

    /// The SPI in network byte order.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Reads an SPI in network byte order.
    #[must_use]
    pub fn from_be_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_wireguard_like_spis_are_never_allocated() {
        for spi in [0, 1, 255, 0x0100_0000, 0x0200_0001, 0x0400_0000, 0x04ff_ffff] {
            assert!(!Spi(spi).is_allocatable(), "{spi:08x}");
        }
        for spi in [256, 0x00ff_ffff, 0x0500_0000, 0xffff_ffff] {
            assert!(Spi(spi).is_allocatable(), "{spi:08x}");
        }
    }
}
