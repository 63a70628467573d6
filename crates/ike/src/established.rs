//! An authenticated IKE SA: its Child SAs, what is in flight, what is to be done next.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sa::{Path, Spi};

use crate::child_sa::{ChildSa, Life, OutboundHalf};
use crate::collision::{Ours, Place};
use crate::config::PeerConfig;
use crate::context::{Context, Effect};
use crate::event::{ChildInfo, DownReason, Event, IkeInfo};
use crate::exchange::{create_child, delete, mobike, rekey_ike};
use crate::link::Link;
use crate::message::{ExchangeType, Identity};
use crate::sealed::Protection;

/// How long something redundant waits for the peer's DELETE before it goes by itself.
pub(crate) const REDUNDANT: Duration = Duration::from_secs(60);
/// The same for the IKE SA of the peer's that lost against ours: a peer whose rekey was ended by
/// our DELETE of the old IKE SA does not know that it exists, and will not delete it.
pub(crate) const RIVAL: Duration = Duration::from_secs(10);
/// First wait before a Child SA that was refused is tried again; it doubles up to the longest.
const CHILD_RETRY: Duration = Duration::from_secs(5);
const CHILD_RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long a path must stay silent after its peer was heard, which comes before the next probe is answered
/// when the whole path is back.
const STILL_SILENT: Duration = Duration::from_secs(5);
/// How long a peer must say that it does not know an IKE SA. Three transmissions of a request.
const LOST: Duration = Duration::from_millis(1400);
/// The most IKE SAs of one tunnel: replaced ones whose DELETE is still to come are among them.
pub(crate) const MAX_SIBLINGS: usize = 8;
/// Wait after TEMPORARY_FAILURE, and as much again at random so that two do not meet again.
pub(crate) const TEMPORARY: Duration = Duration::from_secs(1);

/// What an IKE SA is to its tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It holds the Child SAs.
    Current,
    /// Made by the peer's rekey while ours is in flight: the nonces will decide.
    Awaiting,
    /// Another took its place; a DELETE of one side ends it.
    Replaced,
    /// The peer authenticated anew beside it. Its Child SAs carry the tunnel until the peer shows
    /// that it has the new ones: our answer may be lost.
    Displaced,
    /// We are closing it.
    Closing,
    /// It is over. `answer`: it still answers what comes again.
    Ended { answer: bool },
}

/// An exchange that we want to begin when none is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    DeleteIke,
    DeleteChild(Spi),
    Liveness,
    /// Tell the peer where we are.
    UpdateAddresses,
    /// Let the candidate path prove itself.
    CheckPath,
    CreateChild,
    RekeyChild(Spi),
    RekeyIke,
    /// Another Child SA in the place of one through which nothing comes.
    RenewSilent,
}

/// The exchange of ours that is in flight.
#[derive(Debug)]
pub(crate) enum Pending {
    Child(create_child::Started),
    RekeyIke(rekey_ike::Started),
    DeleteChild(Spi),
    DeleteIke,
    Liveness,
    /// UPDATE_SA_ADDRESSES, sent from this path.
    UpdateAddresses(Path),
    CheckPath(mobike::Check),
}

/// How and when the peer was authenticated: what duplicates are told apart by.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    /// When the first message of it was sent or came.
    pub(crate) started: Instant,
    pub(crate) authenticated: Instant,
    /// Whether we began.
    pub(crate) ours: bool,
    pub(crate) lowest_nonce: Vec<u8>,
}

impl Contact {
    pub(crate) fn new(link: &Link, ni: &[u8], nr: &[u8], ours: bool, ctx: &Context) -> Self {
        let lowest_nonce = ni.min(nr).to_vec();
        Self { started: link.started, authenticated: ctx.now, ours, lowest_nonce }
    }
}

