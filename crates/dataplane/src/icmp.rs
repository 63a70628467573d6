//! "Fragmentation needed" and "packet too big" for inner packets over the tunnel MTU
//! (RFC 1191, RFC 4443 section 3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};
use packet::IpView;
use packet::ip::{ICMP, ICMPV6};

/// The addresses that our ICMP errors come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IcmpSource {
    /// For IPv4; without it the packet's own destination.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6; without it the packet's own destination.
    pub v6: Option<Ipv6Addr>,
}

/// Octets of the offending packet in an ICMPv4 error: all of the error fits 576 octets.
const QUOTE_V4: usize = 576 - 28;
/// The same for IPv6: all of the error fits 1280 octets.
const QUOTE_V6: usize = 1280 - 48;

/// The error that tells the sender of `octets` about `mtu`; `None` where none may be sent: for
/// ICMP errors, later fragments, and sources that are no single host (RFC 1122 3.2.2).
pub(crate) fn too_big(
    octets: &[u8],
    view: &IpView,
    mtu: u16,
    source: IcmpSource,
) -> Option<Vec<u8>> {
    if view.later_fragment || is_icmp_error(octets, view) || !is_host(view.source) {
        return None;
    }
    let quote = |most: usize| octets.get(..view.length.min(most));
    let mut out = Vec::new();
    match (view.source, view.destination) {
        (IpAddr::V4(to), IpAddr::V4(original)) => {
            let kind =
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: mtu,
                });
            let from = source.v4.unwrap_or(original);
            PacketBuilder::ipv4(from.octets(), to.octets(), 64)
                .icmpv4(kind)
                .write(&mut out, quote(QUOTE_V4)?)
                .ok()?;
        }
        (IpAddr::V6(to), IpAddr::V6(original)) => {
            let from = source.v6.unwrap_or(original);
            PacketBuilder::ipv6(from.octets(), to.octets(), 64)
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: u32::from(mtu.max(1280)) })
                .write(&mut out, quote(QUOTE_V6)?)
                .ok()?;
        }
        _ => return None,
    }
    Some(out)
}

fn is_icmp_error(octets: &[u8], view: &IpView) -> bool {
    let kind = octets.get(view.upper).copied();
    match view.protocol {
        ICMP => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
        ICMPV6 => kind.is_some_and(|kind| kind < 128),
        _ => false,
    }
}

fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !matches!(address, IpAddr::V4(a) if a.is_broadcast())
}

/// At most so many errors a second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    left: u32,
    since: Option<Instant>,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second, since: None }
    }

    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let fresh = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1));
        if fresh {
            self.since = Some(now);
            self.left = self.per_second;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}
