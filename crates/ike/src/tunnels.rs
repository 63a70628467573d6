//! What concerns several IKE SAs of a tunnel: commands, duplicates, inheritance, and when the
//! tunnel as a whole is up or down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sa::{Path, Spi, TunnelId};

use crate::child_sa::{ChildSa, Life};
use crate::collision::ours_is_redundant;
use crate::context::Effect;
use crate::endpoint::Endpoint;
use crate::established::{Contact, Established, Job, MAX_SIBLINGS, REDUNDANT, RIVAL, Standing};
use crate::event::{Command, DownReason, Event};
use crate::exchange::mobike;
use crate::ike_sa::{IkeSa, Phase};
use crate::link::Link;

impl Endpoint {
    /// Does what the owner wants. Commands for tunnels that do not exist do nothing.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        self.ctx.now = now;
        match command {
            Command::Initiate(tunnel) => match self.current(tunnel) {
                Some(spi) => self.with(spi, |sa, ctx| {
                    if let Some((link, up)) = sa.up_mut() {
                        up.want(Job::CreateChild);
                        up.begin_next(link, ctx);
                    }
                }),
                None if self.is_negotiating(tunnel) => {}
                None => self.initiate(tunnel, false),
            },
            Command::Reestablish(tunnel) if self.is_negotiating(tunnel) => {}
            Command::Reestablish(tunnel) => {
                let beside = self.current(tunnel).is_some();
                self.initiate(tunnel, beside);
            }
            Command::RekeyChild(tunnel) => self.want_child(tunnel, Job::RekeyChild),
            Command::DeleteChild(tunnel) => self.want_child(tunnel, Job::DeleteChild),
            Command::RekeyIke(tunnel) => self.want(tunnel, Job::RekeyIke),
            Command::Liveness(tunnel) => self.want(tunnel, Job::Liveness),
            Command::Delete(tunnel) => self.close_tunnel(tunnel, &DownReason::Requested),
            Command::UnknownEsp { spi, path, octets } => self.tell_invalid_spi(spi, path, octets),
            Command::InboundSeen { tunnel, spi } => self.inbound_seen(tunnel, spi),
            Command::TrafficSeen { tunnel } => {
                self.on_current(tunnel, |link, _, ctx| link.heard(ctx.now));
            }
            Command::PathSilent { tunnel, silent } => self.on_current(tunnel, |link, up, ctx| {
                up.silent = silent;
                if silent && !up.peer.dpd.idle.is_zero() {
                    up.want(Job::Liveness);
                    up.begin_next(link, ctx);
                }
            }),
            Command::TrafficSent { tunnel } => {
                self.on_current(tunnel, |link, _, ctx| link.last_sent = ctx.now);
            }
            Command::PathObserved { tunnel, path } => self.on_current(tunnel, |link, up, ctx| {
                link.heard(ctx.now);
                if up.mobike {
                    mobike::observe(up, link, path, ctx);
                    up.begin_next(link, ctx);
                } else if link.path != path {
                    link.settle_path(path);
                    let path = ctx.esp_path(path);
                    ctx.events.push_back(Event::PathChanged { tunnel, path });
                }
            }),
            Command::LocalAddressChanged { tunnel, local } => self.move_local(tunnel, local),
            Command::ReplacePeer(peer) => {
                let tunnel = peer.tunnel;
                let peer = Arc::new(*peer);
                self.ctx.peers.insert(Arc::clone(&peer));
                self.on_current(tunnel, |_, up, _| up.peer = peer);
            }
        }
        self.settle();
    }

    /// The IKE SA that holds the tunnel's Child SAs.
    pub(crate) fn current(&self, tunnel: TunnelId) -> Option<u64> {
        let is_current = |spi: &u64| {
            let up = self.sas.get(spi).and_then(IkeSa::up);
            up.is_some_and(|up| up.standing == Standing::Current)
        };
        // Two for a moment while duplicates are sorted out: the one with a Child SA that sends.
        let best = |spi: &u64| {
            let up = self.sas.get(spi).and_then(IkeSa::up);
            up.map(|up| up.children.iter().filter(|c| c.sends()).count())
        };
        self.index.of(tunnel).filter(is_current).max_by_key(best)
    }

    pub(crate) fn is_negotiating(&self, tunnel: TunnelId) -> bool {
        self.index.of(tunnel).any(|spi| {
            let phase = self.sas.get(&spi).map(|sa| &sa.phase);
            matches!(phase, Some(Phase::InitSent(_) | Phase::AuthSent(_)))
        })
    }

    fn on_current(
        &mut self,
        tunnel: TunnelId,
        work: impl FnOnce(&mut Link, &mut Established, &mut crate::context::Context),
    ) {
        let Some(spi) = self.current(tunnel) else { return };
        self.with(spi, |sa, ctx| {
            if let Some((link, up)) = sa.up_mut() {
                work(link, up, ctx);
            }
        });
    }

    fn move_local(&mut self, tunnel: TunnelId, local: IpAddr) {
        for spi in self.of(tunnel) {
            self.with(spi, |sa, ctx| match &mut sa.phase {
                Phase::InitSent(_) | Phase::AuthSent(_) => sa.link.move_local(local, ctx),
                Phase::Up(up) if up.standing == Standing::Current => {
                    mobike::move_local(up, &mut sa.link, local, ctx);
                }
                _ => {}
            });
        }
    }

    fn want(&mut self, tunnel: TunnelId, job: Job) {
        self.on_current(tunnel, |link, up, ctx| {
            up.want(job);
            up.begin_next(link, ctx);
        });
    }

    fn want_child(&mut self, tunnel: TunnelId, job: impl FnOnce(Spi) -> Job) {
        self.on_current(tunnel, |link, up, ctx| {
            if let Some(spi) = up.live().map(|c| c.inbound) {
                up.want(job(spi));
                up.begin_next(link, ctx);
            }
        });
    }

    fn inbound_seen(&mut self, tunnel: TunnelId, spi: Spi) {
        self.on_current(tunnel, |link, up, ctx| {
            link.heard(ctx.now);
            if let Some(child) = up.child(spi) {
                child.known = true;
            }
            // Not one whose rekey of ours is in flight: that answer decides.
            up.switch_to(spi, ctx);
        });
    }

    /// Ends all SAs of a tunnel, with DELETE where there is someone to hear it.
    pub(crate) fn close_tunnel(&mut self, tunnel: TunnelId, reason: &DownReason) {
        for spi in self.of(tunnel) {
            self.close(spi, reason);
        }
        // However many IKE SAs and attempts it was, the tunnel ends once.
        let mut ended = false;
        self.ctx.effects.retain(|effect| {
            let another = matches!(effect, Effect::Ended { tunnel: of, .. } if *of == tunnel);
            !(another && std::mem::replace(&mut ended, true))
        });
        self.settle();
    }

    fn of(&self, tunnel: TunnelId) -> Vec<u64> {
        self.index.of(tunnel).collect()
    }

    fn close(&mut self, spi: u64, reason: &DownReason) {
        self.with(spi, |sa, ctx| {
            let tunnel = sa.tunnel();
            match &mut sa.phase {
                Phase::InitSent(_) | Phase::AuthSent(_) => {
                    if let Phase::AuthSent(s) = &sa.phase {
                        s.abandon(ctx);
                    }
                    sa.phase = Phase::Closed;
                    if let Some(tunnel) = tunnel {
                        let reason = reason.clone();
                        ctx.effects.push_back(Effect::Ended { tunnel, reason });
                    }
                }
                Phase::Up(up) => up.close(&mut sa.link, reason.clone(), ctx),
                _ => {}
            }
        });
    }

    /// Does what IKE SAs asked of the endpoint, until nothing is left.
    pub(crate) fn settle(&mut self) {
        while let Some(effect) = self.ctx.effects.pop_front() {
            match effect {
                Effect::Adopt(sa) => self.adopt(*sa),
                Effect::Inherit { to, estate } => {
                    let mut estate = Some(*estate);
                    self.with(to, |sa, ctx| {
                        // Not taken out of its place where there is nobody to take it.
                        if let Some((link, up)) = sa.up_mut()
                            && let Some(estate) = estate.take()
                        {
                            up.inherit(link, estate, ctx);
                        }
                    });
                    if let Some(estate) = estate {
                        self.bury(estate);
                    }
                }
                Effect::Close(spi) => self.with(spi, |sa, ctx| {
                    if let Some((link, up)) = sa.up_mut() {
                        // Redundant, not the tunnel's: it goes without a word to the owner.
                        up.standing = Standing::Replaced;
                        up.close(link, DownReason::Replaced, ctx);
                    }
                }),
                Effect::Redundant(spi) => self.with(spi, |sa, ctx| {
                    if let Some((_, up)) = sa.up_mut() {
                        up.standing = Standing::Replaced;
                        up.expires_at = ctx.now + RIVAL;
                    }
                }),
                Effect::Reestablish(tunnel) => {
                    if !self.is_negotiating(tunnel) {
                        self.initiate(tunnel, true);
                    }
                }
                Effect::Authenticated { spi, tunnel, initial_contact } => {
                    self.replace_duplicates(spi, tunnel, initial_contact);
                }
                Effect::Switched { tunnel, path } => {
                    self.follow(tunnel, path);
                    self.end_displaced(tunnel);
                }
                Effect::Leave { tunnel, outbound } => {
                    self.switch_current(tunnel);
                    let events = outbound.into_iter();
                    let events = events.map(|spi| Event::RemoveOutbound { tunnel, spi });
                    self.ctx.events.extend(events);
                }
                Effect::Ended { tunnel, reason } => {
                    let held = self
                        .of(tunnel)
                        .iter()
                        .any(|spi| self.sas.get(spi).is_some_and(IkeSa::holds_tunnel));
                    if !held {
                        self.ctx.events.push_back(Event::IkeDown { tunnel, reason });
                    }
                }
                Effect::ChildGone { tunnel, reason } => {
                    let held = self.of(tunnel).iter().any(|spi| {
                        self.sas.get(spi).and_then(IkeSa::up).is_some_and(|up| up.live().is_some())
                    });
                    let deleted = reason == DownReason::DeletedByPeer;
                    let held = held || (deleted && self.restore(tunnel));
                    if !held {
                        self.ctx.events.push_back(Event::ChildDown { tunnel, reason });
                    }
                }
            }
        }
    }

    /// Child SAs whose new IKE SA is gone before they could move.
    fn bury(&mut self, estate: crate::established::Estate) {
        let tunnel = estate.tunnel;
        let sending = estate.children.iter().filter(|child| child.sends());
        let outbound: Vec<Spi> = sending.map(|child| child.outbound).collect();
        // If the peer was authenticated anew, that IKE SA takes over first.
        self.ctx.effects.push_back(Effect::Leave { tunnel, outbound });
        for child in estate.children {
            // What the peer sent before it knew arrives.
            self.ctx.retire_inbound(tunnel, child.inbound);
            let reason = DownReason::Replaced;
            self.ctx.effects.push_back(Effect::ChildGone { tunnel, reason });
        }
        let reason = DownReason::Replaced;
        self.ctx.effects.push_back(Effect::Ended { tunnel, reason });
    }

    /// A peer was authenticated anew: one IKE SA for each tunnel stays.
    ///
    /// If both sides began at the same time, both see both, and the lowest of the four nonces
    /// says which one goes, as for rekeys; whoever began that one deletes it. Otherwise the new
    /// one stays: the peer restarted, or was told to begin anew. Its Child SA is used at once if
    /// we began it, or if there is nothing else to use.
    fn replace_duplicates(&mut self, new: u64, tunnel: TunnelId, initial_contact: bool) {
        let Some(contact) = self.contact(new) else { return };
        for old in self.of(tunnel).into_iter().filter(|spi| *spi != new) {
            let Some(other) = self.contact(old) else {
                // An attempt of ours that has not come to IKE_AUTH: the peer was faster.
                if self.sas.get(&old).is_some_and(|sa| matches!(sa.phase, Phase::InitSent(_))) {
                    self.close(old, &DownReason::Replaced);
                }
                continue;
            };
            if !cross(&contact, &other) {
                self.replace(old, contact.ours, initial_contact);
                continue;
            }
            let (mine, theirs) = if contact.ours { (&contact, &other) } else { (&other, &contact) };
            let mine_goes = ours_is_redundant(&mine.lowest_nonce, &theirs.lowest_nonce);
            let (loser, winner) = if mine_goes == contact.ours { (new, old) } else { (old, new) };
            let waits = self.sas.get(&winner).and_then(IkeSa::up).and_then(Established::live);
            let waits = waits.is_some_and(ChildSa::is_waiting);
            self.retire(loser, mine_goes, waits);
        }
        let displaced = self.of(tunnel).iter().any(|spi| self.is_displaced(*spi));
        let current = self.current(tunnel).and_then(|spi| self.contact(spi));
        if !displaced || current.is_some_and(|current| current.ours) {
            self.switch_current(tunnel);
        }
        self.with(new, |sa, ctx| {
            if let Some((link, up)) = sa.up_mut().filter(|(_, up)| up.standing == Standing::Current)
            {
                up.begin_next(link, ctx);
            }
        });
        self.limit_siblings(tunnel);
    }

    /// A peer that is authenticated again and again, and deletes nothing, has no more IKE SAs than one
    /// that rekeys: of those that do not hold the tunnel the oldest goes without a word, but last the
    /// one whose Child SA carries the traffic.
    fn limit_siblings(&mut self, tunnel: TunnelId) {
        while self.index.count(tunnel) > MAX_SIBLINGS {
            let up = |spi: &u64| {
                let up = self.sas.get(spi).and_then(IkeSa::up)?;
                if matches!(up.standing, Standing::Current | Standing::Awaiting) {
                    return None;
                }
                let sends = up.children.iter().any(ChildSa::sends);
                Some((sends, up.established, *spi))
            };
            let oldest = self.index.of(tunnel).filter_map(|spi| up(&spi)).min();
            let Some((.., oldest)) = oldest else { return };
            self.with(oldest, |sa, ctx| {
                if let Some((_, up)) = sa.up_mut() {
                    up.tear_down(DownReason::Replaced, false, ctx);
                }
                sa.after(ctx);
            });
        }
    }

    /// The tunnel sends on the Child SA of its IKE SA: on the oldest if a rekey is under way, because
    /// the peer is not known to have the new one before it uses it.
    fn switch_current(&mut self, tunnel: TunnelId) {
        self.on_current(tunnel, |_, up, ctx| {
            let mut children = up.children.iter().filter(|c| c.life != Life::Deleting);
            let first = children.find(|c| c.is_waiting());
            let first = first.filter(|_| !up.children.iter().any(ChildSa::sends));
            if let Some(spi) = first.map(|c| c.inbound) {
                up.switch_to(spi, ctx);
            }
        });
    }

    /// A Child SA that was negotiated on `path` is in use now: the peer may have moved since.
    fn follow(&mut self, tunnel: TunnelId, path: Path) {
        self.on_current(tunnel, |link, _, ctx| {
            let now = ctx.esp_path(link.esp());
            if now != path {
                ctx.events.push_back(Event::PathChanged { tunnel, path: now });
            }
        });
    }

    fn is_displaced(&self, spi: u64) -> bool {
        let up = self.sas.get(&spi).and_then(IkeSa::up);
        up.is_some_and(|up| up.standing == Standing::Displaced)
    }

    /// The peer uses its new IKE SA: the old one is deleted, if the peer has not done it yet.
    fn end_displaced(&mut self, tunnel: TunnelId) {
        let mut displaced = self.of(tunnel);
        displaced.retain(|spi| self.is_displaced(*spi));
        for spi in displaced {
            self.with(spi, |sa, ctx| {
                if let Some((link, up)) = sa.up_mut() {
                    up.close(link, DownReason::Replaced, ctx);
                }
            });
        }
    }

    fn contact(&self, spi: u64) -> Option<Contact> {
        let up = self.sas.get(&spi)?.up()?;
        let stands = matches!(up.standing, Standing::Current | Standing::Awaiting);
        stands.then(|| up.contact.clone())
    }

    /// An old IKE SA of a peer that is here anew. With INITIAL_CONTACT the peer has forgotten it;
    /// without, it is told: at once if the new one is ours and so known to stand on both sides; else
    /// when the peer shows that it has the new one. Until then it may send on any of the old, also on
    /// one that it made by a rekey a moment ago.
    fn replace(&mut self, old: u64, ours: bool, initial_contact: bool) {
        self.with(old, |sa, ctx| {
            let Some((link, up)) = sa.up_mut() else { return };
            if initial_contact {
                up.tear_down(DownReason::Replaced, false, ctx);
            } else if ours {
                up.standing = Standing::Replaced;
                up.close(link, DownReason::Replaced, ctx);
            } else {
                up.standing = Standing::Displaced;
                up.expires_at = up.expires_at.min(ctx.now + REDUNDANT);
            }
            sa.after(ctx);
        });
    }

    /// The redundant one of two that crossed: ours is deleted, but not while it is the only one
    /// that the peer is known to have (`waits`); the peer's waits for its DELETE.
    fn retire(&mut self, loser: u64, ours: bool, waits: bool) {
        self.with(loser, |sa, ctx| {
            let Some((link, up)) = sa.up_mut() else { return };
            if ours && waits && !up.children.iter().all(ChildSa::is_waiting) {
                up.standing = Standing::Displaced;
                up.expires_at = up.expires_at.min(ctx.now + REDUNDANT);
                return;
            }
            up.standing = Standing::Replaced;
            if ours {
                up.close(link, DownReason::Replaced, ctx);
            } else {
                // Its Child SA still receives: the peer may use it until it knows.
                let spis: Vec<Spi> = up.children.iter().map(|c| c.inbound).collect();
                spis.into_iter().for_each(|spi| up.replaced(spi, ctx));
                // A peer that knows no rule for this keeps both: then we delete it.
                up.expires_at = ctx.now + ctx.config.outbound_switch;
            }
        });
    }

    /// The peer deleted the IKE SA that was to stay of two, and means the one that waits for its
    /// DELETE: messages that overtake each other let only one side see that the two crossed.
    fn restore(&mut self, tunnel: TunnelId) -> bool {
        let retired = |spi: &u64| {
            let up = self.sas.get(spi).and_then(IkeSa::up)?;
            let waits = up.standing == Standing::Replaced && !up.contact.ours;
            // What was used for sending before cannot be installed anew: then the tunnel begins anew.
            let idle = |c: &&ChildSa| c.life == Life::Replaced && c.is_waiting();
            let child = up.children.iter().rev().find(idle)?;
            waits.then_some((*spi, child.inbound))
        };
        let Some((spi, inbound)) = self.of(tunnel).iter().find_map(retired) else { return false };
        self.with(spi, |sa, ctx| {
            let Some((_, up)) = sa.up_mut() else { return };
            up.standing = Standing::Current;
            up.expires_at = up.established + up.peer.ike_lifetime;
            let lifetime = up.peer.child_lifetime.time;
            if let Some(child) = up.child(inbound) {
                child.life = Life::Live;
                child.expires_at = ctx.now + lifetime;
            }
        });
        self.switch_current(tunnel);
        true
    }
}

/// Whether two IKE SAs of the same peer were begun by both sides before either knew of the other.
/// Both sides come to the same answer, each began its own before the other's was authenticated,
/// unless messages overtake each other: then [`Endpoint::restore`] follows the peer.
fn cross(a: &Contact, b: &Contact) -> bool {
    a.ours != b.ours && a.started <= b.authenticated && b.started <= a.authenticated
}
