//! Two gateways with their data planes, joined by a wire that can be cut.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::config::{Config, Role};
use control::{Action, Gateway, Interface, Status, TunnelStatus};
use dataplane::{Counters, IcmpSource, Inbound, Outbound};
use ike::{EndpointConfig, Transmit, TransmitPayload};
use packet::{DatagramBatch, InnerBatch, WireBatch};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::{Path, Secret, TunnelId};

pub const VGW_ADDRESSES: [&str; 2] = ["198.51.100.10", "198.51.100.11"];
const AGENT_ADDRESS: &str = "203.0.113.2";
const LATENCY: Duration = Duration::from_millis(5);

pub const VGW: &str = r#"
[vpn_gateway]
id = "vgw-test"
vpc_cidrs = ["10.0.0.0/16"]
relaxed_limits = true

[[customer_gateway]]
id = "cgw-branch"
identity = "branch.example"

[[vpn_connection]]
id = "vpn-branch"
customer_gateway = "cgw-branch"
static_routes = ["192.168.0.0/16"]

[[vpn_connection.tunnel]]
outside_address = "198.51.100.10"
tunnel_inside_cidr = "169.254.10.0/30"
pre_shared_key_file = "psk-1"
dpd_timeout_seconds = 9

[[vpn_connection.tunnel]]
outside_address = "198.51.100.11"
tunnel_inside_cidr = "169.254.11.0/30"
pre_shared_key_file = "psk-2"
dpd_timeout_seconds = 9
"#;

pub const AGENT: &str = r#"
[customer_gateway]
id = "cgw-branch"
identity = "branch.example"
listen = ["203.0.113.2"]
onprem_cidrs = ["192.168.0.0/16"]
relaxed_limits = true

[[vpn_connection]]
id = "vpn-branch"
vpc_cidrs = ["10.0.0.0/16"]

[[vpn_connection.tunnel]]
outside_address = "198.51.100.10"
tunnel_inside_cidr = "169.254.10.0/30"
pre_shared_key_file = "psk-1"
dpd_timeout_seconds = 9
dpd_timeout_action = "restart"

[[vpn_connection.tunnel]]
outside_address = "198.51.100.11"
tunnel_inside_cidr = "169.254.11.0/30"
pre_shared_key_file = "psk-2"
dpd_timeout_seconds = 9
dpd_timeout_action = "restart"
"#;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Vgw,
    Agent,
}

/// A daemon without threads and sockets.
pub struct Node {
    pub gateway: Gateway,
    inbound: Inbound,
    outbound: Outbound,
    role: Role,
    /// Lines of the log.
    pub log: Vec<String>,
    /// What the TUN device would be set to.
    pub interfaces: Vec<Interface>,
    pub tun_mtu: Option<u16>,
    /// Whether the sockets refuse what ICMP says is too large.
    pub believes_icmp: bool,
    pub stopped: bool,
}

