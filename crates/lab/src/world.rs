//! A scenario's hosts, links, addresses, routes and NATs, built. No VPN yet: only the second
//! addresses of the hosts reach each other, by plain routing.

use crate::error::Result;
use crate::layout::{Layout, Place, nth, nth_net};
use crate::nat;
use crate::netns::Host;
use crate::relay::Impairment;
use crate::scenario::Scenario;
use crate::topology::{End, Network, address, bridge, end, route};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// MTU inside the sites and the VPC.
const LAN_MTU: u16 = 1500;

/// Ports that a NAT in front of the VGW forwards.
const FORWARDED: [u16; 2] = [500, 4500];

/// The built scenario. Dropping it removes everything.
#[derive(Debug)]
pub struct World {
    /// All hosts and links.
    pub network: Network,
    /// The router in the middle, where a capture sees everything between the sites.
    pub internet: Arc<Host>,
    /// The cloud side.
    pub vpc: BuiltPlace,
    /// The customers' sites, in the scenario's order.
    pub sites: Vec<BuiltPlace>,
}

/// A gateway, the NAT in front of it, and the hosts behind it.
#[derive(Debug)]
pub struct BuiltPlace {
    /// Where `vgw` or `cgw-agent` runs.
    pub gateway: Arc<Host>,
    /// The NAT, if there is one.
    pub nat: Option<Arc<Host>>,
    /// The hosts.
    pub hosts: Vec<Endpoint>,
}

/// A host that traffic starts or ends at.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The host.
    pub host: Arc<Host>,
    /// Its addresses inside of the tunnels' networks.
    pub addresses: Vec<IpAddr>,
    /// Its address for plain routing.
    pub plain: IpAddr,
}

impl Endpoint {
    /// Its address in the family of another.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }
}

impl World {
    /// Builds everything but the VPN.
    pub fn build(scenario: &Scenario, layout: &Layout) -> Result<World> {
        let mut network = Network::new();
        let internet = network.add_router("internet")?;
        let mut builder = Builder { network: &mut network, internet: &internet, scenario, layout };
        let vpc = builder.vpc()?;
        let sites = (0..scenario.sites.len())
            .map(|index| builder.site(index))
            .collect::<Result<Vec<_>>>()?;
        Ok(World { network, internet, vpc, sites })
    }
}

struct Builder<'a> {
    network: &'a mut Network,
    internet: &'a Arc<Host>,
    scenario: &'a Scenario,
    layout: &'a Layout,
}

/// What a place is called, and how it is reached.
struct Outside<'a> {
    gateway: String,
    nat: String,
    /// What the names of its hosts start with.
    hosts: &'a str,
    /// The internet's interface to it.
    port: String,
    /// Addresses of the gateway itself.
    own: &'a [IpAddr],
    /// Addresses that the internet knows.
    public: &'a [IpAddr],
    mtu: u16,
    impairment: Impairment,
    seed: u64,
}

