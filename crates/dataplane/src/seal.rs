//! Sealing runs of packets for one outbound SA into datagrams (RFC 4303 section 3.3).

use std::collections::VecDeque;
use std::ops::Range;

use packet::{IpView, MAX_DATAGRAM, Run, WireBatch};
use sa::{EspSuite, Lifetime, OutboundSa, Path, SelectorSet, Spi, TunnelId};
use simd_aead::{Checksum, SealJob, seal_batch};

use crate::cipher::{self, Cbc, Cipher};
use crate::command::Limit;
use crate::inbound::push_event;
use crate::mtu::{ESP_HEADER, tunnel_mtu};
use crate::outbound::{is_ipv6, selector_ports};
use crate::{DataEvent, DropReason, ecn};

/// The most datagrams of one GSO send that every kernel takes.
const MAX_SEGMENTS: usize = 64;
/// The largest payload of a UDP datagram over IPv4, which bounds a GSO send.
const MAX_PAYLOAD: usize = MAX_DATAGRAM - 28;
const IPV4_IN_ESP: u8 = 4;
const IPV6_IN_ESP: u8 = 41;
/// Sequence numbers that are left when a rekey is asked for: a sixteenth of 32 bits, minutes at a
/// million packets a second, so that a rekey that fails can be tried again.
const SEQUENCE_MARGIN: u64 = 1 << 28;

/// An installed outbound SA.
pub(crate) struct OutboundHalf {
    tunnel: TunnelId,
    spi: Spi,
    suite: EspSuite,
    esn: bool,
    cipher: Cipher,
    /// The last sequence number that was used.
    sequence: u64,
    bytes: u64,
    lifetime: Lifetime,
    told: Told,
    path: Path,
    local: SelectorSet,
    remote: SelectorSet,
}

impl OutboundHalf {
    pub(crate) fn new(sa: &OutboundSa) -> Option<Self> {
        Some(Self {
            tunnel: sa.tunnel,
            spi: sa.spi,
            suite: sa.suite,
            esn: sa.esn,
            cipher: Cipher::new(sa.suite, &sa.encryption, &sa.integrity)?,
            sequence: 0,
            bytes: 0,
            lifetime: sa.lifetime,
            told: Told::default(),
            path: sa.path,
            local: sa.local_selectors.clone(),
            remote: sa.remote_selectors.clone(),
        })
    }

    pub(crate) fn spi(&self) -> Spi {
        self.spi
    }

    pub(crate) fn set_path(&mut self, path: Path) {
        self.path = path;
    }

    pub(crate) fn mtu(&self, link_mtu: u16) -> u16 {
        tunnel_mtu(link_mtu, is_ipv6(self.path.remote.ip()), self.suite)
    }

    pub(crate) fn check_selectors(&self, octets: &[u8], view: &IpView) -> Result<(), DropReason> {
        let (source, destination) = selector_ports(octets, view);
        let inside = self.local.matches(view.source, view.protocol, source)
            && self.remote.matches(view.destination, view.protocol, destination);
        if inside { Ok(()) } else { Err(DropReason::OutboundSelector) }
    }

    /// Takes the next sequence number, and says once for each limit that it is reached.
    fn take_sequence(
        &mut self,
        octets: usize,
        events: &mut VecDeque<DataEvent>,
    ) -> Result<u64, DropReason> {
        let last = if self.esn { u64::MAX } else { u64::from(u32::MAX) };
        if self.sequence >= last {
            if !std::mem::replace(&mut self.told.exhausted, true) {
                self.tell(Limit::Exhausted, events);
            }
            return Err(DropReason::SequenceExhausted);
        }
        self.sequence += 1;
        self.bytes = self.bytes.saturating_add(octets as u64);
        if last - self.sequence < SEQUENCE_MARGIN
            && !std::mem::replace(&mut self.told.sequence, true)
        {
            self.tell(Limit::Sequence, events);
        }
        if !self.told.lifetime
            && let Some(limit) = Limit::reached(&self.lifetime, self.sequence, self.bytes)
        {
            self.told.lifetime = true;
            self.tell(limit, events);
        }
        Ok(self.sequence)
    }

    fn tell(&self, limit: Limit, events: &mut VecDeque<DataEvent>) {
        let (tunnel, spi) = (self.tunnel, self.spi);
        push_event(events, DataEvent::SoftLimit { tunnel, spi, limit });
    }
}

/// Which limits of an SA were told.
#[derive(Default)]
struct Told {
    lifetime: bool,
    sequence: bool,
    exhausted: bool,
}

