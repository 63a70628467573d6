//! The reference model: every packet that was sent, what may become of it, and what was used once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::violation::{Kind, Violation};

/// Octets of the inner IPv4 header.
const HEADER: usize = 20;
/// Violations that are kept; one is enough to know that the schedule failed.
const MOST: usize = 8;

/// Whether packets of one connection in one direction must arrive.
#[derive(Clone, Copy, Default)]
struct Claim {
    /// They must, because both sides are at rest and nothing was done that may cost packets.
    calm: bool,
    /// What was sent before the last disturbance may be lost.
    epoch: u64,
    since: Duration,
}

struct Packet {
    to: usize,
    octets: Vec<u8>,
    /// Connection, direction, and the epoch in which it must arrive.
    claim: Option<(usize, usize, u64)>,
    whole: bool,
    /// Fragments that came: offset and length.
    pieces: BTreeMap<usize, usize>,
}

/// See the module.
pub(crate) struct Model {
    pub(crate) at: Duration,
    packets: Vec<Packet>,
    /// The packet of each sealed datagram, none for probes and their answers, and whether what
    /// was in it came out.
    datagrams: Vec<(Option<usize>, bool)>,
    /// Probes by their digest: how many were made, and how many came out.
    probes: HashMap<u64, (u64, u64)>,
    claims: Vec<[Claim; 2]>,
    ivs: HashSet<(u64, [u8; 16])>,
    sequences: HashSet<(u64, u32)>,
    ike_ivs: HashMap<(u64, u64, bool, [u8; 8]), u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) delivered: u64,
    /// Packets that had to arrive.
    pub(crate) claimed: u64,
}

fn digest(octets: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    octets.hash(&mut hasher);
    hasher.finish()
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |w| u32::from_be_bytes(*w))
}

impl Model {
    pub(crate) fn new(agents: usize) -> Self {
        Self {
            at: Duration::ZERO,
            packets: Vec::new(),
            datagrams: Vec::new(),
            probes: HashMap::new(),
            claims: vec![[Claim::default(); 2]; agents + 1],
            ivs: HashSet::new(),
            sequences: HashSet::new(),
            ike_ivs: HashMap::new(),
            violations: Vec::new(),
            delivered: 0,
            claimed: 0,
        }
    }

    /// Notes a broken invariant.
    pub(crate) fn object(&mut self, kind: Kind, text: String) {
        if self.violations.len() < MOST {
            self.violations.push(Violation { kind, at: self.at, text });
        }
    }

    /// Something was done to a customer gateway's connection that may cost packets from the VGW
    /// (direction 0) or to it (1).
    pub(crate) fn disturb(&mut self, agent: usize, direction: usize) {
        let claim = &mut self.claims[agent][direction];
        claim.calm = false;
        claim.epoch += 1;
        claim.since = self.at;
    }

    /// How long ago the last disturbance was; `None` if packets must arrive already.
    pub(crate) fn disturbed_for(&self, agent: usize, direction: usize) -> Option<Duration> {
        let claim = &self.claims[agent][direction];
        (!claim.calm).then(|| self.at.saturating_sub(claim.since))
    }

    /// From now on packets must arrive.
    pub(crate) fn calm(&mut self, agent: usize, direction: usize) {
        self.claims[agent][direction].calm = true;
    }

    /// The number that the next packet must have as its IPv4 identification.
    pub(crate) fn next_id(&self) -> Option<u16> {
        u16::try_from(self.packets.len()).ok()
    }

    /// A site sends a packet; `fits` is whether it can go through the tunnel at all.
    pub(crate) fn sent(&mut self, from: usize, to: usize, octets: Vec<u8>, fits: bool) -> usize {
        let (agent, direction) = if from == 0 { (to, 0) } else { (from, 1) };
        let claim = self.claims[agent][direction];
        let claim = (claim.calm && fits).then_some((agent, direction, claim.epoch));
        self.claimed += u64::from(claim.is_some());
        self.packets.push(Packet { to, octets, claim, whole: false, pieces: BTreeMap::new() });
        self.packets.len() - 1
    }

    fn must_arrive(&self, packet: Option<usize>) -> bool {
        let Some(packet) = packet else { return false };
        self.packets[packet]
            .claim
            .is_some_and(|(agent, direction, epoch)| self.claims[agent][direction].epoch == epoch)
    }

