//! The configuration files of the two daemons for a scenario.

use crate::layout::Layout;
use crate::random::SplitMix;
use crate::scenario::{Scenario, Site, SiteKind, SiteNat};
use crate::wireguard::{Owner, keys};
use ipnet::IpNet;
use std::net::SocketAddr;
use toml::{Table, Value};

/// Where each daemon finds its configuration: in the private `/run` of its host.
pub const FOLDER: &str = "/run/lab";

/// A file to write.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// What it holds.
    pub text: String,
    /// Whether only its owner may read it.
    pub secret: bool,
}

/// The name of the connection of a site.
pub fn connection_name(site: &Site) -> String {
    format!("vpn-{}", site.name.get_ref())
}

/// The pre-shared key of a tunnel. It protects nothing but the lab's own traffic.
fn pre_shared_key(scenario: &Scenario, site: usize, tunnel: usize) -> String {
    let mut random = SplitMix::new(scenario.seed ^ ((site as u64) << 8 | tunnel as u64) << 40);
    // AWS's rules: 8 to 64 letters, digits, dots and underscores, and no leading zero.
    (0..3).fold("lab.".to_owned(), |key, _| format!("{key}{:016x}", random.next_u64()))
}

fn identity(site: &Site) -> String {
    format!("{}.example", site.name.get_ref())
}

fn strings(items: impl IntoIterator<Item = impl ToString>) -> Value {
    Value::Array(items.into_iter().map(|item| Value::String(item.to_string())).collect())
}

fn cidrs(specs: &[toml::Spanned<IpNet>]) -> Value {
    strings(specs.iter().map(toml::Spanned::get_ref))
}

