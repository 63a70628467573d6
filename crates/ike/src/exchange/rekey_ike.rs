//! CREATE_CHILD_SA that replaces the IKE SA (RFC 7296 sections 1.3.2 and 2.18), both roles.

use std::sync::Arc;

use crate::collision::{Theirs, Verdict, ours_is_redundant, verdict};
use crate::context::{Context, Effect};
use crate::crypto::{KeyExchange, SaKeys};
use crate::diagnosis::{Diagnosis, Subject};
use crate::established::{Established, Job, MAX_SIBLINGS, Pending, REDUNDANT, Standing};
use crate::exchange::parts::{Parts, wanted_group};
use crate::ike_sa::{IkeSa, Phase};
use crate::link::Link;
use crate::message::{ExchangeType, Notify, NotifyType, Payload};
use crate::sealed::Protection;
use crate::suite::{ChosenIke, KeGroup};

/// How often one exchange may begin anew because of INVALID_KE_PAYLOAD.
const MAX_RESTARTS: u8 = 3;

/// Our request is out.
#[derive(Debug)]
pub(crate) struct Started {
    spi: u64,
    nonce: Vec<u8>,
    ke: KeyExchange,
    restarts: u8,
    /// The IKE SA that the peer made meanwhile: our SPI of it, and its lowest nonce.
    pub(crate) rival: Option<(u64, Vec<u8>)>,
}

/// Begins the exchange.
pub(crate) fn start(up: &mut Established, link: &mut Link, ctx: &mut Context) {
    let group = up.protection.suite.group;
    let offered = up.peer.ike.groups.contains(&group);
    let Some(group) = offered.then_some(group).or_else(|| up.peer.ike.groups.first().copied())
    else {
        return;
    };
    let Ok(ke) = KeyExchange::generate(group, &mut ctx.rng) else { return };
    let (spi, nonce) = (ctx.ike_spi(), ctx.nonce());
    send(up, link, Started { spi, nonce, ke, restarts: 0, rival: None }, ctx);
}

fn send(up: &mut Established, link: &mut Link, started: Started, ctx: &mut Context) {
    let payloads = [
        Payload::Sa(up.peer.ike.offer(&started.spi.to_be_bytes())),
        Payload::Nonce(started.nonce.clone()),
        Payload::Ke { group: started.ke.group().id(), data: started.ke.public().to_vec() },
    ];
    up.request(link, ExchangeType::CREATE_CHILD_SA, &payloads, ctx);
    up.pending = Some(Pending::RekeyIke(started));
}

/// The answer came; `started` was taken out of the SA.
pub(crate) fn process_response(
    up: &mut Established,
    link: &mut Link,
    mut started: Started,
    parts: &Parts,
    ctx: &mut Context,
) {
    if let (None, Some(error)) = (&parts.sa, parts.error()) {
        let other: Option<KeGroup> = wanted_group(error).filter(|g| {
            error.kind == NotifyType::INVALID_KE_PAYLOAD
                && up.peer.ike.groups.contains(g)
                && started.restarts < MAX_RESTARTS
        });
        if let Some(ke) = other.and_then(|g| KeyExchange::generate(g, &mut ctx.rng).ok()) {
            started.ke = ke;
            started.restarts += 1;
            return send(up, link, started, ctx);
        }
        return refused(up, link, &started, error.kind, ctx);
    }
    match establish(up, link, &started, parts, ctx) {
        Ok((new, _)) if !matches!(up.standing, Standing::Current | Standing::Displaced) => {
            // Closed meanwhile: the peer has moved to the new one, which goes, too.
            let redundant = new.link.local_spi();
            ctx.effects.push_back(Effect::Adopt(Box::new(new)));
            ctx.effects.push_back(Effect::Close(redundant));
        }
        Ok((new, lowest)) => settle(up, link, started, new, &lowest, ctx),
        Err(diagnosis) => {
            ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
            if !inherit_rival(up, link, &started, ctx) {
                up.retry(Job::RekeyIke, ctx);
            }
        }
    }
}

