//! IKE_AUTH with pre-shared keys (RFC 7296 sections 1.2, 2.15), with the first Child SA.

use std::sync::Arc;
use std::time::Instant;

use sa::{Path, Spi};
use subtle::ConstantTimeEq;

use crate::child_sa::{self, ChildRefusal, ChildSa, Seed};
use crate::config::PeerConfig;
use crate::context::{Context, Effect};
use crate::crypto::psk_auth;
use crate::diagnosis::{Diagnosis, Hint, Subject, Whose};
use crate::established::{Contact, Established, Job};
use crate::exchange::ike_sa_init::{FirstExchange, InitSent};
use crate::exchange::mobike;
use crate::exchange::parts::Parts;
use crate::ike_sa::{Phase, Spent, give_up};
use crate::link::Link;
use crate::message::{ExchangeType, Identity, Message, Notify, NotifyType, Payload};
use crate::sealed::Protection;

/// AUTH method: Shared Key Message Integrity Code (RFC 7296 3.8).
const SHARED_KEY: u8 = 2;

/// Our request is out.
#[derive(Debug)]
pub(crate) struct AuthSent {
    pub(crate) peer: Arc<PeerConfig>,
    pub(crate) protection: Protection,
    first: FirstExchange,
    spi: Spi,
    pub(crate) hint: Option<Hint>,
}

/// Sends the request.
pub(crate) fn start(
    init: InitSent,
    link: &mut Link,
    mut protection: Protection,
    first: FirstExchange,
    ctx: &mut Context,
) -> Phase {
    let peer = init.peer;
    let (id, nr) = (peer.local_id.emit(), &first.nonces.1);
    let auth = psk_auth(protection.prf(), &peer.psk, &protection.p.0, &first.request, nr, &id);
    let spi = ctx.esp_spi();
    let mut payloads = vec![Payload::IdI(peer.local_id.clone())];
    if !init.beside {
        payloads.push(Payload::notify(NotifyType::INITIAL_CONTACT, Vec::new()));
    }
    payloads.extend(peer.remote_id.clone().map(Payload::IdR));
    payloads.push(Payload::Auth { method: SHARED_KEY, data: auth.expose().to_vec() });
    payloads.extend(child_sa::build_offer(&peer, spi, false));
    payloads.extend(mobike::supported(&peer));
    link.window.answered();
    link.request(&mut protection, &peer, ExchangeType::IKE_AUTH, &payloads, ctx);
    Phase::AuthSent(Box::new(AuthSent { peer, protection, first, spi, hint: None }))
}

impl AuthSent {
    /// Why nobody answers: if the first exchange was answered elsewhere, it is the port.
    pub(crate) fn no_answer(
        &self,
        link: &Link,
        tries: u32,
        waited: std::time::Duration,
    ) -> Diagnosis {
        let remote = link.path.remote;
        if self.first.answered != remote.port() {
            return Diagnosis::WrongPort { remote, answered: self.first.answered, tries };
        }
        Diagnosis::NoAnswer { remote, tries, waited, hint: self.hint.clone() }
    }

    /// Another answer to IKE_SA_INIT than the one that we took. If ours was not the peer's, nobody will
    /// answer IKE_AUTH: a few more transmissions, and the next attempt begins.
    pub(crate) fn doubt(&mut self, link: &mut Link, path: Path, answer: &Message, now: Instant) {
        let other = answer.header.responder_spi != link.spis.1;
        let chosen = answer.payloads.iter().any(|payload| matches!(payload, Payload::Sa(_)));
        if other && chosen && path.remote.ip() == link.path.remote.ip() {
            self.hint = Some(Hint::TwoAnswers);
            link.window.hurry(now);
        }
    }

    /// The attempt ends without a Child SA.
    pub(crate) fn abandon(&self, ctx: &mut Context) {
        ctx.release_spi(self.spi);
    }

    pub(crate) fn process_response(
        mut self,
        link: &mut Link,
        parts: Parts,
        ctx: &mut Context,
    ) -> Phase {
        link.window.answered();
        let diagnosis = match self.verify(&parts) {
            Ok(()) => return self.establish(link, parts, ctx),
            Err(diagnosis) => diagnosis,
        };
        ctx.counters.auth_failed += 1;
        ctx.release_spi(self.spi);
        if parts.auth.is_some() {
            // The responder believes that all is well: tell it (RFC 7296 2.21.2). One datagram,
            // and if it is lost the responder's liveness check ends what is left.
            let refusal = Payload::notify(NotifyType::AUTHENTICATION_FAILED, Vec::new());
            let header =
                link.header(ExchangeType::INFORMATIONAL, false, link.window.next_request());
            let datagrams = self.protection.seal(header, &[refusal], None, &mut ctx.rng);
            link.transmit(&datagrams, link.path, ctx);
        }
        give_up(link, &self.peer, diagnosis, ctx)
    }

