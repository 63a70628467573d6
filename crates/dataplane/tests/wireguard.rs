//! WireGuard between two data planes: what passes, what moves a peer, and what does neither.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use dataplane::{
    Counters, DropReason, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand, Route,
    RouteTarget, SourceRoute, WireGuard, WireGuardPeer, WireGuardPeerConfig, public_key,
};
use packet::{DatagramBatch, Gso, GsoKind, InnerBatch, InnerPacket, IpView, WireBatch, checksum};
use proptest::prelude::*;
use sa::{
    Bits, EspSuite, InboundSa, Lifetime, OutboundSa, Path, Secret, SelectorSet, Spi, TunnelId,
};

const VGW: u8 = 1;
const SITE: u8 = 2;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn private(seed: u8) -> Secret {
    Secret::new(vec![seed; 32])
}

fn config(own: u8, peer: u8, id: u32) -> WireGuardPeerConfig {
    WireGuardPeerConfig {
        id: TunnelId(id),
        private_key: private(own),
        public_key: public_key(&private(peer)).unwrap(),
        preshared_key: None,
        path: None,
        keepalive: None,
        mtu: None,
        rekey_after: WireGuardPeerConfig::REKEY_AFTER,
    }
}

/// One gateway: both halves, and where its datagrams come from.
struct End {
    out: Outbound,
    inn: Inbound,
    sent: Arc<Counters>,
    received: Arc<Counters>,
    peers: Vec<Arc<WireGuardPeer>>,
    at: SocketAddr,
    opened: Vec<Vec<u8>>,
}

impl End {
    /// A gateway at `at` whose first peer has `net` and is in the table of sources.
    fn new(at: &str, net: &str, configs: &[WireGuardPeerConfig]) -> Self {
        let (sent, received) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let icmp = IcmpSource { v4: Some("169.254.10.1".parse().unwrap()), v6: None };
        let mut end = Self {
            out: Outbound::new(Arc::clone(&sent), icmp),
            inn: Inbound::new(Arc::clone(&received)),
            sent,
            received,
            peers: configs.iter().map(|c| Arc::new(WireGuardPeer::new(c).unwrap())).collect(),
            at: address(at),
            opened: Vec::new(),
        };
        let table = Arc::new(WireGuard::new(end.peers.iter().cloned()));
        end.inn.apply(InboundCommand::SetWireGuard(Arc::clone(&table)));
        end.out.apply(OutboundCommand::SetWireGuard(table));
        let first = configs[0].id;
        let mut routes = vec![];
        let mut sources = vec![];
        for prefix in [net, "fd00::/8"].map(|text| text.parse().unwrap()) {
            routes.push(Route { prefix, target: RouteTarget::WireGuard(first) });
            sources.push(SourceRoute { prefix, owner: Some([first, first]) });
        }
        end.out.apply(OutboundCommand::SetRoutes(routes));
        end.inn.apply(InboundCommand::SetSources(sources));
        end
    }

    fn seal(&mut self, packets: &[Vec<u8>]) -> WireBatch {
        let mut inner = InnerBatch::default();
        packets.iter().for_each(|packet| inner.push(packet));
        let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
        self.out.seal(&inner, Instant::now(), &mut wire, &mut back);
        wire
    }

    /// Takes datagrams from `from`, keeps what was inside, and returns the answers.
    fn take(&mut self, datagrams: &[Vec<u8>], from: SocketAddr) -> WireBatch {
        let mut batch = DatagramBatch::default();
        datagrams.iter().for_each(|datagram| batch.push(self.at, from, 0, datagram));
        self.take_batch(&batch)
    }

    fn take_batch(&mut self, batch: &DatagramBatch) -> WireBatch {
        let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
        self.inn.open(batch, Instant::now(), &mut inner, &mut slow);
        assert!(slow.datagrams.is_empty());
        self.opened.extend(inner.packets.iter().map(|packet| inner.octets(packet).to_vec()));
        std::mem::take(self.inn.replies())
    }

    fn tick(&mut self) -> WireBatch {
        self.inn.apply(InboundCommand::WireGuardTimers(Instant::now()));
        std::mem::take(self.inn.replies())
    }

    fn rekey(&mut self) -> WireBatch {
        self.inn.apply(InboundCommand::WireGuardRekey(self.peers[0].id()));
        std::mem::take(self.inn.replies())
    }