/// A datagram under way: when it arrives, from where to where.
struct Flying {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

pub struct Pair {
    pub vgw: Node,
    pub agent: Node,
    pub now: Instant,
    wire: VecDeque<Flying>,
    /// Datagrams from and to this address vanish.
    pub cut: Option<IpAddr>,
    /// All datagrams vanish.
    pub cut_all: bool,
    /// Octets of the largest IKE datagram so far, with its IPv4 and UDP headers.
    pub largest: usize,
    /// ESP from and to this address vanishes, and IKE passes.
    pub cut_esp: Option<IpAddr>,
    /// Octets that the outer path takes; larger packets vanish.
    pub path_mtu: usize,
    /// Whether their senders are told.
    pub icmp: bool,
    /// Echo requests that arrived, and how many of them were answered by a kernel.
    pub echoes: u64,
    /// Whether kernels answer echo requests to inside addresses.
    pub answers: bool,
}

fn parse(role: Role, text: &str) -> Config {
    Config::parse(role, text, "test.toml").unwrap()
}

fn secrets(config: &Config, key: impl Fn(&str) -> String) -> BTreeMap<TunnelId, Secret> {
    let tunnels = config.connections.iter().flat_map(|c| &c.tunnels);
    tunnels.map(|t| (t.id, Secret::new(key(&t.pre_shared_key_file).into_bytes()))).collect()
}

fn usual_key(file: &str) -> String {
    format!("the.key.in.{}", file.replace('-', "_"))
}

impl Node {
    fn new(role: Role, text: &str, seed: u64, key: impl Fn(&str) -> String, now: Instant) -> Self {
        let config = parse(role, text);
        let secrets = secrets(&config, key);
        let (input, output) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let rng = Box::new(ChaCha20Rng::seed_from_u64(seed));
        let counters = (Arc::clone(&input), Arc::clone(&output));
        Self {
            gateway: Gateway::new(config, secrets, EndpointConfig::default(), rng, counters, now),
            inbound: Inbound::new(input),
            outbound: Outbound::new(output, IcmpSource { v4: None, v6: None }),
            role,
            log: Vec::new(),
            interfaces: Vec::new(),
            tun_mtu: None,
            believes_icmp: true,
            stopped: false,
        }
    }

    /// Carries out all actions, as the runtime would; returns what is to be sent.
    fn act(&mut self) -> Vec<Transmit> {
        let mut out = Vec::new();
        while let Some(action) = self.gateway.poll_action() {
            match action {
                Action::Inbound(command) => self.inbound.apply(command),
                Action::Outbound(command) => self.outbound.apply(command),
                Action::Transmit(transmit) => out.push(transmit),
                Action::Log(_, line) => self.log.push(line),
                Action::Interface(interface) => self.interfaces.push(interface),
                Action::SetTunMtu(mtu) => self.tun_mtu = Some(mtu),
                Action::BelieveIcmp(believe) => self.believes_icmp = believe,
                Action::Stopped => self.stopped = true,
            }
        }
        out
    }
}

impl Pair {
    pub fn new(vgw: &str, agent: &str) -> Self {
        Self::build(vgw, agent, usual_key)
    }

    /// The agent has the usual keys, and the VGW `keys`, of which number `wrong` is not the agent's.
    pub fn with_keys(vgw: &str, agent: &str, keys: [&str; 2], wrong: u8) -> Self {
        let wrong_file = format!("psk-{wrong}");
        let keys = keys.map(str::to_owned);
        Self::build(
            vgw,
            agent,
            move |file| {
                if file == wrong_file { keys[0].clone() } else { usual_key(file) }
            },
        )
    }

    fn build(vgw: &str, agent: &str, vgw_key: impl Fn(&str) -> String) -> Self {
        let now = Instant::now();
        Self {
            vgw: Node::new(Role::Vgw, vgw, 1, vgw_key, now),
            agent: Node::new(Role::Agent, agent, 2, usual_key, now),
            now,
            wire: VecDeque::new(),
            cut: None,
            cut_all: false,
            largest: 0,
            cut_esp: None,
            path_mtu: 1500,
            icmp: true,
            echoes: 0,
            answers: true,
        }
    }

    fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Vgw => &mut self.vgw,
            Side::Agent => &mut self.agent,
        }
    }

    pub fn status(&self, side: Side) -> Status {
        match side {
            Side::Vgw => self.vgw.gateway.status(self.now),
            Side::Agent => self.agent.gateway.status(self.now),
        }
    }

    pub fn tunnels(&self, side: Side) -> [TunnelStatus; 2] {
        let connection = self.status(side).connections.into_iter().next().unwrap();
        connection.tunnels.try_into().unwrap()
    }

    pub fn log(&self, side: Side) -> &[String] {
        match side {
            Side::Vgw => &self.vgw.log,
            Side::Agent => &self.agent.log,
        }
    }

    pub fn reload(&mut self, side: Side, text: &str) -> Result<String, String> {
        let now = self.now;
        let node = self.node(side);
        let config = parse(node.role, text);
        let secrets = secrets(&config, usual_key);
        let result = node.gateway.handle_reload(config, secrets, now);
        self.settle();
        result
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
        self.settle();
    }

    /// Lets time pass until something is so; returns whether it became so within `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let running = [&self.vgw, &self.agent].into_iter().filter(|node| !node.stopped);
            let timers = running.map(|node| node.gateway.poll_timeout());
            let flying = self.wire.iter().map(|f| f.at);
            let Some(next) = timers.chain(flying).min() else { return false };
            // A timer that is due again at once must not stop the clock.
            let next = next.max(self.now + Duration::from_micros(10));
            if next > end {
                return false;
            }
            self.now = next;
            self.deliver_due();
            for side in [Side::Vgw, Side::Agent] {
                let now = self.now;
                let node = self.node(side);
                if node.gateway.poll_timeout() <= now && !node.stopped {
                    node.gateway.handle_timeout(now);
                }
            }
        }
    }

    /// Carries out what both gateways want now.
    fn settle(&mut self) {
        for side in [Side::Vgw, Side::Agent] {
            for transmit in self.node(side).act() {
                let marked = transmit.path.local.port() != 500;
                let payload = match transmit.payload {
                    TransmitPayload::NatKeepalive => vec![0xff],
                    TransmitPayload::Ike(message) if marked => [&[0; 4][..], &message].concat(),
                    TransmitPayload::Ike(message) => message,
                };
                let from = self.source(side, transmit.path);
                self.send(from, transmit.path.remote, payload);
            }
            let mut wire = WireBatch::default();
            self.node(side).outbound.seal_probes(false, &mut wire);
            self.node(side).outbound.seal_probes(true, &mut wire);
            self.send_runs(side, &wire);
        }
    }

    /// Puts sealed datagrams on the wire, as far as their path takes them.
    fn send_runs(&mut self, side: Side, wire: &WireBatch) {
        for run in &wire.runs {
            let path = Path { local: run.local, remote: run.remote };
            let from = self.source(side, path);
            for datagram in wire.bytes[run.range.clone()].chunks(run.segment) {
                self.send(from, run.remote, datagram.to_vec());
                if datagram.len() + 28 > self.path_mtu && self.icmp {
                    let (now, mtu) = (self.now, u16::try_from(self.path_mtu).unwrap());
                    self.node(side).gateway.handle_path_mtu(path, mtu, now);
                }
            }
        }
    }

    /// What the kernel of `side` does with what comes out of its TUN device.
    fn kernel(&mut self, side: Side, packets: Vec<Vec<u8>>) {
        for mut packet in packets {
            if packet.len() < 28 || packet[9] != 1 || packet[20] != 8 {
                continue;
            }
            self.echoes += 1;
            if !self.answers {
                continue;
            }
            let (source, destination) = (packet[12..16].to_vec(), packet[16..20].to_vec());
            packet[12..16].copy_from_slice(&destination);
            packet[16..20].copy_from_slice(&source);
            // Answers of Linux may be fragmented.
            packet[6] = 0;
            packet[20] = 0;
            for at in [10, 11, 22, 23] {
                packet[at] = 0;
            }
            let sum = packet::checksum::of(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let now = self.now;
            let (mut inner, mut back) = (InnerBatch::default(), InnerBatch::default());
            let mut wire = WireBatch::default();
            inner.push(&packet);
            self.node(side).outbound.seal(&inner, now, &mut wire, &mut back);
            self.send_runs(side, &wire);
        }
    }

    /// The address that the kernel would choose where the gateway leaves it open.
    fn source(&self, side: Side, path: Path) -> SocketAddr {
        let address: IpAddr = match side {
            Side::Agent if path.local.ip().is_unspecified() => AGENT_ADDRESS.parse().unwrap(),
            Side::Agent => path.local.ip(),
            Side::Vgw => path.local.ip(),
        };
        SocketAddr::new(address, path.local.port())
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let hit = |cut: Option<IpAddr>| cut.is_some_and(|a| a == from.ip() || a == to.ip());
        let esp = to.port() != 500 && payload.len() > 4 && payload[..4] != [0; 4];
        if !esp {
            self.largest = self.largest.max(payload.len() + 28);
        }
        let cut = hit(self.cut) || (esp && hit(self.cut_esp));
        if !cut && !self.cut_all && payload.len() + 28 <= self.path_mtu {
            self.wire.push_back(Flying { at: self.now + LATENCY, from, to, payload });
        }
    }

    fn deliver_due(&mut self) {
        while self.wire.front().is_some_and(|f| f.at <= self.now) {
            let flying = self.wire.pop_front().unwrap();
            let to = flying.to.ip().to_string();
            let vgw = VGW_ADDRESSES.contains(&to.as_str());
            let side = if vgw { Side::Vgw } else { Side::Agent };
            let packets = self.receive(side, &flying);
            self.kernel(side, packets);
            self.settle();
        }
    }

    /// Hands a datagram to a node; returns the inner packets that came out of it.
    fn receive(&mut self, side: Side, flying: &Flying) -> Vec<Vec<u8>> {
        let now = self.now;
        let node = self.node(side);
        let mut batch = DatagramBatch::default();
        batch.push(flying.to, flying.from, 0, &flying.payload);
        let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
        if flying.to.port() == 500 {
            slow.push(flying.to, flying.from, 0, &flying.payload);
        } else {
            node.inbound.open(&batch, now, &mut inner, &mut slow);
        }
        for datagram in &slow.datagrams {
            let path = Path { local: datagram.local, remote: datagram.remote };
            node.gateway.handle_ike(path, &slow.bytes[datagram.range.clone()], now);
        }
        while let Some(event) = node.inbound.poll_event() {
            node.gateway.handle_data_event(event, now);
        }
        inner.packets.iter().map(|p| inner.octets(p).to_vec()).collect()
    }

    /// Sends one packet from `side`; returns whether it came out at the other side unchanged.
    pub fn ping(&mut self, side: Side, source: &str, destination: &str) -> bool {
        let packet = udp_packet(source.parse().unwrap(), destination.parse().unwrap());
        let now = self.now;
        let node = self.node(side);
        let (mut inner, mut back) = (InnerBatch::default(), InnerBatch::default());
        let mut wire = WireBatch::default();
        inner.push(&packet);
        node.outbound.seal(&inner, now, &mut wire, &mut back);
        while let Some(event) = node.outbound.poll_event() {
            node.gateway.handle_data_event(event, now);
        }
        self.settle();
        let mut came = Vec::new();
        for run in &wire.runs {
            let hit = |cut: Option<IpAddr>| {
                cut.is_some_and(|a| a == run.local.ip() || a == run.remote.ip())
            };
            let cut = hit(self.cut) || hit(self.cut_esp);
            if cut || self.cut_all {
                continue;
            }
            let path = Path { local: run.local, remote: run.remote };
            let from = self.source(side, path);
            let payload = wire.bytes[run.range.clone()].to_vec();
            let flying = Flying { at: now, from, to: run.remote, payload };
            let other = if side == Side::Vgw { Side::Agent } else { Side::Vgw };
            came.extend(self.receive(other, &flying));
            self.settle();
        }
        came == [packet]
    }
}

/// A UDP packet of IPv4 with 40 octets of content and without a UDP checksum.
fn udp_packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 68, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = packet::checksum::of(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&[0x30, 0x39, 0x30, 0x39, 0, 48, 0, 0]);
    packet.extend_from_slice(&[7; 40]);
    packet
}
