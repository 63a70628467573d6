//! The sending direction: route, check, cut to size, seal.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use packet::{Gso, GsoKind, InnerBatch, InnerPacket, IpView, WireBatch};
use sa::TunnelId;
use simd_aead::Checksum;

use crate::icmp::{self, IcmpSource, RateLimit};
use crate::seal::{OutboundHalf, Sealer, Source};
use crate::spd::Prefixes;
use crate::wireguard::send::WireGuardSealer;
use crate::{
    Counters, DataEvent, DropReason, OutboundCommand, RouteTarget, TunnelCounters, WireGuard,
};
use crate::{fragment, mss, segment};

/// ICMP errors a second.
const ICMP_RATE: u32 = 100;
const DEFAULT_LINK_MTU: u16 = 1500;

/// Owns everything that sending needs. One thread owns it; nothing in it is shared but counters.
pub struct Outbound {
    spd: Prefixes<RouteTarget>,
    tunnels: BTreeMap<TunnelId, Tunnel>,
    wireguard: Arc<WireGuard>,
    counters: Arc<Counters>,
    icmp_source: IcmpSource,
    icmp_rate: RateLimit,
    sealer: Sealer,
    wireguard_sealer: WireGuardSealer,
    /// Headers of a segment, or a packet that had to be changed.
    scratch: Vec<u8>,
    /// A segment that is fragmented.
    whole: Vec<u8>,
    /// One fragment.
    piece: Vec<u8>,
    events: VecDeque<DataEvent>,
    /// Probes that wait to be sealed.
    probes: Vec<(bool, TunnelId, Vec<u8>)>,
}

/// Probes that wait at most: the control plane sends few, and a worker takes them at once.
const MAX_PROBES: usize = 4096;

struct Tunnel {
    link_mtu: u16,
    half: Option<OutboundHalf>,
    counters: Arc<TunnelCounters>,
}

impl Outbound {
    /// A data plane without routes and SAs, which drops everything.
    #[must_use]
    pub fn new(counters: Arc<Counters>, icmp_source: IcmpSource) -> Self {
        Self {
            spd: Prefixes::default(),
            tunnels: BTreeMap::new(),
            wireguard: Arc::default(),
            counters,
            icmp_source,
            icmp_rate: RateLimit::new(ICMP_RATE),
            sealer: Sealer::default(),
            wireguard_sealer: WireGuardSealer::default(),
            scratch: Vec::new(),
            whole: Vec::new(),
            piece: Vec::new(),
            events: VecDeque::new(),
            probes: Vec::new(),
        }
    }

    fn tunnel(&mut self, id: TunnelId) -> &mut Tunnel {
        let counters = &self.counters;
        self.tunnels.entry(id).or_insert_with(|| Tunnel {
            link_mtu: DEFAULT_LINK_MTU,
            half: None,
            counters: counters.tunnel(id),
        })
    }

    /// Carries out a command. An SA whose keys do not fit its suite is not installed, and counted.
    pub fn apply(&mut self, command: OutboundCommand) {
        match command {
            OutboundCommand::Install(sa) => {
                let half = OutboundHalf::new(&sa);
                if half.is_none() {
                    self.counters.count_drop(DropReason::Internal);
                }
                self.tunnel(sa.tunnel).half = half;
            }
            OutboundCommand::Remove { tunnel, spi } => {
                let tunnel = self.tunnel(tunnel);
                if tunnel.half.as_ref().is_some_and(|half| half.spi() == spi) {
                    tunnel.half = None;
                }
            }
            OutboundCommand::SetPath { tunnel, path } => {
                if let Some(half) = &mut self.tunnel(tunnel).half {
                    half.set_path(path);
                }
            }
            OutboundCommand::SetLinkMtu { tunnel, mtu } => self.tunnel(tunnel).link_mtu = mtu,
            OutboundCommand::SetRoutes(routes) => {
                self.spd = Prefixes::new(routes.iter().map(|r| (r.prefix, r.target)));
            }
            OutboundCommand::ChangeRoutes(routes) => {
                routes.iter().for_each(|r| self.spd.insert(r.prefix, r.target));
            }
            OutboundCommand::SetWireGuard(table) => {
                for id in table.ids() {
                    let _ = self.tunnel(id);
                }
                self.wireguard = table;
            }
            OutboundCommand::Probe { tunnel, packet, asks } => {
                if self.probes.len() < MAX_PROBES {
                    self.probes.push((asks, tunnel, packet));
                }
            }
        }
    }

