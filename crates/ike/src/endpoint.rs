//! The endpoint: which IKE SA a datagram belongs to, new IKE SAs, and the queues.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use sa::{Path, TunnelId};

use crate::config::{EndpointConfig, IkeRng, PeerConfig};
use crate::context::{Context, Effect};
use crate::cookie::Cookies;
use crate::counters::Counters;
use crate::diagnosis::Diagnosis;
use crate::established::{Established, Standing};
use crate::event::{ChildInfo, DownReason, Event, IkeInfo, Timer, Transmit};
use crate::exchange::ike_sa_init;
use crate::exchange::ike_sa_init_responder::{self as init, Outcome};
use crate::half_open::{HalfOpen, Request};
use crate::ike_sa::{IkeSa, Phase};
use crate::index::Index;
use crate::link::emit_plain;
use crate::message::{
    ExchangeType, HEADER_LEN, Header, Message, Notify, NotifyType, ParseError, Payload,
    parse_message,
};

/// The largest IKE_SA_INIT request that we read: a half-open IKE SA keeps it, since AUTH covers it.
const MAX_INIT: usize = 8192;

/// All IKE SAs of one host, both roles. See the crate's page for the loop that drives it.
pub struct Endpoint {
    pub(crate) ctx: Context,
    cookies: Cookies,
    /// By our SPI.
    pub(crate) sas: BTreeMap<u64, IkeSa>,
    half_open: HalfOpen,
    pub(crate) index: Index,
    /// The initiators' SPIs of the IKE SAs that peers began and have authenticated.
    answered: BTreeMap<u64, u64>,
    /// No IKE SA is begun any more, by neither side.
    stopping: bool,
}

impl Endpoint {
    /// An endpoint without tunnels. `now` is the beginning of its time.
    #[must_use]
    pub fn new(config: EndpointConfig, mut rng: Box<dyn IkeRng + Send>, now: Instant) -> Self {
        let cookies = Cookies::new(&mut *rng);
        Self {
            ctx: Context::new(config, rng, now),
            cookies,
            sas: BTreeMap::new(),
            half_open: HalfOpen::default(),
            index: Index::default(),
            answered: BTreeMap::new(),
            stopping: false,
        }
    }

    /// Adds a tunnel, or replaces the configuration of the one with the same id. Nothing is sent.
    pub fn add_peer(&mut self, peer: PeerConfig) {
        self.ctx.peers.insert(Arc::new(peer));
    }

    /// Deletes the tunnel's SAs at the peer and forgets it.
    pub fn remove_peer(&mut self, tunnel: TunnelId, now: Instant) {
        self.ctx.now = now;
        self.close_tunnel(tunnel, &DownReason::Requested);
        self.ctx.end_grace(Some(tunnel));
        self.ctx.peers.remove(tunnel);
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.ctx.events.pop_front()
    }