    fn verify(&self, parts: &Parts) -> Result<(), Diagnosis> {
        let ours = || self.peer.local_id.clone();
        let (Some(id), Some((method, auth))) = (&parts.idr, &parts.auth) else {
            return Err(match parts.error().map(|n| n.kind) {
                Some(NotifyType::AUTHENTICATION_FAILED) => Diagnosis::AuthenticationRefused {
                    ours: ours(),
                    theirs: self.peer.remote_id.clone(),
                },
                Some(NotifyType::NO_PROPOSAL_CHOSEN) => Diagnosis::ProposalRefused {
                    subject: Subject::Ike,
                    ours: self.peer.ike.to_string(),
                },
                Some(NotifyType::TEMPORARY_FAILURE) => Diagnosis::RefusedForNow,
                Some(other) => Diagnosis::Refused(other),
                None => Diagnosis::Protocol("IKE_AUTH answered without IDr or AUTH".into()),
            });
        };
        if let Some(expected) =
            self.peer.remote_id.as_ref().filter(|expected| !expected.matches(id))
        {
            return Err(Diagnosis::Identity {
                whose: Whose::Theirs,
                ours: expected.to_string(),
                theirs: id.clone(),
            });
        }
        let p = &self.protection;
        let expected = psk_auth(
            p.prf(),
            &self.peer.psk,
            &p.p.1,
            &self.first.response,
            &self.first.nonces.0,
            &id.emit(),
        );
        if *method != SHARED_KEY || !bool::from(expected.expose().ct_eq(auth)) {
            return Err(Diagnosis::PreSharedKey { ours: ours(), theirs: id.clone() });
        }
        Ok(())
    }

    fn establish(self, link: &mut Link, parts: Parts, ctx: &mut Context) -> Phase {
        let child = self.child(link, &parts, ctx);
        let mobike = self.peer.mobike && parts.has(NotifyType::MOBIKE_SUPPORTED);
        let mut up = Established::new(
            self.peer,
            self.protection,
            parts.idr.unwrap_or(Identity::KeyId(Vec::new())),
            Contact::new(link, &self.first.nonces.0, &self.first.nonces.1, true, ctx),
            ctx,
        );
        up.mobike = mobike;
        mobike::note_addresses(&mut up, &parts.notifies);
        up.announce(link, ctx);
        match child {
            Ok(child) => up.children.push(child),
            Err(diagnosis) => {
                ctx.release_spi(self.spi);
                ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
                up.retry(Job::CreateChild, ctx);
            }
        }
        ctx.effects.push_back(Effect::Authenticated {
            spi: link.local_spi(),
            tunnel: up.peer.tunnel,
            initial_contact: false,
        });
        Phase::Up(Box::new(up))
    }

    fn child(&self, link: &Link, parts: &Parts, ctx: &mut Context) -> Result<ChildSa, Diagnosis> {
        let peer = &self.peer;
        let (Some(answer), Some(tsi), Some(tsr)) = (&parts.sa, &parts.tsi, &parts.tsr) else {
            return Err(refused_child(peer, parts));
        };
        let additional = parts.has(NotifyType::ADDITIONAL_TS_POSSIBLE);
        let accepted = child_sa::check_answer(peer, answer, (tsi, tsr), false, additional)
            .map_err(|r| {
                r.count(ctx);
                r.diagnosis().unwrap_or(Diagnosis::Protocol("INVALID_KE in IKE_AUTH".into()))
            })?;
        let seed = Seed {
            prf: self.protection.prf(),
            d: &self.protection.d,
            fresh: None,
            ni: &self.first.nonces.0,
            nr: &self.first.nonces.1,
            ours: true,
        };
        Ok(child_sa::install(peer, accepted, self.spi, &seed, link.esp(), ctx))
    }
}

