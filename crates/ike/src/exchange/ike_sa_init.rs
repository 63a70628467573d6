//! IKE_SA_INIT as initiator (RFC 7296 section 1.2): the request, its repetition with a COOKIE or
//! another group, and the response.

use std::sync::Arc;

use sa::Path;

use crate::config::PeerConfig;
use crate::context::Context;
use crate::crypto::{KeyExchange, SaKeys};
use crate::diagnosis::{Diagnosis, Hint, Subject};
use crate::event::Nat;
use crate::exchange::ike_auth;
use crate::exchange::parts::{Parts, wanted_group};
use crate::ike_sa::Phase;
use crate::link::{Link, emit_plain};
use crate::message::{ExchangeType, Message, Notify, NotifyType, Payload};
use crate::nat;
use crate::sealed::Protection;
use crate::suite::KeGroup;

/// How often one attempt may begin anew because of COOKIE or INVALID_KE_PAYLOAD: an on-path
/// attacker could otherwise keep us at it for ever.
const MAX_RESTARTS: u8 = 6;
/// Longest COOKIE (RFC 7296 2.6).
const MAX_COOKIE: usize = 64;

/// Our request is out.
#[derive(Debug)]
pub(crate) struct InitSent {
    pub(crate) peer: Arc<PeerConfig>,
    ke: KeyExchange,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    restarts: u8,
    pub(crate) hint: Option<Hint>,
    /// What the attempt ends with, if no better answer comes: nothing protects the one that came.
    pub(crate) refused: Option<Diagnosis>,
    /// Whether an IKE SA of the tunnel stands that this one is to replace.
    pub(crate) beside: bool,
}

/// What IKE_AUTH needs of the exchange before it.
#[derive(Debug)]
pub(crate) struct FirstExchange {
    /// Our request and the peer's response, which the AUTHs cover.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    /// Ni and Nr.
    pub(crate) nonces: (Vec<u8>, Vec<u8>),
    /// The port that answered.
    pub(crate) answered: u16,
}

/// Sends the first request of an attempt. `None` if the group's private value cannot be made.
pub(crate) fn start(
    peer: Arc<PeerConfig>,
    path: Path,
    beside: bool,
    ctx: &mut Context,
) -> Option<(Link, InitSent)> {
    let mut link = Link::new((ctx.ike_spi(), 0), true, path, ctx.now);
    let group = *peer.ike.groups.first()?;
    let ke = KeyExchange::generate(group, &mut ctx.rng).ok()?;
    let nonce = ctx.nonce();
    let (cookie, hint, refused) = (None, None, None);
    let state = InitSent { peer, ke, nonce, cookie, restarts: 0, hint, refused, beside };
    let request = state.build_request(&link);
    link.transmit(std::slice::from_ref(&request), path, ctx);
    link.window.sent(vec![request], &state.peer.retransmit, ctx.now);
    Some((link, state))
}

impl InitSent {
    fn build_request(&self, link: &Link) -> Vec<u8> {
        let mut payloads = Vec::new();
        if let Some(cookie) = &self.cookie {
            payloads.push(Payload::notify(NotifyType::COOKIE, cookie.clone()));
        }
        payloads.push(Payload::Sa(self.peer.ike.offer(&[])));
        let (group, data) = (self.ke.group().id(), self.ke.public().to_vec());
        payloads.push(Payload::Ke { group, data });
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.extend(nat::notifies(link.spis, link.path, self.peer.force_encapsulation));
        if self.peer.fragmentation {
            payloads.push(Payload::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
        }
        emit_plain(link.header(ExchangeType::IKE_SA_INIT, false, 0), &payloads)
    }

    /// The same attempt with another COOKIE or group; SPI and nonce stay (RFC 7296 2.6).
    fn restart(mut self, link: &mut Link, ctx: &mut Context) -> Phase {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            let what = "it asks again and again for another COOKIE or group".into();
            return self.refuse(Diagnosis::Protocol(what), link, ctx);
        }
        self.refused = None;
        let request = self.build_request(link);
        link.transmit(std::slice::from_ref(&request), link.path, ctx);
        link.window.resent(vec![request], &self.peer.retransmit, ctx.now);
        Phase::InitSent(Box::new(self))
    }

    /// The response, which nothing protects yet. What makes no sense is remembered as a hint and
    /// otherwise ignored: the true answer may still come.
    pub(crate) fn process_response(
        mut self,
        link: &mut Link,
        path: Path,
        (datagram, message): (&[u8], &Message),
        ctx: &mut Context,
    ) -> Phase {
        if path.remote != link.path.remote {
            self.hint = Some(Hint::OtherSource(path.remote));
            return Phase::InitSent(Box::new(self));
        }
        let parts = Parts::from(message.payloads.clone());
        if parts.sa.is_none() {
            if let Some(cookie) = parts.notify(NotifyType::COOKIE)
                && (1..=MAX_COOKIE).contains(&cookie.data.len())
            {
                self.cookie = Some(cookie.data.clone());
                return self.restart(link, ctx);
            }
            return match parts.error().cloned() {
                Some(error) => self.process_error(&error, link, ctx),
                None => self.ignore(ctx),
            };
        }
        match self.agree(link, path, message, &parts, ctx) {
            Ok((protection, first)) => {
                let first = FirstExchange { response: datagram.to_vec(), ..first };
                ike_auth::start(self, link, protection, first, ctx)
            }
            Err(None) => self.ignore(ctx),
            Err(Some(diagnosis)) => self.refuse(diagnosis, link, ctx),
        }
    }

