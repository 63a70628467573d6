//! A checked view of an IP packet's headers: enough to route, match selectors and account.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;
/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// ICMPv6's protocol number.
pub const ICMPV6: u8 = 58;

/// More extension headers than any honest packet carries.
const MAX_EXTENSIONS: usize = 8;

/// What the headers say. All offsets lie inside the packet that was parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpView {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Upper-layer protocol, behind any extension headers.
    pub protocol: u8,
    /// Offset of the upper-layer header: also the length of all IP headers.
    pub upper: usize,
    /// Octets of the packet by its own length field; the buffer may have more.
    pub length: usize,
    /// TOS or Traffic Class: DSCP and ECN.
    pub tos: u8,
    /// Whether this is a fragment other than the first: it has no upper-layer header.
    pub later_fragment: bool,
    /// Whether this is any fragment.
    pub fragment: bool,
    /// Whether routers must not fragment it: DF of IPv4; always for IPv6.
    pub dont_fragment: bool,
}

impl IpView {
    /// Reads the headers of `packet`; `None` if they are not those of a whole IP packet.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let upper = usize::from(header[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if upper < 20 || length < upper || length > packet.len() {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            protocol: header[9],
            upper,
            length,
            tos: header[1],
            later_fragment: flags & 0x1fff != 0,
            fragment: flags & 0x3fff != 0,
            dont_fragment: flags & 0x4000 != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let length = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if length > packet.len() {
            return None;
        }
        let address = |at: usize| {
            let octets = packet.get(at..at + 16)?;
            Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)))
        };
        let mut view = Self {
            source: address(8)?,
            destination: address(24)?,
            protocol: header[6],
            upper: 40,
            length,
            tos: (header[0] << 4) | (header[1] >> 4),
            later_fragment: false,
            fragment: false,
            dont_fragment: true,
        };
        for _ in 0..MAX_EXTENSIONS {
            let rest = packet.get(view.upper..length)?;
            let size = match view.protocol {
                // Hop-by-hop options, routing, destination options, mobility.
                0 | 43 | 60 | 135 => (usize::from(*rest.get(1)?) + 1) * 8,
                51 => (usize::from(*rest.get(1)?) + 2) * 4,
                44 => {
                    let fragment = rest.first_chunk::<8>()?;
                    let offset = u16::from_be_bytes([fragment[2], fragment[3]]);
                    view.fragment = true;
                    view.later_fragment = offset & 0xfff8 != 0;
                    8
                }
                _ => return Some(view),
            };
            if size > rest.len() {
                return None;
            }
            view.protocol = rest[0];
            view.upper += size;
            if view.later_fragment {
                return Some(view);
            }
        }
        None
    }

    /// Source and destination port of TCP, UDP, UDP-Lite, DCCP and SCTP; `None` where the packet
    /// shows none.
    #[must_use]
    pub fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.later_fragment || !matches!(self.protocol, TCP | UDP | 33 | 132 | 136) {
            return None;
        }
        let ports = packet.get(self.upper..self.length)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    }

    /// Type and code of ICMP packed as a traffic selector's port (RFC 7296 3.13.1).
    #[must_use]
    pub fn icmp(&self, packet: &[u8]) -> Option<u16> {
        let icmp = match self.source {
            IpAddr::V4(_) => ICMP,
            IpAddr::V6(_) => ICMPV6,
        };
        if self.later_fragment || self.protocol != icmp {
            return None;
        }
        let head = packet.get(self.upper..self.length)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*head))
    }
}

/// Replaces TOS or Traffic Class of a packet whose view was parsed, and for IPv4 the checksum.
pub fn set_tos(packet: &mut [u8], tos: u8) {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk_mut::<20>() else { return };
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = tos;
            let new = u16::from_be_bytes([header[0], tos]);
            let sum = u16::from_be_bytes([header[10], header[11]]);
            let sum = checksum::update(sum, old, new).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
        }
        Some(6) => {
            if let Some([first, second, ..]) = packet.get_mut(..2) {
                *first = (*first & 0xf0) | (tos >> 4);
                *second = (*second & 0x0f) | (tos << 4);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_of_a_packet_with_extensions_is_refused() {
        // IPv6, hop-by-hop options (8 octets), destination options (8), UDP (8).
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 0, 64];
        packet.extend_from_slice(&[1; 16]);
        packet.extend_from_slice(&[2; 16]);
        packet.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend_from_slice(&[UDP, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend_from_slice(&[0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let view = IpView::parse(&packet).unwrap();
        assert_eq!((view.protocol, view.upper, view.length), (UDP, 56, 64));
        assert_eq!(view.ports(&packet), Some((0x1234, 0x5678)));
        for cut in 0..packet.len() {
            assert_eq!(IpView::parse(&packet[..cut]), None);
        }
    }

    #[test]
    fn a_chain_of_extension_headers_ends_at_a_bound() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0xa0, 0, 64];
        packet.extend_from_slice(&[0; 32]);
        for _ in 0..20 {
            packet.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]);
        }
        assert_eq!(IpView::parse(&packet), None);
    }

    #[test]
    fn later_fragments_show_no_ports() {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 10, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0; 8]);
        let view = IpView::parse(&packet).unwrap();
        assert!(view.fragment && view.later_fragment);
        assert_eq!(view.ports(&packet), None);
    }

    #[test]
    fn a_new_tos_keeps_the_ipv4_checksum_valid() {
        let mut packet =
            vec![0x45, 0, 0, 20, 1, 2, 0, 0, 64, UDP, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
        let sum = checksum::of(&[&packet]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        for tos in 0..=255 {
            set_tos(&mut packet, tos);
            assert_eq!(IpView::parse(&packet).unwrap().tos, tos);
            assert_eq!(checksum::of(&[&packet]), 0);
        }
    }
}