fn table(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The files of the VGW: `vgw.toml` and a key for each tunnel.
pub fn vgw(scenario: &Scenario, layout: &Layout) -> Vec<File> {
    let mut gateway = table([
        ("id", "vgw-lab".into()),
        ("vpc_cidrs", cidrs(&scenario.vpc.cidrs)),
        ("listen", strings(layout.vgw)),
        ("link_mtu", i64::from(smallest_mtu(scenario)).into()),
    ]);
    gateway.extend(scenario.vpc.gateway.clone());
    let (mut customers, mut connections, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers = Vec::new();
    for (index, site) in scenario.sites.iter().enumerate() {
        if site.kind == SiteKind::Wireguard {
            let (mut peer, keys) = keys(scenario.seed, Owner::Vgw, Owner::Site(index));
            files.extend(keys);
            peer.insert("id".into(), connection_name(site).into());
            peer.insert("static_routes".into(), cidrs(&site.cidrs));
            peer.extend(site.connection.clone());
            peers.push(Value::Table(peer));
            continue;
        }
        let id = format!("cgw-{}", site.name.get_ref());
        let mut customer = table([("id", id.clone().into())]);
        match site.nat {
            // The address decides, and is the identity too.
            SiteNat::None => {
                customer.insert("ip_address".into(), layout.sites[index].public.to_string().into())
            }
            // Behind a NAT only the identity tells sites apart.
            SiteNat::Source => customer.insert("identity".into(), identity(site).into()),
        };
        customers.push(Value::Table(customer));
        let mut connection = connection(scenario, site);
        connection.insert("customer_gateway".into(), id.into());
        connection.insert("static_routes".into(), cidrs(&site.cidrs));
        let tunnels = (0..2).map(|tunnel| {
            let mut table = tunnel_table(scenario, layout, index, tunnel);
            table.insert("outside_address".into(), layout.vgw[tunnel].to_string().into());
            if layout.vgw != layout.outside {
                // The agent knows the gateway by its public address.
                table.insert("identity".into(), layout.outside[tunnel].to_string().into());
            }
            files.push(key_file(scenario, index, tunnel));
            Value::Table(table)
        });
        connection.insert("tunnel".into(), Value::Array(tunnels.collect()));
        connections.push(Value::Table(connection));
    }
    let mut whole = table([
        ("vpn_gateway", Value::Table(gateway)),
        ("customer_gateway", Value::Array(customers)),
        ("vpn_connection", Value::Array(connections)),
        ("wireguard_connection", Value::Array(peers)),
    ]);
    files.insert(0, config_file("vgw.toml", &mut whole));
    files
}

/// The files of a site's agent: `cgw-agent.toml` and a key for each tunnel.
pub fn agent(scenario: &Scenario, layout: &Layout, index: usize) -> Vec<File> {
    let site = &scenario.sites[index];
    let mut gateway = table([
        ("id", format!("cgw-{}", site.name.get_ref()).into()),
        ("onprem_cidrs", cidrs(&site.cidrs)),
        ("listen", strings([layout.sites[index].cgw])),
        ("link_mtu", i64::from(scenario.path_mtu(site)).into()),
    ]);
    if site.nat == SiteNat::Source && site.kind == SiteKind::Ipsec {
        gateway.insert("identity".into(), identity(site).into());
    }
    gateway.extend(site.gateway.clone());
    if site.kind == SiteKind::Wireguard {
        return wireguard_agent(scenario, layout, index, gateway);
    }
    let mut connection = connection(scenario, site);
    connection.insert("vpc_cidrs".into(), behind_vgw(scenario, index));
    let mut files = Vec::new();
    let tunnels = (0..2).map(|tunnel| {
        let mut table = tunnel_table(scenario, layout, index, tunnel);
        table.insert("outside_address".into(), layout.outside[tunnel].to_string().into());
        files.push(key_file(scenario, index, tunnel));
        Value::Table(table)
    });
    connection.insert("tunnel".into(), Value::Array(tunnels.collect()));
    let mut whole = table([
        ("customer_gateway", Value::Table(gateway)),
        ("vpn_connection", Value::Array(vec![Value::Table(connection)])),
    ]);
    files.insert(0, config_file("cgw-agent.toml", &mut whole));
    files
}

/// The files of a site that speaks WireGuard.
fn wireguard_agent(
    scenario: &Scenario,
    layout: &Layout,
    index: usize,
    gateway: Table,
) -> Vec<File> {
    let site = &scenario.sites[index];
    let (mut peer, mut files) = keys(scenario.seed, Owner::Site(index), Owner::Vgw);
    peer.extend(table([
        ("id", connection_name(site).into()),
        ("endpoint", SocketAddr::new(layout.outside[0], 4500).to_string().into()),
        ("persistent_keepalive", 25.into()),
        ("vpc_cidrs", behind_vgw(scenario, index)),
    ]));
    peer.extend(site.connection.clone());
    let mut whole = table([
        ("customer_gateway", Value::Table(gateway)),
        ("wireguard_connection", Value::Array(vec![Value::Table(peer)])),
    ]);
    files.insert(0, config_file("cgw-agent.toml", &mut whole));
    files
}

/// What a site reaches through the VGW: the VPC, and with a hub all other sites.
fn behind_vgw(scenario: &Scenario, index: usize) -> Value {
    let sites = scenario.sites.iter().enumerate();
    let others = sites.filter(|(other, _)| scenario.vpc.hub && *other != index);
    let cidrs = others.flat_map(|(_, site)| &site.cidrs);
    strings(scenario.vpc.cidrs.iter().chain(cidrs).map(toml::Spanned::get_ref))
}

/// What both sides say about a connection.
fn connection(scenario: &Scenario, site: &Site) -> Table {
    let mut connection = table([("id", connection_name(site).into())]);
    if has_ipv6(scenario, site) {
        connection.insert("local_ipv6_network_cidr".into(), "::/0".into());
        connection.insert("remote_ipv6_network_cidr".into(), "::/0".into());
    }
    connection.extend(site.connection.clone());
    connection
}

/// What both sides say about a tunnel.
fn tunnel_table(scenario: &Scenario, layout: &Layout, site: usize, tunnel: usize) -> Table {
    let inside = layout.sites[site].tunnels[tunnel];
    let spec = &scenario.sites[site];
    let mut table = table([
        ("tunnel_inside_cidr", inside.ipv4.to_string().into()),
        ("pre_shared_key_file", key_path(site, tunnel).into()),
    ]);
    if has_ipv6(scenario, spec) {
        table.insert("tunnel_inside_ipv6_cidr".into(), inside.ipv6.to_string().into());
    }
    table.extend(spec.tunnel.clone());
    table
}

fn has_ipv6(scenario: &Scenario, site: &Site) -> bool {
    scenario.vpc.cidrs.iter().chain(&site.cidrs).any(|cidr| cidr.get_ref().addr().is_ipv6())
}

fn smallest_mtu(scenario: &Scenario) -> u16 {
    let internet = *scenario.internet.mtu.get_ref();
    scenario.sites.iter().map(|site| scenario.path_mtu(site)).min().unwrap_or(internet)
}

fn key_path(site: usize, tunnel: usize) -> String {
    format!("psk-{}-{}", site + 1, tunnel + 1)
}

fn key_file(scenario: &Scenario, site: usize, tunnel: usize) -> File {
    File {
        path: format!("{FOLDER}/{}", key_path(site, tunnel)),
        text: pre_shared_key(scenario, site, tunnel) + "\n",
        secret: true,
    }
}

fn config_file(name: &str, whole: &mut Table) -> File {
    File { path: format!("{FOLDER}/{name}"), text: whole.to_string(), secret: false }
}