fn refused(
    up: &mut Established,
    link: &Link,
    started: &Started,
    kind: NotifyType,
    ctx: &mut Context,
) {
    if inherit_rival(up, link, started, ctx) {
        return;
    }
    if kind == NotifyType::TEMPORARY_FAILURE {
        return up.retry_soon(Job::RekeyIke, ctx);
    }
    let diagnosis = if kind == NotifyType::NO_PROPOSAL_CHOSEN {
        Diagnosis::ProposalRefused { subject: Subject::Ike, ours: up.peer.ike.to_string() }
    } else {
        Diagnosis::Refused(kind)
    };
    ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
    up.retry(Job::RekeyIke, ctx);
}

/// Ours came to nothing, but the peer's rekey stands: the Child SAs go there.
fn inherit_rival(up: &mut Established, link: &Link, started: &Started, ctx: &mut Context) -> bool {
    let Some((to, _)) = started.rival else { return false };
    hand_over(up, link, to, ctx);
    true
}

/// The Child SAs move to the IKE SA `to`; this one waits for a DELETE.
fn hand_over(up: &mut Established, link: &Link, to: u64, ctx: &mut Context) {
    let estate = Box::new(up.take_estate(link));
    ctx.effects.push_back(Effect::Inherit { to, estate });
    up.standing = Standing::Replaced;
    up.expires_at = ctx.now + REDUNDANT;
}

fn establish(
    up: &Established,
    link: &Link,
    started: &Started,
    parts: &Parts,
    ctx: &mut Context,
) -> Result<(IkeSa, Vec<u8>), Diagnosis> {
    let protocol = |what: &str| Diagnosis::Protocol(what.to_owned());
    let (Some(answer), Some(nr), Some((group, public))) = (&parts.sa, &parts.nonce, &parts.ke)
    else {
        return Err(protocol("an IKE rekey answered without its payloads"));
    };
    let [one] = answer.as_slice() else {
        return Err(protocol("an IKE rekey answered with several proposals"));
    };
    let (suite, _) = up.peer.ike.choose(answer).ok_or_else(|| Diagnosis::Proposal {
        subject: Subject::Ike,
        difference: up.peer.ike.difference(answer),
    })?;
    let spi_r = <[u8; 8]>::try_from(one.spi.as_slice()).map(u64::from_be_bytes).unwrap_or(0);
    if spi_r == 0 || *group != started.ke.group().id() || suite.group != started.ke.group() {
        return Err(protocol("an IKE rekey answered with another group or without SPI"));
    }
    let secret = started.ke.agree(public).map_err(|_| protocol("a KE value that is not valid"))?;
    let old = (up.protection.prf(), &up.protection.d);
    let spis = (started.spi, spi_r);
    let keys = SaKeys::rekeyed(&suite, old, &secret, &started.nonce, nr, spis);
    let lowest = started.nonce.as_slice().min(nr.as_slice()).to_vec();
    let new = successor(up, link, (suite, keys), spis, true, ctx)
        .ok_or_else(|| protocol("keys of a wrong length"))?;
    Ok((new, lowest))
}

/// The IKE SA that takes this one's place: same peer and path, message ids from zero.
fn successor(
    up: &Established,
    link: &Link,
    (suite, keys): (ChosenIke, SaKeys),
    spis: (u64, u64),
    initiator: bool,
    ctx: &mut Context,
) -> Option<IkeSa> {
    let protection = Protection::new(suite, keys, initiator)?;
    let mut new = Link::new(spis, initiator, link.path, ctx.now);
    new.nat = link.nat;
    new.fragment = link.fragment;
    let (peer, contact) = (Arc::clone(&up.peer), up.contact.clone());
    let mut state = Established::new(peer, protection, up.remote_id.clone(), contact, ctx);
    state.mobike = up.mobike;
    state.additional_addresses.clone_from(&up.additional_addresses);
    Some(IkeSa { link: new, phase: Phase::Up(Box::new(state)) })
}

