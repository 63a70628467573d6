//! The sites, the network and the clock, and the loop that drives them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::config::Config;
use ike::{Transmit, TransmitPayload};
use packet::{DatagramBatch, InnerBatch};
use sa::Path;

use crate::draw::Draw;
use crate::fault::Fault;
use crate::model::Model;
use crate::net::{Net, Quality, vgw_address};
use crate::node::{Left, Node};
use crate::plan::Plan;
use crate::sites::Settings;
use crate::violation::Kind;

/// Handled at the same instant this often, time is said to stand still.
const SPIN: u32 = 20_000;
/// Inbound SAs of a tunnel at most, those that receive a while after their DELETE included.
const MOST_INBOUND: usize = 8;
/// IKE SAs of a tunnel at most, those that are being closed included.
const MOST_IKE: usize = 8;
/// The protocol of probes and of what answers them.
const ICMP: u8 = 1;
/// Datagrams that an attacker remembers.
const REMEMBERED: usize = 64;

/// See the module.
pub(crate) struct World {
    pub(crate) settings: Settings,
    /// The VGW, then the customer gateways.
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) model: Model,
    pub(crate) draw: Draw,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) fault: Fault,
    /// Datagrams that arrived, as an attacker saw them: host, path, octets.
    pub(crate) seen: Vec<(usize, Path, Vec<u8>)>,
    /// ESP that an attacker sent, and ESP that hosts took.
    pub(crate) esp_taken: u64,
    pub(crate) esp_sealed: u64,
    pub(crate) trace: bool,
    seed: u64,
    incarnations: u64,
    same_instant: u32,
    pub(crate) most: (usize, usize),
}

/// The outside address that a customer gateway has now.
pub(crate) fn place(config: &mut Config, address: IpAddr) {
    let tunnels = config.connections.iter_mut().flat_map(|connection| &mut connection.tunnels);
    tunnels.for_each(|tunnel| tunnel.local = Some(address));
}

impl World {
    /// The sites of a plan, just started.
    ///
    /// # Errors
    /// Our own configuration is wrong.
    pub(crate) fn new(plan: &Plan, seed: u64, fault: Fault, trace: bool) -> Result<Self, String> {
        let start = Instant::now();
        let settings = plan.settings.clone();
        let mut net = Net::new(plan.quality, Draw::new(seed, 2));
        net.add_host((0..2).map(vgw_address).collect(), None);
        for agent in 1..=settings.agents {
            let address: IpAddr = settings.agent_address(agent);
            net.add_host(vec![address], settings.outside_address(agent));
        }
        let mut world = Self {
            model: Model::new(settings.agents),
            nodes: Vec::new(),
            net,
            draw: Draw::new(seed, 3),
            now: start,
            start,
            fault,
            seen: Vec::new(),
            esp_taken: 0,
            esp_sealed: 0,
            trace,
            seed,
            incarnations: 0,
            same_instant: 0,
            most: (0, 0),
            settings,
        };
        for host in 0..=world.settings.agents {
            let node = world.fresh(host)?;
            world.nodes.push(node);
        }
        for host in 0..world.nodes.len() {
            world.settle(host);
        }
        Ok(world)
    }

    /// A site that remembers nothing.
    pub(crate) fn fresh(&mut self, host: usize) -> Result<Node, String> {
        self.incarnations += 1;
        let draw = Draw::new(self.seed, 100 + self.incarnations);
        let mut config = self.settings.config(host)?;
        if host > 0 {
            place(&mut config, self.net.address(host));
        }
        Ok(Node::new(config, draw, self.fault, self.now))
    }

    /// A line of the trace.
    pub(crate) fn say(&self, host: usize, text: impl FnOnce() -> String) {
        if self.trace {
            let at = self.now.duration_since(self.start).as_secs_f64();
            println!("{at:>12.6} {host} {}", text());
        }
    }