/// What an IKE SA leaves to the one that takes its place.
#[derive(Debug)]
pub(crate) struct Estate {
    pub(crate) tunnel: sa::TunnelId,
    pub(crate) children: Vec<ChildSa>,
    jobs: VecDeque<Job>,
    retries: Vec<(Instant, Job)>,
    last_heard: Instant,
    paths: (Path, Option<Path>),
    candidate: Option<Path>,
    /// It is displaced, and so is its successor.
    displaced: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) peer: Arc<PeerConfig>,
    pub(crate) protection: Protection,
    pub(crate) remote_id: Identity,
    pub(crate) contact: Contact,
    pub(crate) standing: Standing,
    pub(crate) children: Vec<ChildSa>,
    pub(crate) pending: Option<Pending>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) retries: Vec<(Instant, Job)>,
    pub(crate) child_failures: u32,
    pub(crate) established: Instant,
    pub(crate) rekey_at: Instant,
    pub(crate) expires_at: Instant,
    /// When an unauthenticated hint may cause a liveness exchange again.
    pub(crate) hint_after: Instant,
    /// Whether both sides do MOBIKE.
    pub(crate) mobike: bool,
    /// Where the peer says that it can be reached, too.
    pub(crate) additional_addresses: Vec<IpAddr>,
    /// A path of the peer's that has to prove itself, and until when no other takes its place.
    pub(crate) candidate: Option<Path>,
    pub(crate) candidate_until: Instant,
    /// The one after it.
    pub(crate) next_candidate: Option<Path>,
    /// Checks of the peer's new path that it answered over the old one, in a row.
    pub(crate) astray: u8,
    /// When an answer that may be old makes us ask again.
    pub(crate) ask_again_after: Instant,
    /// When the peer first said that it does not know this IKE SA.
    unknown_since: Option<Instant>,
    /// Nothing comes through the Child SA, and it was not renewed since.
    pub(crate) silent: bool,
}

impl Established {
    /// The peer says, in clear, that it does not know this IKE SA. It is believed when it has said
    /// so for a while, to requests of ours, without a sign of life in between: around a rekey one
    /// side may not know an IKE SA yet, or not any more.
    pub(crate) fn is_lost(&mut self, link: &Link, ctx: &Context) -> bool {
        let asking = matches!(self.pending, Some(Pending::Liveness | Pending::Child(_)));
        if self.standing != Standing::Current || !asking {
            return false;
        }
        let since = self.unknown_since.filter(|since| link.last_heard < *since);
        let since = *self.unknown_since.insert(since.unwrap_or(ctx.now));
        let lost = ctx.now.saturating_duration_since(since) >= LOST;
        if lost {
            // If nothing comes of it: from the beginning.
            self.unknown_since = None;
        }
        lost
    }

    pub(crate) fn new(
        peer: Arc<PeerConfig>,
        mut protection: Protection,
        remote_id: Identity,
        contact: Contact,
        ctx: &mut Context,
    ) -> Self {
        protection.trust();
        let rekey_at = ctx.rekey_at(peer.ike_lifetime, &peer);
        Self {
            expires_at: ctx.now + peer.ike_lifetime,
            peer,
            protection,
            remote_id,
            contact,
            standing: Standing::Current,
            children: Vec::new(),
            pending: None,
            jobs: VecDeque::new(),
            retries: Vec::new(),
            child_failures: 0,
            established: ctx.now,
            rekey_at,
            hint_after: ctx.now,
            mobike: false,
            additional_addresses: Vec::new(),
            candidate: None,
            candidate_until: ctx.now,
            next_candidate: None,
            astray: 0,
            ask_again_after: ctx.now,
            unknown_since: None,
            silent: false,
        }
    }

    pub(crate) fn info(&self, link: &Link) -> IkeInfo {
        IkeInfo {
            initiator: link.initiator,
            path: link.path,
            initiator_spi: link.spis.0,
            responder_spi: link.spis.1,
            suite: self.protection.suite,
            nat: link.nat,
            local_id: self.peer.local_id.clone(),
            remote_id: self.remote_id.clone(),
            fragmentation: link.fragment.is_some(),
            mobike: self.mobike,
            began: self.contact.ours,
            additional_addresses: self.additional_addresses.clone(),
            established: self.established,
            rekey_at: self.rekey_at,
        }
    }