    fn peer_address(&self) -> Option<SocketAddr> {
        self.peers[0].status(Instant::now()).path.map(|path| path.remote)
    }

    fn is_up(&self) -> bool {
        self.peers[0].status(Instant::now()).up
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.received.dropped(reason)
    }
}

/// The datagrams of a batch, as the network has them.
fn cut(wire: &WireBatch) -> Vec<Vec<u8>> {
    let runs = wire.runs.iter();
    runs.flat_map(|run| wire.bytes[run.range.clone()].chunks(run.segment).map(<[u8]>::to_vec))
        .collect()
}

/// Carries `wire` from `from` to `to`, and everything that follows from it.
fn carry(wire: &WireBatch, from: &mut End, to: &mut End) {
    let mut wire = cut(wire);
    let (mut from, mut to) = (from, to);
    for _ in 0..20 {
        if wire.is_empty() {
            return;
        }
        wire = cut(&to.take(&wire, from.at));
        std::mem::swap(&mut from, &mut to);
    }
    panic!("two ends that never stop talking");
}

fn ends_with(change: impl Fn(&mut WireGuardPeerConfig)) -> (End, End) {
    let (mut vgw, mut site) = (config(VGW, SITE, 7), config(SITE, VGW, 9));
    site.path =
        Some(Path { local: address("203.0.113.2:4500"), remote: address("198.51.100.1:4500") });
    change(&mut vgw);
    change(&mut site);
    (
        End::new("198.51.100.1:4500", "10.2.0.0/16", &[vgw]),
        End::new("203.0.113.2:4500", "10.1.0.0/16", &[site]),
    )
}

/// A VGW that does not know where the site is, and a site that begins.
fn ends() -> (End, End) {
    ends_with(|_| {})
}

fn up() -> (End, End) {
    let (mut vgw, mut site) = ends();
    let wire = site.tick();
    carry(&wire, &mut site, &mut vgw);
    assert!(vgw.is_up() && site.is_up());
    (vgw, site)
}