/// What the peer's refusal of a Child SA means.
pub(crate) fn refused_child(peer: &PeerConfig, parts: &Parts) -> Diagnosis {
    match parts.error().map(|n| n.kind) {
        Some(NotifyType::NO_PROPOSAL_CHOSEN) => {
            Diagnosis::ProposalRefused { subject: Subject::Child, ours: peer.esp.to_string() }
        }
        Some(NotifyType::TS_UNACCEPTABLE) => Diagnosis::SelectorsRefused {
            ours: (peer.local_selectors.clone(), peer.remote_selectors.clone()),
        },
        Some(other) => Diagnosis::Refused(other),
        None => Diagnosis::Protocol("a Child SA answered without its payloads".into()),
    }
}

/// IKE_SA_INIT was answered by us; nothing is authenticated.
#[derive(Debug)]
pub(crate) struct AuthWait {
    pub(crate) protection: Protection,
    /// The peer's IKE_SA_INIT request, which its AUTH covers, and our response.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) expires_at: Instant,
}

impl AuthWait {
    pub(crate) fn process_request(
        mut self,
        link: &mut Link,
        path: Path,
        parts: Parts,
        ctx: &mut Context,
    ) -> Phase {
        match self.choose_peer(path, &parts, ctx) {
            Ok(peer) => self.establish(link, path, peer, parts, ctx),
            Err((kind, tunnel, diagnosis)) => {
                ctx.counters.auth_failed += 1;
                ctx.failed_stranger(tunnel, path.remote, diagnosis);
                let refusal = [Payload::notify(kind, Vec::new())];
                let to = (path, &mut *ctx);
                link.respond(&mut self.protection, ExchangeType::IKE_AUTH, 1, &refusal, to);
                Phase::Spent(Box::new(Spent::new(self.protection, ctx)))
            }
        }
    }

    /// Who it is: address, then identities, then the key, then whether the IKE suite that was
    /// chosen for the address is good enough for this peer, and last whether it is wanted.
    fn choose_peer(
        &self,
        path: Path,
        parts: &Parts,
        ctx: &Context,
    ) -> Result<Arc<PeerConfig>, (NotifyType, Option<sa::TunnelId>, Diagnosis)> {
        let failed = NotifyType::AUTHENTICATION_FAILED;
        let Some(id) = &parts.idi else {
            let what = "IKE_AUTH without IDi".into();
            return Err((NotifyType::INVALID_SYNTAX, None, Diagnosis::Protocol(what)));
        };
        let all = || ctx.peers.candidates(path);
        let only = all().next().filter(|_| all().nth(1).is_none()).map(|p| p.tunnel);
        let known: Vec<_> = ctx.peers.candidates_named(path, id).collect();
        if known.is_empty() {
            let mut expected: Vec<String> = all()
                .take(16)
                .filter_map(|p| p.remote_id.as_ref().map(ToString::to_string))
                .collect();
            expected.sort();
            expected.dedup();
            expected.truncate(4);
            let (whose, ours) = (Whose::Theirs, expected.join(" or "));
            let theirs = id.clone();
            return Err((failed, only, Diagnosis::Identity { whose, ours, theirs }));
        }
        let asked: Vec<_> = known
            .iter()
            .filter(|p| parts.idr.as_ref().is_none_or(|asked| asked.matches(&p.local_id)))
            .collect();
        let Some(first) = asked.first() else {
            let whose = Whose::Ours;
            let ours = known.first().map(|p| p.local_id.to_string()).unwrap_or_default();
            let theirs = parts.idr.clone().unwrap_or_else(|| id.clone());
            return Err((failed, only, Diagnosis::Identity { whose, ours, theirs }));
        };
        let p = &self.protection;
        let knows_key = |peer: &PeerConfig| {
            let expected =
                psk_auth(p.prf(), &peer.psk, &p.p.0, &self.request, &self.nr, &id.emit());
            // A tunnel without a key is one that nobody can have.
            !peer.psk.is_empty()
                && parts.auth.as_ref().is_some_and(|(method, auth)| {
                    *method == SHARED_KEY && bool::from(expected.expose().ct_eq(auth))
                })
        };
        let tunnel = (asked.len() == 1).then_some(first.tunnel);
        let ours = first.local_id.clone();
        let Some(peer) = asked.iter().find(|p| knows_key(p)) else {
            return Err((failed, tunnel, Diagnosis::PreSharedKey { ours, theirs: id.clone() }));
        };
        let suite = [p.suite.answer(1, &[])];
        if peer.ike.choose(&suite).is_none() {
            let difference = peer.ike.difference(&suite);
            let diagnosis = Diagnosis::Proposal { subject: Subject::Ike, difference };
            return Err((NotifyType::NO_PROPOSAL_CHOSEN, Some(peer.tunnel), diagnosis));
        }
        if peer.admin_down {
            let diagnosis = Diagnosis::AdminDown(id.clone());
            return Err((NotifyType::TEMPORARY_FAILURE, Some(peer.tunnel), diagnosis));
        }
        if peer.mobike && mobike::nat_prohibited(parts, path) {
            let what = "the peer allows no NAT, and there is one (NO_NATS_ALLOWED)".into();
            let kind = NotifyType::UNEXPECTED_NAT_DETECTED;
            return Err((kind, Some(peer.tunnel), Diagnosis::Protocol(what)));
        }
        Ok(Arc::clone(peer))
    }

