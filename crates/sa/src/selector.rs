//! Traffic selectors (RFC 7296 section 3.13): ranges of addresses, ports and a protocol.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use thiserror::Error;

/// Why a selector cannot exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SelectorError {
    /// One address is IPv4 and the other IPv6.
    #[error("the two addresses of a selector are of different families")]
    MixedFamilies,
    /// The first address or port comes after the last.
    #[error("a selector's range is reversed")]
    Reversed,
}

/// One traffic selector. The fields are private because a reversed or mixed range cannot exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficSelector {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
    first_port: u16,
    last_port: u16,
}

impl TrafficSelector {
    /// A selector over `addresses`, for one IP `protocol` (0 is any) and a range of `ports`.
    /// For ICMP the ports are type and code as RFC 7296 3.13.1 packs them.
    ///
    /// OPAQUE ports (first 65535, last 0) are accepted as RFC 7296 3.13.1 writes them.
    ///
    /// # Errors
    /// Mixed families, or a range that ends before it starts.
    pub fn new(
        addresses: RangeInclusive<IpAddr>,
        protocol: u8,
        ports: RangeInclusive<u16>,
    ) -> Result<Self, SelectorError> {
        let (start, end) = addresses.into_inner();
        if start.is_ipv4() != end.is_ipv4() {
            return Err(SelectorError::MixedFamilies);
        }
        let (first_port, last_port) = (*ports.start(), *ports.end());
        let opaque = first_port == u16::MAX && last_port == 0;
        if start > end || (first_port > last_port && !opaque) {
            return Err(SelectorError::Reversed);
        }
        Ok(Self { start, end, protocol, first_port, last_port })
    }

    /// All protocols and ports of a CIDR.
    #[must_use]
    pub fn net(net: IpNet) -> Self {
        Self {
            start: net.network(),
            end: net.broadcast(),
            protocol: 0,
            first_port: 0,
            last_port: u16::MAX,
        }
    }

    /// First and last address.
    #[must_use]
    pub fn addresses(&self) -> RangeInclusive<IpAddr> {
        self.start..=self.end
    }

