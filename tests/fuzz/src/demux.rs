//! Datagrams on the shared port, as one receive call gives them: coalesced or not.

use std::sync::Arc;
use std::time::Instant;

use dataplane::demux::{Kind, classify};
use dataplane::{Counters, DropReason, Inbound};
use packet::{DatagramBatch, InnerBatch};

use crate::input::Input;
use crate::peer::path;

/// Counted drops of all reasons.
pub(crate) fn drops(counters: &Counters) -> u64 {
    DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum()
}

/// Receives with their segment size and length before them. Every datagram has one fate.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let counters = Arc::<Counters>::default();
    let mut inbound = Inbound::new(Arc::clone(&counters));
    let mut batch = DatagramBatch::default();
    let (mut datagrams, mut ike) = (0, 0);
    while !input.is_empty() {
        let segment = usize::from(input.word());
        let octets = input.part();
        batch.push(path().local, path().remote, 0, octets);
        if let Some(last) = batch.datagrams.last_mut() {
            last.segment = segment;
        }
        let pieces = octets.chunks(segment.max(1));
        datagrams += (pieces.len() as u64).max(1);
        ike += pieces.filter(|piece| classify(piece) == Kind::Ike).count();
    }
    let (mut inner, mut slow) = (InnerBatch::default(), DatagramBatch::default());
    inbound.open(&batch, Instant::now(), &mut inner, &mut slow);
    assert!(inner.packets.is_empty());
    assert_eq!(slow.datagrams.len(), ike);
    assert_eq!(datagrams, drops(&counters) + counters.keepalives() + ike as u64);
    while inbound.poll_event().is_some() {}
}