    /// Seals every packet of `inner` that has somewhere to go, appending to `wire`. ICMP errors for
    /// the senders of packets over the tunnel MTU are appended to `back`.
    pub fn seal(
        &mut self,
        inner: &InnerBatch,
        now: Instant,
        wire: &mut WireBatch,
        back: &mut InnerBatch,
    ) {
        for packet in &inner.packets {
            if let Err(reason) = self.seal_packet(inner, packet, now, wire, back) {
                self.counters.count_drop(reason);
            }
        }
        self.flush(inner, wire);
    }

    /// Seals the probes that wait, appending to `wire`: those that ask whether their path takes more
    /// than is known (`asking`), or the others. A tunnel without SA sends none; nor does one whose
    /// selectors exclude them.
    pub fn seal_probes(&mut self, asking: bool, wire: &mut WireBatch) {
        let mut probes = std::mem::take(&mut self.probes);
        for (_, id, packet) in probes.extract_if(.., |(asks, ..)| *asks == asking) {
            let Some(half) = self.tunnels.get_mut(&id).and_then(|tunnel| tunnel.half.as_mut())
            else {
                continue;
            };
            let Some(view) = IpView::parse(&packet) else { continue };
            if half.check_selectors(&packet, &view).is_err() {
                continue;
            }
            let ipv6 = view.source.is_ipv6();
            let source = Source { prefix: &packet, body: 0..0, checksum: None, ipv6 };
            self.sealer.begin(id);
            let pushed = self.sealer.push(half, view.tos, source, wire, &mut self.events);
            if pushed.is_ok() && !self.sealer.flush(half, &[], wire) {
                self.counters.count_drop(DropReason::Internal);
            }
        }
        self.probes = probes;
    }

    /// The next thing that the control plane should know.
    pub fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    /// Where the packets go that are laid out and not sealed yet.
    fn laid_out(&self) -> Option<RouteTarget> {
        let esp = self.sealer.tunnel().map(RouteTarget::Tunnel);
        esp.or_else(|| self.wireguard_sealer.peer().map(RouteTarget::WireGuard))
    }

    fn flush(&mut self, inner: &InnerBatch, wire: &mut WireBatch) {
        if !self.wireguard_sealer.flush(&inner.bytes, wire) {
            self.counters.count_drop(DropReason::Internal);
        }
        let Some(tunnel) = self.sealer.tunnel().and_then(|id| self.tunnels.get(&id)) else {
            return;
        };
        if let Some(half) = &tunnel.half
            && !self.sealer.flush(half, &inner.bytes, wire)
        {
            self.counters.count_drop(DropReason::Internal);
        }
    }

    fn seal_packet(
        &mut self,
        inner: &InnerBatch,
        packet: &InnerPacket,
        now: Instant,
        wire: &mut WireBatch,
        back: &mut InnerBatch,
    ) -> Result<(), DropReason> {
        let octets = inner.octets(packet);
        let view = IpView::parse(octets).ok_or(DropReason::InnerMalformed)?;
        let target = self.spd.lookup(view.destination);
        if self.laid_out().is_some_and(|of| target != Some(of)) {
            self.flush(inner, wire);
        }
        let Self {
            tunnels,
            wireguard,
            sealer,
            wireguard_sealer,
            events,
            scratch,
            whole,
            piece,
            ..
        } = self;
        let outgoing = Outgoing { octets, packet, view: &view };
        let room = [scratch, whole, piece];
        let refused = match target {
            Some(RouteTarget::Tunnel(id)) => {
                let tunnel = tunnels.get_mut(&id).ok_or(DropReason::NoSa)?;
                let half = tunnel.half.as_mut().ok_or(DropReason::NoSa)?;
                half.check_selectors(octets, &view)?;
                sealer.begin(id);
                let mtu = half.mtu(tunnel.link_mtu);
                let ipv6 = view.source.is_ipv6();
                let sink = EspSink { half, sealer, events, wire, tos: view.tos, ipv6 };
                Sending { sink, counters: &tunnel.counters, mtu }.send(&outgoing, room)?
            }
            Some(RouteTarget::WireGuard(id)) => {
                let peer = wireguard.peer(id).ok_or(DropReason::NoSa)?;
                let tunnel = tunnels.get(&id).ok_or(DropReason::NoSa)?;
                let how = (view.tos, tunnel.link_mtu);
                let sink = peer.sink(&inner.bytes, how, now, wireguard_sealer, wire)?;
                let mtu = sink.mtu();
                Sending { sink, counters: &tunnel.counters, mtu }.send(&outgoing, room)?
            }
            Some(RouteTarget::Drop) | None => return Err(DropReason::NoRoute),
        };
        let Some(TooBig { mtu }) = refused else { return Ok(()) };
        if self.icmp_rate.allow(now)
            && let Some(error) = icmp::too_big(octets, &view, mtu, self.icmp_source)
        {
            back.push(&error);
        }
        Err(DropReason::TooBig)
    }
}

