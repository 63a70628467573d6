//! A bound on the handshakes of one address: a cookie proves where a message comes from, not that
//! its sender may ask for a multiplication as often as it likes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Handshake messages a second that are taken without a cookie.
pub(super) const WITHOUT_COOKIE: u32 = 256;
/// Beyond those, messages of one address in a second. A peer behind it sends one in five seconds.
const EACH: u32 = 20;
/// Beyond those, addresses in a second. Others wait for the next one.
const SOURCES: usize = 4096;
const PERIOD: Duration = Duration::from_secs(1);

/// Counts messages that name our key, within a second. Addresses are only counted once cookies
/// prove them: otherwise anybody could use up a peer's share in its name.
#[derive(Default)]
pub(crate) struct FloodGate {
    total: u32,
    /// Ordered, because a hash map keyed by what strangers send would want a secret seed.
    sources: BTreeMap<u128, u32>,
    since: Option<Instant>,
}

impl FloodGate {
    /// Whether a new second begins.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let fresh = self.since.is_none_or(|at| now.saturating_duration_since(at) >= PERIOD);
        if fresh {
            self.since = Some(now);
            self.total = 0;
            self.sources.clear();
        }
        fresh
    }

    pub(crate) fn allow(&mut self, source: IpAddr) -> bool {
        self.total = self.total.saturating_add(1);
        if self.total <= WITHOUT_COOKIE {
            return true;
        }
        let key = network(source);
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&key) {
            return false;
        }
        let seen = self.sources.entry(key).or_default();
        *seen = seen.saturating_add(1);
        *seen <= EACH
    }
}

/// An IPv4 address, or the /64 that one IPv6 host may choose its addresses from.
fn network(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits() & !u128::from(u64::MAX) | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(now: Instant) -> FloodGate {
        let mut gate = FloodGate::default();
        assert!(gate.begin(now));
        let spoofed: IpAddr = "192.0.2.2".parse().unwrap();
        assert!((0..WITHOUT_COOKIE).all(|_| gate.allow(spoofed)));
        gate
    }

    #[test]
    fn one_address_is_bounded_and_others_are_not_hurt() {
        let now = Instant::now();
        let mut gate = loaded(now);
        let [flooder, peer]: [IpAddr; 2] =
            ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let passed = (0..1000).filter(|_| gate.allow(flooder)).count();
        assert_eq!(passed, 20);
        assert!(gate.allow(peer), "what came in its name without a cookie does not count");
        assert!(!gate.begin(now + PERIOD / 2));
        assert!(!gate.allow(flooder));
        assert!(gate.begin(now + PERIOD));
        assert!(gate.allow(flooder));
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one_and_memory_is_bounded() {
        let mut gate = loaded(Instant::now());
        let address = |net: u64, host: u64| -> IpAddr {
            std::net::Ipv6Addr::from_bits(u128::from(net) << 64 | u128::from(host)).into()
        };
        let passed = (0..1000).filter(|host| gate.allow(address(0x2001_0db8 << 32, *host)));
        assert_eq!(passed.count(), 20);
        let passed = (0..10_000).filter(|net| gate.allow(address((0x2002 << 48) + net, 1)));
        assert_eq!(passed.count(), SOURCES - 1);
        assert_eq!(gate.sources.len(), SOURCES);
    }
}
