//! Two endpoints in memory: virtual time, a network with loss, duplication, reordering and NAT,
//! and a model of what the data planes would hold.

pub mod rogue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ike::suite::{EspProposals, IkeProposals};
use ike::{
    Command, Endpoint, EndpointConfig, Event, Identity, PeerConfig, Transmit, TransmitPayload,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{CryptoRng, RngCore, SeedableRng};
use sa::{InboundSa, OutboundSa, Path, Secret, SelectorSet, Spi, TunnelId};

pub const TUNNEL: TunnelId = TunnelId(1);
pub const A: usize = 0;
pub const B: usize = 1;

/// One of the two hosts.
pub struct Host {
    pub endpoint: Endpoint,
    pub address: std::net::IpAddr,
    pub events: Vec<Event>,
    pub inbound: BTreeMap<Spi, InboundSa>,
    pub outbound: Option<OutboundSa>,
    /// Whether a NAT stands before it, and its mappings: inner socket to outer port.
    pub nat: Option<BTreeMap<SocketAddr, u16>>,
    pub sent: Vec<Transmit>,
    pub first_octet: Arc<AtomicU16>,
    seen: BTreeSet<Spi>,
}

struct InTransit {
    at: Instant,
    order: u64,
    to: usize,
    path: Path,
    octets: Vec<u8>,
}

/// What happens to one datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Lose,
    /// It comes again, this much later.
    Again(Duration),
    /// It comes this much later, after others that were sent later.
    Late(Duration),
}

/// An inner packet under way.
struct Packet {
    at: Instant,
    to: usize,
    spi: Spi,
}

/// Randomness whose nonces can be forced: the first octet of everything of 32 octets.
#[derive(Clone)]
pub struct Forced {
    rng: ChaCha8Rng,
    first: Arc<AtomicU16>,
}

const FREE: u16 = 256;

impl RngCore for Forced {
    fn next_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.rng.fill_bytes(dest);
        if let (32, Ok(first)) = (dest.len(), u8::try_from(self.first.load(Ordering::Relaxed))) {
            dest[0] = first;
        }
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Forced {}

/// See the module.
pub struct Pair {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub start: Instant,
    wire: VecDeque<InTransit>,
    order: u64,
    rng: ChaCha8Rng,
    /// Datagrams in a thousand that are lost, and that come twice.
    pub loss: u32,
    pub duplicates: u32,
    /// Up to this much later, at random.
    pub jitter: Duration,
    pub delay: Duration,
    /// Nothing is delivered to these hosts.
    pub deaf: [bool; 2],
    /// Keep everything that is sent in flight until `release`.
    pub hold: bool,
    pub delivered: Vec<(usize, Path, Vec<u8>)>,
    /// What happens to the datagram with this number; see [`Self::fault`].
    faults: BTreeMap<usize, Fault>,
    /// Datagrams sent since the count began.
    pub count: usize,
    /// Both hosts send inner packets all the time.
    pub busy: bool,
    /// How long an inner packet is under way.
    pub packet_delay: Duration,
    packets: Vec<Packet>,
    next_packets: Instant,
    /// Inner packets that arrived, and those that did not or could not be sent.
    pub passed: usize,
    pub lost: Vec<String>,
}

pub fn address(host: usize) -> std::net::IpAddr {
    if host == A { [192, 0, 2, 1].into() } else { [198, 51, 100, 10].into() }
}

pub fn outside(host: usize) -> std::net::IpAddr {
    if host == A { [203, 0, 113, 2].into() } else { [198, 51, 100, 99].into() }
}

/// The octets that hexadecimal digits say, whatever stands between them.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub fn nets(list: &[&str]) -> SelectorSet {
    SelectorSet(
        list.iter()
            .map(|text| {
                let (address, bits) = text.split_once('/').unwrap();
                let first: std::net::Ipv4Addr = address.parse().unwrap();
                let bits: u32 = bits.parse().unwrap();
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                let last = std::net::Ipv4Addr::from(u32::from(first) | !mask);
                sa::TrafficSelector::new(first.into()..=last.into(), 0, 0..=65535).unwrap()
            })
            .collect(),
    )
}

