//! WireGuard messages on the shared port, real ones and changed ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{
    Counters, Inbound, InboundCommand, WireGuard, WireGuardPeer, WireGuardPeerConfig, public_key,
};
use packet::{DatagramBatch, InnerBatch};
use sa::{Path, Secret, TunnelId};

use crate::input::Input;
use crate::peer::path;

const PEER: TunnelId = TunnelId(5);

fn side(own: u8, other: u8, path: Option<Path>) -> Inbound {
    let (own, other) = ([own; 32], [other; 32]);
    let peer = WireGuardPeer::new(&WireGuardPeerConfig {
        id: PEER,
        private_key: Secret::new(own.to_vec()),
        public_key: public_key(&Secret::new(other.to_vec())).unwrap_or_default(),
        preshared_key: None,
        path,
        keepalive: Some(5),
        mtu: None,
        rekey_after: Duration::from_secs(120),
    });
    let mut inbound = Inbound::new(Arc::<Counters>::default());
    let table = WireGuard::new(peer.into_iter().map(Arc::new));
    inbound.apply(InboundCommand::SetWireGuard(Arc::new(table)));
    inbound
}

/// What a side wants to send.
fn replies(side: &mut Inbound) -> Vec<Vec<u8>> {
    let wire = side.replies();
    let mut out = Vec::new();
    for run in &wire.runs {
        let octets = wire.bytes.get(run.range.clone()).unwrap_or_default();
        out.extend(octets.chunks(run.segment.max(1)).map(<[u8]>::to_vec));
    }
    wire.clear();
    out
}

fn give(side: &mut Inbound, octets: &[u8], now: Instant) -> Vec<Vec<u8>> {
    let mut batch = DatagramBatch::default();
    batch.push(path().local, path().remote, 0, octets);
    let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
    side.open(&batch, now, &mut inner, &mut slow);
    while side.poll_event().is_some() {}
    replies(side)
}

/// Messages: kind, offset, length, octets. Kind 0 is a datagram as it stands; 1 is the initiation
/// that a real peer sends, 2 what that peer answers to what it got last, each with the octets
/// laid over it at the offset. No answer is larger than what it answers.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let mut now = Instant::now();
    let mut front = side(1, 2, None);
    let mut peer = side(2, 1, Some(Path { local: path().remote, remote: path().local }));
    peer.apply(InboundCommand::WireGuardRekey(PEER));
    let initiation = replies(&mut peer).pop().unwrap_or_default();
    let mut last = Vec::new();
    for _ in 0..12 {
        if input.is_empty() {
            break;
        }
        let (kind, offset) = (input.octet(), usize::from(input.word()));
        let octets = input.part();
        let mut datagram = match kind % 3 {
            0 => Vec::new(),
            1 => initiation.clone(),
            _ => give(&mut peer, &last, now).pop().unwrap_or_default(),
        };
        if kind % 3 == 0 {
            datagram.extend(octets);
        } else {
            for (to, from) in datagram.iter_mut().skip(offset).zip(octets) {
                *to ^= from;
            }
        }
        let answers = give(&mut front, &datagram, now);
        let sent: usize = answers.iter().map(Vec::len).sum();
        assert!(sent <= datagram.len(), "{sent} octets for {}", datagram.len());
        last = answers.into_iter().next_back().unwrap_or(last);
        now += Duration::from_millis(u64::from(kind) * 100);
        front.apply(InboundCommand::WireGuardTimers(now));
        replies(&mut front);
    }
}