/// The least MTU that IPv6 has to offer inside (RFC 8200 5). Where the tunnel has less, the outer
/// datagram is fragmented instead.
const IPV6_MIN_MTU: u16 = 1280;

/// How a packet goes into the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// In one datagram.
    Whole,
    /// A super-packet, in segments.
    Segments(Gso),
    /// In IPv4 fragments.
    Fragments,
    /// UDP segments that are over the MTU themselves.
    SegmentsInFragments(Gso),
    /// Not at all: too long, and whoever sent it wants to know.
    Refuse,
}

impl Cut {
    fn of(
        octets: &[u8],
        packet: &InnerPacket,
        view: &IpView,
        mtu: u16,
    ) -> Result<Self, DropReason> {
        let mtu = if view.source.is_ipv6() { mtu.max(IPV6_MIN_MTU) } else { mtu };
        let Some(gso) = packet.gso else {
            return Ok(match view.length > usize::from(mtu) {
                false => Self::Whole,
                true if view.dont_fragment => Self::Refuse,
                true => Self::Fragments,
            });
        };
        let headers = segment::header_len(octets, view, gso).ok_or(DropReason::InnerMalformed)?;
        if (headers + usize::from(gso.segment)).min(view.length) <= usize::from(mtu) {
            return Ok(Self::Segments(gso));
        }
        if view.dont_fragment {
            return Ok(Self::Refuse);
        }
        // A sender that allows fragments learns no path MTU. TCP is cut into smaller segments,
        // datagrams keep their bounds.
        Ok(match gso.kind {
            GsoKind::Udp => Self::SegmentsInFragments(gso),
            GsoKind::Tcp => match usize::from(mtu).checked_sub(headers).map(u16::try_from) {
                Some(Ok(segment @ 1..)) => Self::Segments(Gso { segment, ..gso }),
                _ => Self::Refuse,
            },
        })
    }
}

/// One inner packet on its way out.
struct Outgoing<'a> {
    octets: &'a [u8],
    packet: &'a InnerPacket,
    view: &'a IpView,
}

/// Over the MTU, and not to be fragmented.
struct TooBig {
    mtu: u16,
}

/// Takes packets that are cut to size: ESP or a WireGuard peer.
pub(crate) trait Sink {
    /// Sends one packet: `prefix`, then `body` of the inner batch. `checksum` is completed on the way.
    fn push(
        &mut self,
        prefix: &[u8],
        body: Range<usize>,
        checksum: Option<Checksum>,
    ) -> Result<(), DropReason>;
}

struct EspSink<'a> {
    half: &'a mut OutboundHalf,
    sealer: &'a mut Sealer,
    events: &'a mut VecDeque<DataEvent>,
    wire: &'a mut WireBatch,
    tos: u8,
    ipv6: bool,
}

impl Sink for EspSink<'_> {
    fn push(
        &mut self,
        prefix: &[u8],
        body: Range<usize>,
        checksum: Option<Checksum>,
    ) -> Result<(), DropReason> {
        let source = Source { prefix, body, checksum, ipv6: self.ipv6 };
        self.sealer.push(self.half, self.tos, source, self.wire, self.events)
    }
}

/// What it takes to send one packet, whole or in pieces.
struct Sending<'a, S> {
    sink: S,
    counters: &'a TunnelCounters,
    mtu: u16,
}

