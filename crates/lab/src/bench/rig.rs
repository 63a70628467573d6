//! Where a contender is measured: client -- gateway A == WAN == gateway B -- server, each in a
//! namespace of its own, and the contender between the gateways.

use crate::bench::contender::Contender;
use crate::bench::peers::{self, Gateways};
use crate::capture::Capture;
use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::process::Program;
use crate::stop::Stop;
use crate::topology::{Network, address, end, route};
use crate::traffic::tcp::{self, Pair};
use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

/// MTU of every link.
const MTU: u16 = 1500;

/// The client's network, behind gateway A.
pub const CLIENT_NET: &str = "10.71.0.0/24";
/// The server's network, behind gateway B.
pub const SERVER_NET: &str = "10.72.0.0/24";
/// The client.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 71, 0, 2));
/// The server.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 72, 0, 2));
/// Gateway A outside.
pub const OUTSIDE_A: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Gateway B outside.
pub const OUTSIDE_B: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// Gateway B's second address, for the second tunnel of a connection.
pub const OUTSIDE_B2: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11));

/// Octets of the transfer that shows which way a contender's traffic takes.
const PROOF: u64 = 1 << 20;

/// How the links between the namespaces behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Link {
    /// veth as it is: super-packets of 64 KiB pass uncut
    Veth,
    /// Like wires: every packet is cut to the MTU before it leaves
    Wire,
}

/// A contender with its gateways up. Dropping it removes everything.
#[derive(Debug)]
pub struct Rig {
    /// Who is between the gateways.
    pub contender: Contender,
    /// Where the traffic starts.
    pub client: Arc<Host>,
    /// Where it ends.
    pub server: Arc<Host>,
    gateway_b: Arc<Host>,
    gateways: Gateways,
    _network: Network,
}

/// What a contender is started with.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Gateway A: the customer's side.
    pub a: &'a Arc<Host>,
    /// Gateway B: the cloud's side.
    pub b: &'a Arc<Host>,
    /// The folder of vgw and cgw-agent.
    pub binaries: &'a Path,
    /// To stop waiting.
    pub stop: &'a Stop,
}

impl Rig {
    /// Builds the hosts, starts the contender and shows that its traffic takes the way that it
    /// should: through the tunnel and nowhere else.
    pub fn build(
        contender: Contender,
        program: Option<&Path>,
        link: Link,
        binaries: &Path,
        stop: &Stop,
    ) -> Result<Rig> {
        let mut network = Network::new();
        let client = network.add_host("client")?;
        let a = network.add_router("gateway-a")?;
        let b = network.add_router("gateway-b")?;
        let server = network.add_host("server")?;
        for (left, right, devices) in
            [(&client, &a, ("lan", "lan")), (&a, &b, ("wan", "wan")), (&b, &server, ("lan", "lan"))]
        {
            network.connect(end(left, devices.0), end(right, devices.1), MTU)?;
            if link == Link::Wire {
                like_a_wire(left, devices.0)?;
                like_a_wire(right, devices.1)?;
            }
        }
        for (host, device, own) in [
            (&client, "lan", "10.71.0.2/24"),
            (&a, "lan", "10.71.0.1/24"),
            (&a, "wan", "203.0.113.1/24"),
            (&b, "wan", "203.0.113.10/24"),
            (&b, "wan", "203.0.113.11/24"),
            (&b, "lan", "10.72.0.1/24"),
            (&server, "lan", "10.72.0.2/24"),
        ] {
            address(end(host, device), own)?;
        }
        route(&client, "default", Ipv4Addr::new(10, 71, 0, 1).into())?;
        route(&server, "default", Ipv4Addr::new(10, 72, 0, 1).into())?;
        let site = Site { a: &a, b: &b, binaries, stop };
        let gateways = peers::start(contender, program, site)?;
        let mut rig = Rig { contender, client, server, gateway_b: b, gateways, _network: network };
        rig.prove(stop)?;
        Ok(rig)
    }

    /// From the client to the server.
    pub fn forth(&self) -> Pair<'_> {
        Pair { client: &self.client, source: None, server: &self.server, address: SERVER }
    }

    /// From the server to the client.
    pub fn back(&self) -> Pair<'_> {
        Pair { client: &self.server, source: None, server: &self.client, address: CLIENT }
    }

    /// The processes of both gateways.
    pub fn processes(&mut self) -> Vec<u32> {
        self.gateways.pids()
    }

    /// An error when a process of the gateways has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        self.gateways.check_running()
    }

    /// Octets that gateway B has received and sent on the WAN.
    pub fn wan_octets(&self) -> Result<u64> {
        let text = self.gateway_b.read("/proc/thread-self/net/dev")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("wan:"));
        let fields: Vec<u64> =
            line.unwrap_or("").split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        match (fields.first(), fields.get(8)) {
            (Some(received), Some(sent)) => Ok(received + sent),
            _ => Err(LabError::Unexpected("gateway-b: the WAN has no counters".into())),
        }
    }

    /// Sends a recognizable transfer, and looks at every frame on the way.
    fn prove(&mut self, stop: &Stop) -> Result<()> {
        let ports = self.contender.ports();
        let capture = Capture::on(&self.gateway_b, "wan", ports)?;
        let contender = self.contender;
        let sent = tcp::transfer(self.forth(), PROOF, 1, stop);
        let explain = |error: LabError| LabError::Unexpected(format!("{contender}: {error}"));
        sent.map_err(explain)?;
        let seen = capture.stop()?;
        self.gateways.check_counters(PROOF)?;
        let (others, clear) = (seen.others(ports), seen.marked > 0);
        let right = match contender {
            Contender::Plain => clear,
            Contender::Null => others.is_empty() && clear,
            _ => others.is_empty() && !clear && seen.frames > 0,
        };
        if right {
            return Ok(());
        }
        Err(LabError::Unexpected(format!(
            "{contender}: its traffic did not cross the WAN as it should: {} frames in clear, beside the tunnel {others:?}",
            seen.marked
        )))
    }
}

/// Cuts super-packets before they leave, and merges again what comes in, as a network card does.
fn like_a_wire(host: &Host, device: &str) -> Result<()> {
    let features = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on"];
    host.command(Program::new("ethtool").args(["-K", device]).args(features)).map(drop)
}
