//! How long an inner packet may be.

use sa::EspSuite;

/// Octets of the ESP header: SPI and sequence number (RFC 4303 2).
pub const ESP_HEADER: usize = 8;

/// The longest inner packet that fits the outer `link_mtu` when sealed: the room behind outer IP,
/// UDP, ESP header, IV and ICV, cut to the suite's padding, less pad length and next header.
/// `udp` says whether ESP is encapsulated in UDP (RFC 3948); our data plane always does.
#[must_use]
pub fn inner_mtu(link_mtu: u16, outer_ipv6: bool, udp: bool, suite: EspSuite) -> u16 {
    let outer = if outer_ipv6 { 40 } else { 20 } + if udp { 8 } else { 0 };
    let fixed = outer + ESP_HEADER + suite.iv_len() + suite.icv_len();
    let room = usize::from(link_mtu).saturating_sub(fixed) / suite.pad_to() * suite.pad_to();
    u16::try_from(room.saturating_sub(2)).unwrap_or(u16::MAX)
}

/// [`inner_mtu`] of a tunnel of ours, which always encapsulates in UDP.
#[must_use]
pub fn tunnel_mtu(link_mtu: u16, outer_ipv6: bool, suite: EspSuite) -> u16 {
    inner_mtu(link_mtu, outer_ipv6, true, suite)
}

/// Octets of a WireGuard data message around its packet: type, receiver index, counter and tag.
pub const WIREGUARD_OVERHEAD: u16 = 32;

/// The longest inner packet that fits the outer `link_mtu` in a WireGuard data message.
#[must_use]
pub fn wireguard_mtu(link_mtu: u16, outer_ipv6: bool) -> u16 {
    let outer = if outer_ipv6 { 40 } else { 20 } + 8;
    link_mtu.saturating_sub(outer + WIREGUARD_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sa::{Bits, CbcIntegrity};

    /// AWS's table of MTU and MSS by suite, with NAT traversal off and on. AES-CBC with SHA1 has
    /// the sizes of SHA2-256 less 4 octets of ICV and falls into the same row.
    #[test]
    fn every_row_of_the_table_of_aws() {
        let cbc = |integrity| EspSuite::AesCbc(Bits::B256, integrity);
        let rows = [
            (EspSuite::AesGcm16(Bits::B128), (1446, 1406, 1386), (1438, 1398, 1378)),
            (EspSuite::AesGcm16(Bits::B256), (1446, 1406, 1386), (1438, 1398, 1378)),
            (cbc(CbcIntegrity::Sha256), (1438, 1398, 1378), (1422, 1382, 1362)),
            (cbc(CbcIntegrity::Sha384), (1422, 1382, 1362), (1422, 1382, 1362)),
            (cbc(CbcIntegrity::Sha512), (1422, 1382, 1362), (1406, 1366, 1346)),
        ];
        for (suite, plain, nat_t) in rows {
            for (udp, (mtu, mss4, mss6)) in [(false, plain), (true, nat_t)] {
                assert_eq!(inner_mtu(1500, false, udp, suite), mtu, "{suite} udp {udp}");
                assert_eq!(crate::mss::clamp(mtu, false), mss4);
                assert_eq!(crate::mss::clamp(mtu, true), mss6);
            }
        }
    }

    #[test]
    fn wireguard_takes_sixty_octets_over_ipv4_and_eighty_over_ipv6() {
        assert_eq!(wireguard_mtu(1500, false), 1440);
        // The MTU that wg-quick gives every interface.
        assert_eq!(wireguard_mtu(1500, true), 1420);
        assert_eq!(wireguard_mtu(10, true), 0);
    }

    #[test]
    fn an_ipv6_outer_header_takes_twenty_octets_more_and_no_link_is_too_small() {
        let suite = EspSuite::AesGcm16(Bits::B256);
        assert_eq!(tunnel_mtu(1500, true, suite), 1418);
        assert_eq!(tunnel_mtu(10, true, suite), 0);
    }
}