impl<S: Sink> Sending<'_, S> {
    /// Cuts the packet to size and sends it. `room` is scratch space: for headers or a changed
    /// packet, for a segment that is fragmented, and for one fragment.
    fn send(
        mut self,
        outgoing: &Outgoing<'_>,
        [scratch, whole, piece]: [&mut Vec<u8>; 3],
    ) -> Result<Option<TooBig>, DropReason> {
        let Outgoing { octets, packet, view } = *outgoing;
        let from = packet.range.start;
        match Cut::of(octets, packet, view, self.mtu)? {
            Cut::Refuse => return Ok(Some(TooBig { mtu: self.mtu })),
            Cut::Whole => self.whole(octets, packet, view, scratch)?,
            Cut::Segments(gso) => self.segments(octets, from, view, gso, scratch)?,
            Cut::Fragments => self.fragments(octets, packet, view, [scratch, piece])?,
            Cut::SegmentsInFragments(gso) => {
                self.segments_in_fragments(octets, view, gso, [scratch, whole, piece])?;
            }
        }
        Ok(None)
    }

    fn push(
        &mut self,
        prefix: &[u8],
        body: Range<usize>,
        checksum: Option<Checksum>,
    ) -> Result<(), DropReason> {
        let length = prefix.len() + body.len();
        self.sink.push(prefix, body, checksum)?;
        self.counters.count(length);
        Ok(())
    }

    /// What must be changed of a packet goes by way of `scratch`: a SYN, or the headers of one whose
    /// checksum is to be completed. The rest goes straight from the batch into the send buffer.
    fn whole(
        &mut self,
        octets: &[u8],
        packet: &InnerPacket,
        view: &IpView,
        scratch: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let syn = mss::is_syn(octets, view);
        let end = packet.range.start + view.length;
        if syn {
            complete(octets, packet, view, scratch)?;
            mss::clamp_syn(scratch, view, self.mtu, false);
            return self.push(scratch, 0..0, None);
        }
        let Some(checksum) = partial(octets, packet, view)? else {
            return self.push(&[], packet.range.start..end, None);
        };
        let headers = checksum.field + 2;
        scratch.clear();
        scratch.extend_from_slice(octets.get(..headers).unwrap_or_default());
        self.push(scratch, packet.range.start + headers..end, Some(checksum))
    }

    fn segments(
        &mut self,
        octets: &[u8],
        from: usize,
        view: &IpView,
        gso: Gso,
        headers: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        segment::split(octets, view, gso, headers, |part| {
            let body = part.body.start + from..part.body.end + from;
            self.push(part.headers, body, Some(part.checksum))
        })
    }

    fn fragments(
        &mut self,
        octets: &[u8],
        packet: &InnerPacket,
        view: &IpView,
        [scratch, piece]: [&mut Vec<u8>; 2],
    ) -> Result<(), DropReason> {
        complete(octets, packet, view, scratch)?;
        fragment::fragment(scratch, view, self.mtu, piece, |part| self.push(part, 0..0, None))
    }

    fn segments_in_fragments(
        &mut self,
        octets: &[u8],
        view: &IpView,
        gso: Gso,
        [headers, whole, piece]: [&mut Vec<u8>; 3],
    ) -> Result<(), DropReason> {
        let mtu = self.mtu;
        segment::split(octets, view, gso, headers, |part| {
            whole.clear();
            whole.extend_from_slice(part.headers);
            let body = octets.get(part.body).unwrap_or_default();
            part.checksum.complete(whole, body);
            whole.extend_from_slice(body);
            let view = IpView::parse(whole).ok_or(DropReason::InnerMalformed)?;
            if view.length <= usize::from(mtu) {
                return self.push(whole, 0..0, None);
            }
            fragment::fragment(whole, &view, mtu, piece, |part| self.push(part, 0..0, None))
        })
    }
}

/// Copies the packet into `scratch` with its transport checksum complete.
fn complete(
    octets: &[u8],
    packet: &InnerPacket,
    view: &IpView,
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    scratch.clear();
    scratch.extend_from_slice(octets.get(..view.length).unwrap_or_default());
    if let Some(checksum) = partial(octets, packet, view)? {
        let (headers, body) = scratch.split_at_mut(checksum.field + 2);
        checksum.complete(headers, body);
    }
    Ok(())
}

/// What completes the checksum of a packet that is no super-packet, if there is something to do.
fn partial(
    octets: &[u8],
    packet: &InnerPacket,
    view: &IpView,
) -> Result<Option<Checksum>, DropReason> {
    let Some((start, offset)) = packet.checksum else { return Ok(None) };
    let octets = octets.get(..view.length).unwrap_or_default();
    let udp = view.protocol == packet::ip::UDP;
    segment::partial(octets, start, offset, udp).map(Some).ok_or(DropReason::InnerMalformed)
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({} tunnels)", self.tunnels.len())
    }
}

/// The port of a packet as a traffic selector sees it: for TCP and its kin the one asked for, for
/// ICMP type and code.
pub(crate) fn selector_ports(octets: &[u8], view: &IpView) -> (Option<u16>, Option<u16>) {
    match view.ports(octets) {
        Some((source, destination)) => (Some(source), Some(destination)),
        None => {
            let icmp = view.icmp(octets);
            (icmp, icmp)
        }
    }
}

/// Whether the outer addresses of a path are IPv6.
pub(crate) fn is_ipv6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_none())
}
