//! What happens to a packet of one inbound SA after its ICV matched (RFC 4303 section 3.4,
//! RFC 4301 section 5.2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use packet::ip::set_tos;
use packet::{IpView, checksum};
use sa::{EspSuite, InboundSa, Lifetime, Path, SelectorSet, Spi, TunnelId};

use crate::cipher::Cipher;
use crate::command::Limit;
use crate::icmp::RateLimit;
use crate::inbound::push_event;
use crate::mtu::tunnel_mtu;
use crate::outbound::{is_ipv6, selector_ports};
use crate::replay::{Refused, ReplayWindow};
use crate::sources::{Claim, Sources};
use crate::{DataEvent, DropReason, TunnelCounters, ecn, mss, probe};

const IPV4: u8 = 4;
const IPV6: u8 = 41;
const NO_NEXT_HEADER: u8 = 59;
/// Changes of a peer's address, and answers to probes, that are told in a second: a peer must not fill
/// the queue to the control plane, which others' tunnels need. We send a few probes a second.
const MOVES: u32 = 4;
const PROBES: u32 = 64;

/// An installed inbound SA.
pub(crate) struct InboundHalf {
    tunnel: TunnelId,
    spi: Spi,
    suite: EspSuite,
    esn: bool,
    pub(crate) cipher: Cipher,
    pub(crate) window: ReplayWindow,
    remote: SelectorSet,
    local: SelectorSet,
    lifetime: Lifetime,
    packets: u64,
    bytes: u64,
    warned: bool,
    path: Option<Path>,
    moves: RateLimit,
    probes: RateLimit,
    link_mtu: u16,
    counters: Arc<TunnelCounters>,
}

/// What is left of the plaintext: the inner packet, or nothing if it was the answer to a probe.
pub(crate) struct Opened {
    pub(crate) length: usize,
    /// The sum of its octets, if it is known.
    pub(crate) sum: Option<u16>,
}

impl InboundHalf {
    pub(crate) fn new(
        sa: &InboundSa,
        counters: Arc<TunnelCounters>,
        link_mtu: u16,
    ) -> Option<Self> {
        Some(Self {
            tunnel: sa.tunnel,
            spi: sa.spi,
            suite: sa.suite,
            esn: sa.esn,
            cipher: Cipher::new(sa.suite, &sa.encryption, &sa.integrity)?,
            window: ReplayWindow::new(sa.replay_window, sa.esn),
            remote: sa.remote_selectors.clone(),
            local: sa.local_selectors.clone(),
            lifetime: sa.lifetime,
            packets: 0,
            bytes: 0,
            warned: false,
            path: None,
            moves: RateLimit::new(MOVES),
            probes: RateLimit::new(PROBES),
            link_mtu,
            counters,
        })
    }

    pub(crate) fn tunnel(&self) -> TunnelId {
        self.tunnel
    }

    pub(crate) fn suite(&self) -> EspSuite {
        self.suite
    }

    pub(crate) fn esn(&self) -> bool {
        self.esn
    }

    pub(crate) fn set_link_mtu(&mut self, mtu: u16) {
        self.link_mtu = mtu;
    }

    /// Takes an authenticated packet, the plaintext with its sum if that is known: window, path,
    /// trailer, inner headers, selectors, source, ECN, MSS.
    pub(crate) fn receive(
        &mut self,
        sequence: u64,
        (path, tos, now): (Path, u8, Instant),
        (plain, sum): (&mut [u8], Option<u16>),
        sources: &mut Sources,
        events: &mut VecDeque<DataEvent>,
    ) -> Result<Opened, DropReason> {
        // Checked again: two copies of one packet may stand in the same batch.
        self.window.check(sequence).map_err(refused)?;
        let newest = self.window.mark(sequence);
        self.notice((path, now), newest, plain.len(), events);
        let (next_header, length) = trailer(plain)?;
        if next_header == NO_NEXT_HEADER {
            return Err(DropReason::Dummy);
        }
        let view = plain.get(..length).and_then(IpView::parse).ok_or(DropReason::InnerInvalid)?;
        let mut sum = sum.map(|sum| without_tail(sum, plain, view.length));
        let packet = plain.get_mut(..length).ok_or(DropReason::BadTrailer)?;
        let expected = if view.source.is_ipv4() { IPV4 } else { IPV6 };
        if next_header != expected {
            return Err(DropReason::InnerInvalid);
        }
        let (source, destination) = selector_ports(packet, &view);
        if !self.remote.matches(view.source, view.protocol, source)
            || !self.local.matches(view.destination, view.protocol, destination)
        {
            return Err(DropReason::InboundSelector);
        }
        if let Some(sequence) = probe::answered(packet, &view) {
            if self.probes.allow(now) {
                push_event(events, DataEvent::ProbeAnswered { tunnel: self.tunnel, sequence });
            }
            return Ok(Opened { length: 0, sum: None });
        }
        // Selectors are often as wide as they can be, and those of two peers overlap.
        if sources.claim(view.source, self.tunnel) == Claim::Foreign {
            return Err(DropReason::InboundSource);
        }
        let inner_tos = ecn::decapsulate(view.tos, tos).ok_or(DropReason::EcnDrop)?;
        if inner_tos != view.tos {
            set_tos(packet, inner_tos);
            sum = None;
        }
        let mtu = tunnel_mtu(self.link_mtu, is_ipv6(path.remote.ip()), self.suite);
        if mss::clamp_syn(packet, &view, mtu, false) {
            sum = None;
        }
        self.counters.count(view.length);
        Ok(Opened { length: view.length, sum })
    }

