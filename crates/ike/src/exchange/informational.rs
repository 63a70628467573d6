//! INFORMATIONAL as responder: DELETE, errors, and the empty liveness request (RFC 7296 1.4, 2.4).

use sa::Path;

use crate::collision::{Theirs, Verdict, verdict};
use crate::context::{Context, Effect};
use crate::established::{Established, Pending, Standing};
use crate::event::DownReason;
use crate::exchange::mobike;
use crate::exchange::parts::Parts;
use crate::link::Link;
use crate::message::{NotifyType, Payload, ProtocolId};

/// The payloads of the answer. The standing says afterwards whether the IKE SA is over.
pub(crate) fn process_request(
    up: &mut Established,
    link: &mut Link,
    (path, parts): (Path, &Parts),
    ctx: &mut Context,
) -> Vec<Payload> {
    if parts.deletes_ike() {
        process_delete_ike(up, link, DownReason::DeletedByPeer, ctx);
        return Vec::new();
    }
    if parts.has(NotifyType::AUTHENTICATION_FAILED) {
        // The initiator refuses our AUTH after the fact (RFC 7296 2.21.2).
        ctx.counters.auth_failed += 1;
        let what = "the peer refused our AUTH (AUTHENTICATION_FAILED)".into();
        process_delete_ike(up, link, DownReason::Protocol(what), ctx);
        return Vec::new();
    }
    let mut deleted = Vec::new();
    for outbound in parts.deleted_esp() {
        // The peer names its own inbound SPI, which is our outbound.
        let found = up.children.iter().find(|c| c.outbound == outbound).map(|c| c.inbound);
        let decision = verdict(up.place(), up.ours(), Theirs::DeleteChild(found));
        if let (Verdict::Proceed, Some(inbound)) = (decision, found) {
            deleted.push(inbound.to_be_bytes().to_vec());
            up.remove_child(inbound, DownReason::DeletedByPeer, ctx);
        }
        if let (None, Some(Pending::Child(started))) = (found, &mut up.pending) {
            started.note_delete(outbound);
        }
    }
    let mut answer = mobike::process_request(up, link, path, parts, ctx);
    if !deleted.is_empty() {
        answer.push(Payload::Delete { protocol: ProtocolId::ESP, spis: deleted });
    }
    answer
}

/// The peer closes the IKE SA. If its own rekey made another one beside ours, that one stays.
fn process_delete_ike(up: &mut Established, link: &Link, reason: DownReason, ctx: &mut Context) {
    let forget = verdict(up.place(), up.ours(), Theirs::DeleteIke) == Verdict::ProceedAndForget;
    let rival = match &up.pending {
        Some(Pending::RekeyIke(started)) if forget => started.rival.as_ref().map(|(spi, _)| *spi),
        _ => None,
    };
    if let Some(to) = rival {
        let estate = Box::new(up.take_estate(link));
        ctx.effects.push_back(Effect::Inherit { to, estate });
        up.standing = Standing::Replaced;
    }
    up.tear_down(reason, true, ctx);
}
