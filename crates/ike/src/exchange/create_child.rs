//! CREATE_CHILD_SA as initiator: a new Child SA, or one in the place of another (RFC 7296 1.3.1,
//! 1.3.3).

use sa::{Secret, Spi};

use crate::child_sa::{self, Life, Seed};
use crate::collision::ours_is_redundant;
use crate::context::Context;
use crate::crypto::KeyExchange;
use crate::diagnosis::Diagnosis;
use crate::established::{Established, Job, Pending, Standing};
use crate::event::DownReason;
use crate::exchange::ike_auth::refused_child;
use crate::exchange::parts::{Parts, wanted_group};
use crate::link::Link;
use crate::message::{ExchangeType, Notify, NotifyType, Payload};
use crate::suite::KeGroup;

/// How often one exchange may begin anew because of INVALID_KE_PAYLOAD.
const MAX_RESTARTS: u8 = 3;

/// Our request is out.
#[derive(Debug)]
pub(crate) struct Started {
    /// Our SPI of the Child SA to be replaced.
    pub(crate) rekeys: Option<Spi>,
    /// Our SPI of the new one.
    pub(crate) spi: Spi,
    nonce: Vec<u8>,
    /// With perfect forward secrecy.
    ke: Option<KeyExchange>,
    restarts: u8,
    /// What the peer made meanwhile for the same purpose: our SPI of it, and its lowest nonce.
    pub(crate) rival: Option<(Spi, Vec<u8>)>,
    /// The peer's SPIs that it deleted meanwhile and that we do not know: its answer may be late.
    deleted: Vec<Spi>,
}

/// The most of them that are kept: a peer has one.
const MAX_DELETED: usize = 4;

impl Started {
    /// The peer deletes a Child SA that we do not have.
    pub(crate) fn note_delete(&mut self, outbound: Spi) {
        if self.deleted.len() < MAX_DELETED && !self.deleted.contains(&outbound) {
            self.deleted.push(outbound);
        }
    }
}

/// Begins the exchange; `rekeys` is our SPI of the Child SA to be replaced.
pub(crate) fn start(up: &mut Established, link: &mut Link, rekeys: Option<Spi>, ctx: &mut Context) {
    let group = up.peer.esp.groups.first().copied();
    let (spi, nonce) = (ctx.esp_spi(), ctx.nonce());
    let started =
        Started { rekeys, spi, nonce, ke: None, restarts: 0, rival: None, deleted: Vec::new() };
    send(up, link, started, group, ctx);
}

fn send(
    up: &mut Established,
    link: &mut Link,
    mut started: Started,
    group: Option<KeGroup>,
    ctx: &mut Context,
) {
    started.ke = group.and_then(|g| KeyExchange::generate(g, &mut ctx.rng).ok());
    let mut payloads = Vec::new();
    if let Some(old) = started.rekeys {
        payloads.push(Payload::Notify(Notify::esp(NotifyType::REKEY_SA, old)));
    }
    let [sa, tsi, tsr] = child_sa::build_offer(&up.peer, started.spi, group.is_some());
    payloads.push(sa);
    payloads.push(Payload::Nonce(started.nonce.clone()));
    if let Some(ke) = &started.ke {
        payloads.push(Payload::Ke { group: ke.group().id(), data: ke.public().to_vec() });
    }
    payloads.extend([tsi, tsr]);
    up.request(link, ExchangeType::CREATE_CHILD_SA, &payloads, ctx);
    up.pending = Some(Pending::Child(started));
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
        let other = wanted_group(error).filter(|g| {
            error.kind == NotifyType::INVALID_KE_PAYLOAD
                && up.peer.esp.groups.contains(g)
                && started.restarts < MAX_RESTARTS
        });
        match other {
            Some(group) => {
                started.restarts += 1;
                send(up, link, started, Some(group), ctx);
            }
            None => refused(up, link, &started, parts, error.kind, ctx),
        }
        return;
    }
    if up.standing == Standing::Closing {
        // All of it goes with the IKE SA.
        return ctx.release_spi(started.spi);
    }
    match establish(up, link, &started, parts, ctx) {
        Ok(true) => settle(up, &started, ctx),
        Ok(false) => gone(up, &started, ctx),
        Err(diagnosis) => {
            ctx.release_spi(started.spi);
            failed(up, link, &started, diagnosis, ctx);
        }
    }
}

