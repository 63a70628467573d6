//! Longest-prefix match: from an inner destination to where it goes, and from an inner source to
//! whose it is.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// What the longest matching prefix says of an address.
pub(crate) struct Prefixes<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T: Copy> Prefixes<T> {
    /// Of two equal prefixes the later one counts.
    pub(crate) fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut table = Self::default();
        for (prefix, value) in entries {
            table.insert(prefix, value);
        }
        table
    }

    /// Adds a prefix, or changes what it says.
    pub(crate) fn insert(&mut self, prefix: IpNet, value: T) {
        match prefix {
            IpNet::V4(net) => self.v4.insert(net.trunc(), value),
            IpNet::V6(net) => self.v6.insert(net.trunc(), value),
        };
    }

    pub(crate) fn lookup(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, value)| *value),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, value)| *value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_trie_agrees_with_a_scan_of_all_routes(
            routes in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..40),
            probes in proptest::collection::vec(any::<u32>(), 1..40),
        ) {
            let routes: Vec<(IpNet, usize)> = routes
                .iter()
                .enumerate()
                .map(|(i, (address, length))| {
                    // Few distinct first octets, so that prefixes nest.
                    let net = Ipv4Net::new((address & 0x03ff_ffff).into(), *length).unwrap();
                    (IpNet::V4(net.trunc()), i)
                })
                .collect();
            let table = Prefixes::new(routes.iter().copied());
            let known = routes.iter().map(|(prefix, _)| prefix.network());
            for address in probes.iter().map(|p| IpAddr::from((p & 0x03ff_ffff).to_be_bytes())).chain(known) {
                let longest = routes
                    .iter()
                    .enumerate()
                    .filter(|(_, (prefix, _))| prefix.contains(&address))
                    .max_by_key(|(i, (prefix, _))| (prefix.prefix_len(), *i));
                prop_assert_eq!(table.lookup(address), longest.map(|(i, _)| i));
            }
        }
    }
}