/// One inner packet: `prefix` from anywhere, then `body` of the inner batch.
pub(crate) struct Source<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) body: Range<usize>,
    /// A checksum in the prefix that is completed on the way.
    pub(crate) checksum: Option<Checksum>,
    /// Whether it is IPv6.
    pub(crate) ipv6: bool,
}

/// Lays packets of one SA out in the send buffer and seals them together.
#[derive(Default)]
pub(crate) struct Sealer {
    tunnel: Option<TunnelId>,
    jobs: Vec<SealJob>,
    cbc: Vec<CbcJob>,
    /// What a failure goes back to.
    start: Option<Mark>,
}

/// One packet of a CBC SA.
struct CbcJob {
    datagram: Range<usize>,
    /// Where the inner packet begins, and how much of it stands there already.
    inner: usize,
    prefix: usize,
    body: Range<usize>,
    checksum: Option<Checksum>,
    sequence: u64,
}

impl CbcJob {
    /// `None` only by a fault of ours.
    fn seal(&self, cbc: &Cbc, esn: bool, src: &[u8], wire: &mut WireBatch) -> Option<()> {
        let body = src.get(self.body.clone())?;
        let inner = wire.bytes.get_mut(self.inner..)?;
        let (prefix, room) = inner.split_at_mut_checked(self.prefix)?;
        if let Some(checksum) = &self.checksum {
            checksum.complete(prefix, body);
        }
        room.get_mut(..body.len())?.copy_from_slice(body);
        let high = esn.then_some((self.sequence >> 32) as u32);
        cbc.seal(wire.bytes.get_mut(self.datagram.clone())?, high)
    }
}

/// The state of a wire batch before the first pending job.
pub(crate) struct Mark {
    octets: usize,
    runs: usize,
    last: Option<Run>,
}

impl Mark {
    pub(crate) fn of(wire: &WireBatch) -> Self {
        Self { octets: wire.taken(), runs: wire.runs.len(), last: wire.runs.last().cloned() }
    }

    /// Takes out of `wire` what came since.
    pub(crate) fn restore(self, wire: &mut WireBatch) {
        wire.give_back(self.octets);
        wire.runs.truncate(self.runs);
        if let (Some(run), Some(old)) = (wire.runs.last_mut(), self.last) {
            *run = old;
        }
    }
}

impl Sealer {
    /// The tunnel whose packets are pending.
    pub(crate) fn tunnel(&self) -> Option<TunnelId> {
        self.tunnel
    }

    /// Names the tunnel of the packets that follow. Those of another one were flushed before.
    pub(crate) fn begin(&mut self, tunnel: TunnelId) {
        self.tunnel = Some(tunnel);
    }

    /// Lays one packet out: ESP header, IV, prefix, room for the body, trailer, room for the ICV.
    pub(crate) fn push(
        &mut self,
        half: &mut OutboundHalf,
        tos: u8,
        source: Source<'_>,
        wire: &mut WireBatch,
        events: &mut VecDeque<DataEvent>,
    ) -> Result<(), DropReason> {
        let inner_len = source.prefix.len() + source.body.len();
        let sequence = half.take_sequence(inner_len, events)?;
        self.start.get_or_insert_with(|| Mark::of(wire));
        let suite = half.suite;
        let pad_to = suite.pad_to();
        let padding = (pad_to - (inner_len + 2) % pad_to) % pad_to;
        let iv_len = suite.iv_len();
        let sealed = inner_len + padding + 2;
        let datagram = wire.room(ESP_HEADER + iv_len + sealed + suite.icv_len());
        let plain = datagram.start + ESP_HEADER + iv_len;
        let low = sequence.to_be_bytes();
        let out = wire.bytes.get_mut(datagram.clone()).ok_or(DropReason::Internal)?;
        put(out, 0, &half.spi.to_be_bytes());
        put(out, 4, &low[4..]);
        match &half.cipher {
            // The sequence number as explicit IV never repeats under a key (RFC 4106 3.1).
            Cipher::Aead { .. } => put(out, ESP_HEADER, &low),
            Cipher::Cbc(cbc) => put(out, ESP_HEADER, &cbc.iv(sequence)),
        }
        put(out, ESP_HEADER + iv_len, source.prefix);
        let next_header = if source.ipv6 { IPV6_IN_ESP } else { IPV4_IN_ESP };
        lay_trailer(out, ESP_HEADER + iv_len + inner_len, padding, next_header);
        match &half.cipher {
            Cipher::Aead { salt, .. } => self.jobs.push(SealJob {
                key: 0,
                nonce: cipher::nonce(*salt, low),
                aad: cipher::aad(half.spi, sequence, half.esn),
                dst: plain,
                prefix: source.prefix.len(),
                body: source.body,
                suffix: padding + 2,
                checksum: source.checksum,
            }),
            Cipher::Cbc(_) => self.cbc.push(CbcJob {
                datagram: datagram.clone(),
                inner: plain,
                prefix: source.prefix.len(),
                body: source.body,
                checksum: source.checksum,
                sequence,
            }),
        }
        append_run(wire, half.path, ecn::encapsulate(tos), datagram);
        Ok(())
    }

