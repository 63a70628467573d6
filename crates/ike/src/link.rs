//! What an IKE SA has in every phase: SPIs, path, message ids. And how its messages are made.

use std::net::IpAddr;
use std::time::Instant;

use sa::Path;

use crate::config::PeerConfig;
use crate::context::Context;
use crate::event::Nat;
use crate::message::{ExchangeType, HEADER_LEN, Header, Payload, emit_chain};
use crate::sealed::Protection;
use crate::window::Window;

/// Octets of UDP header and non-ESP marker.
const UDP_AND_MARKER: usize = 12;

#[derive(Debug)]
pub(crate) struct Link {
    /// SPIs of the initiator and of the responder (0 while unknown).
    pub(crate) spis: (u64, u64),
    /// Whether we are the original initiator.
    pub(crate) initiator: bool,
    /// Where our requests go; responses go where their request came from.
    pub(crate) path: Path,
    /// Where ESP still goes while the peer's new `path` has not proved itself (RFC 4555 3.7).
    proved: Option<Path>,
    pub(crate) window: Window,
    pub(crate) nat: Nat,
    /// Where the peer said last that it sees us: its NAT_DETECTION_DESTINATION_IP (RFC 4555 3.8).
    pub(crate) seen_at: Option<Vec<u8>>,
    /// Largest datagram, in octets, if both sides agreed to fragmentation.
    pub(crate) fragment: Option<usize>,
    /// When its first message was sent or came.
    pub(crate) started: Instant,
    /// When we last sent anything.
    pub(crate) last_sent: Instant,
    /// When something authentic last came from the peer, ESP included.
    pub(crate) last_heard: Instant,
}

impl Link {
    pub(crate) fn new(spis: (u64, u64), initiator: bool, path: Path, now: Instant) -> Self {
        Self {
            spis,
            initiator,
            path,
            proved: None,
            window: Window::default(),
            nat: Nat::default(),
            seen_at: None,
            fragment: None,
            started: now,
            last_sent: now,
            last_heard: now,
        }
    }

    /// Something authentic came from the peer.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.window.heard(now);
    }

    /// Our SPI: what the endpoint knows the IKE SA by.
    pub(crate) fn local_spi(&self) -> u64 {
        if self.initiator { self.spis.0 } else { self.spis.1 }
    }

    /// Turns fragmentation on, with datagrams as large as the configuration says.
    pub(crate) fn allow_fragments(&mut self, peer: &PeerConfig) {
        let ip = if self.path.remote.is_ipv4() { 20 } else { 40 };
        self.fragment = Some(usize::from(peer.fragment_size).saturating_sub(ip + UDP_AND_MARKER));
    }

    pub(crate) fn header(&self, exchange: ExchangeType, response: bool, id: u32) -> Header {
        Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: 0,
            exchange,
            initiator: self.initiator,
            response,
            message_id: id,
        }
    }

    /// The path that ESP takes, as IKE sees it.
    pub(crate) fn esp(&self) -> Path {
        self.proved.unwrap_or(self.path)
    }

    /// Whether ESP waits for a path to prove itself.
    pub(crate) fn is_unproved(&self) -> bool {
        self.proved.is_some()
    }

    /// IKE goes to `path` from now on, ESP does not yet.
    pub(crate) fn move_unproved(&mut self, path: Path) {
        self.proved = Some(self.esp()).filter(|proved| *proved != path);
        self.path = path;
    }

    /// Everything goes to `path` from now on.
    pub(crate) fn settle_path(&mut self, path: Path) {
        (self.path, self.proved) = (path, None);
    }

    /// Takes over where another IKE SA of the same peer was.
    pub(crate) fn continue_path(&mut self, (path, proved): (Path, Option<Path>)) {
        (self.path, self.proved) = (path, proved);
    }

    /// The path, and the one that ESP takes if that is another.
    pub(crate) fn paths(&self) -> (Path, Option<Path>) {
        (self.path, self.proved)
    }

    /// We have another address: what waits for its answer goes out again from there.
    pub(crate) fn move_local(&mut self, local: IpAddr, ctx: &mut Context) {
        self.path.local.set_ip(local);
        if let Some(proved) = &mut self.proved {
            proved.local.set_ip(local);
        }
        if let Some((datagrams, _)) = self.window.in_flight() {
            let path = self.path;
            datagrams.iter().for_each(|datagram| ctx.transmit(path, datagram.clone()));
        }
    }

    /// Seals and sends a request, and remembers it for retransmission.
    pub(crate) fn request(
        &mut self,
        protection: &mut Protection,
        peer: &PeerConfig,
        exchange: ExchangeType,
        payloads: &[Payload],
        ctx: &mut Context,
    ) {
        let to = self.path;
        self.request_to(protection, peer, exchange, payloads, (to, ctx));
    }

    /// The same, but first over another path.
    pub(crate) fn request_to(
        &mut self,
        protection: &mut Protection,
        peer: &PeerConfig,
        exchange: ExchangeType,
        payloads: &[Payload],
        (to, ctx): (Path, &mut Context),
    ) {
        let header = self.header(exchange, false, self.window.next_request());
        let datagrams = protection.seal(header, payloads, self.fragment, &mut ctx.rng);
        self.transmit(&datagrams, to, ctx);
        self.window.sent(datagrams, &peer.retransmit, ctx.now);
    }

    /// Seals and sends the response to the expected request, back to where that came from, and
    /// caches it.
    pub(crate) fn respond(
        &mut self,
        protection: &mut Protection,
        exchange: ExchangeType,
        id: u32,
        payloads: &[Payload],
        (to, ctx): (Path, &mut Context),
    ) {
        let header = self.header(exchange, true, id);
        let datagrams = protection.seal(header, payloads, self.fragment, &mut ctx.rng);
        self.transmit(&datagrams, to, ctx);
        self.window.respond(datagrams);
    }

    /// Sends the cached response again.
    pub(crate) fn respond_again(&mut self, to: Path, ctx: &mut Context) {
        ctx.counters.answered_again += 1;
        self.last_sent = ctx.now;
        for datagram in self.window.response() {
            ctx.transmit(to, datagram.clone());
        }
    }

    pub(crate) fn transmit(&mut self, datagrams: &[Vec<u8>], path: Path, ctx: &mut Context) {
        self.last_sent = ctx.now;
        for datagram in datagrams {
            ctx.transmit(path, datagram.clone());
        }
    }
}

/// A message in clear.
pub(crate) fn emit_plain(mut header: Header, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    header.next_payload = emit_chain(payloads, &mut chain);
    let mut out = Vec::with_capacity(HEADER_LEN + chain.len());
    header.emit(HEADER_LEN + chain.len(), &mut out);
    out.extend_from_slice(&chain);
    out
}
