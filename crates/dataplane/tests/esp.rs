//! Two data planes face to face: what one seals the other opens, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{
    Counters, DataEvent, DropReason, IcmpSource, Inbound, InboundCommand, Limit, Outbound,
    OutboundCommand, Route, RouteTarget, SourceRoute,
};
use packet::{DatagramBatch, Gso, GsoKind, InnerBatch, InnerPacket, IpView, WireBatch, checksum};
use proptest::prelude::*;
use sa::{EspSuite, InboundSa, Lifetime, OutboundSa, Path, Secret, SelectorSet, Spi, TunnelId};

const TUNNEL: TunnelId = TunnelId(7);
const SPI: Spi = Spi(0xc0ff_ee01);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn everything() -> SelectorSet {
    SelectorSet::nets(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()])
}

struct Pair {
    out: Outbound,
    inn: Inbound,
    out_counters: Arc<Counters>,
    in_counters: Arc<Counters>,
    now: Instant,
    peer: SocketAddr,
}

impl Pair {
    fn new(suite: EspSuite, esn: bool) -> Self {
        Self::with(
            suite,
            esn,
            everything(),
            everything(),
            Lifetime { time: Duration::from_secs(3600), bytes: None, packets: None },
        )
    }

    fn with(
        suite: EspSuite,
        esn: bool,
        local: SelectorSet,
        remote: SelectorSet,
        lifetime: Lifetime,
    ) -> Self {
        let encryption = Secret::new((0..suite.encryption_keymat_len()).map(|i| i as u8).collect());
        let integrity = Secret::new(vec![3; suite.integrity_keymat_len()]);
        let path = Path { local: address("192.0.2.1:4500"), remote: address("192.0.2.2:4500") };
        let (out_counters, in_counters) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let mut out = Outbound::new(Arc::clone(&out_counters), IcmpSource::default());
        let mut inn = Inbound::new(Arc::clone(&in_counters));
        out.apply(OutboundCommand::SetRoutes(vec![
            Route { prefix: "10.2.0.0/16".parse().unwrap(), target: RouteTarget::Tunnel(TUNNEL) },
            Route { prefix: "fd02::/16".parse().unwrap(), target: RouteTarget::Tunnel(TUNNEL) },
            Route { prefix: "10.2.66.0/24".parse().unwrap(), target: RouteTarget::Drop },
        ]));
        out.apply(OutboundCommand::Install(Box::new(OutboundSa {
            tunnel: TUNNEL,
            spi: SPI,
            suite,
            esn,
            encryption: encryption.clone(),
            integrity: integrity.clone(),
            local_selectors: local.clone(),
            remote_selectors: remote.clone(),
            path,
            lifetime,
        })));
        inn.apply(InboundCommand::Install(Box::new(InboundSa {
            tunnel: TUNNEL,
            spi: SPI,
            suite,
            esn,
            encryption,
            integrity,
            replay_window: 1024,
            remote_selectors: local,
            local_selectors: remote,
            lifetime,
        })));
        let peer = address("192.0.2.1:4500");
        Self { out, inn, out_counters, in_counters, now: Instant::now(), peer }
    }

    fn seal(&mut self, inner: &InnerBatch) -> (WireBatch, InnerBatch) {
        let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
        self.out.seal(inner, self.now, &mut wire, &mut back);
        (wire, back)
    }

    fn open(&mut self, datagrams: &DatagramBatch) -> Vec<Vec<u8>> {
        let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
        self.inn.open(datagrams, self.now, &mut inner, &mut slow);
        for packet in &inner.packets {
            let sum = checksum::fold(checksum::add(0, inner.octets(packet)));
            assert!(packet.sum.is_none_or(|told| told.to_ne_bytes() == sum), "{packet:?}");
        }
        inner.packets.iter().map(|p| inner.octets(p).to_vec()).collect()
    }