    /// Whether it is about to make a Child SA, or to end one, of which the owner will hear.
    pub(crate) fn is_at_child(&self) -> bool {
        let about = |job: &Job| matches!(job, Job::CreateChild | Job::DeleteChild(_));
        matches!(self.pending, Some(Pending::Child(_) | Pending::DeleteChild(_)))
            || self.jobs.iter().any(about)
            || self.retries.iter().any(|(_, job)| about(job))
    }

    /// Says that the peer is authenticated.
    pub(crate) fn announce(&self, link: &Link, ctx: &mut Context) {
        ctx.counters.established += 1;
        ctx.events.push_back(Event::IkeUp { tunnel: self.peer.tunnel, info: self.info(link) });
    }

    /// What the collision table sees of what is in flight.
    pub(crate) fn ours(&self) -> Ours {
        match &self.pending {
            Some(Pending::Child(started)) => match started.rekeys {
                Some(old) => Ours::RekeyChild(old),
                None => Ours::CreateChild,
            },
            Some(Pending::RekeyIke(_)) => Ours::RekeyIke,
            Some(Pending::DeleteChild(spi)) => Ours::DeleteChild(*spi),
            Some(Pending::DeleteIke) => Ours::DeleteIke,
            _ if self.standing == Standing::Closing => Ours::DeleteIke,
            Some(Pending::Liveness | Pending::UpdateAddresses(_) | Pending::CheckPath(_))
            | None => Ours::Nothing,
        }
    }

    pub(crate) fn place(&self) -> Place {
        match self.standing {
            Standing::Current => Place::Current,
            _ => Place::Other,
        }
    }

    /// The peer lives: if nothing comes through the Child SA in the next seconds either, it may not have
    /// it any more.
    pub(crate) fn doubt_silent(&mut self, ctx: &Context) {
        if self.silent && !self.retries.iter().any(|(_, job)| *job == Job::RenewSilent) {
            self.want_at(ctx.now + STILL_SILENT, Job::RenewSilent);
        }
    }

    fn renew_silent(&mut self) {
        if std::mem::take(&mut self.silent)
            && let Some(spi) = self.live().map(|child| child.inbound)
        {
            self.want(Job::RekeyChild(spi));
        }
    }

    /// Wants `job` done, once.
    pub(crate) fn want(&mut self, job: Job) {
        if !self.jobs.contains(&job) {
            self.jobs.push_back(job);
        }
    }

    /// Wants `job` done later.
    pub(crate) fn want_at(&mut self, at: Instant, job: Job) {
        self.retries.retain(|(_, other)| *other != job);
        self.retries.push((at, job));
    }

    /// Tries a refused Child SA again, later each time.
    pub(crate) fn retry(&mut self, job: Job, ctx: &mut Context) {
        let wait = CHILD_RETRY * 2_u32.saturating_pow(self.child_failures.min(10));
        self.child_failures = self.child_failures.saturating_add(1);
        let at = ctx.now + ctx.jitter(wait.min(CHILD_RETRY_LONGEST));
        self.want_at(at, job);
    }

    /// Tries again soon: the peer was busy with something that collides.
    pub(crate) fn retry_soon(&mut self, job: Job, ctx: &mut Context) {
        let at = ctx.now + ctx.jitter(TEMPORARY);
        self.want_at(at, job);
    }

