//! Hosts and the links between them.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::relay::{Impairment, Relay};
use std::net::IpAddr;
use std::sync::Arc;

/// One end of a link: a host and the name that its interface gets there.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Host,
    /// The interface, at most 15 characters.
    pub interface: &'a str,
}

/// An end of a link.
pub fn end<'a>(host: &'a Host, interface: &'a str) -> End<'a> {
    End { host, interface }
}

/// Named hosts and the relays between them. Dropping it removes everything.
#[derive(Debug, Default)]
pub struct Network {
    relays: Vec<Relay>,
    hosts: Vec<Arc<Host>>,
}

impl Network {
    /// A network without hosts.
    pub fn new() -> Network {
        Network::default()
    }

    /// Adds a host without interfaces.
    pub fn add_host(&mut self, name: &str) -> Result<Arc<Host>> {
        if self.host(name).is_some() {
            return Err(LabError::Unexpected(format!("two hosts are named {name}")));
        }
        let host = Arc::new(Host::new(name)?);
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Adds a host that forwards packets between its interfaces.
    pub fn add_router(&mut self, name: &str) -> Result<Arc<Host>> {
        let host = self.add_host(name)?;
        forward(&host)?;
        Ok(host)
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// All hosts in the order in which they were added.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Links two hosts by a veth pair, which costs next to nothing and loses nothing.
    pub fn connect(&self, left: End<'_>, right: End<'_>, mtu: u16) -> Result<()> {
        quiet(left.host)?;
        quiet(right.host)?;
        left.host.ip(&format!(
            "link add {} mtu {mtu} type veth peer name {} mtu {mtu} netns {}\nlink set {} up",
            left.interface,
            right.interface,
            right.host.netns_path().display(),
            left.interface,
        ))?;
        right.host.ip(&format!("link set {} up", right.interface))
    }

    /// Links two hosts by a relay of the lab that loses, delays, repeats and reorders frames.
    pub fn connect_impaired(
        &mut self,
        left: End<'_>,
        right: End<'_>,
        mtu: u16,
        impairment: &Impairment,
        seed: u64,
    ) -> Result<()> {
        quiet(left.host)?;
        quiet(right.host)?;
        self.relays.push(Relay::start(left, right, mtu, impairment, seed)?);
        Ok(())
    }

    /// The relays, in the order of [`Network::connect_impaired`].
    pub fn relays(&self) -> &[Relay] {
        &self.relays
    }
}

/// Gives an interface an address with its prefix length: `192.0.2.1/24`, `2001:db8::1/64`.
pub fn address(at: End<'_>, address: impl std::fmt::Display) -> Result<()> {
    let address = address.to_string();
    // Nobody else is on the link: a wait for duplicate address detection only delays the lab.
    let nodad = if address.contains(':') { " nodad" } else { "" };
    at.host.ip(&format!("address add {address} dev {}{nodad}", at.interface))
}

/// Routes a prefix (or `default`) by a next hop.
pub fn route(host: &Host, prefix: impl std::fmt::Display, via: IpAddr) -> Result<()> {
    let family = if via.is_ipv6() { "-6" } else { "-4" };
    host.command(crate::process::Program::new("ip").args([
        family,
        "route",
        "replace",
        &prefix.to_string(),
        "via",
        &via.to_string(),
    ]))
    .map(drop)
}

/// Joins interfaces of a host to one Ethernet segment under a new interface.
pub fn bridge(host: &Host, name: &str, ports: &[String]) -> Result<()> {
    let ports: String =
        ports.iter().map(|port| format!("\nlink set {port} master {name}")).collect();
    host.ip(&format!("link add {name} type bridge forward_delay 0\nlink set {name} up{ports}"))
}

/// Lets a host forward IPv4 and IPv6 and takes packets whatever way they come.
pub fn forward(host: &Host) -> Result<()> {
    host.sysctl("net/ipv4/ip_forward", "1")?;
    host.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    host.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// Interfaces that come later need no duplicate address detection and no router advertisements.
fn quiet(host: &Host) -> Result<()> {
    host.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    host.sysctl("net/ipv6/conf/default/dad_transmits", "0")?;
    host.sysctl("net/ipv6/conf/default/accept_ra", "0")?;
    host.sysctl("net/ipv6/conf/default/router_solicitations", "0")
}
