//! In steady state the packet path allocates nothing: every buffer is kept from batch to batch.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{
    Counters, DropReason, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand, Route,
    RouteTarget,
};
use packet::{Datagram, DatagramBatch, Gso, GsoKind, InnerBatch, InnerPacket, WireBatch};
use sa::{EspSuite, InboundSa, Lifetime, OutboundSa, Path, Secret, SelectorSet, Spi, TunnelId};

const TUNNEL: TunnelId = TunnelId(1);
const SPI: Spi = Spi(0xc0ff_ee02);

/// An IPv4 packet of `length` octets, with `flags` in the fragmentation word.
fn ipv4(protocol: u8, flags: u16, length: usize) -> Vec<u8> {
    let mut p = vec![0x45, 0];
    p.extend(u16::try_from(length).unwrap().to_be_bytes());
    p.extend([0, 1]);
    p.extend(flags.to_be_bytes());
    p.extend([64, protocol, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
    p.resize(length, 0x50);
    p
}

fn planes(suite: EspSuite) -> (Outbound, Inbound, Arc<Counters>, Arc<Counters>) {
    let all = SelectorSet::nets(&["0.0.0.0/0".parse().unwrap()]);
    let lifetime = Lifetime { time: Duration::from_secs(1), bytes: None, packets: None };
    let encryption = Secret::new(vec![1; suite.encryption_keymat_len()]);
    let integrity = Secret::new(vec![2; suite.integrity_keymat_len()]);
    let path = Path {
        local: "192.0.2.1:4500".parse().unwrap(),
        remote: "192.0.2.2:4500".parse().unwrap(),
    };
    let (sent, received) = (Arc::<Counters>::default(), Arc::<Counters>::default());
    let mut out = Outbound::new(Arc::clone(&sent), IcmpSource::default());
    let mut inn = Inbound::new(Arc::clone(&received));
    let target = RouteTarget::Tunnel(TUNNEL);
    let prefix = "10.2.0.0/16".parse().unwrap();
    out.apply(OutboundCommand::SetRoutes(vec![Route { prefix, target }]));
    out.apply(OutboundCommand::Install(Box::new(OutboundSa {
        tunnel: TUNNEL,
        spi: SPI,
        suite,
        esn: true,
        encryption: encryption.clone(),
        integrity: integrity.clone(),
        local_selectors: all.clone(),
        remote_selectors: all.clone(),
        path,
        lifetime,
    })));
    inn.apply(InboundCommand::Install(Box::new(InboundSa {
        tunnel: TUNNEL,
        spi: SPI,
        suite,
        esn: true,
        encryption,
        integrity,
        replay_window: 1024,
        remote_selectors: all.clone(),
        local_selectors: all,
        lifetime,
    })));
    (out, inn, sent, received)
}

#[test]
fn no_batch_after_the_first_ones_allocates() {
    // Plain packets, a fragmented one, a TSO super-packet, and one with a partial checksum.
    let mut inner = InnerBatch::default();
    for length in [64, 576, 1400, 1400, 4000] {
        inner.push(&ipv4(17, 0, length));
    }
    inner.push(&ipv4(6, 0x4000, 30_000));
    let gso = Some(Gso { kind: GsoKind::Tcp, segment: 1200 });
    let last = inner.packets.pop().unwrap();
    inner.packets.push(InnerPacket { gso, checksum: Some((20, 16)), ..last });
    inner.push(&ipv4(6, 0x4000, 200));
    let last = inner.packets.pop().unwrap();
    inner.packets.push(InnerPacket { checksum: Some((20, 16)), ..last });

    let stranger = "198.51.100.7:4500".parse().unwrap();
    for suite in EspSuite::ALL {
        let (mut out, mut inn, sent, received) = planes(suite);
        let now = Instant::now();
        let (mut wire, mut back) = (WireBatch::default(), InnerBatch::default());
        let (mut arrived, mut opened, mut slow) =
            (DatagramBatch::default(), InnerBatch::default(), DatagramBatch::default());
        let mut round = || {
            wire.clear();
            out.seal(&inner, now, &mut wire, &mut back);
            arrived.clear();
            arrived.bytes.extend_from_slice(&wire.bytes);
            arrived.datagrams.extend(wire.runs.iter().map(|run| Datagram {
                local: run.remote,
                remote: run.local,
                range: run.range.clone(),
                segment: run.segment,
                tos: run.tos,
            }));
            // Strangers are part of steady state.
            arrived.push(stranger, stranger, 0, &[0xaa; 64]);
            opened.clear();
            inn.open(&arrived, now, &mut opened, &mut slow);
            while inn.poll_event().or_else(|| out.poll_event()).is_some() {}
            opened.packets.len()
        };
        let mut packets = 0;
        let first = allocation_counter::measure(|| packets = round());
        assert!(first.count_total > 0, "the counter counts");
        assert!(packets > 30, "{suite}: {packets}");
        assert_eq!(round(), packets);
        let mut rounds = 0;
        let info = allocation_counter::measure(|| {
            for _ in 0..20 {
                rounds += usize::from(round() == packets);
            }
        });
        assert_eq!(rounds, 20);
        assert_eq!(info.count_total, 0, "{suite}: {info:?}");
        for reason in DropReason::ALL.iter().filter(|r| **r != DropReason::UnknownSpi) {
            assert_eq!(sent.dropped(*reason) + received.dropped(*reason), 0, "{}", reason.name());
        }
    }
}
