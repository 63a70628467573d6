//! MOBIKE (RFC 4555): outer addresses that change under an IKE SA, both roles.
//!
//! The side that began the first IKE SA says where it is (UPDATE_SA_ADDRESSES); the other side
//! answers there at once, but sends ESP there only when the new path has proved itself
//! (COOKIE2, section 3.7). A path that is merely observed, because a NAT gave the peer another
//! address, has to prove itself likewise.
//!
//! A NAT may forget its mapping without a sign. The side that began asks with each liveness
//! request where it is seen, and says where it is when that changed (section 3.8).

use std::net::IpAddr;
use std::time::Duration;

use sa::Path;

use crate::config::PeerConfig;
use crate::context::Context;
use crate::diagnosis::Diagnosis;
use crate::established::{Established, Job, Pending, Standing};
use crate::event::{DownReason, Event};
use crate::exchange::parts::Parts;
use crate::link::Link;
use crate::message::{ExchangeType, Notify, NotifyType, Payload};
use crate::nat;

/// Octets of a COOKIE2: 8 to 64 (RFC 4555 4.2.5).
const COOKIE2: usize = 16;

/// Time between two checks of paths that were only observed.
const CHECKS_APART: Duration = Duration::from_secs(1);

/// Time between two liveness requests that are sent because the answer to the one before may be old.
const ASKED_APART: Duration = Duration::from_secs(10);

/// Checks of a new path in a row that are answered over the old one, until IKE returns there.
const ASTRAY: u8 = 4;

/// Additional addresses of a peer that are kept.
const ADDRESSES: usize = 8;

/// Our return routability check of one path.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) path: Path,
    cookie: Vec<u8>,
}

/// MOBIKE_SUPPORTED for IKE_AUTH, if the tunnel wants it.
pub(crate) fn supported(peer: &PeerConfig) -> Option<Payload> {
    peer.mobike.then(|| Payload::notify(NotifyType::MOBIKE_SUPPORTED, Vec::new()))
}

/// Whether a NAT changed a message whose sender does not want one (NO_NATS_ALLOWED, section 3.9).
pub(crate) fn nat_prohibited(parts: &Parts, path: Path) -> bool {
    let Some(notify) = parts.notify(NotifyType::NO_NATS_ALLOWED) else { return false };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let mut seen = [octets(path.remote.ip()), octets(path.local.ip())].concat();
    seen.extend_from_slice(&path.remote.port().to_be_bytes());
    seen.extend_from_slice(&path.local.port().to_be_bytes());
    seen != notify.data
}

/// Takes what the peer says of its additional addresses (section 3.6): all that it has now, or nothing
/// about them.
pub(crate) fn note_addresses(up: &mut Established, notifies: &[Notify]) {
    let (v4, v6) = (NotifyType::ADDITIONAL_IP4_ADDRESS, NotifyType::ADDITIONAL_IP6_ADDRESS);
    let kinds = [v4, v6, NotifyType::NO_ADDITIONAL_ADDRESSES];
    if !up.mobike || !notifies.iter().any(|n| kinds.contains(&n.kind)) {
        return;
    }
    let address = |n: &Notify| match n.kind {
        kind if kind == v4 => <[u8; 4]>::try_from(n.data.as_slice()).ok().map(IpAddr::from),
        kind if kind == v6 => <[u8; 16]>::try_from(n.data.as_slice()).ok().map(IpAddr::from),
        _ => None,
    };
    let known = notifies.iter().filter_map(address).filter(|ip| is_somewhere(*ip));
    up.additional_addresses = known.take(ADDRESSES).collect();
}