    /// First packet, a new path, and soft limits.
    fn notice(
        &mut self,
        (path, now): (Path, Instant),
        newest: bool,
        octets: usize,
        events: &mut VecDeque<DataEvent>,
    ) {
        let (tunnel, spi) = (self.tunnel, self.spi);
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(octets as u64);
        if self.packets == 1 {
            push_event(events, DataEvent::FirstPacket { tunnel, spi });
        }
        // Only a packet newer than all before may move the peer: late ones tell of the past.
        // One whose address changes with every packet is followed later.
        if newest && self.path != Some(path) && self.moves.allow(now) {
            self.path = Some(path);
            push_event(events, DataEvent::PathObserved { tunnel, spi, path });
        }
        if !self.warned
            && let Some(limit) = Limit::reached(&self.lifetime, self.packets, self.bytes)
        {
            self.warned = true;
            push_event(events, DataEvent::SoftLimit { tunnel, spi, limit });
        }
    }
}

/// Why a packet outside of the window is dropped.
pub(crate) fn refused(refused: Refused) -> DropReason {
    match refused {
        Refused::Replayed => DropReason::Replayed,
        Refused::TooOld => DropReason::TooOld,
    }
}

/// The sum of the first `length` octets of `plain`, whose whole sum is `sum`.
pub(crate) fn without_tail(sum: u16, plain: &[u8], length: usize) -> u16 {
    // The word that holds the last octet of an odd length holds the first behind it, too.
    let end = length.next_multiple_of(2);
    let second = plain.get(length).filter(|_| end > length).copied().unwrap_or(0);
    let tail = checksum::add(0, &[0, second]);
    let tail = checksum::add(tail, plain.get(end..).unwrap_or_default());
    // In one's complement, to add the complement is to subtract.
    let less = !u16::from_ne_bytes(checksum::fold(tail));
    u16::from_ne_bytes(checksum::fold(u64::from(sum) + u64::from(less)))
}

/// Next header and the octets before the padding, which must be 1, 2, 3, … (RFC 4303 2.4).
fn trailer(plain: &[u8]) -> Result<(u8, usize), DropReason> {
    let bad = DropReason::BadTrailer;
    let (body, [padding, next_header]) = plain.split_last_chunk::<2>().ok_or(bad)?;
    let length = body.len().checked_sub(usize::from(*padding)).ok_or(bad)?;
    let filled = body.get(length..).ok_or(bad)?;
    if !filled.iter().zip(1..).all(|(octet, expected): (&u8, u8)| *octet == expected) {
        return Err(bad);
    }
    Ok((*next_header, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_without_the_tail_is_the_sum_of_the_packet() {
        let plain: Vec<u8> = (1..=97).map(|n: u8| n.wrapping_mul(37)).collect();
        let folded = |octets: &[u8]| u16::from_ne_bytes(checksum::fold(checksum::add(0, octets)));
        for end in 41..plain.len() {
            let plain = &plain[..end];
            for length in 20..=end {
                let packet = &plain[..length];
                assert_eq!(
                    without_tail(folded(plain), plain, length),
                    folded(packet),
                    "{length} of {end}"
                );
            }
        }
    }
}