/// Configurations of A and B that fit each other.
pub fn peers() -> [PeerConfig; 2] {
    let ids = ["branch.example", "vgw.example"].map(|s| s.parse::<Identity>().unwrap());
    let sites = [nets(&["192.168.0.0/16"]), nets(&["10.0.0.0/16"])];
    [A, B].map(|me| {
        let other = 1 - me;
        let psk = Secret::new(b"a key that both know".to_vec());
        let mut peer = PeerConfig::new(TUNNEL, ids[me].clone(), Some(ids[other].clone()), psk);
        peer.name = format!("host {me}");
        peer.local = Some(address(me));
        peer.remote = Some(address(other));
        peer.local_selectors = sites[me].clone();
        peer.remote_selectors = sites[other].clone();
        // Cheap groups first, so that tests that are about something else are fast.
        peer.ike = IkeProposals::default();
        peer.esp = EspProposals { groups: Vec::new(), ..EspProposals::default() };
        peer.rekey_fuzz_percent = 0;
        peer
    })
}

impl Pair {
    pub fn new(peers: [PeerConfig; 2], seed: u64) -> Self {
        Self::with(peers, [EndpointConfig::default(), EndpointConfig::default()], seed)
    }

    pub fn with(peers: [PeerConfig; 2], configs: [EndpointConfig; 2], seed: u64) -> Self {
        let start = Instant::now();
        let mut index = 0;
        let hosts = peers.map(|peer| {
            let me = index;
            index += 1;
            let first_octet = Arc::new(AtomicU16::new(FREE));
            let rng = ChaCha8Rng::seed_from_u64(seed * 2 + me as u64);
            let rng = Box::new(Forced { rng, first: Arc::clone(&first_octet) });
            let mut endpoint = Endpoint::new(configs[me].clone(), rng, start);
            endpoint.add_peer(peer);
            Host {
                endpoint,
                address: address(me),
                events: Vec::new(),
                inbound: BTreeMap::new(),
                outbound: None,
                nat: None,
                sent: Vec::new(),
                first_octet,
                seen: BTreeSet::new(),
            }
        });
        Self {
            hosts,
            now: start,
            start,
            wire: VecDeque::new(),
            order: 0,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
            loss: 0,
            duplicates: 0,
            jitter: Duration::ZERO,
            delay: Duration::from_millis(10),
            deaf: [false; 2],
            hold: false,
            delivered: Vec::new(),
            faults: BTreeMap::new(),
            count: 0,
            busy: false,
            packet_delay: Duration::from_millis(10),
            packets: Vec::new(),
            next_packets: start,
            passed: 0,
            lost: Vec::new(),
        }
    }

    /// From now on, datagrams are counted from zero, and these have a fault.
    pub fn fault(&mut self, faults: impl IntoIterator<Item = (usize, Fault)>) {
        self.faults = faults.into_iter().collect();
        self.count = 0;
    }

    /// Nonces of this host begin with `octet` from now on.
    pub fn nonce(&mut self, host: usize, octet: u8) {
        self.hosts[host].first_octet.store(octet.into(), Ordering::Relaxed);
    }

    /// Lets inner packets flow both ways from now on.
    pub fn begin_traffic(&mut self) {
        self.busy = true;
        self.next_packets = self.now;
    }

    /// Puts a NAT with port forwarding before a host.
    pub fn forward(&mut self, host: usize) {
        let ports = [500, 4500];
        let inner = ports.map(|port| (SocketAddr::new(address(host), port), port));
        self.hosts[host].nat = Some(inner.into());
    }

    /// Puts a NAT before a host; its peer must accept any address then.
    pub fn nat(&mut self, host: usize) {
        self.hosts[host].nat = Some(BTreeMap::new());
    }

    /// The host has another address, and nothing that is sent to the old one arrives any more.
    pub fn renumber(&mut self, host: usize, address: std::net::IpAddr) {
        self.hosts[host].address = address;
        self.wire.retain(|p| p.to != host || p.path.local.ip() == address);
    }

    /// The NAT forgets its mappings and hands out others.
    pub fn rebind(&mut self, host: usize) {
        if let Some(nat) = &mut self.hosts[host].nat {
            for port in nat.values_mut() {
                *port += 1000;
            }
        }
    }

    pub fn command(&mut self, host: usize, command: Command) {
        self.hosts[host].endpoint.handle_command(command, self.now);
        self.drain(host);
    }