    /// The next datagram to send, oldest first. All events must have been handled.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.ctx.transmits.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let grace = self.ctx.grace_deadline().map(|at| (at, Timer::Grace));
        [self.index.deadline(), grace].into_iter().flatten().min()
    }

    /// Totals since the beginning.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.ctx.counters
    }

    /// IKE SAs that peers began and have not authenticated.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// IKE SAs in every phase, those that are being closed included.
    #[must_use]
    pub fn ike_sas(&self) -> usize {
        self.sas.len()
    }

    /// The tunnel's IKE SAs in every phase in which it is known whose they are.
    #[must_use]
    pub fn ike_sas_of(&self, tunnel: TunnelId) -> usize {
        self.index.count(tunnel)
    }

    /// The IKE SA that holds the tunnel.
    #[must_use]
    pub fn ike_info(&self, tunnel: TunnelId) -> Option<IkeInfo> {
        let sa = self.sas.get(&self.current(tunnel)?)?;
        sa.up().map(|up| up.info(&sa.link))
    }

    /// The Child SA that carries the tunnel.
    #[must_use]
    pub fn child_info(&self, tunnel: TunnelId) -> Option<ChildInfo> {
        self.sas.get(&self.current(tunnel)?)?.up()?.child_info()
    }

    /// Whether the tunnel has a Child SA, of whose end the owner will hear, or comes to one without another
    /// [`crate::Command::Initiate`]: an IKE SA is being negotiated, or the one that stands is to make a Child SA.
    /// Otherwise [`Event::IkeDown`] or [`Event::ChildDown`] said so.
    #[must_use]
    pub fn pursues(&self, tunnel: TunnelId) -> bool {
        let pursues = |up: &Established| {
            up.live().is_some() || (up.standing == Standing::Current && up.is_at_child())
        };
        let stands = |spi| self.sas.get(&spi).and_then(IkeSa::up).is_some_and(pursues);
        self.is_negotiating(tunnel) || self.index.of(tunnel).any(stands)
    }

    /// Takes one datagram, without non-ESP marker.
    pub fn handle_datagram(&mut self, path: Path, datagram: &[u8], now: Instant) {
        self.ctx.now = now;
        self.ctx.counters.received += 1;
        let message = match parse_message(datagram) {
            Ok(message) => message,
            Err(error) => return self.handle_unparsed(path, datagram, error),
        };
        let header = message.header;
        let ours = if header.initiator { header.responder_spi } else { header.initiator_spi };
        let init = header.exchange == ExchangeType::IKE_SA_INIT && !header.response;
        if init && header.responder_spi == 0 && header.initiator {
            return self.handle_init(path, datagram, &message);
        }
        let another = header.exchange == ExchangeType::IKE_SA_INIT && header.response;
        let known = self.sas.get(&ours).is_some_and(|sa| {
            // The other SPI is checked too, except while we do not know it yet, or not surely.
            let theirs = if header.initiator { header.initiator_spi } else { header.responder_spi };
            let known = if sa.link.initiator { sa.link.spis.1 } else { sa.link.spis.0 };
            let unsure = another && matches!(sa.phase, Phase::AuthSent(_));
            known == theirs || known == 0 || unsure
        });
        if !known {
            self.ctx.counters.unknown_spi += 1;
            if ours == 0 && header.initiator && self.handle_invalid_spi(path, &message) {
                return;
            }
            return self.answer_stranger(path, &header, datagram, NotifyType::INVALID_IKE_SPI);
        }
        self.ctx.siblings = self.index.siblings(ours);
        self.with(ours, |sa, ctx| sa.handle(path, (datagram, &message), ctx));
        self.settle();
    }

    /// The host stops: all IKE SAs are deleted at their peers, and from now on none is begun, by us or
    /// by a peer that begins anew because of its DELETE. A DELETE that is lost is sent again as
    /// [`PeerConfig::retransmit`] says; [`Self::is_deleting`] tells whether that goes on.
    pub fn handle_stop(&mut self, now: Instant) {
        self.ctx.now = now;
        self.stopping = true;
        let half_open = self.sas.iter().filter(|(_, sa)| sa.is_half_open()).map(|(spi, _)| *spi);
        for spi in half_open.collect::<Vec<u64>>() {
            self.with(spi, |sa, _| sa.phase = Phase::Closed);
        }
        for tunnel in self.index.tunnels() {
            self.close_tunnel(tunnel, &DownReason::Requested);
        }
    }

    /// After [`Self::handle_stop`]: whether a peer has not answered its DELETE yet.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.sas.values().any(|sa| sa.up().is_some())
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ctx.now = now;
        self.ctx.end_grace(None);
        for spi in self.index.due(now) {
            self.with(spi, |sa, ctx| sa.handle_timeout(ctx));
            self.settle();
        }
    }

    /// Works with one IKE SA, and brings the index up to date.
    pub(crate) fn with(&mut self, spi: u64, work: impl FnOnce(&mut IkeSa, &mut Context)) {
        let Some(sa) = self.sas.get_mut(&spi) else { return };
        work(sa, &mut self.ctx);
        if !sa.is_half_open() {
            self.half_open.remove(spi);
        }
        let gone = matches!(sa.phase, Phase::Closed);
        if !sa.link.initiator && (gone || sa.up().is_some()) {
            let theirs = sa.link.spis.0;
            if !gone {
                self.answered.insert(theirs, spi);
            } else if self.answered.get(&theirs) == Some(&spi) {
                self.answered.remove(&theirs);
            }
        }
        if !gone {
            self.index.update(spi, sa);
            return self.forget_spent();
        }
        self.sas.remove(&spi);
        self.index.remove(spi);
    }

    /// What only answers its last request again is a courtesy, and as many peers as begin and fail
    /// or begin and delete may want it: the oldest one gives way.
    fn forget_spent(&mut self) {
        if let Some(oldest) = self.index.too_many_spent(self.ctx.config.half_open_limit) {
            self.with(oldest, |sa, _| sa.phase = Phase::Closed);
        }
    }

    pub(crate) fn adopt(&mut self, sa: IkeSa) {
        let spi = sa.link.local_spi();
        self.sas.insert(spi, sa);
        self.with(spi, |_, _| {});
    }

    /// Begins an IKE SA with the tunnel's peer.
    pub(crate) fn initiate(&mut self, tunnel: TunnelId, beside: bool) {
        if self.stopping {
            return;
        }
        let Some(peer) = self.ctx.peers.get(tunnel).cloned() else { return };
        let Some(remote) = peer.remote_socket() else { return };
        let port = if remote.port() == self.ctx.config.ike_port {
            self.ctx.config.ike_port
        } else {
            self.ctx.config.nat_t_port
        };
        if peer.psk.is_empty() {
            self.ctx.failed(Some(tunnel), remote, Diagnosis::NoKey);
            self.ctx.effects.push_back(Effect::Ended { tunnel, reason: DownReason::Failed });
            return;
        }
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = SocketAddr::new(peer.local.unwrap_or(any), port);
        let begun = ike_sa_init::start(peer, Path { local, remote }, beside, &mut self.ctx);
        if let Some((link, state)) = begun {
            self.adopt(IkeSa { link, phase: Phase::InitSent(Box::new(state)) });
        }
    }

    /// A request for a new IKE SA: limits, COOKIE, then the exchange.
    fn handle_init(&mut self, path: Path, datagram: &[u8], message: &Message) {
        if self.stopping {
            return;
        }
        let header = &message.header;
        let too_large = datagram.len() > MAX_INIT;
        let unanswerable = path.remote.port() == 0;
        if header.message_id != 0 || message.encrypted.is_some() || too_large || unanswerable {
            self.ctx.counters.malformed += 1;
            return;
        }
        let request = Request::new(path.remote, datagram);
        if let Some(spi) = self.half_open.find(request) {
            return self.with(spi, |sa, ctx| sa.link.respond_again(path, ctx));
        }
        // A late copy of the request that began an authenticated IKE SA is ignored (2.1).
        let began = self.answered.get(&header.initiator_spi).and_then(|spi| self.sas.get(spi));
        if began.is_some_and(|sa| sa.link.path.remote.ip() == path.remote.ip()) {
            self.ctx.counters.outside_window += 1;
            return;
        }
        let (nonce, cookie) = init_parts(message);
        let now = self.ctx.now;
        self.cookies.rotate(&mut *self.ctx.rng, now);
        let spi = header.initiator_spi;
        let proved = cookie.is_some_and(|c| self.cookies.check(c, path, spi, nonce));
        if cookie.is_some() && !proved {
            self.ctx.counters.cookies_bad += 1;
        }
        self.half_open.forget(now);
        if !proved && self.half_open.wants_cookie(path.remote, &self.ctx.config) {
            return self.challenge(path, header, datagram.len(), nonce);
        }
        if !self.half_open.admits(path.remote, proved, &self.ctx.config) {
            self.ctx.counters.half_open_refused += 1;
            return;
        }
        match init::process_request(path, (datagram, message), proved, &mut self.ctx) {
            Outcome::Begun(sa) => {
                self.half_open.add(sa.link.local_spi(), request, proved);
                self.adopt(*sa);
            }
            Outcome::Wasted => {
                let until = now + self.ctx.config.half_open_timeout;
                self.half_open.waste(path.remote, until, &self.ctx.config);
            }
            Outcome::TooLarge => self.challenge(path, header, datagram.len(), nonce),
            Outcome::Refused => {}
        }
    }

    fn challenge(&mut self, path: Path, header: &Header, room: usize, nonce: &[u8]) {
        if nonce.is_empty() {
            self.ctx.counters.malformed += 1;
            return;
        }
        let cookie = self.cookies.make(path, header.initiator_spi, nonce);
        self.ctx.counters.cookies_sent += 1;
        init::refuse(path, header, room, Notify::new(NotifyType::COOKIE, cookie), &mut self.ctx);
    }

    /// What does not parse. A request of another major version is told so (RFC 7296 2.5).
    fn handle_unparsed(&mut self, path: Path, datagram: &[u8], error: ParseError) {
        let flags = datagram.get(19).copied().unwrap_or(0);
        let word = |at: usize| {
            let octets = datagram.get(at..at + 8).and_then(|o| <[u8; 8]>::try_from(o).ok());
            octets.map_or(0, u64::from_be_bytes)
        };
        let request = flags & 0x20 == 0 && datagram.len() >= HEADER_LEN;
        let kind = match error {
            ParseError::MajorVersion(version) => {
                self.ctx.counters.bad_version += 1;
                if version < 3 || !request {
                    return;
                }
                NotifyType::INVALID_MAJOR_VERSION
            }
            ParseError::UnsupportedCritical(_) if request && word(8) == 0 => {
                self.ctx.counters.malformed += 1;
                NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD
            }
            _ => {
                self.ctx.counters.malformed += 1;
                return;
            }
        };
        let id = datagram.get(20..24).and_then(|o| <[u8; 4]>::try_from(o).ok());
        let header = Header {
            initiator_spi: word(0),
            responder_spi: word(8),
            next_payload: 0,
            exchange: ExchangeType(datagram.get(18).copied().unwrap_or(0)),
            initiator: flags & 0x08 != 0,
            response: false,
            message_id: id.map_or(0, u32::from_be_bytes),
        };
        let notify = match error {
            ParseError::UnsupportedCritical(_) => error.notify(),
            _ => Notify::new(kind, Vec::new()),
        };
        self.answer_stranger_with(path, &header, datagram, notify);
    }

    fn answer_stranger(&mut self, path: Path, header: &Header, datagram: &[u8], kind: NotifyType) {
        self.answer_stranger_with(path, header, datagram, Notify::new(kind, Vec::new()));
    }

    /// Answers a request outside of any IKE SA in clear: rarely, and never with more than came
    /// (RFC 7296 1.5).
    fn answer_stranger_with(
        &mut self,
        path: Path,
        header: &Header,
        datagram: &[u8],
        notify: Notify,
    ) {
        if header.response || path.remote.port() == 0 || !self.ctx.admit_stranger() {
            return;
        }
        let answer = Header { response: true, initiator: !header.initiator, ..*header };
        let answer = emit_plain(answer, &[Payload::Notify(notify)]);
        if answer.len() <= datagram.len() {
            self.ctx.transmit(path, answer);
        }
    }
}

/// Nonce and COOKIE of an IKE_SA_INIT request; the cookie stands first (RFC 7296 2.6).
fn init_parts(message: &Message) -> (&[u8], Option<&[u8]>) {
    let nonce = message.payloads.iter().find_map(|p| match p {
        Payload::Nonce(n) => Some(n.as_slice()),
        _ => None,
    });
    let cookie = match message.payloads.first() {
        Some(Payload::Notify(n)) if n.kind == NotifyType::COOKIE => Some(n.data.as_slice()),
        _ => None,
    };
    (nonce.unwrap_or_default(), cookie)
}
