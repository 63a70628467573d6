//! Which address everything in a scenario has. Nothing here touches the operating system.

use crate::scenario::{Family, Scenario, SiteNat, VpcNat};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Prefixes that the lab gives out itself, and that no site may use: documentation (RFC 5737,
/// RFC 3849), benchmarking (RFC 2544, RFC 5180), shared (RFC 6598) and link-local space, and the
/// private networks behind the NATs and inside the tunnels.
pub const RESERVED: [&str; 11] = [
    "203.0.113.0/24",
    "198.51.100.0/24",
    "198.18.0.0/15",
    "100.64.0.0/16",
    "172.31.255.0/24",
    "169.254.0.0/16",
    "2001:db8::/32",
    "2001:2::/48",
    "fd00::/48",
    "fd64::/16",
    "fd65::/16",
];

/// The prefixes of the second addresses of all hosts, which are routed without any tunnel.
pub const PLAIN: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];

/// Addresses of all of a scenario.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The cloud side.
    pub vpc: Place,
    /// The two outside addresses of the VGW as the internet knows them.
    pub outside: [IpAddr; 2],
    /// The two addresses that the VGW itself has: the same ones, or private ones.
    pub vgw: [IpAddr; 2],
    /// The sites.
    pub sites: Vec<SiteLayout>,
}

/// Addresses of a site.
#[derive(Clone, Debug)]
pub struct SiteLayout {
    /// Its network.
    pub place: Place,
    /// Its address as the internet knows it.
    pub public: IpAddr,
    /// The address that the customer gateway itself has.
    pub cgw: IpAddr,
    /// Its two tunnels.
    pub tunnels: [Inside; 2],
}

/// The inside addresses of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// A /30.
    pub ipv4: IpNet,
    /// A /126.
    pub ipv6: IpNet,
}

/// A network behind a gateway, and the gateway's way out.
#[derive(Clone, Debug)]
pub struct Place {
    /// The gateway's addresses in the hosts' network, with prefix lengths: one of each family
    /// that the hosts have, and the one for plain routing.
    pub gateway: Vec<IpNet>,
    /// The hosts.
    pub hosts: Vec<HostLayout>,
    /// The network for plain routing.
    pub plain: IpNet,
    /// The network between the internet and this place; the internet has its first address.
    pub line: IpNet,
    /// The network between the NAT and the gateway; the NAT has its first address.
    pub behind_nat: Option<IpNet>,
}

impl Place {
    /// Where the gateway sends what leaves the place.
    pub fn next_hop(&self) -> IpAddr {
        nth(&self.behind_nat.unwrap_or(self.line), 1)
    }
}

/// Addresses of a host.
#[derive(Clone, Debug)]
pub struct HostLayout {
    /// Its name at its place.
    pub name: String,
    /// As the scenario says.
    pub addresses: Vec<IpNet>,
    /// Its second address, which is routed without any tunnel.
    pub plain: IpNet,
}

/// Address number `n` of a network, from its network address.
pub fn nth(net: &IpNet, n: u32) -> IpAddr {
    match net.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(n)).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(n.into())).into(),
    }
}

/// The same with the prefix length of the network.
pub fn nth_net(net: &IpNet, n: u32) -> IpNet {
    IpNet::new(nth(net, n), net.prefix_len()).unwrap_or(*net)
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::new_assert(Ipv4Addr::new(a, b, c, d).into(), length)
}

fn v6(segments: [u16; 4], length: u8) -> IpNet {
    let [a, b, c, d] = segments;
    IpNet::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), length)
}

impl Layout {
    /// The addresses of a scenario that was checked.
    pub fn new(scenario: &Scenario) -> Layout {
        let family = scenario.internet.family;
        let pick = |ipv4, ipv6| if family == Family::Ipv4 { ipv4 } else { ipv6 };
        let line = pick(v4(198, 51, 100, 0, 24), v6([0x2001, 0xdb8, 1, 0], 64));
        let behind_nat = (scenario.vpc.nat == VpcNat::Forward)
            .then(|| pick(v4(172, 31, 255, 0, 24), v6([0xfd65, 0, 0, 0], 64)));
        let plain = pick(v4(198, 19, 0, 0, 24), v6([0x2001, 2, 0, 0xffff], 64));
        let own = behind_nat.unwrap_or(line);
        let hosts = |specs: &[crate::scenario::HostSpec], plain: &IpNet| -> Vec<HostLayout> {
            let host = |(index, spec): (u32, &crate::scenario::HostSpec)| HostLayout {
                name: spec.name.get_ref().clone(),
                addresses: spec.addresses.iter().map(|address| *address.get_ref()).collect(),
                plain: nth_net(plain, 10 + index),
            };
            (0..).zip(specs).map(host).collect()
        };
        let place = |specs: &[crate::scenario::HostSpec], plain, line, behind_nat| {
            let hosts = hosts(specs, &plain);
            Place { gateway: gateways(&hosts, &plain), hosts, plain, line, behind_nat }
        };
        let sites = (0u8..).zip(&scenario.sites).map(|(index, site)| {
            let number = u16::from(index);
            let line =
                pick(v4(203, 0, 113, index * 8, 29), v6([0x2001, 0xdb8, 0x100 + number, 0], 64));
            let behind_nat = (site.nat == SiteNat::Source)
                .then(|| pick(v4(100, 64, index, 0, 24), v6([0xfd64, 0, 0, number], 64)));
            let plain = pick(v4(198, 18, index, 0, 24), v6([0x2001, 2, 0, number], 64));
            let inside = |tunnel: u8| Inside {
                ipv4: v4(169, 254, 10 + index, tunnel * 4, 30),
                ipv6: IpNet::new_assert(
                    nth(&v6([0xfd00, 0, 0, number], 64), u32::from(tunnel) * 4),
                    126,
                ),
            };
            SiteLayout {
                public: nth(&line, 2),
                cgw: nth(&behind_nat.unwrap_or(line), 2),
                place: place(&site.hosts, plain, line, behind_nat),
                tunnels: [inside(0), inside(1)],
            }
        });
        Layout {
            outside: [nth(&line, 10), nth(&line, 11)],
            vgw: [nth(&own, 10), nth(&own, 11)],
            sites: sites.collect(),
            vpc: place(&scenario.vpc.hosts, plain, line, behind_nat),
        }
    }
}

/// The gateway has the first address of each network that its hosts are in.
fn gateways(hosts: &[HostLayout], plain: &IpNet) -> Vec<IpNet> {
    let mut gateways = vec![nth_net(plain, 1)];
    for address in hosts.iter().flat_map(|host| &host.addresses) {
        let gateway = nth_net(address, 1);
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    gateways
}