    /// A datagram from anywhere.
    pub fn inject(&mut self, to: usize, path: Path, octets: &[u8]) {
        self.hosts[to].endpoint.handle_datagram(path, octets, self.now);
        self.drain(to);
    }

    fn chance(&mut self, in_thousand: u32) -> bool {
        in_thousand > 0 && self.rng.next_u32() % 1000 < in_thousand
    }

    /// Handles events, then puts transmits on the wire.
    pub fn drain(&mut self, me: usize) {
        while let Some(event) = self.hosts[me].endpoint.poll_event() {
            let host = &mut self.hosts[me];
            match &event {
                Event::InstallInbound(sa) if sa.tunnel != TUNNEL => {}
                Event::InstallOutbound(sa) if sa.tunnel != TUNNEL => {}
                Event::RemoveInbound { tunnel, .. } if *tunnel != TUNNEL => {}
                Event::InstallInbound(sa) => {
                    assert!(host.inbound.insert(sa.spi, sa.clone()).is_none(), "SPI twice");
                }
                Event::InstallOutbound(sa) => host.outbound = Some(sa.clone()),
                Event::RemoveInbound { spi, .. } => {
                    assert!(host.inbound.remove(spi).is_some(), "removed what is not there");
                }
                Event::RemoveOutbound { spi, .. }
                    if host.outbound.as_ref().is_some_and(|sa| sa.spi == *spi) =>
                {
                    host.outbound = None;
                }
                _ => {}
            }
            if std::env::var_os("TRACE").is_some() {
                let t = self.now.duration_since(self.start).as_millis();
                match &event {
                    Event::InstallInbound(s) => println!("{t:>7} {me} in+  {}", s.spi),
                    Event::InstallOutbound(s) => println!("{t:>7} {me} out+ {}", s.spi),
                    Event::RemoveInbound { spi, .. } => println!("{t:>7} {me} in-  {spi}"),
                    Event::RemoveOutbound { spi, .. } => println!("{t:>7} {me} out- {spi}"),
                    Event::ChildDown { reason, .. } | Event::IkeDown { reason, .. } => {
                        println!("{t:>7} {me} {} {reason}", name(&event));
                    }
                    Event::Failed { diagnosis, .. } => println!("{t:>7} {me} FAILED {diagnosis}"),
                    Event::IkeUp { info, .. } | Event::IkeRekeyed { info, .. } => {
                        println!("{t:>7} {me} {} {:x}", name(&event), info.initiator_spi);
                    }
                    _ => println!("{t:>7} {me} {}", name(&event)),
                }
            }
            host.events.push(event);
        }
        while let Some(transmit) = self.hosts[me].endpoint.poll_transmit() {
            if let (TransmitPayload::Ike(o), true) =
                (&transmit.payload, std::env::var_os("TRACE").is_some())
            {
                let t = self.now.duration_since(self.start).as_millis();
                let kind = if o[19] & 0x20 == 0 { "req" } else { "rsp" };
                println!(
                    "{t:>7} {me} -> {kind} x{} id {} sa {:02x}{:02x} len {}",
                    o[18],
                    o[23],
                    o[0],
                    o[1],
                    o.len()
                );
            }
            self.hosts[me].sent.push(transmit.clone());
            self.send(me, transmit);
        }
    }

    fn send(&mut self, me: usize, transmit: Transmit) {
        let octets = match transmit.payload {
            TransmitPayload::Ike(octets) => octets,
            TransmitPayload::NatKeepalive => return,
        };
        let (mut from, mut to) = (transmit.path.local, transmit.path.remote);
        if from.ip().is_unspecified() {
            from.set_ip(self.hosts[me].address);
        }
        if from.ip() != self.hosts[me].address {
            return;
        }
        if let Some(nat) = &mut self.hosts[me].nat {
            let next = 20_000 + nat.len() as u16;
            let port = *nat.entry(from).or_insert(next);
            from = SocketAddr::new(outside(me), port);
        }
        let other = 1 - me;
        if let Some(nat) = &self.hosts[other].nat {
            if to.ip() != outside(other) {
                return;
            }
            let inner = nat.iter().find(|(_, port)| **port == to.port()).map(|(inner, _)| *inner);
            let Some(inner) = inner else { return };
            to = inner;
        } else if to.ip() != self.hosts[other].address {
            return;
        }
        if self.chance(self.loss) || self.deaf[other] {
            return;
        }
        let fault = self.faults.get(&self.count).copied();
        self.count += 1;
        let mut extra = vec![Duration::ZERO];
        match fault {
            Some(Fault::Lose) => return,
            Some(Fault::Again(after)) => extra.push(after),
            Some(Fault::Late(after)) => extra = vec![after],
            None if self.chance(self.duplicates) => extra.push(Duration::ZERO),
            None => {}
        }
        for after in extra {
            let spread = self.jitter.as_micros() as u64;
            let extra = if spread == 0 { 0 } else { self.rng.next_u64() % spread };
            self.order += 1;
            self.wire.push_back(InTransit {
                at: self.now + self.delay + after + Duration::from_micros(extra),
                order: self.order,
                to: other,
                path: Path { local: to, remote: from },
                octets: octets.clone(),
            });
        }
    }

