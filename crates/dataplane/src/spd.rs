//! The route table: longest-prefix match from an inner destination to a tunnel.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::{Route, RouteTarget};

#[derive(Default)]
pub(crate) struct Spd {
    v4: PrefixMap<Ipv4Net, RouteTarget>,
    v6: PrefixMap<Ipv6Net, RouteTarget>,
}

impl Spd {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut spd = Self::default();
        for route in routes {
            match route.prefix {
                IpNet::V4(net) => spd.v4.insert(net.trunc(), route.target),
                IpNet::V6(net) => spd.v6.insert(net.trunc(), route.target),
            };
        }
        spd
    }

    pub(crate) fn lookup(&self, destination: IpAddr) -> Option<RouteTarget> {
        match destination {
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, target)| *target),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, target)| *target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sa::TunnelId;

    proptest! {
        #[test]
        fn the_trie_agrees_with_a_scan_of_all_routes(
            routes in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..40),
            probes in proptest::collection::vec(any::<u32>(), 1..40),
        ) {
            let routes: Vec<Route> = routes
                .iter()
                .enumerate()
                .map(|(i, (address, length))| Route {
                    // Few distinct first octets, so that prefixes nest.
                    prefix: IpNet::V4(Ipv4Net::new((address & 0x03ff_ffff).into(), *length).unwrap().trunc()),
                    target: RouteTarget::Tunnel(TunnelId(u32::try_from(i).unwrap())),
                })
                .collect();
            let spd = Spd::new(&routes);
            let known = routes.iter().map(|r| r.prefix.network());
            for address in probes.iter().map(|p| IpAddr::from((p & 0x03ff_ffff).to_be_bytes())).chain(known) {
                let longest = routes
                    .iter()
                    .enumerate()
                    .filter(|(_, r)| r.prefix.contains(&address))
                    .max_by_key(|(i, r)| (r.prefix.prefix_len(), *i));
                prop_assert_eq!(spd.lookup(address), longest.map(|(_, r)| r.target));
            }
        }
    }
}
