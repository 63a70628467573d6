//! IKE_SA_INIT as responder. Until the source has proved its address, nothing is kept beyond the
//! half-open limit, and no answer is larger than its request.

use std::sync::Arc;
use std::time::Instant;

use sa::Path;

use crate::config::PeerConfig;
use crate::context::{Context, NONCE};
use crate::crypto::{KeyExchange, SaKeys};
use crate::diagnosis::{Diagnosis, Subject};
use crate::exchange::ike_auth::AuthWait;
use crate::exchange::parts::Parts;
use crate::ike_sa::{IkeSa, Phase};
use crate::link::{Link, emit_plain};
use crate::message::{ExchangeType, Header, Message, Notify, NotifyType, Payload};
use crate::nat;
use crate::sealed::Protection;
use crate::suite::ChosenIke;

/// What the endpoint does with a new request.
pub(crate) enum Outcome {
    /// A half-open IKE SA; its answer was sent.
    Begun(Box<IkeSa>),
    /// The answer is larger than the request: the source has to prove its address first.
    TooLarge,
    /// Refused; the error notification was sent, if it fits.
    Refused,
    /// The same, after a key exchange was computed.
    Wasted,
}

/// Answers `notify` in clear if that is not larger than the request.
pub(crate) fn refuse(path: Path, request: &Header, room: usize, notify: Notify, ctx: &mut Context) {
    let header = Header {
        initiator_spi: request.initiator_spi,
        responder_spi: 0,
        next_payload: 0,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: false,
        response: true,
        message_id: 0,
    };
    let answer = emit_plain(header, &[Payload::Notify(notify)]);
    if answer.len() <= room {
        ctx.transmit(path, answer);
    }
}

/// Processes a request whose COOKIE, if one is needed, was checked already (`proved`).
pub(crate) fn process_request(
    path: Path,
    (datagram, message): (&[u8], &Message),
    proved: bool,
    ctx: &mut Context,
) -> Outcome {
    let parts = Parts::from(message.payloads.clone());
    let header = &message.header;
    let no = |notify: Notify, ctx: &mut Context| {
        refuse(path, header, datagram.len(), notify, ctx);
        Outcome::Refused
    };
    let (Some(offer), Some((group, public)), Some(ni)) = (&parts.sa, &parts.ke, &parts.nonce)
    else {
        ctx.counters.malformed += 1;
        return no(Notify::new(NotifyType::INVALID_SYNTAX, Vec::new()), ctx);
    };
    let none = || Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, Vec::new());
    let Some(first) = ctx.peers.candidates(path).next().cloned() else {
        ctx.counters.unknown_peer += 1;
        ctx.failed_stranger(None, path.remote, Diagnosis::UnknownPeer);
        return no(none(), ctx);
    };
    let choose = |p: &Arc<PeerConfig>| {
        p.ike.choose(offer).map(|(suite, answer)| (Arc::clone(p), suite, answer))
    };
    let Some((peer, suite, proposal)) = ctx.peers.candidates_apart(path).find_map(choose) else {
        ctx.counters.no_proposal += 1;
        if ctx.admit_stranger() {
            let difference = first.ike.difference(offer);
            let only = ctx.peers.candidates(path).nth(1).is_none();
            let diagnosis = Diagnosis::Proposal { subject: Subject::Ike, difference };
            ctx.failed(only.then_some(first.tunnel), path.remote, diagnosis);
        }
        return no(none(), ctx);
    };
    if *group != suite.group.id() {
        let wanted = suite.group.id().to_be_bytes().to_vec();
        return no(Notify::new(NotifyType::INVALID_KE_PAYLOAD, wanted), ctx);
    }
    if public.len() != suite.group.public_len() {
        ctx.counters.invalid_ke += 1;
        return no(Notify::new(NotifyType::INVALID_SYNTAX, Vec::new()), ctx);
    }
    let request = Request { path, header, parts: &parts, number: proposal.number };
    // Before anything is computed: a stranger who must prove its address costs no key exchange.
    if !proved && request.response_len(&peer, suite, ctx.now) > datagram.len() {
        return Outcome::TooLarge;
    }
    let Ok(ke) = KeyExchange::generate(suite.group, &mut ctx.rng) else {
        return Outcome::Refused;
    };
    let Ok(secret) = ke.agree(public) else {
        ctx.counters.invalid_ke += 1;
        no(Notify::new(NotifyType::INVALID_SYNTAX, Vec::new()), ctx);
        return Outcome::Wasted;
    };
    let mut link = request.link(ctx);
    let nr = ctx.nonce();
    let answer = request.build_response(&link, &peer, suite, ke.public(), &nr);
    let keys = SaKeys::initial(&suite, &secret, ni, &nr, link.spis);
    let Some(protection) = Protection::new(suite, keys, false) else {
        return Outcome::Refused;
    };
    if peer.fragmentation && parts.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
        link.allow_fragments(&peer);
    }
    link.transmit(std::slice::from_ref(&answer), path, ctx);
    link.window.respond(vec![answer.clone()]);
    let wait = AuthWait {
        protection,
        request: datagram.to_vec(),
        response: answer,
        ni: ni.clone(),
        nr,
        expires_at: ctx.now + ctx.config.half_open_timeout,
    };
    Outcome::Begun(Box::new(IkeSa { link, phase: Phase::AuthWait(Box::new(wait)) }))
}

/// What of a request the answer needs.
struct Request<'a> {
    path: Path,
    header: &'a Header,
    parts: &'a Parts,
    number: u8,
}

impl Request<'_> {
    fn link(&self, ctx: &mut Context) -> Link {
        let spis = (self.header.initiator_spi, ctx.ike_spi());
        let mut link = Link::new(spis, false, self.path, ctx.now);
        // The request was hashed with a responder SPI of zero (RFC 7296 2.23).
        let asked = (self.header.initiator_spi, 0);
        link.nat = nat::detect(asked, self.path, &self.parts.notifies).unwrap_or_default();
        link
    }

    /// Octets of the answer, whatever the values in it.
    fn response_len(&self, peer: &Arc<PeerConfig>, suite: ChosenIke, now: Instant) -> usize {
        let link = Link::new((self.header.initiator_spi, 0), false, self.path, now);
        let public = vec![0; suite.group.public_len()];
        self.build_response(&link, peer, suite, &public, &[0; NONCE]).len()
    }

    fn build_response(
        &self,
        link: &Link,
        peer: &Arc<PeerConfig>,
        suite: ChosenIke,
        public: &[u8],
        nr: &[u8],
    ) -> Vec<u8> {
        let mut payloads = vec![
            Payload::Sa(vec![suite.answer(self.number, &[])]),
            Payload::Ke { group: suite.group.id(), data: public.to_vec() },
            Payload::Nonce(nr.to_vec()),
        ];
        if self.parts.has(NotifyType::NAT_DETECTION_SOURCE_IP) {
            payloads.extend(nat::notifies(link.spis, link.path, peer.force_encapsulation));
        }
        if peer.fragmentation && self.parts.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
            payloads.push(Payload::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
        }
        emit_plain(link.header(ExchangeType::IKE_SA_INIT, true, 0), &payloads)
    }
}
