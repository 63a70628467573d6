//! The receiving direction: tell the datagrams apart, open them, check what was inside.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use packet::{Datagram, DatagramBatch, InnerBatch, InnerPacket, WireBatch};
use sa::{Path, Spi, TunnelId};
use simd_aead::{OpenJob, open_batch};

use crate::cipher::{self, Cipher};
use crate::demux::{self, Kind, NON_ESP_MARKER};
use crate::icmp::RateLimit;
use crate::mtu::ESP_HEADER;
use crate::open::{InboundHalf, Opened, refused};
use crate::sources::Sources;
use crate::wireguard::flood::FloodGate;
use crate::wireguard::receive::WireGuardRun;
use crate::{Counters, DataEvent, DropReason, InboundCommand, TunnelCounters, WireGuard};

const DEFAULT_LINK_MTU: u16 = 1500;
/// Events that wait at most; further ones are lost, and would say the same again.
const MAX_EVENTS: usize = 1024;

/// Owns everything that receiving needs. One thread owns it; nothing in it is shared but counters.
pub struct Inbound {
    /// Ordered, because a hash map keyed by what strangers send would want a secret seed.
    sad: BTreeMap<Spi, InboundHalf>,
    pub(crate) links: BTreeMap<TunnelId, Link>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sources: Sources,
    pub(crate) wireguard: Arc<WireGuard>,
    pub(crate) handshakes: FloodGate,
    pub(crate) replies: WireBatch,
    unknown_spi: RateLimit,
    pub(crate) pending: Vec<Pending>,
    pub(crate) jobs: Vec<OpenJob>,
    /// Whether opened packets get their sum.
    pub(crate) sums: bool,
    events: VecDeque<DataEvent>,
}

/// What is known of the way from a peer.
pub(crate) struct Link {
    pub(crate) mtu: u16,
    pub(crate) counters: Arc<TunnelCounters>,
    /// The SAs of the tunnel.
    spis: Vec<Spi>,
}

/// A packet whose ICV is being checked.
pub(crate) struct Pending {
    pub(crate) sequence: u64,
    pub(crate) plain: Range<usize>,
    pub(crate) path: Path,
    pub(crate) tos: u8,
    pub(crate) ok: bool,
    /// The sum of the plaintext, where opening gives it.
    pub(crate) sum: Option<u16>,
}

/// Packets under one key that are opened together.
pub(crate) enum Run {
    Esp(Spi),
    WireGuard(WireGuardRun),
}

