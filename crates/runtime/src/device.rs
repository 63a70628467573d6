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
        let mut device = Self {
            tun,
            link,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            own_networks: Vec::new(),
            mtu: SMALLEST_MTU_V6,
        };
        device.set_own_networks(&config.own_cidrs);
        // While the device is up, Linux walks all routes of the device for each IPv4 address that
        // is added: of 10,000 connections it made three quarters of a minute.
        let v4 = addresses(interface).filter(|net| net.addr().is_ipv4()).collect();
        device.add_addresses(&v4).await?;
        device.link.set_up().await?;
        device.configure(interface).await?;
        Ok(device)
    }

    /// The networks on our side, from which routes take their source addresses.
    pub(crate) fn set_own_networks(&mut self, networks: &[IpNet]) {
        self.own_networks = networks.to_vec();
    }

    /// Makes addresses and routes what `interface` says, touching only what differs.
    pub(crate) async fn configure(&mut self, interface: &Interface) -> Result<(), NetlinkError> {
        let addresses: BTreeSet<IpNet> = addresses(interface).collect();
        let routes: BTreeSet<IpNet> = interface.routes.iter().map(IpNet::trunc).collect();
        let gone: Vec<IpNet> = self.routes.difference(&routes).copied().collect();
        let results = self.link.remove_routes(&gone).await;
        note(&mut self.routes, &gone, results, false)?;
        let gone: Vec<IpNet> = self.addresses.difference(&addresses).copied().collect();
        let results = self.link.remove_addresses(&gone).await;
        note(&mut self.addresses, &gone, results, false)?;
        self.add_addresses(&addresses).await?;
        let new: Vec<IpNet> = routes.difference(&self.routes).copied().collect();
        let results = self.add_routes(&new).await;
        note(&mut self.routes, &new, results, true)
    }

    async fn add_addresses(&mut self, wanted: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
        let new: Vec<IpNet> = wanted.difference(&self.addresses).copied().collect();
        let results = self.link.add_addresses(&new).await;
        note(&mut self.addresses, &new, results, true)
    }

    /// What this host sends itself through the tunnel should come from its own network, because
    /// that is what the other side routes back and what selectors may demand.
    async fn add_routes(&self, nets: &[IpNet]) -> Vec<Result<(), NetlinkError>> {
        // Asked once: the answer lists every address of the host, and each tunnel has one.
        let [v4, v6] = [true, false].map(|v4| own_address(&self.own_networks, v4));
        let source = |net: &IpNet| if net.addr().is_ipv4() { v4 } else { v6 };
        let routes: Vec<_> = nets.iter().map(|net| (*net, source(net))).collect();
        debug!(?routes, "routes");
        let mut results = self.link.add_routes(&routes).await;
        for (result, (net, source)) in results.iter_mut().zip(routes) {
            let again = |error: &NetlinkError| source.is_some() && !error.already_exists();
            if result.as_ref().is_err_and(again) {
                // An address may go while we look; the route is worth more than its source.
                *result = self.link.add_route(net, None).await;
            }
        }
        results
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
        let routes: Vec<IpNet> = std::mem::take(&mut self.routes).into_iter().collect();
        for error in self.link.remove_routes(&routes).await.into_iter().filter_map(Result::err) {
            warn!("{error}");
        }
    }
}

fn addresses(interface: &Interface) -> impl Iterator<Item = IpNet> {
    interface.addresses.iter().filter_map(|(ip, len)| IpNet::new(*ip, *len).ok())
}

/// Keeps in mind what was added or removed; the first failure is returned.
fn note(
    present: &mut BTreeSet<IpNet>,
    nets: &[IpNet],
    results: Vec<Result<(), NetlinkError>>,
    added: bool,
) -> Result<(), NetlinkError> {
    let mut failure = Ok(());
    for (net, result) in nets.iter().zip(results) {
        match result {
            Ok(()) if added => drop(present.insert(*net)),
            Ok(()) => drop(present.remove(net)),
            Err(error) => failure = failure.and(Err(error)),
        }
    }
    failure
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
