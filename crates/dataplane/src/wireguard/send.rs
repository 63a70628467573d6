//! Packets of one WireGuard peer go out.

use std::ops::Range;
use std::sync::MutexGuard;
use std::time::Instant;

use packet::WireBatch;

use super::WireGuardPeer;
use super::noise::Session;
use crate::DropReason;
use crate::outbound::{Sink, is_ipv6};

/// Seals what it is given at once, in the order in which it comes.
pub(crate) struct WireGuardSink<'a> {
    session: MutexGuard<'a, Session>,
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
        tos: u8,
        link_mtu: u16,
        now: Instant,
        wire: &'a mut WireBatch,
    ) -> Result<WireGuardSink<'a>, DropReason> {
        let session = self.lock();
        let path = session.path().ok_or(DropReason::WireGuardNoEndpoint)?;
        let mtu = self.inner_mtu(link_mtu, is_ipv6(path.remote.ip()));
        Ok(WireGuardSink { session, octets, mtu, tos, now, wire })
    }
}

impl WireGuardSink<'_> {
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }
}

impl Sink for WireGuardSink<'_> {
    fn push(&mut self, prefix: &[u8], body: Range<usize>) -> Result<(), DropReason> {
        let body = self.octets.get(body).ok_or(DropReason::Internal)?;
        self.session.seal([prefix, body], (self.mtu, self.tos), self.now, self.wire)
    }
}