    /// Seals everything pending with `half`. On failure, which only a fault of ours can cause,
    /// nothing of it stays in `wire`.
    pub(crate) fn flush(&mut self, half: &OutboundHalf, src: &[u8], wire: &mut WireBatch) -> bool {
        self.tunnel = None;
        let sealed = match &half.cipher {
            Cipher::Aead { key, .. } => {
                seal_batch(&[key], src, &mut wire.bytes, &self.jobs).is_ok()
            }
            Cipher::Cbc(cbc) => {
                self.cbc.iter().all(|job| job.seal(cbc, half.esn, src, wire).is_some())
            }
        };
        self.jobs.clear();
        self.cbc.clear();
        if let Some(mark) = self.start.take().filter(|_| !sealed) {
            mark.restore(wire);
        }
        sealed
    }
}

fn put(out: &mut [u8], at: usize, octets: &[u8]) {
    if let Some(room) = out.get_mut(at..at + octets.len()) {
        room.copy_from_slice(octets);
    }
}

/// Padding 1, 2, 3, …, its length and the next header (RFC 4303 2.4).
fn lay_trailer(out: &mut [u8], at: usize, padding: usize, next_header: u8) {
    let Some(trailer) = out.get_mut(at..at + padding + 2) else { return };
    for (octet, value) in trailer.iter_mut().zip(1..=u8::MAX).take(padding) {
        *octet = value;
    }
    put(trailer, padding, &[u8::try_from(padding).unwrap_or(0), next_header]);
}

/// Adds a datagram to the last run if it may join it, or begins a new one.
pub(crate) fn append_run(wire: &mut WireBatch, path: Path, tos: u8, datagram: Range<usize>) {
    let size = datagram.len();
    if let Some(run) = wire.runs.last_mut() {
        let full = run.range.len().checked_rem(run.segment) == Some(0);
        let same = run.local == path.local && run.remote == path.remote && run.tos == tos;
        let fits = run.range.len() / run.segment.max(1) < MAX_SEGMENTS
            && run.range.len() + size <= MAX_PAYLOAD;
        if same && full && fits && size <= run.segment && run.range.end == datagram.start {
            run.range.end = datagram.end;
            return;
        }
    }
    wire.runs.push(Run {
        local: path.local,
        remote: path.remote,
        range: datagram,
        segment: size,
        tos,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sa::{Bits, Secret};
    use std::time::Duration;

    #[test]
    fn the_last_sequence_number_is_used_once_and_a_rekey_was_asked_for_before() {
        for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let suite = EspSuite::AesGcm16(Bits::B128);
            let path = Path {
                local: "192.0.2.1:4500".parse().unwrap(),
                remote: "192.0.2.2:4500".parse().unwrap(),
            };
            let mut half = OutboundHalf::new(&OutboundSa {
                tunnel: TunnelId(1),
                spi: Spi(0x1000),
                suite,
                esn,
                encryption: Secret::new(vec![1; suite.encryption_keymat_len()]),
                integrity: Secret::default(),
                local_selectors: SelectorSet::default(),
                remote_selectors: SelectorSet::default(),
                path,
                lifetime: Lifetime { time: Duration::from_secs(1), bytes: None, packets: None },
            })
            .unwrap();
            let mut events = VecDeque::new();
            half.sequence = last - 2;
            assert_eq!(half.take_sequence(1, &mut events), Ok(last - 1));
            assert_eq!(half.take_sequence(1, &mut events), Ok(last));
            let exhausted = Err(DropReason::SequenceExhausted);
            assert_eq!(half.take_sequence(1, &mut events), exhausted);
            assert_eq!(half.take_sequence(1, &mut events), exhausted);
            let told = [Limit::Sequence, Limit::Exhausted].map(|limit| DataEvent::SoftLimit {
                tunnel: TunnelId(1),
                spi: Spi(0x1000),
                limit,
            });
            assert_eq!(events, told);
        }
    }
}