    /// The datagrams of `wire` as the receiver's socket gives them with `UDP_GRO`.
    fn arrive(&self, wire: &WireBatch) -> DatagramBatch {
        let mut batch = DatagramBatch::default();
        for run in &wire.runs {
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(&wire.bytes[run.range.clone()]);
            batch.datagrams.push(packet::Datagram {
                local: run.remote,
                remote: self.peer,
                range: start..batch.bytes.len(),
                segment: run.segment,
                tos: run.tos,
            });
        }
        batch
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        DropReason::ALL
            .iter()
            .map(|r| (r.name(), self.in_counters.dropped(*r) + self.out_counters.dropped(*r)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn events(&mut self) -> Vec<DataEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.inn.poll_event().or_else(|| self.out.poll_event()) {
            events.push(event);
        }
        events
    }
}

fn v4(protocol: u8, tos: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut p = vec![0x45, tos];
    p.extend_from_slice(&length.to_be_bytes());
    p.extend_from_slice(&[0x12, 0x34]);
    p.extend_from_slice(&flags.to_be_bytes());
    p.extend_from_slice(&[64, protocol, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
    let sum = checksum::of(&[&p]).to_be_bytes();
    p[10..12].copy_from_slice(&sum);
    p.extend_from_slice(payload);
    p
}

fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    p.extend_from_slice(&[protocol, 64]);
    for prefix in [[0xfd, 0x01], [0xfd, 0x02]] {
        p.extend_from_slice(&prefix);
        p.extend_from_slice(&[0; 14]);
    }
    p.extend_from_slice(payload);
    p
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x10, 0, 0x20, 0];
    p.extend_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    p.extend_from_slice(&[0, 0]);
    p.extend_from_slice(payload);
    p
}

fn batch(packets: &[Vec<u8>]) -> InnerBatch {
    let mut batch = InnerBatch::default();
    packets.iter().for_each(|p| batch.push(p));
    batch
}

fn gcm() -> EspSuite {
    EspSuite::AesGcm16(sa::Bits::B256)
}

#[test]
fn a_peer_with_wide_selectors_cannot_speak_for_what_is_routed_to_another() {
    let mut pair = Pair::new(EspSuite::AesGcm16(sa::Bits::B128), true);
    let source = |prefix: &str, owner: Option<[u32; 2]>| SourceRoute {
        prefix: prefix.parse().unwrap(),
        owner: owner.map(|ids| ids.map(TunnelId)),
    };
    pair.inn.apply(InboundCommand::SetSources(vec![
        source("10.1.0.0/16", Some([TUNNEL.0 - 1, TUNNEL.0])),
        source("10.1.7.0/24", Some([40, 40])),
        source("10.9.0.0/16", None),
    ]));
    let mut inner = InnerBatch::default();
    for address in [[10, 1, 0, 1], [10, 1, 7, 1], [10, 9, 0, 1], [192, 0, 2, 1], [10, 1, 0, 1]] {
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 10, 2, 0, 1];
        packet[12..16].copy_from_slice(&address);
        let sum = checksum::of(&[&packet]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        inner.push(&packet);
    }
    let (wire, _) = pair.seal(&inner);
    let opened = pair.open(&pair.arrive(&wire));
    let sources: Vec<IpAddr> = opened.iter().map(|p| IpView::parse(p).unwrap().source).collect();
    // What no route names, the selectors decide.
    let expected = ["10.1.0.1", "192.0.2.1", "10.1.0.1"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(sources, expected);
    assert_eq!(pair.in_counters.dropped(DropReason::InboundSource), 2);
}

#[test]
fn every_suite_with_and_without_esn_carries_ipv4_and_ipv6_of_every_length() {
    for suite in EspSuite::ALL {
        for esn in [false, true] {
            let mut pair = Pair::new(suite, esn);
            for length in (0..100).chain([1000, 1300, 1340]) {
                let payload = udp(&vec![length as u8; length]);
                let packets = [v4(17, 0, 0x4000, &payload), v6(17, &payload)];
                let (wire, _) = pair.seal(&batch(&packets));
                assert!(wire.runs.iter().all(|run| run.range.len() <= 1472));
                let arrived = pair.arrive(&wire);
                assert_eq!(pair.open(&arrived), packets, "{suite} esn {esn} length {length}");
            }
            assert_eq!(pair.dropped(), []);
            assert_eq!(pair.in_counters.tunnel(TUNNEL).packets(), 2 * 103);
            assert_eq!(
                pair.in_counters.tunnel(TUNNEL).bytes(),
                pair.out_counters.tunnel(TUNNEL).bytes()
            );
        }
    }
}

/// The TUN device verifies checksums by these sums when it merges segments.
#[test]
fn opening_gives_the_sum_of_each_packet_to_who_wants_it() {
    for wanted in [true, false] {
        let mut pair = Pair::new(gcm(), true);
        pair.inn.want_sums(wanted);
        let packets: Vec<Vec<u8>> =
            (0..70).map(|length| v4(17, 0, 0x4000, &udp(&vec![length as u8; length]))).collect();
        let (wire, _) = pair.seal(&batch(&packets));
        let arrived = pair.arrive(&wire);
        let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
        pair.inn.open(&arrived, pair.now, &mut inner, &mut slow);
        let told: Vec<Option<u16>> = inner.packets.iter().map(|packet| packet.sum).collect();
        let sum = |packet: &Vec<u8>| u16::from_ne_bytes(checksum::fold(checksum::add(0, packet)));
        let expected: Vec<Option<u16>> =
            packets.iter().map(|packet| wanted.then(|| sum(packet))).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn the_inner_octets_are_nowhere_in_the_datagrams() {
    for suite in EspSuite::ALL {
        let mut pair = Pair::new(suite, false);
        let marker = b"in clear on the wire";
        let (wire, _) = pair.seal(&batch(&[v4(17, 0, 0, &udp(marker))]));
        assert!(!wire.bytes.windows(marker.len()).any(|w| w == marker), "{suite}");
    }
}

#[test]
fn equal_packets_share_a_run_and_a_shorter_one_ends_it() {
    let mut pair = Pair::new(gcm(), true);
    let long = v4(17, 0, 0, &udp(&[1; 1000]));
    let short = v4(17, 0, 0, &udp(&[1; 500]));
    let packets = [long.clone(), long.clone(), short.clone(), short, long];
    let (wire, _) = pair.seal(&batch(&packets));
    let sizes: Vec<usize> = wire.runs.iter().map(|r| r.range.len().div_ceil(r.segment)).collect();
    assert_eq!(sizes, [3, 1, 1]);
    let many = vec![v4(17, 0, 0, &udp(&[1; 100])); 150];
    let (wire, _) = pair.seal(&batch(&many));
    let sizes: Vec<usize> = wire.runs.iter().map(|r| r.range.len() / r.segment).collect();
    assert_eq!(sizes, [64, 64, 22]);
    let arrived = pair.arrive(&wire);
    assert_eq!(pair.open(&arrived), many);
}

#[test]
fn a_replayed_packet_is_counted_even_within_one_batch() {
    let mut pair = Pair::new(gcm(), true);
    let packet = v4(17, 0, 0, &udp(b"once"));
    let (wire, _) = pair.seal(&batch(std::slice::from_ref(&packet)));
    let mut twice = pair.arrive(&wire);
    let copy = twice.bytes.clone();
    twice.push(address("192.0.2.2:4500"), pair.peer, 0, &copy);
    assert_eq!(pair.open(&twice), [packet]);
    assert_eq!(pair.open(&twice), Vec::<Vec<u8>>::new());
    assert_eq!(pair.dropped(), [("replayed", 3)]);
}

#[test]
fn one_bad_packet_never_ends_a_batch() {
    for suite in EspSuite::ALL {
        let mut pair = Pair::new(suite, true);
        let packets: Vec<_> = (0..5_u8).map(|i| v4(17, 0, 0, &udp(&[i; 64]))).collect();
        let (wire, _) = pair.seal(&batch(&packets));
        let mut arrived = pair.arrive(&wire);
        let segment = arrived.datagrams[0].segment;
        arrived.bytes[2 * segment + 30] ^= 1;
        let good: Vec<_> =
            packets.iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, p)| p.clone()).collect();
        assert_eq!(pair.open(&arrived), good, "{suite}");
        assert_eq!(pair.dropped(), [("icv_mismatch", 1)], "{suite}");
    }
}

#[test]
fn a_packet_outside_the_selectors_leaves_neither_side() {
    let net = |s: &str| SelectorSet::nets(&[s.parse().unwrap()]);
    let lifetime = Lifetime { time: Duration::from_secs(60), bytes: None, packets: None };
    let mut pair = Pair::with(gcm(), false, net("10.1.0.0/24"), net("10.2.0.0/24"), lifetime);
    let inside = v4(17, 0, 0, &udp(b"inside"));
    let mut outside = inside.clone();
    outside[15] = 99;
    outside[14] = 9;
    let (wire, _) = pair.seal(&batch(&[inside.clone(), outside.clone()]));
    let arrived = pair.arrive(&wire);
    assert_eq!(pair.open(&arrived), [inside]);
    assert_eq!(pair.dropped(), [("outbound_selector", 1)]);
    // A peer that sends it all the same: its own selectors are wider than ours for it.
    let mut wide = Pair::new(gcm(), false);
    let (wire, _) = wide.seal(&batch(&[v4(17, 0, 0, &udp(b"first")), outside]));
    let mut strict = Pair::with(gcm(), false, net("10.1.0.0/24"), net("10.2.0.0/24"), lifetime);
    let arrived = strict.arrive(&wire);
    assert_eq!(strict.open(&arrived).len(), 1);
    assert_eq!(strict.dropped(), [("inbound_selector", 1)]);
}

#[test]
fn without_a_route_or_an_sa_nothing_leaves() {
    let mut pair = Pair::new(gcm(), false);
    let mut stranger = v4(17, 0, 0, &udp(b"x"));
    stranger[16] = 11;
    let mut refused = v4(17, 0, 0, &udp(b"x"));
    refused[18] = 66;
    let (wire, _) = pair.seal(&batch(&[stranger, refused, vec![0x45, 0], vec![]]));
    assert!(wire.runs.is_empty() && wire.bytes.is_empty());
    pair.out.apply(OutboundCommand::Remove { tunnel: TUNNEL, spi: Spi(1) });
    let packet = v4(17, 0, 0, &udp(b"x"));
    assert_eq!(pair.seal(&batch(std::slice::from_ref(&packet))).0.runs.len(), 1);
    pair.out.apply(OutboundCommand::Remove { tunnel: TUNNEL, spi: SPI });
    assert!(pair.seal(&batch(&[packet])).0.runs.is_empty());
    assert_eq!(pair.dropped(), [("inner_malformed", 2), ("no_route", 2), ("no_sa", 1)]);
}

#[test]
fn a_packet_over_the_mtu_is_answered_or_fragmented() {
    let mut pair = Pair::new(gcm(), false);
    let fits = v4(17, 0, 0x4000, &udp(&[1; 1438 - 28]));
    let over = v4(17, 0, 0x4000, &udp(&[1; 1438 - 27]));
    let loose = v4(17, 0, 0, &udp(&[1; 2000]));
    let six = v6(17, &udp(&[1; 1438 - 47]));
    let (wire, back) = pair.seal(&batch(&[fits.clone(), over.clone(), loose, six]));
    let arrived = pair.arrive(&wire);
    let opened = pair.open(&arrived);
    assert_eq!(opened.len(), 3);
    assert_eq!(opened[0], fits);
    assert!(opened[1..].iter().all(|p| p.len() <= 1438 && IpView::parse(p).unwrap().fragment));
    assert_eq!(pair.dropped(), [("too_big", 2)]);
    let errors: Vec<&[u8]> = back.packets.iter().map(|p| back.octets(p)).collect();
    let view = IpView::parse(errors[0]).unwrap();
    assert_eq!(view.destination, "10.1.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(errors[0][view.upper..view.upper + 2], [3, 4]);
    assert_eq!(errors[0][view.upper + 6..view.upper + 8], 1438_u16.to_be_bytes());
    assert_eq!(checksum::of(&[&errors[0][view.upper..]]), 0);
    assert_eq!(errors[0][view.upper + 8..], over[..548]);
    let view = IpView::parse(errors[1]).unwrap();
    assert_eq!(errors[1][view.upper], 2);
    assert_eq!(errors[1][view.upper + 4..view.upper + 8], 1438_u32.to_be_bytes());
    // An ICMP error over the MTU is dropped in silence: no errors about errors.
    let (_, back) = pair.seal(&batch(&[v4(1, 0, 0x4000, &[3; 1500])]));
    assert!(back.packets.is_empty());
}

#[test]
fn the_peer_s_new_address_is_taken_from_newer_authenticated_packets_only() {
    let mut pair = Pair::new(gcm(), true);
    let packet = v4(17, 0, 0, &udp(b"x"));
    let mut sealed = Vec::new();
    for _ in 0..3 {
        let (wire, _) = pair.seal(&batch(std::slice::from_ref(&packet)));
        sealed.push(wire);
    }
    let at = |peer: &str, pair: &mut Pair, index: usize, flip: bool| {
        pair.peer = address(peer);
        let mut arrived = pair.arrive(&sealed[index]);
        if flip {
            *arrived.bytes.last_mut().unwrap() ^= 1;
        }
        pair.open(&arrived);
        pair.events()
    };
    let path = |peer: &str| Path { local: address("192.0.2.2:4500"), remote: address(peer) };
    let observed = |peer| DataEvent::PathObserved { tunnel: TUNNEL, spi: SPI, path: path(peer) };
    assert_eq!(
        at("192.0.2.1:4500", &mut pair, 1, false),
        [DataEvent::FirstPacket { tunnel: TUNNEL, spi: SPI }, observed("192.0.2.1:4500")]
    );
    assert_eq!(at("198.51.100.9:1", &mut pair, 2, true), []);
    assert_eq!(at("198.51.100.9:1", &mut pair, 0, false), []);
    assert_eq!(at("198.51.100.9:2", &mut pair, 2, false), [observed("198.51.100.9:2")]);
}

/// A peer that speaks from another address with every packet, and answers probes that nobody sent, does
/// not fill the queue to the control plane.
#[test]
fn what_one_peer_can_have_told_in_a_second_is_bounded() {
    let mut pair = Pair::new(gcm(), true);
    let echo = echo_reply();
    let told = |pair: &mut Pair| {
        for port in 1..=500 {
            let (wire, _) = pair.seal(&batch(&[v4(17, 0, 0, &udp(b"x")), echo.clone()]));
            pair.peer = SocketAddr::new([198, 51, 100, 9].into(), port);
            let arrived = pair.arrive(&wire);
            pair.open(&arrived);
        }
        let events = pair.events();
        let count = |is: fn(&DataEvent) -> bool| events.iter().filter(|e| is(e)).count();
        [
            count(|e| matches!(e, DataEvent::PathObserved { .. })),
            count(|e| matches!(e, DataEvent::ProbeAnswered { .. })),
        ]
    };
    assert_eq!(told(&mut pair), [4, 64]);
    assert_eq!(told(&mut pair), [0, 0], "the second is not over");
    pair.now += Duration::from_secs(1);
    assert_eq!(told(&mut pair), [4, 64]);
    // The last address is told in the end.
    pair.now += Duration::from_secs(1);
    let (wire, _) = pair.seal(&batch(&[v4(17, 0, 0, &udp(b"x"))]));
    let arrived = pair.arrive(&wire);
    pair.open(&arrived);
    let path = Path { local: address("192.0.2.2:4500"), remote: pair.peer };
    let observed = DataEvent::PathObserved { tunnel: TUNNEL, spi: SPI, path };
    assert_eq!(pair.events(), [observed]);
}

/// An answer to a probe, as our own peer would send it.
fn echo_reply() -> Vec<u8> {
    let mut packet =
        dataplane::probe::echo_request([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), 7, 60);
    packet[20] = 0;
    packet
}

#[test]
fn soft_limits_are_told_once() {
    let lifetime =
        Lifetime { time: Duration::from_secs(60), bytes: Some(1000), packets: Some(1000) };
    let mut pair = Pair::with(gcm(), true, everything(), everything(), lifetime);
    for _ in 0..20 {
        let (wire, _) = pair.seal(&batch(&[v4(17, 0, 0, &udp(&[0; 100]))]));
        let arrived = pair.arrive(&wire);
        pair.open(&arrived);
    }
    let limits: Vec<_> =
        pair.events().into_iter().filter(|e| matches!(e, DataEvent::SoftLimit { .. })).collect();
    let expected = DataEvent::SoftLimit { tunnel: TUNNEL, spi: SPI, limit: Limit::Bytes };
    assert_eq!(limits, [expected, expected]);
}

#[test]
fn ecn_marks_of_the_way_reach_the_inner_packet() {
    let mut pair = Pair::new(gcm(), true);
    for (inner, expected) in [(0xb8 | 2, Some(0xb8 | 3)), (0xb8, None)] {
        let (wire, _) = pair.seal(&batch(&[v4(17, inner, 0, &udp(b"x"))]));
        assert_eq!(wire.runs[0].tos, inner);
        let mut arrived = pair.arrive(&wire);
        arrived.datagrams[0].tos |= 3;
        let opened = pair.open(&arrived);
        assert_eq!(opened.first().map(|p| p[1]), expected);
        assert!(opened.iter().all(|p| checksum::of(&[&p[..20]]) == 0));
    }
    assert_eq!(pair.dropped(), [("ecn_drop", 1)]);
}

fn transport_sum(p: &[u8]) -> u16 {
    let view = IpView::parse(p).unwrap();
    let addresses = if view.source.is_ipv4() { &p[12..20] } else { &p[8..40] };
    let upper = &p[view.upper..view.length];
    let length = u16::try_from(upper.len()).unwrap().to_be_bytes();
    checksum::of(&[addresses, &[0, view.protocol], &length, upper])
}

#[test]
fn a_super_packet_arrives_as_the_segments_that_the_kernel_would_have_made() {
    for ipv6 in [false, true] {
        for kind in [GsoKind::Tcp, GsoKind::Udp] {
            let data: Vec<u8> = (0..10_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
            let transport = match kind {
                GsoKind::Tcp => {
                    let mut t = vec![
                        0x10, 0, 0x20, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0x80, 0x19, 1, 0, 0, 0,
                        0, 0,
                    ];
                    // Timestamps, as every TCP has them.
                    t.extend_from_slice(&[
                        1, 1, 8, 10, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0,
                    ]);
                    t.extend_from_slice(&data);
                    t
                }
                GsoKind::Udp => udp(&data),
            };
            let protocol = if kind == GsoKind::Tcp { 6 } else { 17 };
            let whole =
                if ipv6 { v6(protocol, &transport) } else { v4(protocol, 0, 0x4000, &transport) };
            let mut inner = batch(&[vec![0x45; 3], whole.clone()]);
            let start = if ipv6 { 40 } else { 20 };
            let offset = if kind == GsoKind::Tcp { 16 } else { 6 };
            inner.packets[1] = InnerPacket {
                range: inner.packets[1].range.clone(),
                gso: Some(Gso { kind, segment: 1300 }),
                checksum: Some((start, offset)),
                sum: None,
            };
            let mut pair = Pair::new(gcm(), true);
            let (wire, _) = pair.seal(&inner);
            assert_eq!(wire.runs.len(), 1, "all segments are one send");
            let arrived = pair.arrive(&wire);
            let opened = pair.open(&arrived);
            assert_eq!(opened.len(), 8);
            let mut joined = Vec::new();
            for (i, p) in opened.iter().enumerate() {
                assert_eq!(transport_sum(p), 0, "segment {i}");
                let view = IpView::parse(p).unwrap();
                let header = if kind == GsoKind::Tcp { 32 } else { 8 };
                if kind == GsoKind::Tcp {
                    let sequence =
                        u32::from_be_bytes(p[view.upper + 4..view.upper + 8].try_into().unwrap());
                    assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(1300 * i as u32));
                    let flags = if i == 7 { 0x19 } else { 0x10 };
                    assert_eq!(p[view.upper + 13], flags);
                }
                if !ipv6 {
                    assert_eq!(checksum::of(&[&p[..20]]), 0);
                    assert_eq!(u16::from_be_bytes([p[4], p[5]]), 0x1234 + i as u16);
                }
                joined.extend_from_slice(&p[view.upper + header..]);
            }
            assert_eq!(joined, data);
            assert_eq!(pair.dropped(), [("inner_malformed", 1)]);
        }
    }
}

/// A super-packet without DF, its transport checksum left to us.
fn super_packet(kind: GsoKind, segment: u16, data: &[u8]) -> InnerBatch {
    let (protocol, transport, offset) = match kind {
        GsoKind::Tcp => {
            let mut t =
                vec![0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
            t.extend_from_slice(data);
            (6, t, 16)
        }
        GsoKind::Udp => (17, udp(data), 6),
    };
    let mut inner = batch(&[v4(protocol, 0, 0, &transport)]);
    inner.packets[0].gso = Some(Gso { kind, segment });
    inner.packets[0].checksum = Some((20, offset));
    inner
}

#[test]
fn a_super_packet_over_the_mtu_whose_sender_allows_fragments_is_cut_smaller() {
    let data: Vec<u8> = (0..6000_u32).map(|i| (i / 7) as u8).collect();
    let mut pair = Pair::new(gcm(), true);
    let (wire, back) = pair.seal(&super_packet(GsoKind::Tcp, 1460, &data));
    assert!(back.packets.is_empty());
    let arrived = pair.arrive(&wire);
    let opened = pair.open(&arrived);
    assert!(opened.iter().all(|p| p.len() <= 1438 && transport_sum(p) == 0));
    assert_eq!(opened.iter().flat_map(|p| p[40..].to_vec()).collect::<Vec<_>>(), data);

    // Datagrams keep their bounds: each arrives in fragments of its own.
    let (wire, _) = pair.seal(&super_packet(GsoKind::Udp, 2000, &data));
    let arrived = pair.arrive(&wire);
    let opened = pair.open(&arrived);
    assert_eq!(opened.len(), 6);
    for (i, two) in opened.chunks(2).enumerate() {
        assert!(two.iter().all(|p| p.len() <= 1438 && p[4..6] == two[0][4..6]));
        let datagram = [&two[0][20..], &two[1][20..]].concat();
        assert_eq!(datagram[8..], data[i * 2000..(i + 1) * 2000]);
        assert_eq!(transport_sum(&v4(17, 0, 0, &datagram)), 0);
    }
    assert_eq!(pair.dropped(), []);
}

#[test]
fn ipv6_gets_its_least_mtu_over_any_link() {
    let mut pair = Pair::new(gcm(), true);
    pair.out.apply(OutboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu: 1280 });
    let least = v6(17, &udp(&[1; 1280 - 48]));
    let over = v6(17, &udp(&[1; 1280 - 47]));
    let (wire, back) = pair.seal(&batch(&[least.clone(), over]));
    let arrived = pair.arrive(&wire);
    assert_eq!(pair.open(&arrived), [least]);
    let error = back.octets(&back.packets[0]);
    assert_eq!(error[44..48], 1280_u32.to_be_bytes());
}

#[test]
fn a_syn_is_clamped_by_the_side_that_sends_and_by_the_side_that_receives() {
    let syn = {
        let mut t = vec![0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 0, 0, 0, 0, 0];
        t.extend_from_slice(&[2, 4, 0x05, 0xb4]);
        let mut p = v4(6, 0, 0x4000, &t);
        let sum = transport_sum(&p).to_be_bytes();
        p[36..38].copy_from_slice(&sum);
        p
    };
    // The MSS that arrives, for the link MTU of the sender and of the receiver.
    for (sender, receiver, mss) in [(1500, 1500, 1398), (1400, 1500, 1298), (9000, 1400, 1298)] {
        let mut pair = Pair::new(gcm(), true);
        pair.out.apply(OutboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu: sender });
        pair.inn.apply(InboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu: receiver });
        let (wire, _) = pair.seal(&batch(std::slice::from_ref(&syn)));
        let arrived = pair.arrive(&wire);
        let opened = pair.open(&arrived);
        assert_eq!(u16::from_be_bytes([opened[0][42], opened[0][43]]), mss);
        assert_eq!(transport_sum(&opened[0]), 0);
    }
}

#[test]
fn a_link_mtu_is_that_of_all_sas_of_its_tunnel_and_of_no_other() {
    let syn = {
        let mut t = vec![0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 0, 0, 0, 0, 0];
        t.extend_from_slice(&[2, 4, 0x05, 0xb4]);
        v4(6, 0, 0x4000, &t)
    };
    let mut pair = Pair::new(gcm(), true);
    pair.out.apply(OutboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu: 9000 });
    let sa = |tunnel: u32, spi: u32| InboundSa {
        tunnel: TunnelId(tunnel),
        spi: Spi(spi),
        suite: gcm(),
        esn: true,
        encryption: Secret::new((0..gcm().encryption_keymat_len()).map(|i| i as u8).collect()),
        integrity: Secret::new(vec![]),
        replay_window: 1024,
        remote_selectors: everything(),
        local_selectors: everything(),
        lifetime: Lifetime { time: Duration::from_secs(60), bytes: None, packets: None },
    };
    // The same keys under other SPIs: what changes is which tunnel's MTU applies.
    let spis = [(7, 0xc0ff_ee02), (7, 0xc0ff_ee03), (8, 0xc0ff_ee04), (8, 0xc0ff_ee05)];
    for (tunnel, spi) in spis {
        pair.inn.apply(InboundCommand::Install(Box::new(sa(tunnel, spi))));
    }
    let removed = |pair: &mut Pair, tunnel: u32, spi: u32| {
        let tunnel = TunnelId(tunnel);
        pair.inn.apply(InboundCommand::Remove { tunnel, spi: Spi(spi) });
    };
    removed(&mut pair, 8, 0xc0ff_ee05);
    let mss = |pair: &mut Pair, spi: u32| {
        let out = OutboundSa {
            tunnel: TUNNEL,
            spi: Spi(spi),
            suite: gcm(),
            esn: true,
            encryption: sa(7, spi).encryption,
            integrity: Secret::new(vec![]),
            local_selectors: everything(),
            remote_selectors: everything(),
            path: Path { local: address("192.0.2.1:4500"), remote: address("192.0.2.2:4500") },
            lifetime: sa(7, spi).lifetime,
        };
        pair.out.apply(OutboundCommand::Install(Box::new(out)));
        let (wire, _) = pair.seal(&batch(std::slice::from_ref(&syn)));
        let arrived = pair.arrive(&wire);
        pair.open(&arrived).first().map(|p| u16::from_be_bytes([p[42], p[43]]))
    };
    let set = |pair: &mut Pair, tunnel: u32, mtu: u16| {
        pair.inn.apply(InboundCommand::SetLinkMtu { tunnel: TunnelId(tunnel), mtu });
    };
    set(&mut pair, 7, 1400);
    assert_eq!(mss(&mut pair, 0xc0ff_ee02), Some(1298));
    assert_eq!(mss(&mut pair, 0xc0ff_ee03), Some(1298));
    assert_eq!(mss(&mut pair, 0xc0ff_ee04), Some(1398), "another tunnel's");
    // One that is installed later has what was said before, also when its SPI was another's.
    pair.inn.apply(InboundCommand::Install(Box::new(sa(7, 0xc0ff_ee04))));
    assert_eq!(mss(&mut pair, 0xc0ff_ee04), Some(1298));
    set(&mut pair, 8, 1300);
    pair.inn.apply(InboundCommand::Install(Box::new(sa(7, 0xc0ff_ee05))));
    set(&mut pair, 8, 1200);
    assert_eq!(mss(&mut pair, 0xc0ff_ee05), Some(1298));
}

#[test]
fn a_partial_checksum_is_completed() {
    let mut packet = v4(17, 0, 0, &udp(b"checksum offload"));
    let length = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
    let pseudo = !checksum::of(&[&packet[12..20], &[0, 17], &length]);
    packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
    let mut inner = batch(&[packet]);
    inner.packets[0].checksum = Some((20, 6));
    let mut pair = Pair::new(gcm(), true);
    let (wire, _) = pair.seal(&inner);
    let arrived = pair.arrive(&wire);
    assert_eq!(transport_sum(&pair.open(&arrived)[0]), 0);
}

#[test]
fn ike_keepalives_and_foreign_datagrams_take_their_ways() {
    let mut pair = Pair::new(gcm(), true);
    let mut arrived = DatagramBatch::default();
    let (local, remote) = (address("192.0.2.2:4500"), address("198.51.100.1:500"));
    let mut wireguard = vec![1, 0, 0, 0];
    wireguard.resize(148, 0);
    for octets in
        [&[0, 0, 0, 0, 9, 9][..], &[0xff], &[], &[1, 2], &wireguard, &[0xaa; 60], &[0xaa; 7]]
    {
        arrived.push(local, remote, 0, octets);
    }
    let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
    pair.inn.open(&arrived, pair.now, &mut inner, &mut slow);
    assert!(inner.packets.is_empty());
    assert_eq!(slow.datagrams.len(), 1);
    assert_eq!(slow.bytes, [9, 9]);
    assert_eq!(pair.in_counters.keepalives(), 1);
    assert_eq!(
        pair.dropped(),
        [("runt", 2), ("wireguard_unconfigured", 1), ("esp_malformed", 1), ("unknown_spi", 1)]
    );
    assert!(matches!(pair.events()[..], [DataEvent::UnknownSpi { spi: Spi(0xaaaa_aaaa), .. }]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_truncation_flip_or_garbage_panics_or_is_delivered(
        suite in prop::sample::select(EspSuite::ALL.to_vec()),
        esn in any::<bool>(),
        length in 0..300_usize,
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut pair = Pair::new(suite, esn);
        let packet = v4(17, 0, 0, &udp(&vec![1; length]));
        let (wire, _) = pair.seal(&batch(std::slice::from_ref(&packet)));
        let local = address("192.0.2.2:4500");
        let mut arrived = DatagramBatch::default();
        arrived.push(local, pair.peer, 0, &wire.bytes[..cut.index(wire.bytes.len())]);
        let mut flipped = wire.bytes.clone();
        let bit = flip.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        arrived.push(local, pair.peer, 0, &flipped);
        arrived.push(local, pair.peer, 0, &garbage);
        let mut spoofed = SPI.to_be_bytes().to_vec();
        spoofed.extend_from_slice(&garbage);
        arrived.push(local, pair.peer, 0, &spoofed);
        prop_assert_eq!(pair.open(&arrived), Vec::<Vec<u8>>::new());
        let genuine = pair.arrive(&wire);
        prop_assert_eq!(pair.open(&genuine), vec![packet]);
    }

    #[test]
    fn inner_garbage_never_panics(
        first in 0..=255_u8,
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        segment in any::<u16>(),
        checksum in proptest::option::of(any::<(u16, u16)>()),
        tcp in any::<bool>(),
    ) {
        let mut pair = Pair::new(gcm(), true);
        let mut packet = v4(if tcp { 6 } else { 17 }, 0, 0, &octets);
        packet[0] = first;
        let mut inner = batch(&[packet]);
        let kind = if tcp { GsoKind::Tcp } else { GsoKind::Udp };
        let plain = InnerPacket { checksum, ..inner.packets[0].clone() };
        inner.packets.push(plain);
        inner.packets.push(InnerPacket { gso: Some(Gso { kind, segment }), ..inner.packets[0].clone() });
        let (wire, _) = pair.seal(&inner);
        let arrived = pair.arrive(&wire);
        pair.open(&arrived);
    }
}