/// A UDP packet from the VPC to the site, or back.
fn packet(to_site: bool, content: u8, length: usize) -> Vec<u8> {
    let (vpc, site) = ([10, 1, 0, 9], [10, 2, 0, 9]);
    let (source, destination) = if to_site { (vpc, site) } else { (site, vpc) };
    let total = u16::try_from(28 + length).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source);
    packet.extend_from_slice(&destination);
    let sum = checksum::of(&[&packet]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(&[0x30, 0x39, 0x30, 0x39]);
    packet.extend_from_slice(&u16::try_from(8 + length).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend(std::iter::repeat_n(content, length));
    packet
}

fn packet_v6(to_site: bool) -> Vec<u8> {
    let (vpc, site) = ([0xfd, 1], [0xfd, 2]);
    let (source, destination) = if to_site { (vpc, site) } else { (site, vpc) };
    let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
    for head in [source, destination] {
        packet.extend_from_slice(&head);
        packet.extend_from_slice(&[0; 13]);
        packet.push(9);
    }
    packet.extend_from_slice(&[0x30, 0x39, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet
}

#[test]
fn the_site_begins_and_packets_pass_both_ways_with_and_without_a_preshared_key() {
    for preshared in [None, Some(Secret::new(vec![9; 32]))] {
        let (mut vgw, mut site) = ends_with(|c| c.preshared_key.clone_from(&preshared));
        assert!(!vgw.is_up() && !site.is_up());
        let wire = site.tick();
        carry(&wire, &mut site, &mut vgw);
        assert!(vgw.is_up() && site.is_up());
        assert_eq!(vgw.peer_address(), Some(site.at), "learned from the handshake");
        let there = [packet(true, 1, 100), packet_v6(true), packet(true, 2, 1412)];
        let wire = vgw.seal(&there);
        carry(&wire, &mut vgw, &mut site);
        assert_eq!(site.opened, there);
        let back = [packet(false, 3, 0), packet_v6(false)];
        let wire = site.seal(&back);
        carry(&wire, &mut site, &mut vgw);
        assert_eq!(vgw.opened, back);
        let (id, octets) =
            (vgw.peers[0].id(), |p: &[Vec<u8>]| p.iter().map(Vec::len).sum::<usize>());
        let (sent, received) = (vgw.sent.tunnel(id), vgw.received.tunnel(id));
        assert_eq!((sent.packets(), sent.bytes()), (3, octets(&there) as u64));
        assert_eq!((received.packets(), received.bytes()), (2, octets(&back) as u64));
    }
}

#[test]
fn two_preshared_keys_that_differ_make_no_session() {
    let (mut vgw, mut site) =
        ends_with(|c| c.preshared_key = Some(Secret::new(vec![c.id.0 as u8; 32])));
    let wire = site.tick();
    carry(&wire, &mut site, &mut vgw);
    assert!(!vgw.is_up() && !site.is_up());
    assert_eq!(site.dropped(DropReason::WireGuardHandshake), 1);
}

#[test]
fn packets_before_the_handshake_wait_for_it() {
    let (mut vgw, mut site) = ends();
    let first: Vec<_> = (0..40).map(|i| packet(false, i, 100)).collect();
    let wire = site.seal(&first);
    assert_eq!(cut(&wire).len(), 1, "one initiation for all of them");
    carry(&wire, &mut site, &mut vgw);
    assert_eq!(vgw.opened, first);
    // The VGW does not know where the site is: nothing to wait for.
    let (mut vgw, _) = ends();
    assert!(vgw.seal(&[packet(true, 0, 10)]).runs.is_empty());
    assert_eq!(vgw.sent.dropped(DropReason::WireGuardNoEndpoint), 1);
}

#[test]
fn a_super_packet_leaves_as_one_run_and_arrives_in_one_piece_each() {
    let (mut vgw, mut site) = up();
    let payload: Vec<u8> = (0..60_000_u32).map(|i| (i / 251) as u8).collect();
    let mut octets = packet(true, 0, 0)[..20].to_vec();
    octets[9] = 6;
    octets[2..4].copy_from_slice(&(40 + 60_000_u16).to_be_bytes());
    octets.extend_from_slice(&[
        0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    octets.extend_from_slice(&payload);
    let mut inner = InnerBatch::default();
    inner.packets.push(InnerPacket {
        range: 0..octets.len(),
        gso: Some(Gso { kind: GsoKind::Tcp, segment: 1400 }),
        checksum: Some((20, 16)),
        sum: None,
    });
    inner.bytes = octets;
    let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
    vgw.out.seal(&inner, Instant::now(), &mut wire, &mut back);
    assert_eq!(wire.runs.len(), 1, "43 datagrams of one size and a shorter one");
    assert_eq!(wire.runs[0].segment, 1440 + 32);
    // As the receiver's socket gives it with UDP_GRO.
    let run = &wire.runs[0];
    let mut batch = DatagramBatch { bytes: wire.bytes.clone(), datagrams: vec![] };
    batch.datagrams.push(packet::Datagram {
        local: site.at,
        remote: vgw.at,
        range: run.range.clone(),
        segment: run.segment,
        tos: 0,
    });
    site.take_batch(&batch);
    assert_eq!(site.opened.len(), 60_000_usize.div_ceil(1400));
    let got: Vec<u8> = site.opened.iter().flat_map(|p| p[40..].to_vec()).collect();
    assert_eq!(got, payload);
}

#[test]
fn a_peer_moves_when_it_speaks_from_elsewhere_and_not_when_anybody_else_does() {
    let (mut vgw, mut site) = up();
    let home = site.at;
    let [new, stranger] = ["203.0.113.77:1024", "203.0.113.66:4500"].map(address);
    let late = cut(&site.seal(&[packet(false, 1, 10)])).remove(0);
    let message = cut(&site.seal(&[packet(false, 2, 10)])).remove(0);
    // Forged: every octet of it changed once.
    for at in 0..message.len() {
        let mut forged = message.clone();
        forged[at] ^= 1;
        vgw.take(&[forged], stranger);
        assert_eq!(vgw.peer_address(), Some(home), "octet {at}");
    }
    assert!(vgw.opened.is_empty());
    vgw.take(std::slice::from_ref(&message), new);
    assert_eq!(vgw.peer_address(), Some(new));
    // Repeated, and delayed: genuine, but not new.
    vgw.take(std::slice::from_ref(&message), stranger);
    assert_eq!(vgw.dropped(DropReason::Replayed), 1);
    vgw.take(&[late], home);
    assert_eq!(vgw.opened.len(), 2);
    assert_eq!(vgw.peer_address(), Some(new));
    let wire = vgw.seal(&[packet(true, 3, 10)]);
    assert_eq!(wire.runs[0].remote, new);
}

#[test]
fn an_old_initiation_after_a_restart_is_answered_but_moves_nobody() {
    let (_, mut site) = ends();
    let initiation = cut(&site.tick());
    let (mut vgw, _) = ends();
    let stranger = address("203.0.113.66:4500");
    let answer = vgw.take(&initiation, stranger);
    assert_eq!(cut(&answer).len(), 1);
    assert_eq!(answer.runs[0].remote, stranger);
    assert!(!vgw.is_up());
    assert_eq!(vgw.peer_address(), None);
    // The same once more is older than the newest.
    assert!(vgw.take(&initiation, stranger).runs.is_empty());
    assert_eq!(vgw.dropped(DropReason::WireGuardHandshake), 1);
}

#[test]
fn a_rekey_under_traffic_loses_nothing_whoever_begins() {
    let (mut vgw, mut site) = up();
    for round in 0..12_u8 {
        let before = cut(&vgw.seal(&[packet(true, round, 50)]));
        let back = cut(&site.seal(&[packet(false, round, 50)]));
        if round % 2 == 0 {
            let wire = site.rekey();
            carry(&wire, &mut site, &mut vgw);
        } else {
            let wire = vgw.rekey();
            carry(&wire, &mut vgw, &mut site);
        }
        // On the old keys, after the new ones are there.
        site.take(&before, vgw.at);
        vgw.take(&back, site.at);
        let after = vgw.seal(&[packet(true, 100 + round, 50)]);
        carry(&after, &mut vgw, &mut site);
        let after = site.seal(&[packet(false, 100 + round, 50)]);
        carry(&after, &mut site, &mut vgw);
    }
    assert_eq!((site.opened.len(), vgw.opened.len()), (24, 24));
    assert!(DropReason::ALL.iter().all(|r| site.dropped(*r) == 0 && vgw.dropped(*r) == 0));
}

#[test]
fn either_side_may_restart() {
    let (mut vgw, mut site) = up();
    // The site: a new one begins again.
    (_, site) = (site, ends().1);
    let wire = site.tick();
    carry(&wire, &mut site, &mut vgw);
    let wire = vgw.seal(&[packet(true, 1, 10)]);
    carry(&wire, &mut vgw, &mut site);
    assert_eq!(site.opened.len(), 1);
    // The VGW: what the site sends on its session finds nobody, until it begins again.
    vgw = ends().0;
    let wire = site.seal(&[packet(false, 1, 10)]);
    carry(&wire, &mut site, &mut vgw);
    assert_eq!(vgw.dropped(DropReason::WireGuardUnknownIndex), 1);
    let wire = site.rekey();
    carry(&wire, &mut site, &mut vgw);
    let wire = site.seal(&[packet(false, 1, 10)]);
    carry(&wire, &mut site, &mut vgw);
    assert_eq!(vgw.opened.len(), 1);
}

#[test]
fn a_peer_speaks_for_its_own_prefixes_only() {
    let (mut vgw, mut site) = up();
    let own = TunnelId(7);
    let source = |prefix: &str, owner: Option<u32>| SourceRoute {
        prefix: prefix.parse().unwrap(),
        owner: owner.map(|id| [TunnelId(id); 2]),
    };
    vgw.inn.apply(InboundCommand::SetSources(vec![
        source("10.0.0.0/8", Some(own.0)),
        source("10.3.0.0/16", Some(0)),
        source("10.1.0.0/16", None),
    ]));
    let mut delivered = 0;
    for (address, passes) in [
        ([10, 2, 0, 9], true),
        ([10, 200, 0, 9], true),
        ([10, 3, 0, 9], false),
        ([10, 1, 0, 9], false),
        ([192, 0, 2, 9], false),
    ] {
        let mut forged = packet(false, 1, 10);
        forged[12..16].copy_from_slice(&address);
        let wire = site.seal(&[forged]);
        carry(&wire, &mut site, &mut vgw);
        delivered += usize::from(passes);
        assert_eq!(vgw.opened.len(), delivered, "{address:?}");
    }
    assert_eq!(vgw.dropped(DropReason::InboundSource), 3);
}

#[test]
fn strangers_are_told_nothing_and_are_counted_by_what_they_did() {
    let (mut vgw, mut site) = ends();
    let from = site.at;
    let initiation = cut(&site.tick()).remove(0);
    // For another public key.
    let mut other = End::new(
        "203.0.113.2:4500",
        "10.1.0.0/16",
        &[WireGuardPeerConfig {
            path: Some(Path { local: site.at, remote: vgw.at }),
            ..config(SITE, 77, 9)
        }],
    );
    let wrong = cut(&other.tick()).remove(0);
    // By a key that is no peer's.
    let mut unknown = End::new(
        "203.0.113.2:4500",
        "10.1.0.0/16",
        &[WireGuardPeerConfig {
            path: Some(Path { local: site.at, remote: vgw.at }),
            ..config(78, VGW, 9)
        }],
    );
    let nobody = cut(&unknown.tick()).remove(0);
    let mut broken = initiation.clone();
    broken[50] ^= 1;
    let mut data = vec![4, 0, 0, 0];
    data.resize(64, 0x55);
    let mut cookie = vec![3, 0, 0, 0];
    cookie.resize(64, 0x55);
    for (message, reason) in [
        (wrong, DropReason::WireGuardMac),
        (nobody, DropReason::WireGuardUnknownPeer),
        (broken, DropReason::WireGuardMac),
        (data, DropReason::WireGuardUnknownIndex),
        (cookie, DropReason::WireGuardUnknownIndex),
    ] {
        let before = vgw.dropped(reason);
        assert!(vgw.take(&[message], from).runs.is_empty());
        assert_eq!(vgw.dropped(reason), before + 1, "{reason:?}");
    }
    let mut bare = Inbound::new(Arc::clone(&vgw.received));
    let mut batch = DatagramBatch::default();
    batch.push(vgw.at, from, 0, &initiation);
    bare.open(&batch, Instant::now(), &mut InnerBatch::default(), &mut DatagramBatch::default());
    assert_eq!(vgw.dropped(DropReason::WireGuardUnconfigured), 1);
    // And the honest one still comes up.
    carry(&WireBatch::default(), &mut site, &mut vgw);
    let answer = cut(&vgw.take(&[initiation], from));
    assert_eq!(answer.len(), 1);
}

#[test]
fn under_a_flood_of_initiations_strangers_get_cookies_and_a_peer_gets_through_with_one() {
    let (mut vgw, mut site) = ends();
    // Initiations that name the VGW's key, from a key that it does not know.
    let mut flooder = End::new(
        "203.0.113.66:4500",
        "10.1.0.0/16",
        &[WireGuardPeerConfig {
            path: Some(Path { local: address("203.0.113.66:4500"), remote: vgw.at }),
            ..config(79, VGW, 9)
        }],
    );
    let flood = cut(&flooder.tick());
    let (mut answers, mut octets) = (0, 0);
    for _ in 0..400 {
        let wire = vgw.take(&flood, flooder.at);
        answers += wire.runs.len();
        octets += wire.taken();
    }
    let unknown = vgw.dropped(DropReason::WireGuardUnknownPeer);
    let cookies = vgw.dropped(DropReason::WireGuardCookie);
    assert_eq!(unknown + cookies, 400);
    // A slow machine may begin a second in between.
    assert!((256..400).contains(&unknown) && cookies as usize == answers, "{unknown} {cookies}");
    assert!(octets < 400 * 148, "never more than came in");
    // The peer is told to prove its address, does, and is let in.
    let wire = site.tick();
    let cookie = cut(&vgw.take(&cut(&wire), site.at));
    assert_eq!(cookie.len(), 1);
    if cookie[0][0] == 3 {
        assert!(site.take(&cookie, vgw.at).runs.is_empty());
        let wire = site.rekey();
        carry(&wire, &mut site, &mut vgw);
    } else {
        site.take(&cookie, vgw.at);
    }
    assert!(site.is_up());
}

#[test]
fn what_is_too_long_is_told_and_a_syn_promises_no_more_than_fits() {
    let (mut vgw, mut site) = up();
    let mut inner = InnerBatch::default();
    inner.push(&packet(true, 1, 1413));
    let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
    vgw.out.seal(&inner, Instant::now(), &mut wire, &mut back);
    assert!(wire.runs.is_empty());
    assert_eq!(vgw.sent.dropped(DropReason::TooBig), 1);
    // Destination unreachable, fragmentation needed, and the MTU of the next hop (RFC 1191 4).
    let told = back.octets(&back.packets[0]);
    assert_eq!((&told[20..22], &told[26..28]), (&[3, 4][..], &1440_u16.to_be_bytes()[..]));
    // A SYN with MSS 1460 becomes 1400, on the way out and on the way in.
    let mut syn = packet(false, 0, 0)[..20].to_vec();
    syn[9] = 6;
    syn[3] = 44;
    syn.extend_from_slice(&[
        0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    syn.extend_from_slice(&[2, 4, 0x05, 0xb4]);
    let wire = site.seal(&[syn]);
    carry(&wire, &mut site, &mut vgw);
    let arrived = &vgw.opened[0];
    let view = IpView::parse(arrived).unwrap();
    assert_eq!(arrived[view.upper + 22..view.upper + 24], 1400_u16.to_be_bytes());
}

#[test]
fn packets_on_a_session_that_exists_allocate_nothing() {
    let (mut vgw, mut site) = up();
    let mut inner = InnerBatch::default();
    (0..40).for_each(|i| inner.push(&packet(true, i, 1400)));
    let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
    let (mut arrived, mut opened, mut slow) =
        (DatagramBatch::default(), InnerBatch::default(), DatagramBatch::default());
    let now = Instant::now();
    let mut round = || {
        wire.clear();
        vgw.out.seal(&inner, now, &mut wire, &mut back);
        arrived.clear();
        arrived.bytes.extend_from_slice(&wire.bytes);
        arrived.datagrams.extend(wire.runs.iter().map(|run| packet::Datagram {
            local: run.remote,
            remote: run.local,
            range: run.range.clone(),
            segment: run.segment,
            tos: run.tos,
        }));
        opened.clear();
        site.inn.open(&arrived, now, &mut opened, &mut slow);
        opened.packets.len()
    };
    assert_eq!(round(), 40);
    let mut packets = 0;
    let info = allocation_counter::measure(|| {
        packets = (0..20).map(|_| round()).sum();
    });
    assert_eq!((packets, info.count_total), (800, 0));
}

#[test]
fn copies_and_forgeries_among_the_messages_of_one_batch_harm_no_other() {
    let (mut vgw, mut site) = up();
    let packets: Vec<_> = (0..4).map(|i| packet(false, i, 300)).collect();
    let sent = cut(&site.seal(&packets));
    let mut forged = sent[2].clone();
    forged[100] ^= 1;
    let batch =
        [&sent[1], &sent[0], &sent[1], &forged, &sent[2], &sent[0], &sent[3]].map(Vec::clone);
    vgw.take(&batch, site.at);
    let order = [1, 0, 2, 3].map(|i: usize| packets[i].clone());
    assert_eq!(vgw.opened, order);
    assert_eq!(vgw.dropped(DropReason::Replayed), 2);
    assert_eq!(vgw.dropped(DropReason::IcvMismatch), 1);
    vgw.take(&batch, site.at);
    assert_eq!(vgw.opened.len(), 4);
    assert_eq!(
        vgw.dropped(DropReason::Replayed),
        2 + 7,
        "the forged one has a number that was seen"
    );
}

/// The packet with its destination in this network.
fn towards(mut packet: Vec<u8>, net: u8) -> Vec<u8> {
    packet[17] = net;
    packet
}

#[test]
fn packets_to_two_peers_and_an_esp_tunnel_in_one_batch_each_get_their_own_keys() {
    let (third, esp) = (5_u8, TunnelId(1));
    let at = address("198.51.100.1:4500");
    let reach = |site: &str| Some(Path { local: address(site), remote: at });
    let sites = [("203.0.113.2:4500", SITE, 9), ("203.0.113.3:4500", third, 10)];
    let mut vgw = End::new(
        "198.51.100.1:4500",
        "10.2.0.0/16",
        &[config(VGW, SITE, 7), config(VGW, third, 8)],
    );
    let mut sites = sites.map(|(at, own, id)| {
        let config = WireGuardPeerConfig { path: reach(at), ..config(own, VGW, id) };
        End::new(at, "10.0.0.0/8", &[config])
    });
    for site in &mut sites {
        let wire = site.tick();
        carry(&wire, site, &mut vgw);
    }
    let targets = [
        ("10.2.0.0/16", RouteTarget::WireGuard(TunnelId(7))),
        ("10.3.0.0/16", RouteTarget::WireGuard(TunnelId(8))),
        ("10.4.0.0/16", RouteTarget::Tunnel(esp)),
    ];
    let routes = targets.map(|(prefix, target)| Route { prefix: prefix.parse().unwrap(), target });
    vgw.out.apply(OutboundCommand::SetRoutes(routes.into()));
    let suite = EspSuite::AesGcm16(Bits::B256);
    let all = SelectorSet::nets(&["0.0.0.0/0".parse().unwrap()]);
    let lifetime = Lifetime { time: Duration::from_secs(1), bytes: None, packets: None };
    let encryption = Secret::new(vec![1; suite.encryption_keymat_len()]);
    let path = Path { local: at, remote: address("203.0.113.4:4500") };
    vgw.out.apply(OutboundCommand::Install(Box::new(OutboundSa {
        tunnel: esp,
        spi: Spi(0xc0ff_ee02),
        suite,
        esn: true,
        encryption: encryption.clone(),
        integrity: Secret::default(),
        local_selectors: all.clone(),
        remote_selectors: all.clone(),
        path,
        lifetime,
    })));
    let mut tunnel = Inbound::new(Arc::default());
    tunnel.apply(InboundCommand::Install(Box::new(InboundSa {
        tunnel: esp,
        spi: Spi(0xc0ff_ee02),
        suite,
        esn: true,
        encryption,
        integrity: Secret::default(),
        replay_window: 1024,
        remote_selectors: all.clone(),
        local_selectors: all,
        lifetime,
    })));
    let pattern = [2, 2, 3, 2, 4, 4, 3, 3, 2, 4, 3];
    let packets: Vec<_> = (0_u8..)
        .zip(pattern)
        .map(|(i, net)| towards(packet(true, i, 100 + usize::from(i)), net))
        .collect();
    let wire = vgw.seal(&packets);
    let mut opened = InnerBatch::default();
    for run in &wire.runs {
        let messages: Vec<_> =
            wire.bytes[run.range.clone()].chunks(run.segment).map(<[u8]>::to_vec).collect();
        if let Some(site) = sites.iter_mut().find(|site| site.at == run.remote) {
            site.take(&messages, at);
        } else {
            let mut batch = DatagramBatch::default();
            messages.iter().for_each(|message| batch.push(path.remote, at, 0, message));
            tunnel.open(&batch, Instant::now(), &mut opened, &mut DatagramBatch::default());
        }
    }
    let expected = |net: u8| -> Vec<Vec<u8>> {
        packets.iter().filter(|packet| packet[17] == net).cloned().collect()
    };
    assert_eq!(sites[0].opened, expected(2));
    assert_eq!(sites[1].opened, expected(3));
    let tunnelled: Vec<_> = opened.packets.iter().map(|p| opened.octets(p).to_vec()).collect();
    assert_eq!(tunnelled, expected(4));
    assert!(DropReason::ALL.iter().all(|reason| vgw.sent.dropped(*reason) == 0));
}

/// boringtun at the site.
struct Other {
    tunn: Tunn,
    opened: Vec<Vec<u8>>,
}

impl Other {
    fn new(preshared: Option<[u8; 32]>) -> Self {
        let vgw = PublicKey::from(public_key(&private(VGW)).unwrap());
        let tunn = Tunn::new(StaticSecret::from([SITE; 32]), vgw, preshared, None, 3, None);
        Self { tunn, opened: Vec::new() }
    }

    /// Takes `messages` and returns what it answers.
    fn take(&mut self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut room = [0; 2048];
        for message in messages {
            match self.tunn.decapsulate(None, message, &mut room) {
                TunnResult::WriteToNetwork(reply) => {
                    out.push(reply.to_vec());
                    while let TunnResult::WriteToNetwork(more) =
                        self.tunn.decapsulate(None, &[], &mut room)
                    {
                        out.push(more.to_vec());
                    }
                }
                TunnResult::WriteToTunnelV4(inside, _) => self.opened.push(inside.to_vec()),
                _ => {}
            }
        }
        out
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut room = [0; 2048];
        let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(packet, &mut room) else {
            panic!("boringtun sends nothing")
        };
        message.to_vec()
    }

    fn initiate(&mut self) -> Vec<u8> {
        let mut room = [0; 2048];
        let begun = self.tunn.format_handshake_initiation(&mut room, true);
        let TunnResult::WriteToNetwork(message) = begun else { panic!("no initiation") };
        message.to_vec()
    }
}

#[test]
fn boringtun_at_the_site_in_both_roles_while_messages_are_lost_and_come_late_and_twice() {
    for preshared in [None, Some([9; 32])] {
        let mut vgw = End::new(
            "198.51.100.1:4500",
            "10.2.0.0/16",
            &[WireGuardPeerConfig {
                preshared_key: preshared.map(|key| Secret::new(key.to_vec())),
                ..config(VGW, SITE, 7)
            }],
        );
        let (from, mut site) = (address("203.0.113.2:4500"), Other::new(preshared));
        // It begins. The first response is lost, and its first packet comes twice.
        let first = site.initiate();
        assert_eq!(cut(&vgw.take(std::slice::from_ref(&first), from)).len(), 1);
        assert!(!vgw.is_up(), "nothing confirms the session");
        let second = site.initiate();
        let response = cut(&vgw.take(std::slice::from_ref(&second), from));
        assert!(vgw.take(&[first, second], from).runs.is_empty(), "both are old");
        assert_eq!(vgw.dropped(DropReason::WireGuardHandshake), 2);
        let confirmation = site.take(&response);
        vgw.take(&confirmation, from);
        vgw.take(&confirmation, from);
        assert!(vgw.is_up());
        assert_eq!(vgw.dropped(DropReason::Replayed), 1);
        // Six sessions in turn begun by either, with packets of the one before in between and
        // backwards.
        for round in 0..6_u8 {
            let late: Vec<_> = (0..9).map(|i| site.seal(&packet(false, i, 200))).rev().collect();
            let also_late = cut(&vgw.seal(&[packet(true, round, 60), packet(true, round, 61)]));
            if round % 2 == 0 {
                let response = cut(&vgw.take(&[site.initiate()], from));
                vgw.take(&site.take(&response), from);
            } else {
                let response = site.take(&cut(&vgw.rekey()));
                site.take(&cut(&vgw.take(&response, from)));
            }
            vgw.take(&late, from);
            site.take(&also_late);
            site.take(&cut(&vgw.seal(&[packet(true, round, 62)])));
            let last = site.seal(&packet(false, round, 63));
            vgw.take(&[last], from);
        }
        assert_eq!((vgw.opened.len(), site.opened.len()), (60, 18));
        assert_eq!(vgw.dropped(DropReason::Replayed), 1);
        assert_eq!(vgw.dropped(DropReason::IcvMismatch), 0);
        assert_eq!(vgw.dropped(DropReason::WireGuardUnknownIndex), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Anything at all, and anything that begins like a message of a session that exists.
    #[test]
    fn no_datagram_harms_a_session(
        kind in 1..=4_u8,
        length in 0..300_usize,
        genuine in any::<bool>(),
        noise in any::<[u8; 16]>(),
    ) {
        let (mut vgw, mut site) = up();
        let mut datagram = if genuine { cut(&site.seal(&[packet(false, 1, 64)])).remove(0) } else { vec![] };
        datagram.resize(match kind { 1 => 148, 2 => 92, 3 => 64, _ => length.max(32) }, 0);
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let at = usize::from(noise[0]) % datagram.len().saturating_sub(16).max(1);
        if at >= 4 {
            datagram[at..at + 16].copy_from_slice(&noise);
        }
        vgw.take(&[datagram], address("203.0.113.66:4500"));
        prop_assert!(vgw.opened.is_empty());
        let wire = site.seal(&[packet(false, 2, 64)]);
        carry(&wire, &mut site, &mut vgw);
        prop_assert_eq!(vgw.opened.len(), 1);
    }
}
