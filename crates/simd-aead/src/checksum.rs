//! The transport checksum that sealing completes (RFC 1071).

use packet::checksum::{add, fold};

/// The transport checksum of a packet that is sealed. Sealing sums the body, adds what the caller
/// summed, and writes the complement into the prefix before it is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// Offset in the prefix of the two octets of the checksum.
    pub field: usize,
    /// The sum of all that is covered except the body, as [`packet::checksum::add`] gives it: the
    /// pseudo-header and the transport header with zeros for the checksum. The body begins at an even
    /// offset of what is covered.
    pub sum: u64,
    /// A checksum of zero is written as all ones, because zero says that there is none (RFC 768).
    pub udp: bool,
}

impl Checksum {
    /// Writes the checksum into `prefix`, for a packet that is not sealed. A field outside of it
    /// stays unwritten.
    pub fn complete(&self, prefix: &mut [u8], body: &[u8]) {
        if let Some(field) = prefix.get_mut(self.field..).and_then(|p| p.first_chunk_mut::<2>()) {
            *field = self.octets(add(0, body));
        }
    }

    /// The two octets where the body has this sum.
    pub(crate) fn octets(&self, body: u64) -> [u8; 2] {
        match fold(u64::from(u16::from_ne_bytes(fold(self.sum))) + body).map(|octet| !octet) {
            [0, 0] if self.udp => [0xff; 2],
            octets => octets,
        }
    }
}
