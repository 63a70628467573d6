//! A WireGuard message comes in.

use std::ops::Range;
use std::time::Instant;

use packet::ip::set_tos;
use packet::{InnerBatch, InnerPacket, IpView};
use sa::Path;

use super::noise::{self, HANDSHAKE_ROOM, Refused, Verified};
use super::{WireGuard, WireGuardPeer};
use crate::inbound::Inbound;
use crate::outbound::is_ipv6;
use crate::sources::Claim;
use crate::{DropReason, ecn, mss};

const DATA: u8 = 4;
const COOKIE_REPLY: u8 = 3;

impl Inbound {
    /// Takes one message; appends what was inside to `inner`, and answers to the replies.
    pub(crate) fn receive_wireguard(
        &mut self,
        message: &[u8],
        path: Path,
        tos: u8,
        now: Instant,
        inner: &mut InnerBatch,
    ) -> Result<(), DropReason> {
        let table = std::sync::Arc::clone(&self.wireguard);
        if table.is_empty() {
            return Err(DropReason::WireGuardUnconfigured);
        }
        match message.first() {
            Some(&DATA) => {
                let peer = peer_at(&table, message, 4)?;
                if let Some(range) = self.open_wireguard(peer, message, path, tos, now, inner)? {
                    inner.packets.push(InnerPacket { range, gso: None, checksum: None });
                }
                Ok(())
            }
            Some(&COOKIE_REPLY) => {
                let peer = peer_at(&table, message, 4)?;
                peer.lock().handle_handshake(message, path, now, &mut self.replies)
            }
            _ => self.handle_handshake(&table, message, path, now),
        }
    }

    /// Opens a data message into `inner`. Returns where the packet is; `None` for a keepalive.
    fn open_wireguard(
        &mut self,
        peer: &WireGuardPeer,
        message: &[u8],
        path: Path,
        tos: u8,
        now: Instant,
        inner: &mut InnerBatch,
    ) -> Result<Option<Range<usize>>, DropReason> {
        let range = inner.room(message.len().max(HANDSHAKE_ROOM));
        let start = range.start;
        let room = inner.bytes.get_mut(range).unwrap_or_default();
        let opened = peer.lock().open(message, path, now, room, &mut self.replies)?;
        let Some(length) = opened else { return Ok(None) };
        let packet = room.get_mut(..length).ok_or(DropReason::Internal)?;
        let view = IpView::parse(packet).ok_or(DropReason::InnerInvalid)?;
        if self.sources.claim(view.source, peer.id) != Claim::Own {
            return Err(DropReason::InboundSource);
        }
        let inner_tos = ecn::decapsulate(view.tos, tos).ok_or(DropReason::EcnDrop)?;
        if inner_tos != view.tos {
            set_tos(packet, inner_tos);
        }
        let (link_mtu, counters) = self.links.get(&peer.id).ok_or(DropReason::Internal)?;
        let mtu = peer.inner_mtu(*link_mtu, is_ipv6(path.remote.ip()));
        mss::clamp_syn(packet, &view, mtu, false);
        counters.count(view.length);
        Ok(Some(start..start + view.length))
    }

    /// An initiation or a response: nothing is multiplied before the guard let it pass.
    fn handle_handshake(
        &mut self,
        table: &WireGuard,
        message: &[u8],
        path: Path,
        now: Instant,
    ) -> Result<(), DropReason> {
        let source = path.remote.ip();
        if self.handshakes.begin(now) {
            table.identities.iter().for_each(|identity| identity.guard.begin_second());
        }
        for identity in &table.identities {
            let mut room = [0; HANDSHAKE_ROOM];
            let allow = || self.handshakes.allow(source);
            let index = match identity.guard.verify(source, message, &mut room, allow) {
                Ok(Verified::Initiation(key)) => {
                    *identity.peers.get(&key).ok_or(DropReason::WireGuardUnknownPeer)?
                }
                Ok(Verified::Response(index)) => index >> 8,
                Err(Refused::Mac) => continue,
                Err(Refused::Cookie(length)) => {
                    let cookie = room.get(..length).unwrap_or_default();
                    noise::send(&mut self.replies, path, cookie);
                    return Err(DropReason::WireGuardCookie);
                }
                Err(Refused::Flood) => return Err(DropReason::WireGuardFlood),
                Err(Refused::Invalid) => return Err(DropReason::WireGuardHandshake),
            };
            let peer = table.peers.get(&index).ok_or(DropReason::WireGuardUnknownIndex)?;
            return peer.lock().handle_handshake(message, path, now, &mut self.replies);
        }
        Err(DropReason::WireGuardMac)
    }
}

/// The peer whose session the index at `at` names.
fn peer_at<'a>(
    table: &'a WireGuard,
    message: &[u8],
    at: usize,
) -> Result<&'a WireGuardPeer, DropReason> {
    noise::receiver_index(message, at)
        .and_then(|index| table.peers.get(&(index >> 8)))
        .map(AsRef::as_ref)
        .ok_or(DropReason::WireGuardUnknownIndex)
}