    /// IP protocol, 0 for any.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// First and last port. OPAQUE is `65535..=0`.
    #[must_use]
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.first_port..=self.last_port
    }

    /// Whether this is an IPv4 selector.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.start.is_ipv4()
    }

    fn all_ports(&self) -> bool {
        self.first_port == 0 && self.last_port == u16::MAX
    }

    /// Whether a packet's address, protocol and port fall into the selector. `port` is `None`
    /// where the packet shows none (a fragment, a protocol without ports): then only a selector
    /// for all ports, or OPAQUE, matches (RFC 4301 4.4.1.1).
    #[must_use]
    pub fn matches(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        address.is_ipv4() == self.start.is_ipv4()
            && (self.start..=self.end).contains(&address)
            && (self.protocol == 0 || self.protocol == protocol)
            && match port {
                Some(port) => (self.first_port..=self.last_port).contains(&port),
                None => self.all_ports() || self.first_port > self.last_port,
            }
    }

    /// What both selectors cover, or `None` (RFC 7296 2.9: narrowing).
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.is_ipv4() != other.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (p, q) if p == q => p,
            _ => return None,
        };
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        if start > end {
            return None;
        }
        let opaque = |s: &Self| s.first_port > s.last_port;
        let (first_port, last_port) = match (opaque(self), opaque(other)) {
            (true, true) => (u16::MAX, 0),
            (true, false) if other.all_ports() => (u16::MAX, 0),
            (false, true) if self.all_ports() => (u16::MAX, 0),
            (false, false) => {
                let first = self.first_port.max(other.first_port);
                let last = self.last_port.min(other.last_port);
                if first > last {
                    return None;
                }
                (first, last)
            }
            _ => return None,
        };
        Some(Self { start, end, protocol, first_port, last_port })
    }

    /// Whether everything that `other` covers is covered by this selector too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// The CIDRs that make up the address range, in order.
    #[must_use]
    pub fn cidrs(&self) -> Vec<IpNet> {
        match (self.start, self.end) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                Ipv4Subnets::new(a, b, 0).map(|net: Ipv4Net| net.into()).collect()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                Ipv6Subnets::new(a, b, 0).map(|net: Ipv6Net| net.into()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cidrs().as_slice() {
            [one] => write!(f, "{one}")?,
            _ => write!(f, "{}-{}", self.start, self.end)?,
        }
        if self.protocol != 0 {
            write!(f, "[proto {}", self.protocol)?;
            if !self.all_ports() {
                write!(f, " port {}-{}", self.first_port, self.last_port)?;
            }
            write!(f, "]")?;
        } else if !self.all_ports() {
            write!(f, "[port {}-{}]", self.first_port, self.last_port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A list of selectors, as one TS payload carries: a packet matches if one of them does.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SelectorSet(pub Vec<TrafficSelector>);

impl SelectorSet {
    /// Selectors for all traffic of the given CIDRs.
    #[must_use]
    pub fn nets(nets: &[IpNet]) -> Self {
        Self(nets.iter().map(|net| TrafficSelector::net(*net)).collect())
    }

    /// Whether one of the selectors matches; see [`TrafficSelector::matches`].
    #[must_use]
    pub fn matches(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        self.0.iter().any(|ts| ts.matches(address, protocol, port))
    }

    /// Every non-empty intersection of a selector here with one of `other`, without those that
    /// another one of the result contains.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out: Vec<TrafficSelector> = Vec::new();
        for ts in self.0.iter().flat_map(|a| other.0.iter().filter_map(|b| a.intersection(b))) {
            if !out.iter().any(|o| o.contains(&ts)) {
                out.retain(|o| !ts.contains(o));
                out.push(ts);
            }
        }
        Self(out)
    }

    /// Whether there is no selector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SelectorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, ts) in self.0.iter().enumerate() {
            write!(f, "{}{ts}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SelectorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> TrafficSelector {
        TrafficSelector::net(s.parse().unwrap())
    }

    #[test]
    fn narrowing_keeps_what_both_sides_cover() {
        let ours = SelectorSet(vec![net("10.0.0.0/16"), net("fd00::/64")]);
        let theirs = SelectorSet(vec![net("0.0.0.0/0"), net("10.0.1.0/24")]);
        assert_eq!(ours.intersection(&theirs), SelectorSet(vec![net("10.0.0.0/16")]));
        let disjoint = SelectorSet(vec![net("192.0.2.0/24")]);
        assert!(ours.intersection(&disjoint).is_empty());
    }

    #[test]
    fn ports_and_protocols_narrow_too() {
        let any = net("10.0.0.0/8");
        let web = TrafficSelector::new(any.addresses(), 6, 80..=443).unwrap();
        assert_eq!(any.intersection(&web), Some(web));
        let udp = TrafficSelector::new(any.addresses(), 17, 0..=65535).unwrap();
        assert_eq!(udp.intersection(&web), None);
        assert!(web.matches("10.1.1.1".parse().unwrap(), 6, Some(80)));
        assert!(!web.matches("10.1.1.1".parse().unwrap(), 6, Some(8080)));
        assert!(!web.matches("10.1.1.1".parse().unwrap(), 6, None));
    }

    #[test]
    fn ranges_that_cannot_exist_are_refused() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let v6: IpAddr = "::1".parse().unwrap();
        assert_eq!(TrafficSelector::new(v4..=v6, 0, 0..=1), Err(SelectorError::MixedFamilies));
        let before: IpAddr = "10.0.0.0".parse().unwrap();
        assert_eq!(TrafficSelector::new(v4..=before, 0, 0..=1), Err(SelectorError::Reversed));
        #[expect(clippy::reversed_empty_ranges, reason = "the reversed range is the input")]
        let reversed = TrafficSelector::new(v4..=v4, 0, 5..=4);
        assert_eq!(reversed, Err(SelectorError::Reversed));
    }

    #[test]
    fn a_range_becomes_the_cidrs_that_cover_it() {
        let ts = TrafficSelector::new(
            "10.0.0.0".parse().unwrap()..="10.0.2.255".parse().unwrap(),
            0,
            0..=65535,
        )
        .unwrap();
        let cidrs: Vec<String> = ts.cidrs().iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.0.0.0/23", "10.0.2.0/24"]);
    }
}