/// Ours stands. Without a rival it inherits and we delete the old one; with one, the nonces
/// decide, and whoever made the redundant one deletes it (RFC 7296 2.8.1).
fn settle(
    up: &mut Established,
    link: &Link,
    started: Started,
    new: IkeSa,
    lowest: &[u8],
    ctx: &mut Context,
) {
    let to = new.link.local_spi();
    ctx.effects.push_back(Effect::Adopt(Box::new(new)));
    match started.rival {
        Some((rival, theirs)) if ours_is_redundant(lowest, &theirs) => {
            hand_over(up, link, rival, ctx);
            ctx.effects.push_back(Effect::Close(to));
        }
        rival => {
            hand_over(up, link, to, ctx);
            up.want(Job::DeleteIke);
            ctx.effects.extend(rival.map(|(spi, _)| Effect::Redundant(spi)));
        }
    }
}

/// The peer's request; the payloads of the answer.
pub(crate) fn process_request(
    up: &mut Established,
    link: &Link,
    parts: &Parts,
    ctx: &mut Context,
) -> Vec<Payload> {
    let mut decision = verdict(up.place(), up.ours(), Theirs::RekeyIke);
    if ctx.siblings >= MAX_SIBLINGS {
        decision = Verdict::Refuse(NotifyType::TEMPORARY_FAILURE);
    }
    if let Verdict::Refuse(kind) = decision {
        ctx.counters.temporary_failures += 1;
        return vec![Payload::notify(kind, Vec::new())];
    }
    match respond(up, link, parts, ctx) {
        Ok((mut new, lowest, payloads)) => {
            let to = new.link.local_spi();
            if decision == Verdict::ProceedAndCompare {
                if let Phase::Up(state) = &mut new.phase {
                    state.standing = Standing::Awaiting;
                    state.expires_at = ctx.now + REDUNDANT;
                }
                if let Some(Pending::RekeyIke(started)) = &mut up.pending {
                    started.rival = Some((to, lowest));
                }
                ctx.effects.push_back(Effect::Adopt(Box::new(new)));
            } else {
                ctx.effects.push_back(Effect::Adopt(Box::new(new)));
                hand_over(up, link, to, ctx);
            }
            payloads
        }
        Err(notify) => vec![Payload::Notify(notify)],
    }
}

fn respond(
    up: &Established,
    link: &Link,
    parts: &Parts,
    ctx: &mut Context,
) -> Result<(IkeSa, Vec<u8>, Vec<Payload>), Notify> {
    let syntax = || Notify::new(NotifyType::INVALID_SYNTAX, Vec::new());
    let (Some(offer), Some(ni)) = (&parts.sa, &parts.nonce) else {
        return Err(syntax());
    };
    let Some((suite, proposal)) = up.peer.ike.choose(offer) else {
        ctx.counters.no_proposal += 1;
        let difference = up.peer.ike.difference(offer);
        let diagnosis = Diagnosis::Proposal { subject: Subject::Ike, difference };
        ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
        return Err(Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, Vec::new()));
    };
    let Some((_, public)) = parts.ke.as_ref().filter(|(g, _)| *g == suite.group.id()) else {
        let wanted = suite.group.id().to_be_bytes().to_vec();
        return Err(Notify::new(NotifyType::INVALID_KE_PAYLOAD, wanted));
    };
    let spi_i = <[u8; 8]>::try_from(proposal.spi.as_slice()).map(u64::from_be_bytes).unwrap_or(0);
    if spi_i == 0 {
        return Err(syntax());
    }
    let ke = KeyExchange::generate(suite.group, &mut ctx.rng).map_err(|_| syntax())?;
    let secret = ke.agree(public).map_err(|_| {
        ctx.counters.invalid_ke += 1;
        syntax()
    })?;
    let (spi_r, nr) = (ctx.ike_spi(), ctx.nonce());
    let spis = (spi_i, spi_r);
    let old = (up.protection.prf(), &up.protection.d);
    let keys = SaKeys::rekeyed(&suite, old, &secret, ni, &nr, spis);
    let payloads = vec![
        Payload::Sa(vec![suite.answer(proposal.number, &spi_r.to_be_bytes())]),
        Payload::Nonce(nr.clone()),
        Payload::Ke { group: suite.group.id(), data: ke.public().to_vec() },
    ];
    let lowest = ni.min(&nr).clone();
    let new = successor(up, link, (suite, keys), spis, false, ctx).ok_or_else(syntax)?;
    Ok((new, lowest, payloads))
}