/// Whether an address can be that of a host.
fn is_somewhere(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// Whether a peer can be at the other end of `path`, as far as the address itself tells.
fn is_acceptable(path: Path) -> bool {
    let remote = path.remote.ip();
    is_somewhere(remote) && remote != path.local.ip() && path.remote.port() != 0
}

/// Our own address changed, as the owner says. ESP leaves from there at once.
pub(crate) fn move_local(up: &mut Established, link: &mut Link, local: IpAddr, ctx: &mut Context) {
    if link.path.local.ip() == local || local.is_ipv4() != link.path.remote.is_ipv4() {
        return;
    }
    link.move_local(local, ctx);
    let path = ctx.esp_path(link.esp());
    ctx.events.push_back(Event::PathChanged { tunnel: up.peer.tunnel, path });
    // Only the side that began says so (section 3.5); from the other one, the peer sees it.
    let ours = up.mobike && up.contact.ours;
    up.want(if ours { Job::UpdateAddresses } else { Job::Liveness });
    up.begin_next(link, ctx);
}

/// Sends UPDATE_SA_ADDRESSES from where we are now.
pub(crate) fn start_update(up: &mut Established, link: &mut Link, ctx: &mut Context) {
    let mut payloads = vec![Payload::notify(NotifyType::UPDATE_SA_ADDRESSES, Vec::new())];
    payloads.extend(nat::notifies(link.spis, link.path, up.peer.force_encapsulation));
    ctx.counters.address_updates += 1;
    up.request(link, ExchangeType::INFORMATIONAL, &payloads, ctx);
    up.pending = Some(Pending::UpdateAddresses(link.path));
}

/// What a liveness request asks, besides whether the peer lives: where it sees us (section 3.8).
pub(crate) fn where_are_we(up: &Established, link: &Link) -> Vec<Payload> {
    if !up.mobike || !up.contact.ours {
        return Vec::new();
    }
    nat::notifies(link.spis, link.path, up.peer.force_encapsulation).into()
}

/// A liveness request, which we sent so many times, was answered: if the peer sees us elsewhere
/// than before, a NAT gave us another address or port.
pub(crate) fn liveness_answered(
    up: &mut Established,
    link: &Link,
    (parts, tries): (&Parts, u32),
    ctx: &Context,
) {
    if !up.mobike || !up.contact.ours {
        return;
    }
    let Some(seen_at) = nat::seen_at(&parts.notifies) else { return };
    let same = match &link.seen_at {
        Some(before) => before == seen_at,
        // After a rekey, which changes the hashes: behind a NAT that costs one update.
        None => seen_at == nat::hash(link.spis, link.path.local),
    };
    if same { ask_again(up, link, tries, ctx) } else { up.want(Job::UpdateAddresses) }
}

/// The answer to a request that was sent again may be the one to its first copy, from before the
/// NAT forgot. Where every answer takes longer than that, this is not done each time.
fn ask_again(up: &mut Established, link: &Link, tries: u32, ctx: &Context) {
    if link.nat.local && tries > 1 && up.ask_again_after <= ctx.now {
        up.ask_again_after = ctx.now + ASKED_APART;
        up.want(Job::Liveness);
    }
}

/// UPDATE_SA_ADDRESSES, sent from `path` so many times, was answered.
pub(crate) fn update_answered(
    up: &mut Established,
    link: &mut Link,
    (path, tries): (Path, u32),
    parts: &Parts,
    ctx: &mut Context,
) {
    if link.path != path {
        // We moved again meanwhile: what the peer answered is not true any more.
        return up.want(Job::UpdateAddresses);
    }
    if let Some(error) = parts.error() {
        let diagnosis = Diagnosis::Refused(error.kind);
        ctx.failed(Some(up.peer.tunnel), link.path.remote, diagnosis);
        return up.retry(Job::UpdateAddresses, ctx);
    }
    if let Some(nat) = nat::detect(link.spis, link.path, &parts.notifies) {
        link.nat = nat;
        link.seen_at = nat::seen_at(&parts.notifies).map(<[u8]>::to_vec);
        ask_again(up, link, tries, ctx);
    }
}

/// What a request in INFORMATIONAL wants of MOBIKE; the payloads of the answer.
pub(crate) fn process_request(
    up: &mut Established,
    link: &mut Link,
    path: Path,
    parts: &Parts,
    ctx: &mut Context,
) -> Vec<Payload> {
    if !up.mobike {
        return Vec::new();
    }
    note_addresses(up, &parts.notifies);
    let mut answer = Vec::new();
    if parts.has(NotifyType::UPDATE_SA_ADDRESSES) && !up.contact.ours {
        if !is_acceptable(path) {
            return vec![Payload::notify(NotifyType::UNACCEPTABLE_ADDRESSES, Vec::new())];
        }
        if nat_prohibited(parts, path) {
            return vec![Payload::notify(NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new())];
        }
        follow(up, link, path, parts, ctx);
    }
    if parts.has(NotifyType::NAT_DETECTION_SOURCE_IP) {
        answer.extend(nat::notifies(link.spis, path, up.peer.force_encapsulation));
    }
    let cookie = parts.notify(NotifyType::COOKIE2).filter(|n| (8..=64).contains(&n.data.len()));
    answer.extend(cookie.map(|n| Payload::notify(NotifyType::COOKIE2, n.data.clone())));
    answer
}

/// The peer says that it is at the other end of `path`.
fn follow(up: &mut Established, link: &mut Link, path: Path, parts: &Parts, ctx: &mut Context) {
    ctx.counters.address_updates += 1;
    if let Some(nat) = nat::detect(link.spis, path, &parts.notifies) {
        link.nat = nat;
    }
    if up.standing != Standing::Current {
        return;
    }
    // Whatever else was observed, it was before this.
    up.next_candidate = None;
    if link.path == path {
        up.candidate = up.candidate.filter(|_| link.is_unproved());
        return;
    }
    link.move_unproved(path);
    up.candidate = Some(path);
    up.astray = 0;
    up.want(Job::CheckPath);
}

/// Something authentic came from `path`, and nothing says that the peer moved there on purpose.
pub(crate) fn observe(up: &mut Established, link: &Link, path: Path, ctx: &mut Context) {
    let known = link.path == path || up.candidate == Some(path);
    if known || up.standing != Standing::Current || !is_acceptable(path) {
        return;
    }
    // One at a time and not too often: each costs datagrams to whoever is there. It is only
    // observed once, so it is remembered.
    if up.candidate_until > ctx.now {
        up.next_candidate = Some(path);
        return up.want_at(up.candidate_until, Job::CheckPath);
    }
    up.candidate = Some(path);
    up.candidate_until = ctx.now + CHECKS_APART;
    up.want(Job::CheckPath);
    // A request of ours that waits for its answer may have gone where nobody is any more.
    if let Some((datagrams, _)) = link.window.in_flight() {
        datagrams.iter().for_each(|datagram| ctx.transmit(path, datagram.clone()));
    }
}

/// Asks over the candidate path for the COOKIE2 that we send there.
pub(crate) fn start_check(up: &mut Established, link: &mut Link, ctx: &mut Context) {
    if let Some(next) = up.next_candidate.take().filter(|next| *next != link.path) {
        up.candidate = Some(next);
        up.candidate_until = ctx.now + CHECKS_APART;
    }
    let Some(path) = up.candidate else { return };
    let mut cookie = vec![0; COOKIE2];
    ctx.rng.fill_bytes(&mut cookie);
    let payloads = [Payload::notify(NotifyType::COOKIE2, cookie.clone())];
    ctx.counters.path_checks += 1;
    let exchange = ExchangeType::INFORMATIONAL;
    link.request_to(&mut up.protection, &up.peer, exchange, &payloads, (path, &mut *ctx));
    up.pending = Some(Pending::CheckPath(Check { path, cookie }));
}

/// The answer to a check came over `from`. It proves that path, and no other: while the request is
/// repeated it goes over the old path, too, so that a peer that has not moved can answer it. If it
/// does so again and again, somebody on the path changed the address of what the peer said.
pub(crate) fn check_answered(
    up: &mut Established,
    link: &mut Link,
    check: &Check,
    (from, parts): (Path, &Parts),
    ctx: &mut Context,
) {
    let back = parts.notify(NotifyType::COOKIE2).is_some_and(|n| n.data == check.cookie);
    if !back {
        let what = "a return routability check was answered without its COOKIE2".to_owned();
        return up.close(link, DownReason::Protocol(what), ctx);
    }
    if up.candidate != Some(check.path) {
        // The peer moved again: the job for that path is in the queue.
        return;
    }
    if from != check.path {
        up.astray += 1;
        if link.is_unproved() && up.astray < ASTRAY {
            return up.want(Job::CheckPath);
        }
        (up.candidate, up.astray) = (None, 0);
        return link.settle_path(link.esp());
    }
    up.candidate = None;
    link.settle_path(check.path);
    let path = ctx.esp_path(check.path);
    ctx.events.push_back(Event::PathChanged { tunnel: up.peer.tunnel, path });
}
