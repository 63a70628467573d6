//! What comes from the TUN device: packets and super-packets, well formed or not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{
    Counters, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand, Route, RouteTarget,
};
use packet::{DatagramBatch, Gso, GsoKind, InnerBatch, IpView, WireBatch};
use sa::{Bits, EspSuite, InboundSa, Lifetime, OutboundSa, Secret, Spi, TunnelId};

use crate::demux::drops;
use crate::input::Input;
use crate::peer::path;

const TUNNEL: TunnelId = TunnelId(3);

fn pair() -> (OutboundSa, InboundSa) {
    let suite = EspSuite::AesGcm16(Bits::B128);
    let id = ike::Identity::Fqdn("a".into());
    let all = ike::PeerConfig::new(TUNNEL, id, None, Secret::new(vec![1])).local_selectors;
    let encryption = Secret::new(vec![7; suite.encryption_keymat_len()]);
    let lifetime = Lifetime { time: Duration::from_secs(60), bytes: None, packets: None };
    let outbound = OutboundSa {
        tunnel: TUNNEL,
        spi: Spi(0x5000_0000),
        suite,
        esn: false,
        encryption: encryption.clone(),
        integrity: Secret::default(),
        local_selectors: all.clone(),
        remote_selectors: all.clone(),
        path: path(),
        lifetime,
    };
    let inbound = InboundSa {
        tunnel: TUNNEL,
        spi: Spi(0x5000_0000),
        suite,
        esn: false,
        encryption,
        integrity: Secret::default(),
        replay_window: 8192,
        remote_selectors: all.clone(),
        local_selectors: all,
        lifetime,
    };
    (outbound, inbound)
}

/// First the link's MTU; then packets: kind, segment size, checksum offsets, length, octets. What
/// is sealed fits the link and opens to IP packets.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let now = Instant::now();
    let mtu = 576 + input.word() % 9000;
    let (out, came) = (Arc::<Counters>::default(), Arc::<Counters>::default());
    let mut outbound = Outbound::new(Arc::clone(&out), IcmpSource::default());
    let mut inbound = Inbound::new(Arc::clone(&came));
    let (outbound_sa, inbound_sa) = pair();
    outbound.apply(OutboundCommand::Install(Box::new(outbound_sa)));
    outbound.apply(OutboundCommand::SetLinkMtu { tunnel: TUNNEL, mtu });
    let target = RouteTarget::Tunnel(TUNNEL);
    let all = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|prefix| prefix.parse().ok());
    outbound
        .apply(OutboundCommand::SetRoutes(all.map(|prefix| Route { prefix, target }).collect()));
    inbound.apply(InboundCommand::Install(Box::new(inbound_sa)));
    let mut inner = InnerBatch::default();
    while !input.is_empty() && inner.packets.len() < 8 {
        let (kind, segment) = (input.octet(), input.word());
        let checksum = (u16::from(input.octet()), u16::from(input.octet()));
        inner.push(input.part());
        let Some(packet) = inner.packets.last_mut() else { return };
        let kinds = [None, None, Some(GsoKind::Tcp), Some(GsoKind::Udp)];
        packet.gso = kinds[usize::from(kind & 3)].map(|kind| Gso { kind, segment });
        packet.checksum = (kind & 4 != 0 || packet.gso.is_some()).then_some(checksum);
    }
    let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
    outbound.seal(&inner, now, &mut wire, &mut back);
    let mut batch = DatagramBatch::default();
    for run in &wire.runs {
        let octets = &wire.bytes[run.range.clone()];
        assert!(run.segment > 0 && octets.len() <= 65_507);
        octets.chunks(run.segment).for_each(|datagram| {
            // Inner IPv6 has 1280 octets at least, whatever the link takes.
            assert!(datagram.len() + 28 <= usize::from(mtu).max(1_280 + 80));
            batch.push(run.remote, run.local, run.tos, datagram);
        });
    }
    assert_eq!(out.tunnel(TUNNEL).packets(), batch.datagrams.len() as u64);
    let (mut opened, mut slow) = (InnerBatch::default(), DatagramBatch::default());
    inbound.open(&batch, now, &mut opened, &mut slow);
    let mut answers = 0;
    while let Some(event) = inbound.poll_event() {
        answers += u64::from(matches!(event, dataplane::DataEvent::ProbeAnswered { .. }));
    }
    let total = opened.packets.len() as u64 + answers + drops(&came);
    assert_eq!(total, batch.datagrams.len() as u64);
    for packet in opened.packets.iter().chain(&back.packets) {
        let octets =
            if back.packets.contains(packet) { back.octets(packet) } else { opened.octets(packet) };
        assert!(IpView::parse(octets).is_some(), "what is sealed is an IP packet");
    }
}
