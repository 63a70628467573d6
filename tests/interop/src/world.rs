//! Where charon and our daemon stand: `swan` - `router` - `ours`, with an outside address each and
//! the inner hosts' addresses on their loopback interfaces.

use crate::traffic::Inner;
use anyhow::Result;
use lab::nat;
use lab::netns::Host;
use lab::relay::Impairment;
use lab::topology::{Network, address, end, route};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The outside address of charon.
pub const SWAN: &str = "192.0.2.2";
/// Our outside address, and that of our tunnel 2.
pub const OURS: [&str; 2] = ["198.51.100.2", "198.51.100.3"];
/// The same with IPv6.
pub const SWAN_V6: &str = "2001:db8:1::2";
/// The same with IPv6.
pub const OURS_V6: [&str; 2] = ["2001:db8:2::2", "2001:db8:2::3"];
/// The router's addresses at charon's and at our side, which a NAT shows to the other.
pub const ROUTER: [&str; 2] = ["192.0.2.1", "198.51.100.1"];
/// The inner host behind charon.
pub const SWAN_INSIDE: &str = "192.168.1.10";
/// The inner host behind us.
pub const OURS_INSIDE: &str = "10.0.1.10";
/// The inner host behind charon with IPv6.
pub const SWAN_INSIDE_V6: &str = "fd01::10";
/// The inner host behind us with IPv6.
pub const OURS_INSIDE_V6: &str = "fd02::10";

/// The three hosts. Dropping it removes them and ends what runs in them.
#[derive(Debug)]
pub struct World {
    /// charon's.
    pub swan: Arc<Host>,
    /// Between both.
    pub router: Arc<Host>,
    /// Ours.
    pub ours: Arc<Host>,
    /// What holds them together.
    pub network: Network,
}

impl World {
    /// Three hosts in a line, IPv4 and IPv6 outside and inside.
    pub fn new() -> Result<World> {
        World::with(1500, Duration::ZERO)
    }

    /// The same with a line between the router and us on which a frame is under way so long.
    pub fn with_delay(delay: Duration) -> Result<World> {
        World::with(1500, delay)
    }

    /// The same with another MTU outside.
    pub fn with(mtu: u16, delay: Duration) -> Result<World> {
        let mut network = Network::new();
        let swan = network.add_host("swan")?;
        let router = network.add_router("router")?;
        let ours = network.add_host("ours")?;
        network.connect(end(&swan, "wan"), end(&router, "west"), mtu)?;
        let (east, wan) = (end(&router, "east"), end(&ours, "wan"));
        if delay.is_zero() {
            network.connect(east, wan, mtu)?;
        } else {
            let line = Impairment { delay, ..Impairment::default() };
            network.connect_impaired(east, wan, mtu, &line, 1)?;
        }
        address(end(&router, "west"), format!("{}/24", ROUTER[0]))?;
        address(end(&router, "east"), format!("{}/24", ROUTER[1]))?;
        address(end(&router, "west"), "2001:db8:1::1/64")?;
        address(end(&router, "east"), "2001:db8:2::1/64")?;
        address(end(&swan, "wan"), format!("{SWAN}/24"))?;
        address(end(&swan, "wan"), format!("{SWAN_V6}/64"))?;
        for (v4, v6) in OURS.into_iter().zip(OURS_V6) {
            address(end(&ours, "wan"), format!("{v4}/24"))?;
            address(end(&ours, "wan"), format!("{v6}/64"))?;
        }
        for (host, inner) in
            [(&swan, [SWAN_INSIDE, SWAN_INSIDE_V6]), (&ours, [OURS_INSIDE, OURS_INSIDE_V6])]
        {
            for inner in inner {
                address(end(host, "lo"), inner)?;
            }
            host.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
            host.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        }
        route(&swan, "default", ip(ROUTER[0]))?;
        route(&swan, "default", ip("2001:db8:1::1"))?;
        route(&ours, "default", ip(ROUTER[1]))?;
        route(&ours, "default", ip("2001:db8:2::1"))?;
        Ok(World { swan, router, ours, network })
    }

    /// The inner host behind charon.
    pub fn swan_inner<'a>(&'a self, address: &str) -> Inner<'a> {
        Inner { host: &self.swan, address: ip(address) }
    }

    /// The inner host behind us.
    pub fn our_inner<'a>(&'a self, address: &str) -> Inner<'a> {
        Inner { host: &self.ours, address: ip(address) }
    }

    /// Puts our daemon behind a NAT: charon sees the router's address.
    pub fn nat_before_ours(&self) -> Result<()> {
        Ok(nat::masquerade(end(&self.router, "west"), ip(OURS[0]))?)
    }

    /// Puts charon behind a NAT: we see the router's address.
    pub fn nat_before_swan(&self) -> Result<()> {
        Ok(nat::masquerade(end(&self.router, "east"), ip(SWAN))?)
    }

    /// The NAT before us, or before charon, restarts and forgets its translations.
    pub fn forget_nat(&self, ours: bool) -> Result<()> {
        let interface = if ours { "west" } else { "east" };
        Ok(nat::forget(end(&self.router, interface), ip(if ours { SWAN } else { OURS[0] }))?)
    }
}

/// An address that is written in the source.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
