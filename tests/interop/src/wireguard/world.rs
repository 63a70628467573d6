//! A cloud and a site with a router between them, which may translate addresses.

use crate::binaries;
use crate::traffic::Inner;
use crate::wait::{self, LIMIT};
use anyhow::{Context, Result};
use lab::daemon::{Daemon, Kind};
use lab::nat;
use lab::netns::Host;
use lab::process::Program;
use lab::settings::{FOLDER, File};
use lab::stop::Stop;
use lab::topology::{Network, address, end, route};
use std::net::IpAddr;
use std::sync::Arc;

/// The outside of a world.
#[derive(Clone, Copy)]
pub struct Outside {
    /// Its addresses are IPv6.
    pub ipv6: bool,
    /// The router hides the site.
    pub nat: bool,
}

/// The hosts.
pub struct World {
    /// Where the VGW is.
    pub cloud: Arc<Host>,
    /// Between both.
    pub router: Arc<Host>,
    /// Where the customer gateway is.
    pub site: Arc<Host>,
    /// As it was asked for.
    pub outside: Outside,
    _network: Network,
}

/// Inner addresses of each side, IPv4 and IPv6.
const CLOUD: [&str; 2] = ["10.0.1.1", "fd10::1"];
const SITE: [&str; 2] = ["192.168.1.1", "fd20::1"];
/// The cloud's networks.
pub const CLOUD_NETS: [&str; 2] = ["10.0.0.0/16", "fd10::/16"];
/// The site's networks.
pub const SITE_NETS: [&str; 2] = ["192.168.0.0/16", "fd20::/16"];

impl World {
    /// Three hosts, their links and addresses.
    pub fn new(outside: Outside) -> Result<World> {
        let mut network = Network::new();
        let cloud = network.add_host("cloud")?;
        let router = network.add_router("router")?;
        let site = network.add_host("site")?;
        network.connect(end(&cloud, "wan"), end(&router, "cloud"), 1500)?;
        network.connect(end(&site, "wan"), end(&router, "site"), 1500)?;
        let world = World { cloud, router, site, outside, _network: network };
        let length = if outside.ipv6 { 64 } else { 24 };
        for (host, side, own) in [(&world.cloud, "cloud", 1), (&world.site, "site", 2)] {
            let [at, hop] = [1, 2].map(|number| world.outer(own, number));
            address(end(host, "wan"), format!("{at}/{length}"))?;
            address(end(&world.router, side), format!("{hop}/{length}"))?;
            route(host, "default", hop)?;
        }
        for (host, inner) in [(&world.cloud, CLOUD), (&world.site, SITE)] {
            address(end(host, "lo"), format!("{}/32", inner[0]))?;
            address(end(host, "lo"), format!("{}/128", inner[1]))?;
        }
        if outside.nat {
            nat::masquerade(end(&world.router, "cloud"), world.site_address())?;
        }
        Ok(world)
    }

    /// Host `number` of outer network 1 (the cloud's) or 2 (the site's).
    fn outer(&self, network: u8, number: u8) -> IpAddr {
        let text = if self.outside.ipv6 {
            format!("2001:db8:{network}::{number}")
        } else {
            format!("198.51.{}.{number}", 99 + network)
        };
        text.parse().unwrap_or(IpAddr::from([0; 4]))
    }

    /// The cloud's outside address.
    pub fn cloud_address(&self) -> IpAddr {
        self.outer(1, 1)
    }

    /// The site's own outside address.
    pub fn site_address(&self) -> IpAddr {
        self.outer(2, 1)
    }

    /// Where the cloud sees the site.
    pub fn site_seen(&self) -> IpAddr {
        if self.outside.nat { self.outer(1, 2) } else { self.site_address() }
    }

    /// Inner addresses of both sides: IPv4 is number 0, IPv6 number 1.
    pub fn inner(&self, family: usize) -> Result<(Inner<'_>, Inner<'_>)> {
        let cloud = Inner { host: &self.cloud, address: CLOUD[family].parse()? };
        Ok((cloud, Inner { host: &self.site, address: SITE[family].parse()? }))
    }

    /// Pings and TCP, both ways and in both families.
    pub fn carries_everything(&self) -> Result<()> {
        for family in [0, 1] {
            let (cloud, site) = self.inner(family)?;
            crate::traffic::both_ways(cloud, site, 4 << 20)?;
        }
        Ok(())
    }
}