    fn establish(
        self,
        link: &mut Link,
        path: Path,
        peer: Arc<PeerConfig>,
        parts: Parts,
        ctx: &mut Context,
    ) -> Phase {
        // The initiator floats to port 4500 with this request (RFC 7296 2.23).
        link.path = path;
        link.last_heard = ctx.now;
        if link.fragment.is_some() {
            link.allow_fragments(&peer);
        }
        let id = peer.local_id.emit();
        let p = &self.protection;
        let auth = psk_auth(p.prf(), &peer.psk, &p.p.1, &self.response, &self.ni, &id);
        let mut answer = vec![
            Payload::IdR(peer.local_id.clone()),
            Payload::Auth { method: SHARED_KEY, data: auth.expose().to_vec() },
        ];
        let initial_contact = parts.has(NotifyType::INITIAL_CONTACT);
        let contact = Contact::new(link, &self.ni, &self.nr, false, ctx);
        let child = self.child(link, &peer, &parts, ctx);
        let mobike = peer.mobike && parts.has(NotifyType::MOBIKE_SUPPORTED);
        answer.extend(mobike::supported(&peer).filter(|_| mobike));
        let remote_id = parts.idi.unwrap_or(Identity::KeyId(Vec::new()));
        let mut up = Established::new(peer, self.protection, remote_id, contact, ctx);
        up.mobike = mobike;
        mobike::note_addresses(&mut up, &parts.notifies);
        up.announce(link, ctx);
        match child {
            Ok((child, payloads)) => {
                answer.extend(payloads);
                up.children.push(child);
            }
            Err(refusal) => {
                refusal.count(ctx);
                if let Some(diagnosis) = refusal.diagnosis() {
                    ctx.failed(Some(up.peer.tunnel), path.remote, diagnosis);
                }
                answer.push(Payload::Notify(refusal.notify()));
            }
        }
        let to = (path, &mut *ctx);
        link.respond(&mut up.protection, ExchangeType::IKE_AUTH, 1, &answer, to);
        ctx.effects.push_back(Effect::Authenticated {
            spi: link.local_spi(),
            tunnel: up.peer.tunnel,
            initial_contact,
        });
        Phase::Up(Box::new(up))
    }

    fn child(
        &self,
        link: &Link,
        peer: &Arc<PeerConfig>,
        parts: &Parts,
        ctx: &mut Context,
    ) -> Result<(ChildSa, Vec<Payload>), ChildRefusal> {
        let (Some(offer), Some(tsi), Some(tsr)) = (&parts.sa, &parts.tsi, &parts.tsr) else {
            return Err(ChildRefusal::Syntax);
        };
        let accepted = child_sa::accept_offer(peer, offer, (tsi, tsr), false)?;
        let spi = ctx.esp_spi();
        let payloads = build_answer(&accepted, spi);
        let seed = Seed {
            prf: self.protection.prf(),
            d: &self.protection.d,
            fresh: None,
            ni: &self.ni,
            nr: &self.nr,
            ours: false,
        };
        let mut child = child_sa::install(peer, accepted, spi, &seed, link.esp(), ctx);
        // A peer without it has no IKE SA to hear of it on either.
        child.known = true;
        Ok((child, payloads))
    }
}

/// SA, TSi and TSr of the responder's answer, and ADDITIONAL_TS_POSSIBLE where it applies.
pub(crate) fn build_answer(accepted: &child_sa::Accepted, spi: Spi) -> Vec<Payload> {
    let mut payloads = vec![
        Payload::Sa(vec![accepted.chosen.answer(accepted.number, spi)]),
        Payload::TsI(accepted.remote.clone()),
        Payload::TsR(accepted.local.clone()),
    ];
    if accepted.additional {
        let more = Notify::new(NotifyType::ADDITIONAL_TS_POSSIBLE, Vec::new());
        payloads.push(Payload::Notify(more));
    }
    payloads
}