fn refused(
    up: &mut Established,
    link: &Link,
    started: &Started,
    parts: &Parts,
    kind: NotifyType,
    ctx: &mut Context,
) {
    ctx.release_spi(started.spi);
    let job = started.rekeys.map_or(Job::CreateChild, Job::RekeyChild);
    match kind {
        // The peer's own rekey does what ours was for.
        _ if started.rival.is_some() => {}
        NotifyType::TEMPORARY_FAILURE => up.retry_soon(job, ctx),
        NotifyType::CHILD_SA_NOT_FOUND => {
            // The peer lost it, or its DELETE is still to come: either way it is dead.
            if let Some(old) = started.rekeys {
                up.remove_child(old, DownReason::DeletedByPeer, ctx);
            }
            if up.live().is_none() {
                up.want(Job::CreateChild);
            }
        }
        _ => failed(up, link, started, refused_child(&up.peer, parts), ctx),
    }
}

/// Reports, and tries again: a rekey soon, because its time runs out.
fn failed(
    up: &mut Established,
    link: &Link,
    started: &Started,
    diagnosis: Diagnosis,
    ctx: &mut Context,
) {
    ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
    let job = started.rekeys.map_or(Job::CreateChild, Job::RekeyChild);
    up.retry(job, ctx);
}

/// The peer deleted the new Child SA before its answer came.
fn gone(up: &mut Established, started: &Started, ctx: &mut Context) {
    ctx.release_spi(started.spi);
    match started.rekeys {
        // The peer's own does what ours was for.
        _ if started.rival.is_some() => {}
        Some(old) if up.child(old).is_some() => up.retry_soon(Job::RekeyChild(old), ctx),
        _ => up.retry_soon(Job::CreateChild, ctx),
    }
}

/// Makes the Child SA that the peer agreed to; `false` if it ended it already.
fn establish(
    up: &mut Established,
    link: &Link,
    started: &Started,
    parts: &Parts,
    ctx: &mut Context,
) -> Result<bool, Diagnosis> {
    let protocol = |what: &str| Diagnosis::Protocol(what.to_owned());
    let (Some(answer), Some(nr), Some(tsi), Some(tsr)) =
        (&parts.sa, &parts.nonce, &parts.tsi, &parts.tsr)
    else {
        return Err(protocol("CREATE_CHILD_SA answered without its payloads"));
    };
    let additional = parts.has(NotifyType::ADDITIONAL_TS_POSSIBLE);
    let pfs = started.ke.is_some();
    let accepted = child_sa::check_answer(&up.peer, answer, (tsi, tsr), pfs, additional).map_err(
        |refusal| {
            refusal.count(ctx);
            refusal.diagnosis().unwrap_or_else(|| protocol("INVALID_KE"))
        },
    )?;
    if started.deleted.contains(&accepted.peer_spi) {
        return Ok(false);
    }
    let fresh: Option<Secret> = match (&started.ke, &parts.ke) {
        (None, _) => None,
        (Some(ke), Some((group, public)))
            if *group == ke.group().id() && accepted.chosen.group == Some(ke.group()) =>
        {
            Some(ke.agree(public).map_err(|_| protocol("a KE value that is not valid"))?)
        }
        (Some(_), _) => return Err(protocol("CREATE_CHILD_SA answered without our group")),
    };
    let seed = Seed {
        prf: up.protection.prf(),
        d: &up.protection.d,
        fresh: fresh.as_ref(),
        ni: &started.nonce,
        nr,
        ours: true,
    };
    let child = child_sa::install(&up.peer, accepted, started.spi, &seed, link.esp(), ctx);
    up.children.push(child);
    Ok(true)
}

/// The new Child SA stands: use it and delete the old one, or, if the peer made one meanwhile,
/// let the nonces decide (RFC 7296 2.8.1).
fn settle(up: &mut Established, started: &Started, ctx: &mut Context) {
    up.child_failures = 0;
    let ours = up.child(started.spi).map(|c| c.lowest_nonce.clone()).unwrap_or_default();
    // The peer compares, too, and may have rekeyed or deleted its own by now.
    if let Some((rival, theirs)) = &started.rival {
        if ours_is_redundant(&ours, theirs) {
            // Whoever made the redundant one deletes it; the peer deletes the old one.
            up.replaced(started.spi, ctx);
            up.want(Job::DeleteChild(started.spi));
            return;
        }
        up.replaced(*rival, ctx);
    }
    up.switch_to(started.spi, ctx);
    if let Some(old) = started.rekeys {
        up.replaced(old, ctx);
        up.want(Job::DeleteChild(old));
    }
    // Anything else that still lives here is older and has no rekey that names it.
    let others: Vec<Spi> = up
        .children
        .iter()
        .filter(|c| c.life == Life::Live && c.inbound != started.spi)
        .map(|c| c.inbound)
        .collect();
    for other in others {
        up.replaced(other, ctx);
        up.want(Job::DeleteChild(other));
    }
}
