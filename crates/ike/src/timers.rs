//! What time does to an IKE SA: retransmission, rekeys, lifetimes, liveness, keepalives.

use std::time::{Duration, Instant};

use sa::Spi;

use crate::child_sa::Life;
use crate::context::{Context, Effect};
use crate::diagnosis::Diagnosis;
use crate::established::{Established, Job, Pending, Standing};
use crate::event::{DownReason, Timer, Transmit, TransmitPayload};
use crate::ike_sa::{IkeSa, Phase, give_up};
use crate::link::Link;
use crate::window::Due;

impl IkeSa {
    /// When the next thing is due, and what.
    pub(crate) fn deadline(&self) -> Option<(Instant, Timer)> {
        let retransmit = self.link.window.deadline().map(|at| (at, Timer::Retransmit));
        let own = match &self.phase {
            Phase::AuthWait(s) => Some((s.expires_at, Timer::Expire)),
            Phase::Spent(s) => Some((s.expires_at, Timer::Expire)),
            Phase::Up(up) => Some(up.deadline(&self.link)),
            Phase::InitSent(_) | Phase::AuthSent(_) => None,
            Phase::Closed => return None,
        };
        [retransmit, own].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context) {
        self.retransmit(ctx);
        let Self { link, phase } = self;
        match phase {
            Phase::AuthWait(s) if s.expires_at <= ctx.now => {
                ctx.counters.half_open_expired += 1;
                *phase = Phase::Closed;
            }
            Phase::Spent(s) if s.expires_at <= ctx.now => *phase = Phase::Closed,
            Phase::Up(up) => {
                up.handle_timeout(link, ctx);
                self.after(ctx);
            }
            _ => {}
        }
    }

    fn retransmit(&mut self, ctx: &mut Context) {
        let peer = match &self.phase {
            Phase::InitSent(s) => &s.peer,
            Phase::AuthSent(s) => &s.peer,
            Phase::Up(s) => &s.peer,
            _ => return,
        };
        let path = self.link.path;
        // Where the peer is not known, it is asked at all places.
        let mut paths = vec![path];
        let others = [self.up().and_then(|up| up.candidate), Some(self.link.esp())];
        for other in others.into_iter().flatten() {
            if !paths.contains(&other) {
                paths.push(other);
            }
        }
        match self.link.window.due(&peer.retransmit, ctx.now) {
            None => {}
            Some(Due::Again(datagrams)) => {
                ctx.counters.retransmits += 1;
                for datagram in datagrams {
                    paths.iter().for_each(|path| ctx.transmit(*path, datagram.clone()));
                }
                self.link.last_sent = ctx.now;
            }
            Some(Due::GiveUp(tries, waited)) => self.give_up(tries, waited, ctx),
        }
    }

    /// Nobody answers.
    fn give_up(&mut self, tries: u32, waited: Duration, ctx: &mut Context) {
        ctx.counters.gave_up += 1;
        let Self { link, phase } = self;
        let remote = link.path.remote;
        match phase {
            Phase::InitSent(s) => {
                let hint = s.hint.take();
                let silent = Diagnosis::NoAnswer { remote, tries, waited, hint };
                let diagnosis = s.refused.take().unwrap_or(silent);
                *phase = give_up(link, &s.peer.clone(), diagnosis, ctx);
            }
            Phase::AuthSent(s) => {
                let diagnosis = s.no_answer(link, tries, waited);
                s.abandon(ctx);
                *phase = give_up(link, &s.peer.clone(), diagnosis, ctx);
            }
            Phase::Up(up) => up.peer_dead(link, Some((tries, waited)), ctx),
            _ => {}
        }
        self.after(ctx);
    }
}

impl Established {
    fn deadline(&self, link: &Link) -> (Instant, Timer) {
        let mut first = (self.expires_at, Timer::Lifetime);
        let mut due = |at, timer| first = first.min((at, timer));
        if self.standing == Standing::Current {
            due(self.rekey_at, Timer::Lifetime);
            self.retries.iter().for_each(|(at, _)| due(*at, Timer::Retry));
            self.liveness_at(link).into_iter().for_each(|at| due(at, Timer::Liveness));
            if link.nat.local && !self.children.is_empty() {
                due(link.last_sent + self.peer.nat_keepalive, Timer::Keepalive);
            }
        }
        for child in &self.children {
            due(child.expires_at, Timer::Lifetime);
            if child.life == Life::Live {
                due(child.info.rekey_at, Timer::Lifetime);
                child.switch_at().into_iter().for_each(|at| due(at, Timer::Switch));
            }
        }
        first
    }

