//! CREATE_CHILD_SA as responder: sorts out which of the three it is, asks the collision table,
//! and makes the Child SA.

use sa::Spi;

use crate::child_sa::{self, ChildRefusal, Life, Seed};
use crate::collision::{Theirs, Verdict, verdict};
use crate::context::Context;
use crate::crypto::KeyExchange;
use crate::established::{Established, Job, Pending};
use crate::exchange::ike_auth::build_answer;
use crate::exchange::parts::Parts;
use crate::exchange::rekey_ike;
use crate::link::Link;
use crate::message::{Notify, NotifyType, Payload, ProtocolId};

/// The most Child SAs of one IKE SA: a tunnel has one, and some more while rekeys are under way.
const MAX_CHILDREN: usize = 6;

/// The payloads of the answer.
pub(crate) fn process_request(
    up: &mut Established,
    link: &mut Link,
    parts: &Parts,
    ctx: &mut Context,
) -> Vec<Payload> {
    let rekey = parts.notify(NotifyType::REKEY_SA);
    let is_ike = |offer: &Vec<crate::message::Proposal>| {
        offer.first().is_some_and(|p| p.protocol == ProtocolId::IKE)
    };
    if rekey.is_none() && parts.sa.as_ref().is_some_and(is_ike) {
        return rekey_ike::process_request(up, link, parts, ctx);
    }
    // A REKEY_SA for another protocol, or with an SPI of another length, names no Child SA
    // (RFC 7296 3.10.1); nothing of it is echoed but what we parsed ourselves.
    let named = rekey.map(|n| n.esp_spi());
    let old = named.flatten().and_then(|outbound| {
        up.children.iter().find(|c| c.outbound == outbound).map(|c| c.inbound)
    });
    let theirs = match rekey {
        Some(_) => Theirs::RekeyChild(old),
        None => Theirs::CreateChild,
    };
    let decision = verdict(up.place(), up.ours(), theirs);
    if let Verdict::Refuse(kind) = decision {
        if kind == NotifyType::TEMPORARY_FAILURE {
            ctx.counters.temporary_failures += 1;
        }
        let notify = match named.flatten().filter(|_| kind == NotifyType::CHILD_SA_NOT_FOUND) {
            Some(spi) => Notify::esp(kind, spi),
            None => Notify::new(kind, Vec::new()),
        };
        return vec![Payload::Notify(notify)];
    }
    if up.children.len() >= MAX_CHILDREN {
        return vec![Payload::notify(NotifyType::NO_ADDITIONAL_SAS, Vec::new())];
    }
    match establish(up, link, parts, ctx) {
        Ok((new, payloads)) => {
            settle(up, old, new, decision, ctx);
            payloads
        }
        Err(refusal) => {
            refusal.count(ctx);
            if let Some(diagnosis) = refusal.diagnosis() {
                ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
            }
            vec![Payload::Notify(refusal.notify())]
        }
    }
}

fn establish(
    up: &mut Established,
    link: &Link,
    parts: &Parts,
    ctx: &mut Context,
) -> Result<(Spi, Vec<Payload>), ChildRefusal> {
    let (Some(offer), Some(ni), Some(tsi), Some(tsr)) =
        (&parts.sa, &parts.nonce, &parts.tsi, &parts.tsr)
    else {
        return Err(ChildRefusal::Syntax);
    };
    let accepted = child_sa::accept_offer(&up.peer, offer, (tsi, tsr), true)?;
    // An SPI by which the peer already knows a Child SA would name two: the end of one would be the end
    // of both.
    if up.children.iter().any(|child| child.outbound == accepted.peer_spi) {
        return Err(ChildRefusal::Syntax);
    }
    // Without REKEY_SA it may still be meant to take the place of ours, but not to take networks
    // away from the tunnel, which has one Child SA.
    if parts.notify(NotifyType::REKEY_SA).is_none()
        && let Some(live) = up.live()
    {
        let old = (&live.info.local_selectors, &live.info.remote_selectors);
        let covers = accepted.local.intersection(old.0) == *old.0
            && accepted.remote.intersection(old.1) == *old.1;
        if !covers {
            let (old, new) = ((old.0.clone(), old.1.clone()), (accepted.local, accepted.remote));
            return Err(ChildRefusal::Second(Box::new((old, new))));
        }
    }
    let mut key_exchange = None;
    if let Some(group) = accepted.chosen.group {
        let Some((_, public)) = parts.ke.as_ref().filter(|(g, _)| *g == group.id()) else {
            return Err(ChildRefusal::InvalidKe(group));
        };
        let ke = KeyExchange::generate(group, &mut ctx.rng).map_err(|_| ChildRefusal::Syntax)?;
        let secret = ke.agree(public).map_err(|_| ChildRefusal::Syntax)?;
        key_exchange = Some((ke, secret));
    }
    let (spi, nr) = (ctx.esp_spi(), ctx.nonce());
    let mut payloads = build_answer(&accepted, spi);
    payloads.insert(1, Payload::Nonce(nr.clone()));
    if let Some((ke, _)) = &key_exchange {
        let (group, data) = (ke.group().id(), ke.public().to_vec());
        payloads.insert(2, Payload::Ke { group, data });
    }
    let seed = Seed {
        prf: up.protection.prf(),
        d: &up.protection.d,
        fresh: key_exchange.as_ref().map(|(_, secret)| secret),
        ni,
        nr: &nr,
        ours: false,
    };
    let child = child_sa::install(&up.peer, accepted, spi, &seed, link.esp(), ctx);
    up.children.push(child);
    Ok((spi, payloads))
}

/// The new Child SA takes the old one's place, or waits for the nonces.
fn settle(up: &mut Established, old: Option<Spi>, new: Spi, decision: Verdict, ctx: &mut Context) {
    if decision == Verdict::ProceedAndCompare {
        let lowest = up.child(new).map(|c| c.lowest_nonce.clone()).unwrap_or_default();
        if let Some(Pending::Child(started)) = &mut up.pending {
            started.rival = Some((new, lowest));
        }
    }
    let others: Vec<Spi> = up
        .children
        .iter()
        .filter(|c| c.life == Life::Live && c.inbound != new)
        .map(|c| c.inbound)
        .collect();
    if others.is_empty() && old.is_none() {
        // Nothing to wait for: the tunnel has no other Child SA to send on.
        up.switch_to(new, ctx);
    }
    for other in others {
        // Our own rekey of it, if it is in flight, still knows it by its SPI.
        up.replaced(other, ctx);
        if Some(other) != old {
            // The peer opened a second Child SA instead of a rekey: a tunnel has one.
            up.want_at(ctx.now + 2 * ctx.config.outbound_switch, Job::DeleteChild(other));
        }
    }
}
