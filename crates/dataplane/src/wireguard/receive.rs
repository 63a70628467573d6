//! A WireGuard message comes in.

use std::sync::Arc;
use std::time::Instant;

use packet::ip::set_tos;
use packet::{Datagram, DatagramBatch, InnerBatch, InnerPacket, IpView};
use sa::Path;
use simd_aead::{Aad, OpenJob, open_batch};

use super::cookie::{Refused, Verified};
use super::keypairs::Keypair;
use super::message::{COOKIE_REPLY_TYPE, DATA_HEADER, DATA_TYPE, OVERHEAD, counter, nonce, word};
use super::session::{self, Arrived, REJECT_AFTER_MESSAGES};
use super::{WireGuard, WireGuardPeer};
use crate::inbound::{Inbound, Pending, Run};
use crate::open::{refused, without_tail};
use crate::outbound::is_ipv6;
use crate::sources::Claim;
use crate::{DropReason, ecn, mss};

/// Data messages of one session that wait to be opened together.
pub(crate) struct WireGuardRun {
    peer: Arc<WireGuardPeer>,
    keys: Arc<Keypair>,
}

impl Inbound {
    /// Takes one message: queues data for opening as part of `current`, and answers the rest.
    pub(crate) fn receive_wireguard(
        &mut self,
        batch: &DatagramBatch,
        (datagram, range): (&Datagram, std::ops::Range<usize>),
        now: Instant,
        inner: &mut InnerBatch,
        current: &mut Option<Run>,
    ) -> Result<(), DropReason> {
        let message = batch.bytes.get(range.clone()).unwrap_or_default();
        let path = Path { local: datagram.local, remote: datagram.remote };
        if message.first() != Some(&DATA_TYPE) {
            self.finish(batch, current.take(), now, inner);
            return self.handle_message(message, path, now);
        }
        let unknown = DropReason::WireGuardUnknownIndex;
        let index = word(message, 4).ok_or(unknown)?;
        let same = |run: &Run| matches!(run, Run::WireGuard(run) if run.keys.index == index);
        if !current.as_ref().is_some_and(same) {
            self.finish(batch, current.take(), now, inner);
            if self.wireguard.is_empty() {
                return Err(DropReason::WireGuardUnconfigured);
            }
            let peer = Arc::clone(peer_at(&self.wireguard, message, 4)?);
            let keys = peer.lock().opening(index, now).cloned().ok_or(unknown)?;
            *current = Some(Run::WireGuard(WireGuardRun { peer, keys }));
        }
        let Some(Run::WireGuard(run)) = current else { return Err(DropReason::Internal) };
        let counter = counter(message).ok_or(unknown)?;
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::SequenceExhausted);
        }
        // The window counts from 1.
        let sequence = counter + 1;
        run.keys.window().check(sequence).map_err(refused)?;
        let sealed = message.len().checked_sub(OVERHEAD).ok_or(unknown)?;
        let plain = inner.room(sealed);
        self.jobs.push(OpenJob {
            key: 0,
            nonce: nonce(counter),
            aad: Aad::default(),
            src: range.start + DATA_HEADER..range.end,
            dst: plain.start,
            ok: false,
            sum: self.sums.then_some(0),
        });
        let tos = datagram.tos;
        self.pending.push(Pending { sequence, plain, path, tos, ok: false, sum: None });
        Ok(())
    }

    /// Opens everything queued of `run` and delivers what passes.
    pub(crate) fn finish_wireguard(
        &mut self,
        batch: &DatagramBatch,
        run: &WireGuardRun,
        now: Instant,
        inner: &mut InnerBatch,
    ) {
        let WireGuardRun { peer, keys } = run;
        if open_batch(&[&keys.receive], &batch.bytes, &mut inner.bytes, &mut self.jobs).is_err() {
            self.counters.count_drop(DropReason::Internal);
        }
        let mut arrived = Arrived::default();
        let mut window = keys.window();
        for (packet, job) in self.pending.iter_mut().zip(&self.jobs) {
            // Checked again: two copies of one packet may stand in the same batch.
            let taken = match job.ok {
                true => window.check(packet.sequence).map_err(refused),
                false => Err(DropReason::IcvMismatch),
            };
            match taken {
                Ok(()) => {
                    window.mark(packet.sequence);
                    let data = !packet.plain.is_empty();
                    arrived.add(packet.sequence - 1, packet.path, data);
                    (packet.ok, packet.sum) = (data, job.sum);
                }
                Err(reason) => self.counters.count_drop(reason),
            }
        }
        drop(window);
        self.jobs.clear();
        peer.lock().arrived(keys, &arrived, now, &mut self.replies);
        let mut pending = std::mem::take(&mut self.pending);
        for packet in pending.drain(..).filter(|packet| packet.ok) {
            if let Err(reason) = self.deliver(peer, packet, inner) {
                self.counters.count_drop(reason);
            }
        }
        self.pending = pending;
    }

    /// Checks what was inside of an authentic message that is no keepalive.
    fn deliver(
        &mut self,
        peer: &WireGuardPeer,
        Pending { plain, path, tos, sum, .. }: Pending,
        inner: &mut InnerBatch,
    ) -> Result<(), DropReason> {
        let packet = inner.bytes.get_mut(plain.clone()).ok_or(DropReason::Internal)?;
        let view = IpView::parse(packet).ok_or(DropReason::InnerInvalid)?;
        let mut sum = sum.map(|sum| without_tail(sum, packet, view.length));
        if self.sources.claim(view.source, peer.id) != Claim::Own {
            return Err(DropReason::InboundSource);
        }
        let inner_tos = ecn::decapsulate(view.tos, tos).ok_or(DropReason::EcnDrop)?;
        if inner_tos != view.tos {
            set_tos(packet, inner_tos);
            sum = None;
        }
        let link = self.links.get(&peer.id).ok_or(DropReason::Internal)?;
        let mtu = peer.inner_mtu(link.mtu, is_ipv6(path.remote.ip()));
        if mss::clamp_syn(packet, &view, mtu, false) {
            sum = None;
        }
        link.counters.count(view.length);
        let range = plain.start..plain.start + view.length;
        inner.packets.push(InnerPacket { range, gso: None, checksum: None, sum });
        Ok(())
    }

    /// A cookie, an initiation or a response: nothing is multiplied before the guard let it pass.
    fn handle_message(
        &mut self,
        message: &[u8],
        path: Path,
        now: Instant,
    ) -> Result<(), DropReason> {
        let table = Arc::clone(&self.wireguard);
        if table.is_empty() {
            return Err(DropReason::WireGuardUnconfigured);
        }
        if message.first() == Some(&COOKIE_REPLY_TYPE) {
            return peer_at(&table, message, 4)?.lock().handle_cookie(message, now);
        }
        let source = path.remote.ip();
        if self.handshakes.begin(now) {
            table.identities.iter().for_each(|identity| identity.guard.begin_second());
        }
        for identity in &table.identities {
            let allow = || self.handshakes.allow(source);
            match identity.guard.verify(source, message, now, allow) {
                Ok(Verified::Initiation(initiation)) => {
                    let known = identity.peers.get(&initiation.claimed);
                    let index = known.ok_or(DropReason::WireGuardUnknownPeer)?;
                    let peer = table.peers.get(index).ok_or(DropReason::WireGuardUnknownPeer)?;
                    let mut session = peer.lock();
                    return session.handle_initiation(*initiation, path, now, &mut self.replies);
                }
                Ok(Verified::Response(response)) => {
                    let mut session = peer_at(&table, message, 8)?.lock();
                    return session.handle_response(&response, path, now, &mut self.replies);
                }
                Err(Refused::Mac) => {}
                Err(Refused::Cookie(cookie)) => {
                    session::send(&mut self.replies, path, &cookie);
                    return Err(DropReason::WireGuardCookie);
                }
                Err(Refused::Flood) => return Err(DropReason::WireGuardFlood),
                Err(Refused::Invalid) => return Err(DropReason::WireGuardHandshake),
            }
        }
        Err(DropReason::WireGuardMac)
    }
}

/// The peer whose session the index at `at` names.
fn peer_at<'a>(
    table: &'a WireGuard,
    message: &[u8],
    at: usize,
) -> Result<&'a Arc<WireGuardPeer>, DropReason> {
    word(message, at)
        .and_then(|index| table.peers.get(&(index >> 8)))
        .ok_or(DropReason::WireGuardUnknownIndex)
}
