//! Packets of one WireGuard peer go out.

use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use packet::WireBatch;
use sa::TunnelId;
use simd_aead::{Checksum, SealJob, seal_batch};

use super::WireGuardPeer;
use super::keypairs::Keypair;
use super::message::{DATA_HEADER, OVERHEAD, put, put_data_header};
use super::session::{Session, job, padded};
use crate::outbound::{Sink, is_ipv6};
use crate::seal::{Mark, append_run};
use crate::{DropReason, ecn};

/// Data messages of one session that are laid out and not sealed yet.
#[derive(Default)]
pub(crate) struct WireGuardSealer {
    of: Option<(TunnelId, Arc<Keypair>)>,
    jobs: Vec<SealJob>,
    /// What a failure goes back to.
    start: Option<Mark>,
}

impl WireGuardSealer {
    /// The peer whose packets are pending.
    pub(crate) fn peer(&self) -> Option<TunnelId> {
        self.of.as_ref().map(|(id, _)| *id)
    }

    /// Seals everything pending. On failure, which only a fault of ours can cause, nothing of it
    /// stays in `wire`.
    pub(crate) fn flush(&mut self, src: &[u8], wire: &mut WireBatch) -> bool {
        let Some((_, keys)) = self.of.take() else { return true };
        let sealed = seal_batch(&[&keys.send], src, &mut wire.bytes, &self.jobs).is_ok();
        self.jobs.clear();
        if let Some(mark) = self.start.take().filter(|_| !sealed) {
            mark.restore(wire);
        }
        sealed
    }
}

/// Lays out what it is given, in the order in which it comes.
pub(crate) struct WireGuardSink<'a> {
    id: TunnelId,
    session: MutexGuard<'a, Session>,
    sealer: &'a mut WireGuardSealer,
    octets: &'a [u8],
    mtu: u16,
    tos: u8,
    now: Instant,
    wire: &'a mut WireBatch,
}

impl WireGuardPeer {
    /// Takes packets for this peer that are parts of `octets`, as long as it lives.
    pub(crate) fn sink<'a>(
        &'a self,
        octets: &'a [u8],
        (tos, link_mtu): (u8, u16),
        now: Instant,
        sealer: &'a mut WireGuardSealer,
        wire: &'a mut WireBatch,
    ) -> Result<WireGuardSink<'a>, DropReason> {
        let session = self.lock();
        let path = session.path().ok_or(DropReason::WireGuardNoEndpoint)?;
        let mtu = self.inner_mtu(link_mtu, is_ipv6(path.remote.ip()));
        Ok(WireGuardSink { id: self.id, session, sealer, octets, mtu, tos, now, wire })
    }
}

impl WireGuardSink<'_> {
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Makes the pending packets those of the session that seals now. Returns whether there is one.
    fn begin(&mut self) -> Result<bool, DropReason> {
        let Some(keys) = self.session.sealing(self.now) else { return Ok(false) };
        if self.sealer.of.as_ref().is_none_or(|(_, of)| !Arc::ptr_eq(of, keys)) {
            let keys = Arc::clone(keys);
            if !self.sealer.flush(self.octets, self.wire) {
                return Err(DropReason::Internal);
            }
            self.sealer.of = Some((self.id, keys));
        }
        Ok(true)
    }
}

impl Sink for WireGuardSink<'_> {
    /// Header, prefix, room for the body, padding, room for the tag (whitepaper 5.4.6).
    fn push(
        &mut self,
        prefix: &[u8],
        body: Range<usize>,
        checksum: Option<Checksum>,
    ) -> Result<(), DropReason> {
        let length = prefix.len() + body.len();
        let padding = padded(length, self.mtu)? - length;
        if !self.begin()? {
            let body = self.octets.get(body).ok_or(DropReason::Internal)?;
            let (mtu, tos) = (self.mtu, self.tos);
            let mut prefix = prefix.to_vec();
            if let Some(checksum) = checksum {
                checksum.complete(&mut prefix, body);
            }
            return self.session.wait([&prefix, body], (mtu, tos), self.now, self.wire);
        }
        let Self { session, sealer, wire, now, .. } = self;
        let path = session.path().ok_or(DropReason::WireGuardNoEndpoint)?;
        let counter = session.count(*now, wire)?;
        let (_, keys) = sealer.of.as_ref().ok_or(DropReason::Internal)?;
        sealer.start.get_or_insert_with(|| Mark::of(wire));
        let datagram = wire.room(length + padding + OVERHEAD);
        let out = wire.bytes.get_mut(datagram.clone()).ok_or(DropReason::Internal)?;
        put_data_header(out, keys.remote, counter).ok_or(DropReason::Internal)?;
        put(out, DATA_HEADER, prefix).ok_or(DropReason::Internal)?;
        // The room holds what an earlier use left.
        let tail = DATA_HEADER + length..DATA_HEADER + length + padding;
        out.get_mut(tail).ok_or(DropReason::Internal)?.fill(0);
        let end = (padding, checksum);
        sealer.jobs.push(job(counter, datagram.start, prefix.len(), body, end));
        append_run(wire, path, ecn::encapsulate(self.tos), datagram);
        session.counted(counter, *now, wire);
        Ok(())
    }
}