impl Builder<'_> {
    fn vpc(&mut self) -> Result<BuiltPlace> {
        let outside = Outside {
            gateway: "vgw".into(),
            nat: "vgw-nat".into(),
            hosts: "vpc",
            port: "to-vgw".into(),
            own: &self.layout.vgw,
            public: &self.layout.outside,
            mtu: *self.scenario.internet.mtu.get_ref(),
            impairment: Impairment::default(),
            seed: 0,
        };
        let built = self.place(&self.layout.vpc, &outside)?;
        if let Some(nat) = &built.nat {
            for (public, inside) in self.layout.outside.iter().zip(&self.layout.vgw) {
                nat::forward_ports(end(nat, "wan"), *public, *inside, &FORWARDED)?;
            }
        }
        Ok(built)
    }

    fn site(&mut self, index: usize) -> Result<BuiltPlace> {
        let (site, layout) = (&self.scenario.sites[index], &self.layout.sites[index]);
        let name = site.name.get_ref();
        let outside = Outside {
            gateway: format!("{name}-cgw"),
            nat: format!("{name}-nat"),
            hosts: name,
            port: format!("to-{name}"),
            own: &[layout.cgw],
            public: &[layout.public],
            mtu: self.scenario.path_mtu(site),
            impairment: site.line.impairment(),
            seed: self.scenario.seed.wrapping_add(index as u64),
        };
        let built = self.place(&layout.place, &outside)?;
        if let Some(nat) = &built.nat {
            nat::masquerade(end(nat, "wan"), layout.cgw)?;
        }
        Ok(built)
    }

    /// internet -- [NAT --] gateway -- hosts
    fn place(&mut self, place: &Place, outside: &Outside<'_>) -> Result<BuiltPlace> {
        let gateway = self.network.add_router(&outside.gateway)?;
        let nat = match &place.behind_nat {
            Some(net) => {
                let nat = self.network.add_router(&outside.nat)?;
                self.network.connect(
                    end(&gateway, "wan"),
                    end(&nat, "inside"),
                    *self.scenario.internet.mtu.get_ref(),
                )?;
                address(end(&nat, "inside"), nth_net(net, 1))?;
                Some(nat)
            }
            None => None,
        };
        let edge = nat.as_ref().unwrap_or(&gateway);
        self.line(end(edge, "wan"), outside)?;
        let internet = self.internet;
        address(end(internet, &outside.port), nth_net(&place.line, 1))?;
        add_all(end(edge, "wan"), outside.public, &place.line)?;
        route(edge, "default", nth(&place.line, 1))?;
        if let Some(net) = &place.behind_nat {
            add_all(end(&gateway, "wan"), outside.own, net)?;
            route(&gateway, "default", place.next_hop())?;
            route(edge, place.plain, outside.own.first().copied().unwrap_or(nth(net, 2)))?;
        }
        route(
            internet,
            place.plain,
            outside.public.first().copied().unwrap_or(nth(&place.line, 2)),
        )?;
        let hosts = self.hosts(place, outside.hosts, &gateway)?;
        Ok(BuiltPlace { gateway, nat, hosts })
    }

    fn line(&mut self, edge: End<'_>, outside: &Outside<'_>) -> Result<()> {
        let internet = end(self.internet, &outside.port);
        if outside.impairment.is_none() {
            self.network.connect(edge, internet, outside.mtu)
        } else {
            self.network.connect_impaired(
                edge,
                internet,
                outside.mtu,
                &outside.impairment,
                outside.seed,
            )
        }
    }

    fn hosts(&mut self, place: &Place, prefix: &str, gateway: &Arc<Host>) -> Result<Vec<Endpoint>> {
        let single = place.hosts.len() == 1;
        let mut ports = Vec::new();
        let mut endpoints = Vec::new();
        for (index, spec) in place.hosts.iter().enumerate() {
            let host = self.network.add_host(&format!("{prefix}-{}", spec.name))?;
            // One host needs no bridge, and then none costs anything.
            let port = if single { "lan".to_owned() } else { format!("port{index}") };
            self.network.connect(end(&host, "lan"), end(gateway, &port), LAN_MTU)?;
            ports.push(port);
            for own in spec.addresses.iter().chain([&spec.plain]) {
                address(end(&host, "lan"), own)?;
            }
            endpoints.push(Endpoint {
                host,
                addresses: spec.addresses.iter().map(IpNet::addr).collect(),
                plain: spec.plain.addr(),
            });
        }
        if !single {
            bridge(gateway, "lan", &ports)?;
        }
        for own in &place.gateway {
            address(end(gateway, "lan"), own)?;
        }
        for endpoint in &endpoints {
            self.host_routes(place, endpoint)?;
        }
        Ok(endpoints)
    }

    /// The plain network by the gateway's plain address, everything else by its other ones.
    fn host_routes(&self, place: &Place, endpoint: &Endpoint) -> Result<()> {
        let plain = nth(&place.plain, 1);
        for net in crate::layout::PLAIN.iter().filter_map(|net| net.parse::<IpNet>().ok()) {
            if net.contains(&plain) {
                route(&endpoint.host, net, plain)?;
            }
        }
        for gateway in place.gateway.iter().map(IpNet::addr).filter(|gateway| *gateway != plain) {
            if endpoint.address_like(gateway).is_some() {
                route(&endpoint.host, "default", gateway)?;
            }
        }
        Ok(())
    }
}

fn add_all(at: End<'_>, addresses: &[IpAddr], net: &IpNet) -> Result<()> {
    for own in addresses {
        let text = format!("{own}/{}", net.prefix_len());
        address(at, text)?;
    }
    Ok(())
}
