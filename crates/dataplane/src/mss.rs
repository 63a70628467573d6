//! TCP MSS clamping: a SYN never promises segments longer than the tunnel takes.

use packet::checksum;
use packet::ip::{IpView, TCP};

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const FLAG_SYN: u8 = 0x02;

/// The MSS for inner packets of `mtu` octets without IP or TCP options.
#[must_use]
pub fn clamp(mtu: u16, ipv6: bool) -> u16 {
    mtu.saturating_sub(if ipv6 { 60 } else { 40 })
}

/// Whether the packet is a TCP segment with SYN.
pub(crate) fn is_syn(octets: &[u8], view: &IpView) -> bool {
    view.protocol == TCP
        && !view.fragment
        && octets.get(view.upper + 13).is_some_and(|flags| flags & FLAG_SYN != 0)
}

/// Lowers the MSS option of a SYN to what `mtu` allows, and mends the TCP checksum. Returns
/// whether it changed the packet. With `partial`, the checksum field holds only the
/// pseudo-header's sum, which does not cover the option, and stays as it is.
pub fn clamp_syn(octets: &mut [u8], view: &IpView, mtu: u16, partial: bool) -> bool {
    if view.protocol != TCP || view.fragment {
        return false;
    }
    let Some(tcp) = octets.get_mut(view.upper..view.length) else { return false };
    let Some(header) = tcp.first_chunk::<20>() else { return false };
    let header_len = usize::from(header[12] >> 4) * 4;
    if header[13] & FLAG_SYN == 0 || header_len < 20 || header_len > tcp.len() {
        return false;
    }
    let Some(at) = mss_option(tcp, header_len) else { return false };
    let limit = clamp(mtu, view.source.is_ipv6());
    let Some(&[high, low]) = tcp.get(at..at + 2).and_then(|b| b.first_chunk::<2>()) else {
        return false;
    };
    let old = u16::from_be_bytes([high, low]);
    if old <= limit {
        return false;
    }
    tcp[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    if !partial {
        // A field at an odd offset is summed with its octets swapped.
        let swap = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
        let sum = u16::from_be_bytes([tcp[16], tcp[17]]);
        let sum = checksum::update(sum, swap(old), swap(limit));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// The offset of the MSS option's value in a TCP header.
fn mss_option(tcp: &[u8], header_len: usize) -> Option<usize> {
    let mut at = 20;
    while at < header_len {
        match *tcp.get(at)? {
            KIND_END => return None,
            KIND_NOP => at += 1,
            kind => {
                let length = usize::from(*tcp.get(at + 1)?);
                if length < 2 || at + length > header_len {
                    return None;
                }
                if kind == KIND_MSS && length == 4 {
                    return Some(at + 2);
                }
                at += length;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with `options` behind its TCP header and a valid checksum.
    fn syn(options: &[u8]) -> Vec<u8> {
        assert_eq!(options.len() % 4, 0);
        let tcp_len = 20 + options.len();
        let mut p = vec![0x45, 0, 0, (20 + tcp_len) as u8, 0, 0, 0x40, 0, 64, TCP, 0, 0];
        p.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        p.extend_from_slice(&[0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
        p.extend_from_slice(&[(tcp_len / 4 * 16) as u8, FLAG_SYN, 0xff, 0xff, 0, 0, 0, 0]);
        p.extend_from_slice(options);
        let sum = tcp_sum(&p);
        p[36..38].copy_from_slice(&sum.to_be_bytes());
        p
    }

    fn tcp_sum(p: &[u8]) -> u16 {
        let length = ((p.len() - 20) as u16).to_be_bytes();
        checksum::of(&[&p[12..20], &[0, TCP], &length, &p[20..]])
    }

    #[test]
    fn a_large_mss_is_lowered_and_the_checksum_stays_valid_at_even_and_odd_offsets() {
        for options in [[2, 4, 0x05, 0xb4], [1, 1, 1, 1], [0, 0, 0, 0]] {
            let mut p = syn(&options);
            let view = IpView::parse(&p).unwrap();
            assert_eq!(clamp_syn(&mut p, &view, 1438, false), options[0] == 2);
            assert_eq!(tcp_sum(&p), 0);
        }
        let mut p = syn(&[1, 2, 4, 0x05, 0xb4, 0, 0, 0]);
        let view = IpView::parse(&p).unwrap();
        assert!(clamp_syn(&mut p, &view, 1438, false));
        assert_eq!(u16::from_be_bytes([p[43], p[44]]), 1398);
        assert_eq!(tcp_sum(&p), 0);
    }

    #[test]
    fn a_small_mss_a_segment_without_syn_and_a_broken_option_stay_as_they_are() {
        let mut small = syn(&[2, 4, 0x02, 0x00]);
        let view = IpView::parse(&small).unwrap();
        assert!(!clamp_syn(&mut small, &view, 1438, false));
        let mut ack = syn(&[2, 4, 0x05, 0xb4]);
        ack[33] = 0x10;
        assert!(!clamp_syn(&mut ack, &view, 1438, false));
        for broken in [[2, 0, 5, 0xb4], [2, 40, 5, 0xb4], [8, 1, 2, 4]] {
            let mut p = syn(&broken);
            assert!(!clamp_syn(&mut p, &view, 1438, false));
        }
    }
}
