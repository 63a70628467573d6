//! The configuration of both daemons: TOML in, a checked [`Config`] out. Nothing is read here: the
//! caller brings the text, and reads the key files that the configuration names.

mod error;
pub mod key;
mod options;
mod raw;
mod tunnel;
pub mod wg_quick;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike::message::Identity;
use ipnet::IpNet;
use sa::{SelectorSet, TunnelId};
use serde::Deserialize;

pub use error::ConfigError;
pub use options::Options;
pub use wireguard::WireGuardConnection;

use error::Source;
use raw::{AgentFile, Port, S, VgwFile};

/// Which daemon a configuration is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// `vgw`, the cloud side.
    Vgw,
    /// `cgw-agent`, the customer side.
    Agent,
}

impl Role {
    /// The daemon's name, which is also that of its folder in `/run`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vgw => "vgw",
            Self::Agent => "cgw-agent",
        }
    }
}

/// How the TUN device is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunMode {
    /// Offloads if the kernel has them.
    #[default]
    Auto,
    /// Offloads or failure.
    Offload,
    /// One packet a call.
    Plain,
}

/// What happens when a peer is dead (AWS: `DPDTimeoutAction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DpdAction {
    /// The tunnel goes down and waits for the peer.
    #[default]
    Clear,
    /// The peer is never declared dead.
    None,
    /// The tunnel is initiated again.
    Restart,
}

/// Who begins (AWS: `StartupAction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartupAction {
    /// The peer begins.
    Add,
    /// We begin.
    Start,
}

/// Switches for what is merged and cut by the kernel, for networks and kernels that lose merged
/// packets. What is on here may still be given up at run time where it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Offloads {
    /// Opened TCP segments are merged before they are written to the TUN device.
    pub tun_tcp: bool,
    /// Opened UDP datagrams are merged before they are written to the TUN device.
    pub tun_udp: bool,
    /// Several sealed datagrams leave by one send (`UDP_SEGMENT`).
    pub udp_gso: bool,
    /// Several received datagrams come by one receive (`UDP_GRO`).
    pub udp_gro: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { tun_tcp: true, tun_udp: true, udp_gso: true, udp_gro: true }
    }
}

/// A checked configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Whose it is.
    pub role: Role,
    /// Our name in messages and `status`.
    pub id: String,
    /// Addresses to listen on; empty for all.
    pub listen: Vec<IpAddr>,
    /// UDP port without marker; `None` if it is off.
    pub ike_port: Option<u16>,
    /// UDP port with marker and ESP; 0 for any free one.
    pub nat_t_port: u16,
    /// Path of the control socket.
    pub control_socket: String,
    /// Octets that the outer path takes.
    pub link_mtu: u16,
    /// Name of the TUN device.
    pub tun_name: String,
    /// How it is driven.
    pub tun_mode: TunMode,
    /// What may be merged.
    pub offloads: Offloads,
    /// The packet threads run with real-time priority and behind short queues.
    pub low_latency: bool,
    /// The networks on our side.
    pub own_cidrs: Vec<IpNet>,
    /// All IPsec connections, in the file's order.
    pub connections: Vec<Connection>,
    /// All WireGuard connections, in the file's order.
    pub wireguard: Vec<WireGuardConnection>,
}

/// One VPN connection: two tunnels to one customer gateway, or to one VGW.
#[derive(Clone, PartialEq, Debug)]
pub struct Connection {
    /// Its name.
    pub id: String,
    /// The networks on the peer's side, routed into its active tunnel.
    pub routes: Vec<IpNet>,
    /// Its tunnels, 1 and 2.
    pub tunnels: [Tunnel; 2],
}

/// One tunnel, seen from our side.
#[derive(Clone, PartialEq, Debug)]
pub struct Tunnel {
    /// Its number in both planes.
    pub id: TunnelId,
    /// `connection/tunnel N`.
    pub name: String,
    /// Our outside address, if it is fixed.
    pub local: Option<IpAddr>,
    /// The peer's outside address, if it is known.
    pub remote: Option<IpAddr>,
    /// The port that an initiation goes to.
    pub remote_port: u16,
    /// Who we are.
    pub local_id: Identity,
    /// Who the peer is; `None` for anyone who knows the key.
    pub remote_id: Option<Identity>,
    /// The file of the pre-shared key, relative to the configuration's folder.
    pub pre_shared_key_file: String,
    /// Inside IPv4 addresses: ours and the peer's, of a /30.
    pub inside_v4: (Ipv4Addr, Ipv4Addr),
    /// Inside IPv6 addresses: ours and the peer's, of a /126.
    pub inside_v6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// What inner addresses may be on our side.
    pub local_selectors: SelectorSet,
    /// What inner addresses may be on the peer's side.
    pub remote_selectors: SelectorSet,
    /// AWS's tunnel options.
    pub options: Options,
}

impl Config {
    /// All tunnels, each with the place of its connection.
    pub fn tunnels(&self) -> impl Iterator<Item = (usize, &Tunnel)> {
        let connections = self.connections.iter().enumerate();
        connections.flat_map(|(at, connection)| connection.tunnels.iter().map(move |t| (at, t)))
    }