    /// The sender refused it.
    pub(crate) fn refused(&mut self, packet: usize, why: &str) {
        if self.must_arrive(Some(packet)) {
            self.object(Kind::Lost, format!("packet {packet} was not sent: {why}"));
        }
    }

    /// A datagram was sealed under `key`, with an IV of `iv` octets; returns its number.
    pub(crate) fn sealed(
        &mut self,
        packet: Option<usize>,
        octets: &[u8],
        key: (u64, usize),
    ) -> usize {
        let (digest, iv_len) = key;
        let mut iv = [0; 16];
        for (to, from) in iv.iter_mut().zip(octets.iter().skip(8).take(iv_len)) {
            *to = *from;
        }
        let (spi, sequence) = (word(octets, 0), word(octets, 4));
        if !self.sequences.insert((digest, sequence)) {
            self.object(Kind::Reuse, format!("sequence number {sequence} of SPI {spi:08x} twice"));
        }
        if !self.ivs.insert((digest, iv)) {
            self.object(Kind::Reuse, format!("IV {iv:02x?} of SPI {spi:08x} twice"));
        }
        self.datagrams.push((packet, false));
        self.datagrams.len() - 1
    }

    /// An IKE message goes out. The same IV may stand twice in what is the same message.
    pub(crate) fn ike_sent(&mut self, octets: &[u8]) {
        let (Some(header), Some(next)) = (octets.first_chunk::<28>(), octets.get(16)) else {
            return;
        };
        let at = match next {
            46 => 32,
            53 => 36,
            _ => return,
        };
        let Some(iv) = octets.get(at..).and_then(<[u8]>::first_chunk::<8>) else { return };
        let spi = |at: usize| u64::from(word(header, at)) << 32 | u64::from(word(header, at + 4));
        let key = (spi(0), spi(8), header[19] & 8 != 0, *iv);
        let this = digest(octets);
        if *self.ike_ivs.entry(key).or_insert(this) != this {
            self.object(Kind::Reuse, format!("IV {iv:02x?} in two IKE messages of {:016x}", key.0));
        }
    }

    /// A datagram reached its host and was opened; `came` packets came out of it.
    pub(crate) fn opened(&mut self, datagram: usize, came: usize, why: impl FnOnce() -> String) {
        let (packet, before) = self.datagrams[datagram];
        self.datagrams[datagram].1 |= came > 0;
        if came == 0 && !before && self.must_arrive(packet) {
            let packet = packet.unwrap_or_default();
            self.object(Kind::Lost, format!("packet {packet} arrived and was dropped: {}", why()));
        }
    }

    /// A site made a probe.
    pub(crate) fn probe_made(&mut self, octets: &[u8]) {
        self.probes.entry(digest(octets)).or_default().0 += 1;
    }

    /// A probe came out at a site.
    pub(crate) fn probe_came(&mut self, host: usize, octets: &[u8]) {
        let (made, came) = self.probes.entry(digest(octets)).or_default();
        *came += 1;
        if came > made {
            self.object(Kind::NeverSent, format!("a probe at site {host}"));
        }
    }

    /// A packet came out at a site.
    pub(crate) fn delivered(&mut self, host: usize, octets: &[u8]) {
        let id = usize::from((word(octets, 4) >> 16) as u16);
        let flags = word(octets, 4) as u16;
        let Some(packet) = self.packets.get_mut(id).filter(|p| p.to == host) else {
            return self.object(Kind::NeverSent, format!("a packet {id} at site {host}"));
        };
        self.delivered += 1;
        if flags & 0x3fff == 0 {
            if packet.octets != octets {
                return self.object(Kind::NeverSent, format!("packet {id} is not as it was sent"));
            }
            if std::mem::replace(&mut packet.whole, true) {
                self.object(Kind::DeliveredTwice, format!("packet {id} at site {host}"));
            }
            return;
        }
        let offset = usize::from(flags & 0x1fff) * 8;
        let body = &octets[HEADER.min(octets.len())..];
        if packet.octets.get(HEADER + offset..HEADER + offset + body.len()) != Some(body) {
            return self.object(Kind::NeverSent, format!("a fragment of {id} is not as it was"));
        }
        if packet.pieces.insert(offset, body.len()).is_some() {
            self.object(Kind::DeliveredTwice, format!("a fragment of packet {id} at site {host}"));
        }
    }
}