/// The keys of a pair.
pub struct Keys {
    /// The cloud's private key.
    pub cloud: String,
    /// The site's private key.
    pub site: String,
    /// The key that both know.
    pub preshared: Option<String>,
}

impl Keys {
    /// New ones, made by our own commands.
    pub fn new(preshared: bool) -> Result<Keys> {
        Ok(Keys {
            cloud: ours(&["genkey"], "")?,
            site: ours(&["genkey"], "")?,
            preshared: preshared.then(|| ours(&["genpsk"], "")).transpose()?,
        })
    }
}

/// Runs a command of ours that needs no configuration.
pub fn ours(words: &[&str], stdin: &str) -> Result<String> {
    let program = Program::new(binaries::folder()?.join("vgw")).args(words);
    run(program, stdin)
}

/// Runs a program to its end, and returns its only line.
pub fn run(program: Program, stdin: &str) -> Result<String> {
    let output = Host::new("tool")?.command(program.stdin(stdin))?;
    Ok(output.stdout.trim().to_owned())
}

/// The public key of a private one.
pub fn public(private: &str) -> Result<String> {
    ours(&["pubkey"], private)
}

fn quoted(nets: [&str; 2]) -> String {
    nets.map(|net| format!("\"{net}\"")).join(", ")
}

/// Our daemon at its side, with `extra` lines for its connection `wg`.
pub fn daemon(world: &World, kind: Kind, keys: &Keys, extra: &str) -> Result<Daemon> {
    let (private, peer, host) = match kind {
        Kind::Vgw => (&keys.cloud, &keys.site, &world.cloud),
        Kind::Agent => (&keys.site, &keys.cloud, &world.site),
    };
    let mut text = match kind {
        Kind::Vgw => format!(
            "[vpn_gateway]\nid = \"vgw\"\nvpc_cidrs = [{}]\n\n[[wireguard_connection]]\nstatic_routes = [{}]\n",
            quoted(CLOUD_NETS),
            quoted(SITE_NETS)
        ),
        Kind::Agent => format!(
            "[customer_gateway]\nid = \"cgw\"\nonprem_cidrs = [{}]\n\n[[wireguard_connection]]\nvpc_cidrs = [{}]\nendpoint = \"{}\"\n",
            quoted(SITE_NETS),
            quoted(CLOUD_NETS),
            std::net::SocketAddr::new(world.cloud_address(), 4500)
        ),
    };
    text += &format!(
        "id = \"wg\"\nprivate_key_file = \"wg.key\"\npeer_public_key = \"{}\"\n{extra}\n",
        public(peer)?
    );
    let secret = |name: &str, text: &str| File {
        path: format!("{FOLDER}/{name}"),
        text: format!("{text}\n"),
        secret: true,
    };
    let mut files = vec![secret("wg.key", private)];
    if let Some(key) = &keys.preshared {
        text += "preshared_key_file = \"wg.psk\"\n";
        files.push(secret("wg.psk", key));
    }
    files.push(File { path: format!("{FOLDER}/{}.toml", kind.name()), text, secret: false });
    let mut daemon = Daemon::new(host, kind, &binaries::folder()?, &files)?;
    daemon.start()?;
    answers(&mut daemon)?;
    Ok(daemon)
}

/// Waits until the daemon's control socket answers.
pub fn answers(daemon: &mut Daemon) -> Result<()> {
    wait::until("our control socket", LIMIT, || {
        daemon.check_running().with_context(|| daemon.last_lines(20).join("\n"))?;
        Ok(daemon.status().map(drop).map_err(|error| error.to_string()))
    })
}

/// Waits until our side says UP.
pub fn is_up(daemon: &mut Daemon) -> Result<()> {
    let up = daemon.await_status("UP", LIMIT, &Stop::new(), |status| status.all_up());
    up.map(drop).with_context(|| daemon.last_lines(20).join("\n"))
}

/// One value of the status of our only connection.
pub fn status(daemon: &Daemon, key: &str) -> Result<serde_json::Value> {
    let output = daemon.host().command(daemon.line(&["status", "--json"]))?;
    let document: serde_json::Value = serde_json::from_str(&output.stdout)?;
    Ok(document["connections"][0]["tunnels"][0][key].clone())
}