    /// Parses and checks a configuration. `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line, its key and what would be right.
    pub fn parse(role: Role, text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = Source { text, file };
        match role {
            Role::Vgw => Self::vgw(&source, source.deserialize()?),
            Role::Agent => Self::agent(&source, source.deserialize()?),
        }
    }

    fn vgw(source: &Source<'_>, file: VgwFile) -> Result<Self, ConfigError> {
        let gateway = file.vpn_gateway;
        let mut customers = BTreeMap::new();
        for customer in file.customer_gateway {
            let (id, span) = (customer.id.get_ref().clone(), customer.id.span());
            if customers.insert(id.clone(), customer).is_some() {
                return Err(source
                    .error(&span, format!("id = \"{id}\": two customer gateways have this id")));
            }
        }
        let mut connections = Vec::new();
        for connection in file.vpn_connection {
            let name = connection.customer_gateway.get_ref();
            let customer = customers.get(name).ok_or_else(|| {
                let known: Vec<&str> = customers.keys().map(String::as_str).collect();
                let text = format!(
                    "customer_gateway = \"{name}\": no [[customer_gateway]] has this id; there is {}",
                    if known.is_empty() { "none".into() } else { known.join(", ") }
                );
                source.error(&connection.customer_gateway.span(), text)
            })?;
            let remote_id = match (&customer.identity, customer.ip_address) {
                (Some(identity), _) => Some(tunnel::identity(source, identity)?),
                (None, Some(address)) => Some(address.into()),
                (None, None) => None,
            };
            let builder = tunnel::Builder {
                source,
                role: Role::Vgw,
                relaxed: gateway.relaxed_limits,
                connection: connection.id.get_ref(),
                first: u32::try_from(connections.len() * 2).unwrap_or(u32::MAX),
                listen: &[],
                own_identity: None,
                peer: (customer.ip_address, remote_id),
                mobike: connection.mobike.unwrap_or(true),
                selectors: tunnel::selectors(
                    connection.local_ipv4_network_cidr,
                    connection.remote_ipv4_network_cidr,
                    connection.local_ipv6_network_cidr,
                    connection.remote_ipv6_network_cidr,
                    Role::Vgw,
                ),
            };
            let tunnels = builder.both(&connection.id, connection.tunnel)?;
            let routes = plain(connection.static_routes);
            connections.push((connection.id, Connection { id: String::new(), routes, tunnels }));
        }
        let connections = finish(source, connections)?;
        let wireguard = file.wireguard_connection.into_iter();
        let wireguard = wireguard.map(|t| wireguard::vgw(source, t)).collect::<Result<_, _>>()?;
        Ok(Self {
            role: Role::Vgw,
            wireguard: finish_wireguard(source, wireguard, &connections)?,
            ike_port: ike_port(source, gateway.ike_port)?,
            link_mtu: link_mtu(source, gateway.link_mtu)?,
            tun_name: tun_name(source, gateway.tun.name, "vgw0")?,
            id: gateway.id,
            listen: gateway.listen.unwrap_or_default(),
            nat_t_port: gateway.nat_t_port.unwrap_or(4500),
            control_socket: gateway.control_socket.unwrap_or_else(|| "/run/vgw/vgw.sock".into()),
            tun_mode: gateway.tun.mode.unwrap_or_default(),
            offloads: gateway.offloads,
            low_latency: gateway.low_latency,
            own_cidrs: plain(gateway.vpc_cidrs),
            connections,
        })
    }

    fn agent(source: &Source<'_>, file: AgentFile) -> Result<Self, ConfigError> {
        let agent = file.customer_gateway;
        let own = agent.identity.as_ref().map(|i| tunnel::identity(source, i)).transpose()?;
        let mut connections = Vec::new();
        for connection in file.vpn_connection {
            let builder = tunnel::Builder {
                source,
                role: Role::Agent,
                relaxed: agent.relaxed_limits,
                connection: connection.id.get_ref(),
                first: u32::try_from(connections.len() * 2).unwrap_or(u32::MAX),
                listen: agent.listen.as_deref().unwrap_or_default(),
                own_identity: own.clone().or_else(|| {
                    agent.listen.as_ref().and_then(|l| l.first()).map(|a| Identity::from(*a))
                }),
                peer: (None, None),
                mobike: connection.mobike.unwrap_or(true),
                selectors: tunnel::selectors(
                    connection.local_ipv4_network_cidr,
                    connection.remote_ipv4_network_cidr,
                    connection.local_ipv6_network_cidr,
                    connection.remote_ipv6_network_cidr,
                    Role::Agent,
                ),
            };
            let tunnels = builder.both(&connection.id, connection.tunnel)?;
            let routes = plain(connection.vpc_cidrs);
            connections.push((connection.id, Connection { id: String::new(), routes, tunnels }));
        }
        let connections = finish(source, connections)?;
        let wireguard = file.wireguard_connection.into_iter();
        let wireguard = wireguard.map(|t| wireguard::agent(source, t)).collect::<Result<_, _>>()?;
        let default_socket = "/run/cgw-agent/cgw-agent.sock";
        Ok(Self {
            role: Role::Agent,
            wireguard: finish_wireguard(source, wireguard, &connections)?,
            ike_port: ike_port(source, agent.ike_port)?,
            link_mtu: link_mtu(source, agent.link_mtu)?,
            tun_name: tun_name(source, agent.tun.name, "cgw0")?,
            id: agent.id,
            listen: agent.listen.unwrap_or_default(),
            nat_t_port: agent.nat_t_port.unwrap_or(4500),
            control_socket: agent.control_socket.unwrap_or_else(|| default_socket.into()),
            tun_mode: agent.tun.mode.unwrap_or_default(),
            offloads: agent.offloads,
            low_latency: agent.low_latency,
            own_cidrs: plain(agent.onprem_cidrs),
            connections,
        })
    }
}