    /// When we ask whether the peer lives, or, with a request in flight, when it is dead.
    fn liveness_at(&self, link: &Link) -> Option<Instant> {
        let dpd = self.peer.dpd;
        if dpd.idle.is_zero() {
            return None;
        }
        match link.window.tries() {
            None => Some(link.last_heard + dpd.idle),
            // A request that begins long after the last sign of life gets its fair time, too.
            Some((_, first)) => Some((link.last_heard + dpd.timeout).max(first + dpd.timeout / 2)),
        }
    }

    fn handle_timeout(&mut self, link: &mut Link, ctx: &mut Context) {
        if matches!(self.standing, Standing::Ended { .. }) {
            return;
        }
        if self.expires_at <= ctx.now {
            return self.expire(link, ctx);
        }
        self.time_children(ctx);
        if self.standing != Standing::Current {
            return;
        }
        if self.rekey_at <= ctx.now {
            // Once: what fails is tried again by the exchange itself.
            self.rekey_at = self.expires_at + Duration::from_secs(1);
            self.want(Job::RekeyIke);
        }
        let due = |(at, _): &(Instant, Job)| *at <= ctx.now;
        let jobs: Vec<Job> = self.retries.iter().filter(|r| due(r)).map(|(_, job)| *job).collect();
        self.retries.retain(|r| !due(r));
        jobs.into_iter().for_each(|job| self.want(job));
        if self.liveness_at(link).is_some_and(|at| at <= ctx.now) {
            if link.window.is_waiting() {
                return self.peer_dead(link, None, ctx);
            }
            self.want(Job::Liveness);
        }
        self.begin_next(link, ctx);
        self.keep_alive(link, ctx);
    }

    fn time_children(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        let of = |test: &dyn Fn(&crate::child_sa::ChildSa) -> bool, up: &Self| -> Vec<Spi> {
            up.children.iter().filter(|c| test(c)).map(|c| c.inbound).collect()
        };
        let waited = |c: &crate::child_sa::ChildSa| {
            c.life == Life::Live && c.switch_at().is_some_and(|at| at <= now)
        };
        for spi in of(&waited, self) {
            self.switch_to(spi, ctx);
        }
        for spi in of(&|c| c.life == Life::Live && c.info.rekey_at <= now, self) {
            if let Some(child) = self.child(spi) {
                child.info.rekey_at = child.expires_at + Duration::from_secs(1);
            }
            self.want(Job::RekeyChild(spi));
        }
        for spi in of(&|c| c.expires_at <= now, self) {
            // The end of a lifetime, or of the wait for the peer's DELETE: ours goes out once,
            // and if it cannot, the SA goes all the same.
            let deleting = self.child(spi).is_some_and(|c| c.life == Life::Deleting);
            if deleting || self.standing != Standing::Current {
                self.remove_child(spi, DownReason::Expired, ctx);
                continue;
            }
            if let Some(child) = self.child(spi) {
                child.expires_at = now + Duration::from_secs(60);
                child.expired = true;
            }
            self.want(Job::DeleteChild(spi));
        }
    }

    /// The IKE SA's own end.
    fn expire(&mut self, link: &mut Link, ctx: &mut Context) {
        match self.standing {
            Standing::Closing => self.tear_down(DownReason::Requested, false, ctx),
            Standing::Awaiting => {
                // Our rekey beside it was never answered; its own IKE SA settles what follows.
                self.standing = Standing::Replaced;
                self.close(link, DownReason::Expired, ctx);
            }
            _ => self.close(link, DownReason::Expired, ctx),
        }
    }

    fn keep_alive(&mut self, link: &mut Link, ctx: &mut Context) {
        let due = link.last_sent + self.peer.nat_keepalive;
        if !link.nat.local || self.children.is_empty() || due > ctx.now {
            return;
        }
        link.last_sent = ctx.now;
        let path = ctx.esp_path(link.esp());
        ctx.transmits.push_back(Transmit { path, payload: TransmitPayload::NatKeepalive });
    }

    /// The peer answers no more: nothing at all, or not the request that was sent so often and for
    /// so long.
    fn peer_dead(&mut self, link: &Link, unanswered: Option<(u32, Duration)>, ctx: &mut Context) {
        if let Some(Pending::RekeyIke(started)) = &self.pending
            && let Some((to, _)) = started.rival
        {
            // It answers nothing here, but its own rekey stands: that one has its own watch.
            let estate = Box::new(self.take_estate(link));
            ctx.effects.push_back(Effect::Inherit { to, estate });
            self.standing = Standing::Replaced;
            return self.tear_down(DownReason::Replaced, false, ctx);
        }
        if self.standing == Standing::Current {
            ctx.counters.dead_peers += 1;
        }
        let silence = ctx.now.saturating_duration_since(link.last_heard);
        self.tear_down(DownReason::PeerDead { silence, unanswered }, false, ctx);
    }
}
