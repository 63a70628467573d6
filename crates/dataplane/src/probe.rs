//! Echo requests that test the path which carries data: built by the control plane, sealed like
//! any packet, and recognised when the answer comes out of the same tunnel.

use std::net::Ipv4Addr;

use packet::IpView;
use packet::checksum;
use packet::ip::ICMP;

/// Identifier of our echo requests.
const IDENTIFIER: u16 = 0x7667;
/// What the content of each of them begins with.
const MARK: [u8; 8] = *b"vgw path";
const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// The shortest probe: headers and the mark.
const SHORTEST: usize = IP_HEADER + ICMP_HEADER + MARK.len();

/// An IPv4 echo request of `size` octets in all, with Don't Fragment. A `size` that has no room
/// for the mark is taken as the least that has.
#[must_use]
pub fn echo_request(source: Ipv4Addr, destination: Ipv4Addr, sequence: u16, size: u16) -> Vec<u8> {
    let size = size.max(u16::try_from(SHORTEST).unwrap_or(u16::MAX));
    let mut packet = Vec::with_capacity(usize::from(size));
    packet.extend_from_slice(&[0x45, 0]);
    packet.extend_from_slice(&size.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0x40, 0, 64, ICMP, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = checksum::of(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&[8, 0, 0, 0]);
    packet.extend_from_slice(&IDENTIFIER.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&MARK);
    packet.resize(usize::from(size), 0);
    let sum = checksum::of(&[&packet[IP_HEADER..]]);
    packet[IP_HEADER + 2..IP_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sequence number of the probe that `packet` answers, if it answers one. The first fragment
/// of an answer is enough.
pub(crate) fn answered(packet: &[u8], view: &IpView) -> Option<u16> {
    if view.protocol != ICMP || view.later_fragment || view.source.is_ipv6() {
        return None;
    }
    let icmp = packet.get(view.upper..view.length)?;
    let (header, content) = icmp.split_first_chunk::<ICMP_HEADER>()?;
    let [0, 0, _, _, id_high, id_low, high, low] = *header else { return None };
    let ours = u16::from_be_bytes([id_high, id_low]) == IDENTIFIER && content.starts_with(&MARK);
    ours.then(|| u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (Ipv4Addr, Ipv4Addr) {
        (Ipv4Addr::new(169, 254, 10, 1), Ipv4Addr::new(169, 254, 10, 2))
    }

    #[test]
    fn a_probe_has_the_size_that_was_asked_for_and_right_checksums() {
        let (own, peer) = addresses();
        for size in [0, 36, 37, 576, 1438, u16::MAX] {
            let packet = echo_request(own, peer, 7, size);
            assert_eq!(packet.len(), usize::from(size).max(SHORTEST));
            let view = IpView::parse(&packet).unwrap();
            assert_eq!((view.length, view.dont_fragment), (packet.len(), true));
            assert_eq!(checksum::of(&[&packet[..20]]), 0);
            assert_eq!(checksum::of(&[&packet[20..]]), 0);
        }
    }

    #[test]
    fn only_the_answer_to_a_probe_is_one() {
        let (own, peer) = addresses();
        let request = echo_request(peer, own, 0x1234, 60);
        let view = IpView::parse(&request).unwrap();
        assert_eq!(answered(&request, &view), None, "a request is no answer");
        let mut reply = request;
        reply[20] = 0;
        assert_eq!(answered(&reply, &view), Some(0x1234));
        for at in [20, 21, 24, 25, 28, 35] {
            let mut other = reply.clone();
            other[at] ^= 1;
            assert_eq!(answered(&other, &view), None, "octet {at}");
        }
    }
}
