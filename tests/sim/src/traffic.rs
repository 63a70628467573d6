//! Inner packets: how they look and where they go.

use std::net::Ipv4Addr;
use std::time::Duration;

use packet::{InnerBatch, WireBatch};
use sa::{Bits, CbcIntegrity, EspSuite, Path};

use crate::fault::Fault;
use crate::net::OUTER;
use crate::sites::Settings;
use crate::world::World;

/// What the longest ESP leaves of an outer path of 576 octets, below which none is taken to be.
fn least_mtu() -> usize {
    let suite = EspSuite::AesCbc(Bits::B256, CbcIntegrity::Sha512);
    dataplane::mtu::tunnel_mtu(576, false, suite).into()
}

/// A UDP packet with an identification, and content that depends on it.
fn udp(id: u16, source: Ipv4Addr, destination: Ipv4Addr, length: usize, df: bool) -> Vec<u8> {
    let total = length.max(28) as u16;
    let mut out = vec![0x45, 0];
    out.extend(total.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend([if df { 0x40 } else { 0 }, 0, 64, 17, 0, 0]);
    out.extend(source.octets());
    out.extend(destination.octets());
    let sum = packet::checksum::of(&[&out]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend([0x30, 0x39, 0x30, 0x39]);
    out.extend((total - 20).to_be_bytes());
    out.extend([0, 0]);
    out.extend((28..total).map(|i| (i ^ id) as u8));
    out
}

impl World {
    /// Lets time pass with traffic: every site sends a packet to each of its peers every `gap`.
    pub(crate) fn run(&mut self, time: Duration, gap: Duration) {
        let end = self.now + time;
        // Short pauses have a packet, too, now and then.
        let mut next = self.now + gap.mul_f64(self.draw.number(0..=100) as f64 / 100.0);
        while next <= end {
            self.advance(next);
            for agent in 1..self.nodes.len() {
                self.send_packet(0, agent);
                self.send_packet(agent, 0);
            }
            next += gap.max(Duration::from_millis(1));
        }
        self.advance(end);
    }

    /// Sends one packet from one site to another, most often to the networks behind them.
    pub(crate) fn send_packet(&mut self, from: usize, to: usize) {
        let agent = from.max(to);
        let Some(id) = self.model.next_id().filter(|_| self.nodes[from].alive) else { return };
        let tunnel = self.draw.chance(150).then(|| self.draw.index(2) as u8);
        let address = |of_vgw: bool| match tunnel {
            Some(tunnel) => Settings::inside_address(agent, tunnel, of_vgw),
            None if of_vgw => Ipv4Addr::new(10, 0, 1, agent as u8),
            None => Ipv4Addr::new(192, 168, agent as u8, 7),
        };
        let length = match self.draw.index(20) {
            0 => self.draw.number(1_300..=1_500),
            1..=4 => self.draw.number(300..=1_200),
            _ => self.draw.number(28..=90),
        };
        let (length, df) = (length as usize, self.draw.coin());
        let octets = udp(id, address(from == 0), address(to == 0), length, df);
        let fits = !df || length <= least_mtu() || length <= self.nodes[from].smallest_mtu();
        let packet = self.model.sent(from, to, octets.clone(), fits);
        if let Some(text) = self.offer(from, &octets, Some(packet)) {
            self.model.refused(packet, &text);
        }
    }

    /// A packet comes out of a site's network: what is sealed of it goes out. Says which drops the
    /// sending half has counted if nothing was.
    fn offer(&mut self, from: usize, octets: &[u8], packet: Option<usize>) -> Option<String> {
        let (mut inner, mut back) = (InnerBatch::default(), InnerBatch::default());
        let mut wire = WireBatch::default();
        inner.push(octets);
        let clock = self.nodes[from].clock(self.now);
        let node = &mut self.nodes[from];
        node.outbound.seal(&inner, clock, &mut wire, &mut back);
        node.account.offered += 1;
        node.pass_events(clock);
        let mut refused = None;
        if wire.runs.is_empty() {
            node.account.refused += 1;
            refused = Some(node.drop_text(false));
        }
        let sealed = self.send_runs(from, &wire, packet);
        self.nodes[from].account.sealed += sealed;
        self.settle(from);
        refused
    }

    /// What a site's kernel does with an ICMP packet out of the tunnel: it answers echo requests.
    pub(crate) fn answer(&mut self, host: usize, octets: &[u8]) {
        let later = octets[6] & 0x1f != 0 || octets[7] != 0;
        if later {
            // The end of a long answer; its beginning was enough for whoever asked.
            return;
        }
        self.model.probe_came(host, octets);
        let mut reply = octets.to_vec();
        let (source, destination) = (octets[12..16].to_vec(), octets[16..20].to_vec());
        reply[12..16].copy_from_slice(&destination);
        reply[16..20].copy_from_slice(&source);
        // Answers of Linux may be fragmented.
        reply[6] = 0;
        reply[20] = 0;
        for at in [10, 11, 22, 23] {
            reply[at] = 0;
        }
        let sum = packet::checksum::of(&[&reply[..20]]);
        reply[10..12].copy_from_slice(&sum.to_be_bytes());
        let _ = self.offer(host, &reply, None);
    }

    /// Sends the probes that a site made.
    pub(crate) fn send_probes(&mut self, host: usize) {
        let node = &mut self.nodes[host];
        if node.probes.is_empty() {
            return;
        }
        for probe in std::mem::take(&mut node.probes) {
            self.model.probe_made(&probe);
        }
        let mut wire = WireBatch::default();
        node.outbound.seal_probes(false, &mut wire);
        node.outbound.seal_probes(true, &mut wire);
        let sealed = self.send_runs(host, &wire, None);
        self.nodes[host].account.probes += sealed;
    }

    fn send_runs(&mut self, from: usize, wire: &WireBatch, packet: Option<usize>) -> u64 {
        let mut sealed = 0;
        for run in &wire.runs {
            let octets = wire.bytes.get(run.range.clone()).unwrap_or_default();
            let path = Path { local: run.local, remote: run.remote };
            for datagram in octets.chunks(run.segment.max(1)) {
                self.send_sealed(from, packet, path, datagram.to_vec());
                sealed += 1;
            }
        }
        sealed
    }

    fn send_sealed(&mut self, from: usize, packet: Option<usize>, path: Path, datagram: Vec<u8>) {
        let node = &mut self.nodes[from];
        let spi = datagram.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        let key = node.keys.get(&sa::Spi(spi)).copied().unwrap_or_default();
        let number = self.model.sealed(packet, &datagram, key);
        if self.fault == Fault::RepeatSequence {
            self.model.sealed(packet, &datagram, key);
        }
        let too_large = datagram.len() + OUTER > self.net.mtu;
        self.net.send(from, path, datagram, Some(number), self.now);
        if too_large && self.settings.icmp {
            let node = &mut self.nodes[from];
            let mtu = u16::try_from(self.net.mtu).unwrap_or(u16::MAX);
            node.gateway.handle_path_mtu(path, mtu, node.clock(self.now));
        }
    }
}