    /// Does the next thing that happens before `until`; false if nothing does.
    pub fn step(&mut self, until: Instant) -> bool {
        let timer = |host: &Host| host.endpoint.poll_timeout().map(|(at, _)| at);
        let timers = [timer(&self.hosts[A]), timer(&self.hosts[B])];
        let packet = if self.hold {
            None
        } else {
            self.wire
                .iter()
                .enumerate()
                .min_by_key(|(_, p)| (p.at, p.order))
                .map(|(i, p)| (p.at, i))
        };
        let inner = self
            .busy
            .then(|| self.packets.iter().map(|p| p.at).fold(self.next_packets, Instant::min));
        let next =
            [timers[A], timers[B], packet.map(|(at, _)| at), inner].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        if inner.is_some_and(|at| at <= self.now) {
            self.move_packets();
        }
        if let Some((_, i)) = packet.filter(|(at, _)| *at == next) {
            let packet = self.wire.remove(i).unwrap();
            self.delivered.push((packet.to, packet.path, packet.octets.clone()));
            self.hosts[packet.to].endpoint.handle_datagram(packet.path, &packet.octets, self.now);
            self.drain(packet.to);
            return true;
        }
        for me in [A, B] {
            if timers[me] == Some(next) {
                self.hosts[me].endpoint.handle_timeout(self.now);
                self.drain(me);
            }
        }
        true
    }

    /// Inner packets that are due arrive, and each host sends one.
    fn move_packets(&mut self) {
        let due = self.packets.extract_if(.., |p| p.at <= self.now).collect::<Vec<_>>();
        for packet in due {
            let host = &mut self.hosts[packet.to];
            if !host.inbound.contains_key(&packet.spi) {
                let at = self.now.duration_since(self.start);
                self.lost.push(format!("to {}: {} at {at:?}", packet.to, packet.spi));
                continue;
            }
            self.passed += 1;
            if host.seen.insert(packet.spi) {
                let (tunnel, spi) = (TUNNEL, packet.spi);
                self.command(packet.to, Command::InboundSeen { tunnel, spi });
            }
        }
        if self.next_packets > self.now {
            return;
        }
        self.next_packets = self.now + Duration::from_millis(50);
        for from in [A, B] {
            match &self.hosts[from].outbound {
                Some(sa) => {
                    let at = self.now + self.packet_delay;
                    self.packets.push(Packet { at, to: 1 - from, spi: sa.spi });
                }
                None => self.lost.push(format!("{from} has nothing to send with")),
            }
        }
    }

    /// Whatever is sent on now must be received now.
    pub fn assert_nothing_can_be_lost(&self, story: &str) {
        for from in [A, B] {
            let Some(sa) = &self.hosts[from].outbound else { continue };
            let inbound = &self.hosts[1 - from].inbound;
            assert!(
                inbound.contains_key(&sa.spi),
                "{story}: {from} sends on {}, unknown there",
                sa.spi
            );
        }
    }

    /// What is on the wire, in the order in which it was sent: receiver, exchange type, and
    /// whether it is a response.
    pub fn wire(&self) -> Vec<(usize, u8, bool)> {
        self.wire.iter().map(|p| (p.to, p.octets[18], p.octets[19] & 0x20 != 0)).collect()
    }

