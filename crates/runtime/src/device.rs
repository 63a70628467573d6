//! The TUN device in the system: addresses, routes, MTU, and how they change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::Interface;
use control::config::{self, Config};
use ipnet::IpNet;
use netio::netlink::{Link, NetlinkError};
use netio::tun::{Tun, TunMode};
use tracing::{debug, warn};

use crate::RunError;

/// Packets of the transmit queue: the kernel's 500 drop at a burst.
const QUEUE: u32 = 5000;
/// The smallest MTU with IPv6 (RFC 8200 5), and the MTU until a tunnel is up.
const SMALLEST_MTU_V6: u16 = 1280;

/// The open device with everything that hangs on it. All of it goes away with the device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) tun: Tun,
    link: Link,
    addresses: BTreeSet<IpNet>,
    routes: BTreeSet<IpNet>,
    own_networks: Vec<IpNet>,
    mtu: u16,
}

impl Device {
    /// Creates the device and brings it up with its addresses and routes.
    pub(crate) async fn open(config: &Config, interface: &Interface) -> Result<Self, RunError> {
        let mode = match config.tun_mode {
            config::TunMode::Auto => TunMode::Auto,
            config::TunMode::Offload => TunMode::Offload,
            config::TunMode::Plain => TunMode::Plain,
        };
        let tun = Tun::open(&config.tun_name, mode)?;
        let link = Link::find(tun.name())?;
        link.set_queue(QUEUE).await?;
        link.set_mtu(SMALLEST_MTU_V6).await?;
        link.set_up().await?;
        let mut device = Self {
            tun,
            link,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            own_networks: Vec::new(),
            mtu: SMALLEST_MTU_V6,
        };
        device.set_own_networks(&config.own_cidrs);
        device.configure(interface).await?;
        Ok(device)
    }

    /// The networks on our side, from which routes take their source addresses.
    pub(crate) fn set_own_networks(&mut self, networks: &[IpNet]) {
        self.own_networks = networks.to_vec();
    }

    /// Makes addresses and routes what `interface` says, touching only what differs.
    pub(crate) async fn configure(&mut self, interface: &Interface) -> Result<(), NetlinkError> {
        let nets = interface.addresses.iter().filter_map(|(ip, len)| IpNet::new(*ip, *len).ok());
        let addresses: BTreeSet<IpNet> = nets.collect();
        let routes: BTreeSet<IpNet> = interface.routes.iter().map(IpNet::trunc).collect();
        for gone in self.routes.difference(&routes) {
            self.link.remove_route(*gone).await?;
        }
        self.routes.retain(|route| routes.contains(route));
        for gone in self.addresses.difference(&addresses) {
            self.link.remove_address(*gone).await?;
        }
        self.addresses.retain(|address| addresses.contains(address));
        for new in addresses {
            if !self.addresses.contains(&new) {
                self.link.add_address(new).await?;
                self.addresses.insert(new);
            }
        }
        for new in routes {
            if !self.routes.contains(&new) {
                self.add_route(new).await?;
                self.routes.insert(new);
            }
        }
        Ok(())
    }

    /// What this host sends itself through the tunnel should come from its own network, because
    /// that is what the other side routes back and what selectors may demand.
    async fn add_route(&self, net: IpNet) -> Result<(), NetlinkError> {
        let source = own_address(&self.own_networks, net.addr().is_ipv4());
        debug!(%net, ?source, "route");
        match self.link.add_route(net, source).await {
            // An address may go while we look; the route is worth more than its source.
            Err(error) if source.is_some() && !error.already_exists() => {
                self.link.add_route(net, None).await
            }
            other => other,
        }
    }

    /// Sets the MTU. With IPv6 on the device it stays at 1280 at least, below which the kernel
    /// takes IPv6 away; the data plane cuts what is still too large.
    pub(crate) async fn set_mtu(&mut self, mtu: u16) {
        let v6 = self.addresses.iter().any(|a| a.addr().is_ipv6());
        let mtu = if v6 { mtu.max(SMALLEST_MTU_V6) } else { mtu };
        if mtu == self.mtu {
            return;
        }
        match self.link.set_mtu(mtu).await {
            Ok(()) => self.mtu = mtu,
            Err(error) => warn!("{error}"),
        }
    }

    /// Removes the routes, so that nothing is sent into a device that is about to go.
    pub(crate) async fn take_down(&mut self) {
        for route in std::mem::take(&mut self.routes) {
            if let Err(error) = self.link.remove_route(route).await {
                warn!("{error}");
            }
        }
    }
}

/// An address of this host in one of `networks`.
pub(crate) fn own_address(networks: &[IpNet], v4: bool) -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let mut addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    });
    addresses.find(|ip| ip.is_ipv4() == v4 && networks.iter().any(|net| net.contains(ip)))
}