    /// Lets time pass until `until`, and does everything that is due.
    pub(crate) fn advance(&mut self, until: Instant) {
        loop {
            let timers = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((n.due()?, i)));
            let timer = timers.min();
            let flying = self.net.next_at();
            let next = [timer.map(|(at, _)| at), flying].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            if next > self.now {
                self.same_instant = 0;
                self.now = next;
                self.model.at = self.now.duration_since(self.start);
            }
            self.same_instant += 1;
            if self.same_instant > SPIN {
                self.model.object(Kind::Spin, format!("timers: {timer:?}"));
                return;
            }
            if flying.is_some_and(|at| at <= self.now) {
                self.arrive();
            } else if let Some((_, host)) = timer {
                let clock = self.nodes[host].clock(self.now);
                self.nodes[host].gateway.handle_timeout(clock);
                self.settle(host);
            }
        }
        self.now = self.now.max(until);
        self.model.at = self.now.duration_since(self.start);
    }

    fn arrive(&mut self) {
        let Some((flying, arrived)) = self.net.arrive(self.now) else { return };
        let Some((host, path)) = arrived else { return };
        if !self.nodes[host].alive {
            return self.net.lose(flying.cargo.is_some());
        }
        self.say(host, || format!("<- {} {}", flying.sender(), describe(&flying.octets, path)));
        self.receive(host, path, &flying.octets, flying.cargo);
        if self.seen.len() == REMEMBERED {
            self.seen.remove(0);
        }
        self.seen.push((host, path, flying.octets));
    }

    /// A site takes a datagram.
    pub(crate) fn receive(&mut self, host: usize, path: Path, octets: &[u8], cargo: Option<usize>) {
        let node = &mut self.nodes[host];
        let clock = node.clock(self.now);
        if path.local.port() == 500 {
            node.gateway.handle_ike(path, octets, clock);
            return self.settle(host);
        }
        let mut batch = DatagramBatch::default();
        batch.push(path.local, path.remote, 0, octets);
        let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
        node.inbound.open(&batch, clock, &mut inner, &mut slow);
        if self.fault == Fault::Uncounted {
            node.inbound.open(
                &batch,
                clock,
                &mut InnerBatch::default(),
                &mut DatagramBatch::default(),
            );
        }
        self.esp_taken += u64::from(cargo.is_some());
        node.account.received += 1;
        node.account.ike += slow.datagrams.len() as u64;
        for datagram in &slow.datagrams {
            let message = slow.bytes.get(datagram.range.clone()).unwrap_or_default();
            node.gateway.handle_ike(path, message, clock);
        }
        node.pass_events(clock);
        match self.fault {
            Fault::Swallow => inner.clear(),
            Fault::Corrupt => {
                let last = inner.packets.first().map(|packet| packet.range.end - 1);
                last.into_iter().for_each(|at| inner.bytes[at] ^= 1);
            }
            _ => {}
        }
        node.account.delivered += inner.packets.len() as u64;
        if let Some(datagram) = cargo {
            self.model.opened(datagram, inner.packets.len(), || node.drop_text(true));
        }
        for packet in &inner.packets {
            if inner.octets(packet).get(9) == Some(&ICMP) {
                self.answer(host, inner.octets(packet));
                continue;
            }
            self.model.delivered(host, inner.octets(packet));
            if self.fault == Fault::DeliverTwice {
                self.model.delivered(host, inner.octets(packet));
            }
        }
        self.settle(host);
    }

    /// Carries out what a site wants now.
    pub(crate) fn settle(&mut self, host: usize) {
        for left in self.nodes[host].act() {
            match left {
                Left::Send(transmit) => self.transmit(host, transmit),
                Left::Say(line) => self.say(host, || line),
            }
        }
        self.send_probes(host);
        self.check_bounds(host);
        if let Some(tunnel) = self.nodes[host].gateway.forgotten() {
            let text = format!("site {host} has forgotten {tunnel}");
            self.model.object(Kind::Forgotten, text);
        }
    }

    fn transmit(&mut self, host: usize, transmit: Transmit) {
        let marked = transmit.path.local.port() != 500;
        self.say(host, || format!("-> {}", describe_transmit(&transmit)));
        let octets = match transmit.payload {
            TransmitPayload::NatKeepalive => vec![0xff],
            TransmitPayload::Ike(message) => {
                self.model.ike_sent(&message);
                if marked { [&[0; 4][..], &message].concat() } else { message }
            }
        };
        self.net.send(host, transmit.path, octets, None, self.now);
    }

    /// No more state than the tunnels have use for, and than strangers are allowed.
    fn check_bounds(&mut self, host: usize) {
        let node = &self.nodes[host];
        let tunnels = 2 * if host == 0 { self.settings.agents } else { 1 };
        let endpoint = node.gateway.endpoint();
        let limit = crate::node::endpoint_config(self.fault).half_open_limit;
        let (inbound, half_open) = (node.sad.len(), endpoint.half_open());
        let ike = endpoint.ike_sas().saturating_sub(half_open);
        self.most = (self.most.0.max(inbound), self.most.1.max(ike));
        if inbound > tunnels * MOST_INBOUND || ike > tunnels * MOST_IKE || half_open > limit {
            let text = format!(
                "site {host} has {inbound} inbound SAs, {ike} IKE SAs and {half_open} half-open ones"
            );
            self.model.object(Kind::Unbounded, text);
        }
    }

    /// The counters of every site, and of the links between them.
    pub(crate) fn audit(&mut self) {
        for host in 0..self.nodes.len() {
            if let Some(text) = self.nodes[host].audit() {
                self.model.object(Kind::Counters, format!("site {host}: {text}"));
            }
        }
        let all = |node: &Node| node.account.sealed + node.account.probes;
        let sealed = self.esp_sealed + self.nodes.iter().map(all).sum::<u64>();
        let there = sealed + self.net.esp_copies;
        let gone = self.esp_taken + self.net.esp_lost + self.net.esp_flying();
        if there != gone {
            let text = format!(
                "{sealed} sealed + {} copies = {} taken + {} lost + {} under way",
                self.net.esp_copies,
                self.esp_taken,
                self.net.esp_lost,
                self.net.esp_flying()
            );
            self.model.object(Kind::Counters, text);
        }
    }

    /// The links are as good as links are, and nothing is cut.
    pub(crate) fn good_links(&mut self) {
        self.net.quality = Quality::GOOD;
        self.net.mtu = 1500;
        self.net.cut = None;
    }

    /// Customer gateway `agent`'s connection, by its id.
    pub(crate) fn connection(agent: usize) -> String {
        format!("vpn-{agent}")
    }

    /// Packets of every connection of a site may be lost from now on.
    pub(crate) fn disturb(&mut self, host: usize) {
        let agents = if host == 0 { 1..=self.settings.agents } else { host..=host };
        for agent in agents {
            self.model.disturb(agent, 0);
            self.model.disturb(agent, 1);
        }
    }

    /// How long the schedule has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }
}

