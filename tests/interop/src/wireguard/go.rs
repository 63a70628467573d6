//! Debian's wireguard-go as the peer.

use super::world::{CLOUD_NETS, Keys, SITE_NETS, World, public};
use crate::wait::{self, LIMIT};
use anyhow::Result;
use lab::netns::Host;
use lab::process::{Process, Program};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const INTERFACE: &str = "wg0";
/// What wg-quick gives an interface.
const MTU: u16 = 1420;
const SOCKET: &str = "/run/wireguard/wg0.sock";
const FILE: &str = "/run/lab/wg0.conf";

/// A wireguard-go at one side.
pub struct Go {
    host: Arc<Host>,
    process: Process,
}

/// Which side it is at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Where the VGW would be, on its port.
    Cloud,
    /// At the site, and begins.
    Site,
}

impl Go {
    /// Starts it with what `wg` would be told.
    pub fn start(world: &World, at: At, keys: &Keys) -> Result<Go> {
        let (private, peer, nets) = match at {
            At::Cloud => (&keys.cloud, &keys.site, SITE_NETS),
            At::Site => (&keys.site, &keys.cloud, CLOUD_NETS),
        };
        let mut text = format!("[Interface]\nPrivateKey = {private}\n");
        if at == At::Cloud {
            text += "ListenPort = 4500\n";
        }
        text +=
            &format!("[Peer]\nPublicKey = {}\nAllowedIPs = {}\n", public(peer)?, nets.join(", "));
        if let Some(key) = &keys.preshared {
            text += &format!("PresharedKey = {key}\n");
        }
        if at == At::Site {
            let endpoint = SocketAddr::new(world.cloud_address(), 4500);
            text += &format!("Endpoint = {endpoint}\nPersistentKeepalive = 3\n");
        }
        Self::with_config(world, at, &text)
    }

    /// Starts it with a configuration that `wg setconf` takes.
    pub fn with_config(world: &World, at: At, text: &str) -> Result<Go> {
        let (host, nets, family) = match at {
            At::Cloud => (&world.cloud, SITE_NETS, 0),
            At::Site => (&world.site, CLOUD_NETS, 0),
        };
        host.write(FILE, text, 0o600)?;
        let program = Program::new("wireguard-go").args(["-f", INTERFACE]);
        let process = host.spawn(program.env("WG_PROCESS_FOREGROUND", "1"))?;
        let go = Go { host: host.clone(), process };
        wait::until("wireguard-go", LIMIT, || {
            let listens = go.host.listens(SOCKET)?;
            Ok(if listens { Ok(()) } else { Err(go.process.log().last(5).join("\n")) })
        })?;
        go.host.command(Program::new("wg").args(["setconf", INTERFACE, FILE]))?;
        go.host.ip(&format!("link set {INTERFACE} mtu {MTU} up"))?;
        for (number, net) in nets.iter().enumerate() {
            let (cloud, site) = world.inner(family + number)?;
            let own = if at == At::Cloud { cloud } else { site };
            go.host.ip(&format!("route add {net} dev {INTERFACE} src {}", own.address))?;
        }
        Ok(go)
    }

    /// When its last handshake was, in seconds since the Unix epoch; 0 for never.
    pub fn last_handshake(&self) -> Result<u64> {
        let program = Program::new("wg").args(["show", INTERFACE, "latest-handshakes"]);
        let output = self.host.command(program)?;
        Ok(output.stdout.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or(0))
    }

    /// Ends it without a word to anybody.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill();
        let host = self.host.clone();
        wait::until("the end of its interface", Duration::from_secs(10), || {
            let output = host.output(Program::new("ip").args(["link", "show", INTERFACE]))?;
            Ok(if output.success() { Err("it is there".into()) } else { Ok(()) })
        })
    }
}
