//! `struct virtio_net_hdr` (virtio 1.2 section 5.1.6): what a super-packet is, in ten octets.

use packet::{Gso, GsoKind};

/// Octets of the header in front of each packet.
pub const HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The header, checked: it can only say what an [`packet::InnerPacket`] can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHeader {
    /// How the packet is to be segmented.
    pub gso: Option<Gso>,
    /// Whether the segments are of IPv6. Only written; a reader looks at the packet.
    pub ipv6: bool,
    /// Octets of IP and transport header, a hint for the kernel. Only written.
    pub header_len: u16,
    /// Offset of the transport header, and of the checksum field from there.
    pub checksum: Option<(u16, u16)>,
}

/// Why a header cannot be used. The packet is dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadVnetHeader {
    /// A segmentation type that we did not ask for, or a segment size of zero.
    Gso,
    /// A super-packet without a checksum to complete, or a checksum outside the packet.
    Checksum,
}

impl VnetHeader {
    /// Reads the header of a packet of `len` octets.
    ///
    /// # Errors
    /// A header that the offloads we asked for cannot produce.
    pub fn parse(bytes: [u8; HEADER_LEN], len: usize) -> Result<Self, BadVnetHeader> {
        let [flags, gso_type, ..] = bytes;
        // Without VIRTIO_F_VERSION_1 the fields are in the host's byte order.
        let field = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let (gso_size, start, offset) = (field(4), field(6), field(8));
        let kind = match gso_type & !GSO_ECN {
            0 => None,
            GSO_TCPV4 | GSO_TCPV6 => Some(GsoKind::Tcp),
            GSO_UDP_L4 => Some(GsoKind::Udp),
            _ => return Err(BadVnetHeader::Gso),
        };
        let gso = match kind {
            None => None,
            Some(_) if gso_size == 0 => return Err(BadVnetHeader::Gso),
            Some(kind) => Some(Gso { kind, segment: gso_size }),
        };
        let checksum = (flags & NEEDS_CSUM != 0).then_some((start, offset));
        match checksum {
            Some(_) if usize::from(start) + usize::from(offset) + 2 > len => {
                Err(BadVnetHeader::Checksum)
            }
            None if gso.is_some() => Err(BadVnetHeader::Checksum),
            _ => Ok(Self {
                gso,
                ipv6: gso_type & !GSO_ECN == GSO_TCPV6,
                header_len: field(2),
                checksum,
            }),
        }
    }

    /// The header as the kernel reads it.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut field =
            |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        if let Some((start, offset)) = self.checksum {
            field(6, start);
            field(8, offset);
        }
        if let Some(gso) = self.gso {
            field(2, self.header_len);
            field(4, gso.segment);
        }
        bytes[0] = if self.checksum.is_some() { NEEDS_CSUM } else { 0 };
        bytes[1] = match self.gso.map(|gso| gso.kind) {
            None => 0,
            Some(GsoKind::Tcp) if self.ipv6 => GSO_TCPV6,
            Some(GsoKind::Tcp) => GSO_TCPV4,
            Some(GsoKind::Udp) => GSO_UDP_L4,
        };
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_reads_back() {
        for (ipv6, kind) in [(false, GsoKind::Tcp), (true, GsoKind::Tcp), (false, GsoKind::Udp)] {
            let header = VnetHeader {
                gso: Some(Gso { kind, segment: 1398 }),
                ipv6,
                header_len: 40,
                checksum: Some((20, 16)),
            };
            assert_eq!(VnetHeader::parse(header.emit(), 60_000), Ok(header));
        }
        assert_eq!(VnetHeader::parse([0; HEADER_LEN], 40), Ok(VnetHeader::default()));
    }

    #[test]
    fn headers_that_we_did_not_ask_for_are_refused() {
        let tcp = VnetHeader {
            gso: Some(Gso { kind: GsoKind::Tcp, segment: 1000 }),
            ipv6: false,
            header_len: 40,
            checksum: Some((20, 16)),
        };
        let good = tcp.emit();
        let cases: [(&str, usize, &[u8], BadVnetHeader); 4] = [
            ("UFO", 1, &[3], BadVnetHeader::Gso),
            ("an unknown type", 1, &[77], BadVnetHeader::Gso),
            ("segments of zero octets", 4, &[0, 0], BadVnetHeader::Gso),
            ("no checksum", 0, &[0], BadVnetHeader::Checksum),
        ];
        for (name, at, with, error) in cases {
            let mut bad = good;
            bad[at..at + with.len()].copy_from_slice(with);
            assert_eq!(VnetHeader::parse(bad, 5000), Err(error), "{name}");
        }
        assert_eq!(VnetHeader::parse(good, 37), Err(BadVnetHeader::Checksum));
        assert!(VnetHeader::parse(good, 38).is_ok());
        let mut ecn = good;
        ecn[1] |= GSO_ECN;
        assert!(VnetHeader::parse(ecn, 5000).is_ok());
    }
}