    /// Begins the next exchange if none is in flight.
    pub(crate) fn begin_next(&mut self, link: &mut Link, ctx: &mut Context) {
        while self.pending.is_none() && !link.window.is_waiting() {
            // The DELETE of what was rekeyed follows at once: the peer's rekey of it must not come
            // between (RFC 7296 2.25.1).
            let urgent: [fn(&Job) -> bool; 4] = [
                |job| *job == Job::DeleteIke,
                |job| matches!(job, Job::DeleteChild(_)),
                |job| *job == Job::UpdateAddresses,
                |job| *job == Job::CheckPath,
            ];
            let first = urgent.iter().find_map(|is| self.jobs.iter().position(is));
            let Some(job) =
                first.and_then(|i| self.jobs.remove(i)).or_else(|| self.jobs.pop_front())
            else {
                return;
            };
            let current = self.standing == Standing::Current;
            match job {
                Job::DeleteIke => delete::start_ike(self, link, ctx),
                // The peer would not find what it does not know yet.
                Job::RekeyChild(spi) | Job::DeleteChild(spi)
                    if self.child(spi).is_some_and(|c| c.is_unconfirmed(ctx.now)) =>
                {
                    self.retry_soon(job, ctx);
                }
                Job::DeleteChild(spi) if current && !self.hand_over(spi, ctx) => {
                    self.retry_soon(job, ctx);
                }
                Job::DeleteChild(spi) if current => delete::start_child(self, link, spi, ctx),
                Job::CreateChild if current && self.live().is_none() => {
                    create_child::start(self, link, None, ctx);
                }
                Job::RekeyChild(spi) if current && self.is_live(spi) => {
                    create_child::start(self, link, Some(spi), ctx);
                }
                Job::UpdateAddresses if current => mobike::start_update(self, link, ctx),
                Job::CheckPath if current => mobike::start_check(self, link, ctx),
                Job::RenewSilent if current => self.renew_silent(),
                Job::RekeyIke if current => rekey_ike::start(self, link, ctx),
                Job::Liveness if current => {
                    let payloads = mobike::where_are_we(self, link);
                    self.request(link, ExchangeType::INFORMATIONAL, &payloads, ctx);
                    self.pending = Some(Pending::Liveness);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn request(
        &mut self,
        link: &mut Link,
        exchange: ExchangeType,
        payloads: &[crate::message::Payload],
        ctx: &mut Context,
    ) {
        link.request(&mut self.protection, &self.peer, exchange, payloads, ctx);
    }

    pub(crate) fn child(&mut self, inbound: Spi) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|c| c.inbound == inbound)
    }

    fn is_live(&self, inbound: Spi) -> bool {
        self.children.iter().any(|c| c.inbound == inbound && c.life == Life::Live)
    }

    /// The Child SA that carries the tunnel: the youngest that nothing replaced.
    pub(crate) fn live(&self) -> Option<&ChildSa> {
        self.children.iter().rev().find(|c| c.life == Life::Live)
    }

    /// What `status` shows.
    pub(crate) fn child_info(&self) -> Option<ChildInfo> {
        self.live().map(|c| c.info.clone())
    }

    /// Sends on this Child SA from now on, and says so.
    pub(crate) fn switch_to(&mut self, inbound: Spi, ctx: &mut Context) {
        let tunnel = self.peer.tunnel;
        let others = self.children.iter().any(|c| c.inbound != inbound && !c.is_waiting());
        let newer = self.children.iter().any(|c| c.life == Life::Live && c.sends());
        let Some(child) = self.child(inbound).filter(|c| c.is_waiting()) else { return };
        if newer && child.life != Life::Live {
            // It was rekeyed before its first packet came: that takes nothing back, however late.
            if let OutboundHalf::Waiting { at, .. } = &mut child.half {
                *at = child.expires_at;
            }
            return;
        }
        let Some(path) = child.install_outbound(ctx) else { return };
        let info = child.info.clone();
        for other in self.children.iter_mut().filter(|c| c.inbound != inbound && c.sends()) {
            other.half = OutboundHalf::Superseded;
        }
        if self.standing == Standing::Current {
            ctx.effects.push_back(Effect::Switched { tunnel, path });
        }
        ctx.events.push_back(if others {
            Event::ChildRekeyed { tunnel, info }
        } else {
            Event::ChildUp { tunnel, info }
        });
    }

    /// What takes over from a Child SA that sends, and waits for that. There is none for one that never
    /// sent: a redundant one says nothing about whether the peer has the other.
    fn heir(&self, inbound: Spi) -> Option<&ChildSa> {
        self.children.iter().find(|c| c.inbound == inbound && c.sends())?;
        self.live().filter(|c| c.inbound != inbound && c.is_waiting())
    }

    /// Make before break: nothing is sent any more on the Child SA that we are about to delete.
    /// Returns `false` if its successor cannot take over, because the peer may not have it yet.
    fn hand_over(&mut self, inbound: Spi, ctx: &mut Context) -> bool {
        let Some(heir) = self.heir(inbound) else { return true };
        let (heir, waits) = (heir.inbound, heir.is_unconfirmed(ctx.now));
        if !waits {
            self.switch_to(heir, ctx);
        }
        !waits
    }

    /// The Child SA is history for new traffic; if nobody deletes it, we do in the end.
    pub(crate) fn replaced(&mut self, inbound: Spi, ctx: &Context) {
        if let Some(child) = self.child(inbound) {
            if child.life == Life::Live {
                child.life = Life::Replaced;
            }
            child.expires_at = child.expires_at.min(ctx.now + REDUNDANT);
        }
    }

    /// Ends both halves. What came late is still received for a while.
    pub(crate) fn remove_child(&mut self, inbound: Spi, reason: DownReason, ctx: &mut Context) {
        let Some(at) = self.children.iter().position(|c| c.inbound == inbound) else { return };
        let tunnel = self.peer.tunnel;
        let sends = self.children.get(at).is_some_and(ChildSa::sends);
        // It takes over before the half that sends goes.
        if let Some(heir) = self.heir(inbound).map(|c| c.inbound) {
            self.switch_to(heir, ctx);
        }
        let child = self.children.remove(at);
        if !child.is_waiting() {
            ctx.events.push_back(Event::RemoveOutbound { tunnel, spi: child.outbound });
        }
        ctx.retire_inbound(tunnel, child.inbound);
        match self.live().map(|c| (c.inbound, c.sends())) {
            // It sent before, until traffic showed that the peer had only the one that goes now. Its
            // sequence numbers are used, and nothing may begin them again.
            Some((live, false)) if sends => self.want(Job::RekeyChild(live)),
            Some(_) => {}
            None if self.revive(ctx) => {}
            None => ctx.effects.push_back(Effect::ChildGone { tunnel, reason }),
        }
    }

    /// What took its place went first, as the redundant one of two crossing rekeys does: the old
    /// Child SA carries the tunnel until the next rekey.
    fn revive(&mut self, ctx: &mut Context) -> bool {
        let sends = |c: &&mut ChildSa| c.life == Life::Replaced && c.sends();
        let Some(child) = self.children.iter_mut().rev().find(sends) else { return false };
        child.life = Life::Live;
        let spi = child.inbound;
        self.jobs.retain(|job| *job != Job::DeleteChild(spi));
        self.retry_soon(Job::RekeyChild(spi), ctx);
        true
    }

    /// Gives everything away that belongs to the tunnel rather than to the IKE SA.
    pub(crate) fn take_estate(&mut self, link: &Link) -> Estate {
        let ours = |job: &Job| {
            matches!(job, Job::DeleteIke | Job::RekeyIke | Job::Liveness | Job::RenewSilent)
        };
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.retain(|job| !ours(job));
        let mut retries = std::mem::take(&mut self.retries);
        retries.retain(|(_, job)| !ours(job));
        let children = std::mem::take(&mut self.children);
        let displaced = self.standing == Standing::Displaced;
        // What was asked on this IKE SA about addresses is asked again on the other.
        match self.pending {
            Some(Pending::UpdateAddresses(_)) => jobs.push_back(Job::UpdateAddresses),
            Some(Pending::CheckPath(_)) => jobs.push_back(Job::CheckPath),
            _ => {}
        }
        Estate {
            tunnel: self.peer.tunnel,
            children,
            jobs,
            retries,
            last_heard: link.last_heard,
            paths: link.paths(),
            candidate: self.candidate.take(),
            displaced,
        }
    }

    /// Takes another IKE SA's place.
    pub(crate) fn inherit(&mut self, link: &mut Link, estate: Estate, ctx: &mut Context) {
        self.children.extend(estate.children);
        self.jobs.extend(estate.jobs);
        self.retries.extend(estate.retries);
        link.continue_path(estate.paths);
        self.candidate = estate.candidate;
        link.last_heard = link.last_heard.max(estate.last_heard);
        if self.standing == Standing::Awaiting {
            self.expires_at = self.established + self.peer.ike_lifetime;
            self.standing = Standing::Current;
        }
        if estate.displaced {
            self.standing = Standing::Displaced;
            self.expires_at = self.expires_at.min(ctx.now + REDUNDANT);
            return;
        }
        let (tunnel, info) = (self.peer.tunnel, self.info(link));
        ctx.events.push_back(Event::IkeRekeyed { tunnel, info });
        self.begin_next(link, ctx);
    }

    /// Ends the IKE SA and everything under it at once.
    pub(crate) fn tear_down(&mut self, reason: DownReason, answer: bool, ctx: &mut Context) {
        let silent = self.is_replaced() || self.standing == Standing::Closing;
        self.drop_children(ctx, &reason);
        self.abandon_pending(ctx);
        self.standing = Standing::Ended { answer };
        if !silent {
            ctx.effects.push_back(Effect::Ended { tunnel: self.peer.tunnel, reason });
        }
    }

    /// Ends everything under the IKE SA, and deletes it at the peer.
    pub(crate) fn close(&mut self, link: &mut Link, reason: DownReason, ctx: &mut Context) {
        if matches!(self.standing, Standing::Closing | Standing::Ended { .. }) {
            return;
        }
        self.drop_children(ctx, &reason);
        let silent = self.is_replaced();
        self.standing = Standing::Closing;
        self.expires_at = ctx.now + REDUNDANT;
        self.want(Job::DeleteIke);
        self.begin_next(link, ctx);
        if !silent {
            ctx.effects.push_back(Effect::Ended { tunnel: self.peer.tunnel, reason });
        }
    }

    fn drop_children(&mut self, ctx: &mut Context, reason: &DownReason) {
        let tunnel = self.peer.tunnel;
        let children = std::mem::take(&mut self.children);
        let had = !children.is_empty();
        if self.is_replaced() && had {
            // The successor takes over before the old half goes, and what is under way arrives.
            children.iter().for_each(|child| ctx.retire_inbound(tunnel, child.inbound));
            let sending = children.iter().filter(|child| child.sends());
            let outbound: Vec<Spi> = sending.map(|child| child.outbound).collect();
            if !outbound.is_empty() {
                ctx.effects.push_back(Effect::Leave { tunnel, outbound });
            }
        } else {
            // The peer gave this IKE SA up for one that is being negotiated: what it sent before
            // arrives.
            let beside = *reason == DownReason::DeletedByPeer && ctx.siblings > 1;
            for child in children {
                if !child.is_waiting() {
                    ctx.events.push_back(Event::RemoveOutbound { tunnel, spi: child.outbound });
                }
                if beside {
                    ctx.retire_inbound(tunnel, child.inbound);
                } else {
                    ctx.remove_inbound(tunnel, child.inbound);
                }
            }
        }
        if had {
            ctx.effects.push_back(Effect::ChildGone { tunnel, reason: reason.clone() });
        }
    }

    /// Whether another IKE SA holds the tunnel now.
    fn is_replaced(&self) -> bool {
        matches!(self.standing, Standing::Replaced | Standing::Displaced)
    }

    /// The exchange in flight will never be answered.
    pub(crate) fn abandon_pending(&mut self, ctx: &mut Context) {
        if let Some(Pending::Child(started)) = self.pending.take() {
            ctx.release_spi(started.spi);
        }
    }
}