    /// An answer after which the attempt makes no sense. Anybody can have sent it, so that it is not
    /// acted upon at once (RFC 7296 2.21.1): the true answer has the time of one retransmission.
    fn refuse(mut self, diagnosis: Diagnosis, link: &mut Link, ctx: &Context) -> Phase {
        self.refused.get_or_insert(diagnosis);
        link.window.conclude(ctx.now);
        Phase::InitSent(Box::new(self))
    }

    fn ignore(mut self, ctx: &mut Context) -> Phase {
        ctx.counters.malformed += 1;
        self.hint = Some(Hint::Malformed);
        Phase::InitSent(Box::new(self))
    }

    fn process_error(mut self, error: &Notify, link: &mut Link, ctx: &mut Context) -> Phase {
        ctx.counters.hints += 1;
        if error.kind == NotifyType::INVALID_KE_PAYLOAD {
            let group = wanted_group(error)
                .filter(|g| self.peer.ike.groups.contains(g) && *g != self.ke.group());
            let fresh = group.and_then(|g: KeGroup| KeyExchange::generate(g, &mut ctx.rng).ok());
            return match fresh {
                Some(ke) => {
                    self.ke = ke;
                    self.restart(link, ctx)
                }
                None => self.ignore(ctx),
            };
        }
        let diagnosis = if error.kind == NotifyType::NO_PROPOSAL_CHOSEN {
            ctx.counters.no_proposal += 1;
            Diagnosis::ProposalRefused { subject: Subject::Ike, ours: self.peer.ike.to_string() }
        } else {
            Diagnosis::Refused(error.kind)
        };
        self.refuse(diagnosis, link, ctx)
    }

    /// Takes the peer's choice; the keys, and our own request, which AUTH covers.
    fn agree(
        &self,
        link: &mut Link,
        path: Path,
        message: &Message,
        parts: &Parts,
        ctx: &mut Context,
    ) -> Result<(Protection, FirstExchange), Option<Diagnosis>> {
        let spi_r = message.header.responder_spi;
        let (Some(answer), Some((group, public)), Some(nr)) = (&parts.sa, &parts.ke, &parts.nonce)
        else {
            return Err(None);
        };
        if spi_r == 0 || answer.len() != 1 {
            return Err(None);
        }
        let Some((suite, _)) = self.peer.ike.choose(answer) else {
            let difference = self.peer.ike.difference(answer);
            return Err(Some(Diagnosis::Proposal { subject: Subject::Ike, difference }));
        };
        if *group != self.ke.group().id() || suite.group != self.ke.group() {
            return Err(None);
        }
        let secret = self.ke.agree(public).map_err(|_| {
            ctx.counters.invalid_ke += 1;
            None
        })?;
        let ours = link.window.in_flight().and_then(|(d, _)| d.first().cloned()).ok_or(None)?;
        link.spis.1 = spi_r;
        link.path = path;
        if let Some(nat) = nat::detect(link.spis, path, &parts.notifies) {
            link.nat = nat;
            link.seen_at = nat::seen_at(&parts.notifies).map(<[u8]>::to_vec);
            float(link, nat, &self.peer, ctx);
        }
        if self.peer.fragmentation && parts.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
            link.allow_fragments(&self.peer);
        }
        let keys = SaKeys::initial(&suite, &secret, &self.nonce, nr, link.spis);
        let protection = Protection::new(suite, keys, true).ok_or(None)?;
        let nonces = (self.nonce.clone(), nr.clone());
        let answered = path.remote.port();
        Ok((protection, FirstExchange { request: ours, response: Vec::new(), nonces, answered }))
    }
}

/// From port 500 to 4500 when there is a NAT, and whenever we want ESP in UDP, which the RFC
/// allows without a NAT too (RFC 7296 2.23), or may move behind a NAT later (RFC 4555 3.3).
fn float(link: &mut Link, nat: Nat, peer: &PeerConfig, ctx: &Context) {
    let at_500 = link.path.local.port() == ctx.config.ike_port;
    if at_500 && (nat.local || nat.remote || peer.force_encapsulation || peer.mobike) {
        link.path.local.set_port(ctx.config.nat_t_port);
        link.path.remote.set_port(ctx.config.nat_t_port);
        // That was said of the other port.
        link.seen_at = None;
    }
}