/// The control socket that a configuration names, or the usual one, whatever else is right or wrong
/// with it: who mends a configuration wants to know how the running daemon stands.
#[must_use]
pub fn control_socket(role: Role, text: &str) -> String {
    let table = match role {
        Role::Vgw => "vpn_gateway",
        Role::Agent => "customer_gateway",
    };
    let named = toml::from_str::<toml::Table>(text).ok().and_then(|file| {
        let socket = file.get(table)?.get("control_socket")?;
        socket.as_str().map(str::to_owned)
    });
    named.unwrap_or_else(|| format!("/run/{0}/{0}.sock", role.name()))
}

fn plain(cidrs: Vec<S<IpNet>>) -> Vec<IpNet> {
    cidrs.into_iter().map(|cidr| cidr.into_inner().trunc()).collect()
}

fn ike_port(source: &Source<'_>, port: Option<S<Port>>) -> Result<Option<u16>, ConfigError> {
    let Some(port) = port else { return Ok(Some(500)) };
    match port.get_ref() {
        Port::Number(number) if *number > 0 => Ok(Some(*number)),
        Port::Word(word) if word == "off" => Ok(None),
        _ => Err(source.error(&port.span(), "ike_port: a port from 1 to 65535, or \"off\"".into())),
    }
}

fn link_mtu(source: &Source<'_>, mtu: Option<S<u16>>) -> Result<u16, ConfigError> {
    let Some(mtu) = mtu else { return Ok(1500) };
    match *mtu.get_ref() {
        octets @ 576..=9216 => Ok(octets),
        octets => {
            Err(source.error(&mtu.span(), format!("link_mtu = {octets}: must be 576 to 9216")))
        }
    }
}

fn tun_name(
    source: &Source<'_>,
    name: Option<S<String>>,
    default: &str,
) -> Result<String, ConfigError> {
    let Some(name) = name else { return Ok(default.into()) };
    let text = name.get_ref();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 15 || !text.chars().all(fine) {
        let error = format!("tun.name = \"{text}\": 1 to 15 letters, digits, `-`, `_` or `.`");
        return Err(source.error(&name.span(), error));
    }
    Ok(text.clone())
}

/// Checks what no connection can know alone: ids and inside addresses are unique, and no prefix
/// belongs to two connections.
fn finish(
    source: &Source<'_>,
    connections: Vec<(S<String>, Connection)>,
) -> Result<Vec<Connection>, ConfigError> {
    // Sets, because there may be thousands.
    let (mut ids, mut prefixes, mut inside) =
        (BTreeSet::new(), BTreeMap::<IpNet, String>::new(), BTreeSet::new());
    let mut out: Vec<Connection> = Vec::new();
    for (id, mut connection) in connections {
        let (name, span) = (id.get_ref().clone(), id.span());
        let refuse = |text: String| Err(source.error(&span, text));
        if !ids.insert(name.clone()) {
            return refuse(format!("id = \"{name}\": two connections have this id"));
        }
        for prefix in &connection.routes {
            match prefixes.insert(*prefix, name.clone()) {
                Some(other) if other != name => {
                    return refuse(format!(
                        "{name}: {prefix} is routed to connection {other} already"
                    ));
                }
                _ => {}
            }
        }
        for (number, tunnel) in (1..).zip(&connection.tunnels) {
            if !inside.insert(tunnel.inside_v4) {
                return refuse(format!(
                    "{name}: tunnel_inside_cidr of tunnel {number} is that of another tunnel"
                ));
            }
        }
        connection.id = name;
        out.push(connection);
    }
    Ok(out)
}

/// WireGuard connections have the numbers behind those of all tunnels.
fn finish_wireguard(
    source: &Source<'_>,
    wireguard: Vec<(S<String>, WireGuardConnection)>,
    connections: &[Connection],
) -> Result<Vec<WireGuardConnection>, ConfigError> {
    let taken: Vec<(&str, &[IpNet])> =
        connections.iter().map(|c| (c.id.as_str(), c.routes.as_slice())).collect();
    let first = u32::try_from(connections.len() * 2).unwrap_or(u32::MAX);
    wireguard::finish(source, wireguard, &taken, first)
}
