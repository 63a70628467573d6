//! The sending direction: route, check, cut to size, seal.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use packet::{InnerBatch, InnerPacket, IpView, WireBatch};
use sa::TunnelId;

use crate::icmp::{self, IcmpSource, RateLimit};
use crate::seal::{OutboundHalf, Sealer, Source};
use crate::spd::Spd;
use crate::{Counters, DataEvent, DropReason, OutboundCommand, RouteTarget, TunnelCounters};
use crate::{fragment, mss, segment};

/// ICMP errors a second.
const ICMP_RATE: u32 = 100;
const DEFAULT_LINK_MTU: u16 = 1500;

/// Owns everything that sending needs. One thread owns it; nothing in it is shared but counters.
pub struct Outbound {
    spd: Spd,
    tunnels: BTreeMap<TunnelId, Tunnel>,
    counters: Arc<Counters>,
    icmp_source: IcmpSource,
    icmp_rate: RateLimit,
    sealer: Sealer,
    scratch: Vec<u8>,
    fragments: InnerBatch,
    events: VecDeque<DataEvent>,
}

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
            spd: Spd::default(),
            tunnels: BTreeMap::new(),
            counters,
            icmp_source,
            icmp_rate: RateLimit::new(ICMP_RATE),
            sealer: Sealer::default(),
            scratch: Vec::new(),
            fragments: InnerBatch::default(),
            events: VecDeque::new(),
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
            OutboundCommand::SetRoutes(routes) => self.spd = Spd::new(&routes),
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

    /// The next thing that the control plane should know.
    pub fn poll_event(&mut self) -> Option<DataEvent> {
        self.events.pop_front()
    }

    fn flush(&mut self, inner: &InnerBatch, wire: &mut WireBatch) {
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
        let id = match self.spd.lookup(view.destination) {
            Some(RouteTarget::Tunnel(id)) => id,
            Some(RouteTarget::Drop) | None => return Err(DropReason::NoRoute),
        };
        if self.sealer.tunnel() != Some(id) {
            self.flush(inner, wire);
        }
        let tunnel = self.tunnels.get_mut(&id).ok_or(DropReason::NoSa)?;
        let half = tunnel.half.as_mut().ok_or(DropReason::NoSa)?;
        half.check_selectors(octets, &view)?;
        self.sealer.begin(id);
        let mtu = half.mtu(tunnel.link_mtu);
        let longest = match packet.gso {
            Some(gso) => {
                let headers =
                    segment::header_len(octets, &view, gso).ok_or(DropReason::InnerMalformed)?;
                (headers + usize::from(gso.segment)).min(view.length)
            }
            None => view.length,
        };
        if longest > usize::from(mtu) {
            if view.dont_fragment || packet.gso.is_some() {
                if self.icmp_rate.allow(now)
                    && let Some(error) = icmp::too_big(octets, &view, mtu, self.icmp_source)
                {
                    back.push(&error);
                }
                return Err(DropReason::TooBig);
            }
            return self.seal_fragments(octets, packet, &view, id, mtu, wire);
        }
        let event = &mut self.events;
        let ipv6 = view.source.is_ipv6();
        if let Some(gso) = packet.gso {
            let sealer = &mut self.sealer;
            let mut result = Ok(());
            let sound = segment::split(octets, &view, gso, &mut self.scratch, |part| {
                let body = part.body.start + packet.range.start..part.body.end + packet.range.start;
                let source = Source { prefix: part.headers, body, ipv6 };
                let length = part.headers.len() + part.body.len();
                result = result.and(sealer.push(half, view.tos, source, wire, event));
                tunnel.counters.count(length);
            });
            return if sound { result } else { Err(DropReason::InnerMalformed) };
        }
        let whole = packet.range.start..packet.range.start + view.length;
        let mut source = Source { prefix: &[], body: whole, ipv6 };
        // A packet that must be changed goes by way of the scratch buffer; others straight from
        // the batch into the send buffer.
        let clampable = view.protocol == packet::ip::TCP && mss::is_syn(octets, &view);
        if packet.checksum.is_some() || clampable {
            self.scratch.clear();
            self.scratch.extend_from_slice(octets.get(..view.length).unwrap_or_default());
            mss::clamp_syn(&mut self.scratch, &view, mtu, packet.checksum.is_some());
            if let Some((start, offset)) = packet.checksum {
                let udp = view.protocol == packet::ip::UDP;
                if !segment::complete_checksum(&mut self.scratch, start, offset, udp) {
                    return Err(DropReason::InnerMalformed);
                }
            }
            source = Source { prefix: &self.scratch, body: 0..0, ipv6 };
        }
        self.sealer.push(half, view.tos, source, wire, event)?;
        tunnel.counters.count(view.length);
        Ok(())
    }

    fn seal_fragments(
        &mut self,
        octets: &[u8],
        packet: &InnerPacket,
        view: &IpView,
        id: TunnelId,
        mtu: u16,
        wire: &mut WireBatch,
    ) -> Result<(), DropReason> {
        self.scratch.clear();
        self.scratch.extend_from_slice(octets.get(..view.length).unwrap_or_default());
        if let Some((start, offset)) = packet.checksum {
            let udp = view.protocol == packet::ip::UDP;
            segment::complete_checksum(&mut self.scratch, start, offset, udp);
        }
        self.fragments.clear();
        let fragments = &mut self.fragments;
        if !fragment::fragment(&self.scratch, view, mtu, |part| fragments.push(part)) {
            return Err(DropReason::TooBig);
        }
        let tunnel = self.tunnels.get_mut(&id).ok_or(DropReason::NoSa)?;
        let half = tunnel.half.as_mut().ok_or(DropReason::NoSa)?;
        for part in &self.fragments.packets {
            let source = Source { prefix: self.fragments.octets(part), body: 0..0, ipv6: false };
            self.sealer.push(half, view.tos, source, wire, &mut self.events)?;
            tunnel.counters.count(part.range.len());
        }
        Ok(())
    }
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
