//! DELETE of a Child SA or of the IKE SA, as requester (RFC 7296 section 1.4.1).

use sa::Spi;

use crate::child_sa::Life;
use crate::context::Context;
use crate::established::{Established, Pending, Standing};
use crate::event::DownReason;
use crate::link::Link;
use crate::message::{ExchangeType, Payload, ProtocolId};

/// Deletes the IKE SA.
pub(crate) fn start_ike(up: &mut Established, link: &mut Link, ctx: &mut Context) {
    up.jobs.clear();
    up.retries.clear();
    let delete = Payload::Delete { protocol: ProtocolId::IKE, spis: Vec::new() };
    up.request(link, ExchangeType::INFORMATIONAL, &[delete], ctx);
    up.pending = Some(Pending::DeleteIke);
}

/// Deletes one Child SA, named by our SPI; the peer answers with its own.
pub(crate) fn start_child(up: &mut Established, link: &mut Link, spi: Spi, ctx: &mut Context) {
    let Some(child) = up.child(spi) else { return };
    child.life = Life::Deleting;
    let spis = vec![spi.to_be_bytes().to_vec()];
    let delete = Payload::Delete { protocol: ProtocolId::ESP, spis };
    up.request(link, ExchangeType::INFORMATIONAL, &[delete], ctx);
    up.pending = Some(Pending::DeleteChild(spi));
}

/// The DELETE of the IKE SA was answered.
pub(crate) fn ike_answered(up: &mut Established, ctx: &mut Context) {
    up.standing = Standing::Closing;
    up.tear_down(DownReason::Requested, false, ctx);
}

/// The DELETE of a Child SA was answered, with or without the peer's SPI.
pub(crate) fn child_answered(up: &mut Established, spi: Spi, ctx: &mut Context) {
    let expired = up.child(spi).is_some_and(|child| child.expired);
    let reason = if expired { DownReason::Expired } else { DownReason::Requested };
    up.remove_child(spi, reason, ctx);
}