    /// Delivers the datagram at this place of [`Self::wire`].
    pub fn deliver(&mut self, at: usize) {
        let packet = self.wire.remove(at).unwrap();
        self.delivered.push((packet.to, packet.path, packet.octets.clone()));
        self.hosts[packet.to].endpoint.handle_datagram(packet.path, &packet.octets, self.now);
        self.drain(packet.to);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(
                steps < 200_000,
                "an endless loop: {:?}",
                self.hosts[A].endpoint.poll_timeout()
            );
        }
    }

    pub fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Packets that the data planes would exchange now: tells both what they would see, and
    /// whether they pass.
    pub fn traffic(&mut self) {
        for from in [A, B] {
            let to = 1 - from;
            let outbound = self.hosts[from].outbound.clone().expect("no outbound SA");
            let inbound = self.hosts[to].inbound.get(&outbound.spi).expect("peer has no inbound");
            assert_eq!(outbound.encryption, inbound.encryption, "keys");
            assert_eq!(outbound.integrity, inbound.integrity, "keys");
            assert_eq!((outbound.suite, outbound.esn), (inbound.suite, inbound.esn));
            assert_eq!(outbound.local_selectors, inbound.remote_selectors);
            assert_eq!(outbound.remote_selectors, inbound.local_selectors);
            let spi = outbound.spi;
            self.command(to, Command::InboundSeen { tunnel: TUNNEL, spi });
        }
    }

    /// One IKE SA and one pair of Child SAs, the same on both sides, and traffic passes.
    pub fn assert_at_rest(&mut self) {
        self.traffic();
        for me in [A, B] {
            let host = &self.hosts[me];
            assert_eq!(
                host.inbound.len(),
                1,
                "inbound SAs of host {me}: {:?}",
                host.inbound.keys()
            );
            assert_eq!(host.endpoint.ike_sas(), 1, "IKE SAs of host {me}");
            assert_eq!(host.endpoint.half_open(), 0);
        }
        let infos = [A, B].map(|me| self.hosts[me].endpoint.ike_info(TUNNEL).unwrap());
        assert_eq!(infos[A].initiator_spi, infos[B].initiator_spi);
        assert_eq!(infos[A].responder_spi, infos[B].responder_spi);
        let children = [A, B].map(|me| self.hosts[me].endpoint.child_info(TUNNEL).unwrap());
        assert_eq!(children[A].inbound, children[B].outbound);
        assert_eq!(children[B].inbound, children[A].outbound);
    }

    /// A tunnel that A began.
    pub fn up(peers: [PeerConfig; 2], seed: u64) -> Self {
        let mut pair = Self::new(peers, seed);
        pair.command(A, Command::Initiate(TUNNEL));
        pair.run_secs(2);
        pair.assert_at_rest();
        pair
    }

    pub fn failures(&self, host: usize) -> Vec<String> {
        self.hosts[host]
            .events
            .iter()
            .filter_map(|e| match e {
                Event::Failed { diagnosis, .. } => Some(diagnosis.to_string()),
                _ => None,
            })
            .collect()
    }

    pub fn names(&self, host: usize) -> Vec<&'static str> {
        self.hosts[host].events.iter().map(name).collect()
    }

    pub fn ports(&self, host: usize) -> BTreeSet<(u16, u16)> {
        let ports = |t: &Transmit| (t.path.local.port(), t.path.remote.port());
        self.hosts[host].sent.iter().map(ports).collect()
    }

    /// Loses what is on the wire.
    pub fn lose_all(&mut self) {
        self.wire.clear();
    }
}

pub fn name(event: &Event) -> &'static str {
    match event {
        Event::InstallInbound(_) => "InstallInbound",
        Event::InstallOutbound(_) => "InstallOutbound",
        Event::RemoveInbound { .. } => "RemoveInbound",
        Event::RemoveOutbound { .. } => "RemoveOutbound",
        Event::IkeUp { .. } => "IkeUp",
        Event::IkeRekeyed { .. } => "IkeRekeyed",
        Event::ChildUp { .. } => "ChildUp",
        Event::ChildRekeyed { .. } => "ChildRekeyed",
        Event::PathChanged { .. } => "PathChanged",
        Event::ChildDown { .. } => "ChildDown",
        Event::IkeDown { .. } => "IkeDown",
        Event::Failed { .. } => "Failed",
    }
}