impl Inbound {
    /// A data plane without SAs, which passes IKE on and drops everything else.
    #[must_use]
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            sad: BTreeMap::new(),
            links: BTreeMap::new(),
            counters,
            sources: Sources::default(),
            wireguard: Arc::default(),
            handshakes: FloodGate::default(),
            replies: WireBatch::default(),
            unknown_spi: RateLimit::new(1),
            pending: Vec::new(),
            jobs: Vec::new(),
            sums: true,
            events: VecDeque::new(),
        }
    }

    /// Whether packets get the sum of their octets ([`InnerPacket::sum`]), which only a TUN device that
    /// merges segments wants. They do at first.
    pub fn want_sums(&mut self, wanted: bool) {
        self.sums = wanted;
    }

    /// Carries out a command. An SA whose keys do not fit its suite is not installed, and counted.
    pub fn apply(&mut self, command: InboundCommand) {
        match command {
            InboundCommand::Install(sa) => {
                let link = self.link(sa.tunnel);
                match InboundHalf::new(&sa, Arc::clone(&link.counters), link.mtu) {
                    Some(half) => {
                        self.remove(sa.spi);
                        self.link(sa.tunnel).spis.push(sa.spi);
                        self.sad.insert(sa.spi, half);
                    }
                    None => self.counters.count_drop(DropReason::Internal),
                }
            }
            InboundCommand::Remove { spi, .. } => self.remove(spi),
            InboundCommand::SetLinkMtu { tunnel, mtu } => {
                let link = self.link(tunnel);
                link.mtu = mtu;
                // A tunnel has one SA, and a few more while it is rekeyed.
                for spi in link.spis.clone() {
                    if let Some(half) = self.sad.get_mut(&spi) {
                        half.set_link_mtu(mtu);
                    }
                }
            }
            InboundCommand::SetSources(routes) => self.sources = Sources::new(&routes),
            InboundCommand::SetWireGuard(table) => {
                for id in table.ids() {
                    let _ = self.link(id);
                }
                self.wireguard = table;
            }
            InboundCommand::WireGuardTimers(now) => {
                let lost = self.wireguard.tick(now, &mut self.replies);
                (0..lost).for_each(|_| self.counters.count_drop(DropReason::WireGuardQueue));
            }
            InboundCommand::WireGuardRekey(id) => self.wireguard.rekey(id, &mut self.replies),
        }
    }

    fn link(&mut self, tunnel: TunnelId) -> &mut Link {
        let counters = &self.counters;
        self.links.entry(tunnel).or_insert_with(|| Link {
            mtu: DEFAULT_LINK_MTU,
            counters: counters.tunnel(tunnel),
            spis: Vec::new(),
        })
    }

    fn remove(&mut self, spi: Spi) {
        let Some(half) = self.sad.remove(&spi) else { return };
        if let Some(link) = self.links.get_mut(&half.tunnel()) {
            link.spis.retain(|other| *other != spi);
        }
    }

    /// Messages that WireGuard peers must get, since the owner cleared them last.
    pub fn replies(&mut self) -> &mut WireBatch {
        &mut self.replies
    }

    /// The next thing that the control plane should know.
    pub fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    /// Opens every packet of `batch` and appends what was inside to `inner`, in order. IKE messages
    /// are appended to `slow` without their marker; what WireGuard answers is in
    /// [`Self::replies`].
    pub fn open(
        &mut self,
        batch: &DatagramBatch,
        now: Instant,
        inner: &mut InnerBatch,
        slow: &mut DatagramBatch,
    ) {
        let mut current = None;
        for datagram in &batch.datagrams {
            let segment = datagram.segment.max(1);
            let mut start = datagram.range.start;
            loop {
                let range = start..start.saturating_add(segment).min(datagram.range.end);
                start = range.end;
                let octets = batch.bytes.get(range.clone()).unwrap_or_default();
                match demux::classify(octets) {
                    Kind::Ike => {
                        let message = octets.get(NON_ESP_MARKER..).unwrap_or_default();
                        slow.push(datagram.local, datagram.remote, datagram.tos, message);
                    }
                    Kind::Keepalive => self.counters.keepalive(),
                    Kind::WireGuard => {
                        let message = (datagram, range);
                        let taken =
                            self.receive_wireguard(batch, message, now, inner, &mut current);
                        if let Err(reason) = taken {
                            self.counters.count_drop(reason);
                        }
                    }
                    Kind::Runt => self.counters.count_drop(DropReason::Runt),
                    Kind::Esp => {
                        let packet = (datagram, range);
                        if let Err(reason) = self.begin(batch, packet, now, inner, &mut current) {
                            self.counters.count_drop(reason);
                        }
                    }
                }
                if start >= datagram.range.end {
                    break;
                }
            }
        }
        self.finish(batch, current, now, inner);
    }

    /// Checks what can be checked before the ICV and queues the packet for opening.
    fn begin(
        &mut self,
        batch: &DatagramBatch,
        (datagram, range): (&Datagram, Range<usize>),
        now: Instant,
        inner: &mut InnerBatch,
        current: &mut Option<Run>,
    ) -> Result<(), DropReason> {
        let octets = batch.bytes.get(range.clone()).unwrap_or_default();
        let (Some(spi), Some(low)) = (word(octets, 0), word(octets, 4)) else {
            return Err(DropReason::EspMalformed);
        };
        let spi = Spi(spi);
        let path = Path { local: datagram.local, remote: datagram.remote };
        if !matches!(current, Some(Run::Esp(of)) if *of == spi) {
            self.finish(batch, current.take(), now, inner);
        }
        let Some(half) = self.sad.get_mut(&spi) else {
            if self.unknown_spi.allow(now) {
                push_event(
                    &mut self.events,
                    DataEvent::UnknownSpi { spi, path, octets: octets.len() },
                );
            }
            return Err(DropReason::UnknownSpi);
        };
        *current = Some(Run::Esp(spi));
        let suite = half.suite();
        let overhead = ESP_HEADER + suite.iv_len() + suite.icv_len();
        let sealed = octets.len().checked_sub(overhead).ok_or(DropReason::EspMalformed)?;
        if sealed < suite.pad_to() || sealed % suite.pad_to() != 0 {
            return Err(DropReason::EspMalformed);
        }
        let sequence = half.window.infer(low);
        half.window.check(sequence).map_err(refused)?;
        let plain = inner.room(sealed);
        let at = plain.start;
        let mut pending =
            Pending { sequence, plain, path, tos: datagram.tos, ok: false, sum: None };
        match &half.cipher {
            Cipher::Aead { salt, .. } => {
                let iv = octets.get(8..16).and_then(|iv| iv.first_chunk::<8>());
                self.jobs.push(OpenJob {
                    key: 0,
                    nonce: cipher::nonce(*salt, *iv.ok_or(DropReason::EspMalformed)?),
                    aad: cipher::aad(spi, sequence, half.esn()),
                    src: range.start + 16..range.end,
                    dst: at,
                    ok: false,
                    sum: self.sums.then_some(0),
                });
            }
            Cipher::Cbc(cbc) => {
                let high = half.esn().then_some((sequence >> 32) as u32);
                let room = inner.bytes.get_mut(pending.plain.clone()).unwrap_or_default();
                pending.ok = cbc.open(octets, high, room).is_some();
            }
        }
        self.pending.push(pending);
        Ok(())
    }

    /// Opens everything queued of `run` and delivers what passes.
    pub(crate) fn finish(
        &mut self,
        batch: &DatagramBatch,
        run: Option<Run>,
        now: Instant,
        inner: &mut InnerBatch,
    ) {
        match run {
            Some(Run::Esp(spi)) => self.finish_esp(batch, spi, now, inner),
            Some(Run::WireGuard(run)) => self.finish_wireguard(batch, &run, now, inner),
            None => {}
        }
    }

    fn finish_esp(
        &mut self,
        batch: &DatagramBatch,
        spi: Spi,
        now: Instant,
        inner: &mut InnerBatch,
    ) {
        let Some(half) = self.sad.get_mut(&spi) else {
            self.pending.clear();
            self.jobs.clear();
            return;
        };
        if let Cipher::Aead { key, .. } = &half.cipher {
            if open_batch(&[key], &batch.bytes, &mut inner.bytes, &mut self.jobs).is_err() {
                self.counters.count_drop(DropReason::Internal);
            }
            for (pending, job) in self.pending.iter_mut().zip(&self.jobs) {
                (pending.ok, pending.sum) = (job.ok, job.sum);
            }
        }
        for packet in self.pending.drain(..) {
            let delivered = if packet.ok {
                let room = inner.bytes.get_mut(packet.plain.clone()).unwrap_or_default();
                let (outer, told) = ((packet.path, packet.tos, now), &mut self.events);
                let plain = (room, packet.sum);
                half.receive(packet.sequence, outer, plain, &mut self.sources, told)
            } else {
                Err(DropReason::IcvMismatch)
            };
            match delivered {
                Ok(Opened { length: 0, .. }) => {}
                Ok(Opened { length, sum }) => inner.packets.push(InnerPacket {
                    range: packet.plain.start..packet.plain.start + length,
                    gso: None,
                    checksum: None,
                    sum,
                }),
                Err(reason) => self.counters.count_drop(reason),
            }
        }
        self.jobs.clear();
    }
}

pub(crate) fn push_event(events: &mut VecDeque<DataEvent>, event: DataEvent) {
    if events.len() < MAX_EVENTS {
        events.push_back(event);
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word))
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbound({} SAs)", self.sad.len())
    }
}