fn describe_transmit(transmit: &Transmit) -> String {
    match &transmit.payload {
        TransmitPayload::NatKeepalive => format!("{} keepalive", transmit.path),
        TransmitPayload::Ike(message) => format!("{} {}", transmit.path, describe_ike(message)),
    }
}

fn describe(octets: &[u8], path: Path) -> String {
    let ike = match octets {
        [0, 0, 0, 0, message @ ..] => message,
        other if path.local.port() == 500 => other,
        [0xff] => return format!("{path} keepalive"),
        [a, b, c, d, _, _, e, f, ..] => {
            let sequence = u16::from_be_bytes([*e, *f]);
            return format!("ESP {a:02x}{b:02x}{c:02x}{d:02x} #{sequence}");
        }
        _ => return format!("{path} {} octets", octets.len()),
    };
    format!("{path} {}", describe_ike(ike))
}

fn describe_ike(message: &[u8]) -> String {
    let Some(h) = message.first_chunk::<28>() else { return "IKE, short".into() };
    let exchange = match h[18] {
        34 => "IKE_SA_INIT",
        35 => "IKE_AUTH",
        36 => "CREATE_CHILD_SA",
        37 => "INFORMATIONAL",
        _ => "?",
    };
    let kind = if h[19] & 0x20 == 0 { "request" } else { "response" };
    let id = u32::from_be_bytes([h[20], h[21], h[22], h[23]]);
    let of = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let length = message.len();
    format!("{exchange} {kind} {id} of {:04x}/{:04x}, {length} octets", of(0), of(8))
}
