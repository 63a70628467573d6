//! One IKE SA: its phase, and what a message means in it.

use std::time::{Duration, Instant};

use sa::{Path, TunnelId};

use crate::config::PeerConfig;
use crate::context::{Context, Effect};
use crate::diagnosis::{Diagnosis, Hint};
use crate::established::{Established, Job, Pending, Standing};
use crate::event::{DownReason, Event};
use crate::exchange::ike_auth::{AuthSent, AuthWait};
use crate::exchange::ike_sa_init::InitSent;
use crate::exchange::parts::Parts;
use crate::exchange::{
    create_child, create_child_responder, delete, informational, mobike, rekey_ike,
};
use crate::link::Link;
use crate::message::{ExchangeType, Message, Notify, NotifyType, Payload, parse_chain};
use crate::sealed::{Opened, Protection};
use crate::window::Incoming;

/// Time between two hints that have consequences.
pub(crate) const HINTS_APART: Duration = Duration::from_secs(5);

/// Where an IKE SA is in its life. A phase is consumed by the message that ends it.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Initiator: IKE_SA_INIT is out.
    InitSent(Box<InitSent>),
    /// Initiator: IKE_AUTH is out.
    AuthSent(Box<AuthSent>),
    /// Responder: IKE_SA_INIT was answered.
    AuthWait(Box<AuthWait>),
    /// Authenticated.
    Up(Box<Established>),
    /// Over, but its last answer may have been lost.
    Spent(Box<Spent>),
    /// Over.
    Closed,
}

/// An IKE SA that only answers its last request again.
#[derive(Debug)]
pub(crate) struct Spent {
    protection: Protection,
    pub(crate) expires_at: Instant,
}

impl Spent {
    pub(crate) fn new(protection: Protection, ctx: &Context) -> Self {
        Self { protection, expires_at: ctx.now + ctx.config.half_open_timeout / 2 }
    }
}

#[derive(Debug)]
pub(crate) struct IkeSa {
    pub(crate) link: Link,
    pub(crate) phase: Phase,
}

/// An attempt of ours ends; says why.
pub(crate) fn give_up(
    link: &mut Link,
    peer: &PeerConfig,
    diagnosis: Diagnosis,
    ctx: &mut Context,
) -> Phase {
    link.window.answered();
    ctx.failed(Some(peer.tunnel), link.path.remote, diagnosis);
    ctx.effects.push_back(Effect::Ended { tunnel: peer.tunnel, reason: DownReason::Failed });
    Phase::Closed
}

impl IkeSa {
    /// The tunnel, once it is known.
    pub(crate) fn tunnel(&self) -> Option<TunnelId> {
        match &self.phase {
            Phase::InitSent(s) => Some(s.peer.tunnel),
            Phase::AuthSent(s) => Some(s.peer.tunnel),
            Phase::Up(s) => Some(s.peer.tunnel),
            Phase::AuthWait(_) | Phase::Spent(_) | Phase::Closed => None,
        }
    }

    /// The authenticated state.
    pub(crate) fn up(&self) -> Option<&Established> {
        match &self.phase {
            Phase::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Link and authenticated state, to work with both.
    pub(crate) fn up_mut(&mut self) -> Option<(&mut Link, &mut Established)> {
        match &mut self.phase {
            Phase::Up(up) => Some((&mut self.link, up)),
            _ => None,
        }
    }

    /// Whether it counts against the half-open limits.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::AuthWait(_))
    }

    /// Whether the tunnel has this one, or will have it: not one that is being closed, nor one of the
    /// peer's rekey that only follows if ours in the IKE SA that holds the tunnel says so.
    pub(crate) fn holds_tunnel(&self) -> bool {
        match &self.phase {
            Phase::InitSent(_) | Phase::AuthSent(_) => true,
            Phase::Up(up) => up.standing == Standing::Current,
            Phase::AuthWait(_) | Phase::Spent(_) | Phase::Closed => false,
        }
    }

    fn protection(&mut self) -> Option<&mut Protection> {
        match &mut self.phase {
            Phase::AuthSent(s) => Some(&mut s.protection),
            Phase::AuthWait(s) => Some(&mut s.protection),
            Phase::Up(s) => Some(&mut s.protection),
            Phase::Spent(s) => Some(&mut s.protection),
            Phase::InitSent(_) | Phase::Closed => None,
        }
    }

    /// A datagram whose header names this IKE SA.
    pub(crate) fn handle(
        &mut self,
        path: Path,
        (datagram, message): (&[u8], &Message),
        ctx: &mut Context,
    ) {
        let header = message.header;
        if header.initiator == self.link.initiator {
            ctx.counters.malformed += 1;
            return;
        }
        if message.encrypted.is_none() {
            return self.handle_plain(path, (datagram, message), ctx);
        }
        let incoming = self.link.window.incoming(header.message_id);
        let wanted = if header.response {
            self.link.window.is_answer(header.message_id)
        } else {
            incoming != Incoming::Outside
        };
        if !wanted {
            ctx.counters.outside_window += 1;
            return;
        }
        let again = !header.response && incoming == Incoming::Again;
        let Some(protection) = self.protection() else {
            ctx.counters.out_of_phase += 1;
            return;
        };
        let opened = protection.open(datagram, message, !again);
        if matches!(opened, Opened::Unauthentic) {
            ctx.counters.unauthentic += 1;
            return;
        }
        if again {
            // Only the first of several fragments asks for the answer (RFC 7383 2.6.1).
            if !matches!(opened, Opened::Piece { first: false }) {
                self.link.respond_again(path, ctx);
            }
            return;
        }
        let Opened::Whole(inner, chain) = opened else { return };
        self.link.heard(ctx.now);
        match (parse_chain(inner, &chain), header.response) {
            (Ok(payloads), true) => {
                self.handle_response(path, header.exchange, payloads.into(), ctx);
            }
            (Ok(payloads), false) => self.handle_request(path, message, payloads.into(), ctx),
            (Err(error), false) => {
                ctx.counters.malformed += 1;
                self.refuse(path, message, error.notify(), ctx);
            }
            (Err(_), true) => {
                ctx.counters.malformed += 1;
                let parts = Parts::default();
                self.handle_response(path, header.exchange, parts, ctx);
            }
        }
    }

    /// Authentic, but not to be understood: says so. Before authentication that is the end.
    fn refuse(&mut self, path: Path, message: &Message, notify: Notify, ctx: &mut Context) {
        let answer = [Payload::Notify(notify)];
        let (exchange, id) = (message.header.exchange, message.header.message_id);
        let Self { link, phase } = self;
        match phase {
            Phase::Up(up) => {
                link.respond(&mut up.protection, exchange, id, &answer, (path, &mut *ctx));
            }
            Phase::AuthWait(_) => {
                let Phase::AuthWait(mut wait) = std::mem::replace(phase, Phase::Closed) else {
                    return;
                };
                link.respond(&mut wait.protection, exchange, id, &answer, (path, &mut *ctx));
                *phase = Phase::Spent(Box::new(Spent::new(wait.protection, ctx)));
            }
            _ => {}
        }
    }

    /// A message that nothing protects: the response to IKE_SA_INIT, or a hint.
    fn handle_plain(
        &mut self,
        path: Path,
        (datagram, message): (&[u8], &Message),
        ctx: &mut Context,
    ) {
        let header = &message.header;
        let init = header.exchange == ExchangeType::IKE_SA_INIT && header.response;
        let Self { link, phase } = self;
        match phase {
            Phase::InitSent(_) if init && link.window.is_answer(header.message_id) => {
                let Phase::InitSent(state) = std::mem::replace(phase, Phase::Closed) else {
                    return;
                };
                *phase = state.process_response(link, path, (datagram, message), ctx);
            }
            // An answer that came twice, or another one.
            Phase::AuthSent(state) if init => {
                ctx.counters.outside_window += 1;
                state.doubt(link, path, message, ctx.now);
            }
            _ if init => ctx.counters.outside_window += 1,
            _ => self.handle_hint(message, ctx),
        }
    }

    /// Something unauthenticated about this IKE SA. It may make us ask, and nothing else
    /// (RFC 7296 2.4, 2.21.4): whether the peer lives, and, if it says that it lost this IKE SA,
    /// for another one beside it, which takes its place only when the peer is authenticated again.
    fn handle_hint(&mut self, message: &Message, ctx: &mut Context) {
        let error = message.payloads.iter().find_map(|p| match p {
            Payload::Notify(n) if n.kind.is_error() => Some(n.kind),
            _ => None,
        });
        let Some(kind) = error.filter(|_| message.header.response) else {
            ctx.counters.out_of_phase += 1;
            return;
        };
        ctx.counters.hints += 1;
        match &mut self.phase {
            Phase::InitSent(s) => s.hint = Some(Hint::Notify(kind)),
            Phase::AuthSent(s) => {
                s.hint = Some(Hint::Notify(kind));
                if kind == NotifyType::INVALID_IKE_SPI {
                    // It restarted after IKE_SA_INIT, or that was answered by somebody else.
                    self.link.window.hurry(ctx.now);
                }
            }
            Phase::Up(up) if up.standing == Standing::Closing => {
                // The peer does not know what we are deleting anyway.
                up.tear_down(DownReason::Requested, false, ctx);
                self.after(ctx);
            }
            Phase::Up(up) => {
                if kind == NotifyType::INVALID_IKE_SPI && up.is_lost(&self.link, ctx) {
                    ctx.effects.push_back(Effect::Reestablish(up.peer.tunnel));
                }
                self.ask_whether_alive(ctx);
            }
            _ => {}
        }
    }

    /// Because of a hint: not for each of many.
    pub(crate) fn ask_whether_alive(&mut self, ctx: &mut Context) {
        let Some((link, up)) = self.up_mut() else { return };
        if up.hint_after <= ctx.now {
            up.hint_after = ctx.now + HINTS_APART;
            up.want(Job::Liveness);
            up.begin_next(link, ctx);
        }
    }

    fn handle_request(&mut self, path: Path, message: &Message, parts: Parts, ctx: &mut Context) {
        let (exchange, id) = (message.header.exchange, message.header.message_id);
        let Self { link, phase } = self;
        if matches!(phase, Phase::AuthWait(_)) {
            // CVE-2014-2338: nothing but IKE_AUTH before the peer is authenticated.
            if exchange != ExchangeType::IKE_AUTH {
                ctx.counters.out_of_phase += 1;
                return;
            }
            if let Phase::AuthWait(wait) = std::mem::replace(phase, Phase::Closed) {
                *phase = wait.process_request(link, path, parts, ctx);
            }
            return;
        }
        let Phase::Up(up) = phase else {
            ctx.counters.out_of_phase += 1;
            return;
        };
        move_to(link, up, path, &parts, ctx);
        // It has the answer to its last request: its window is 1.
        up.children.iter_mut().for_each(|child| child.known = true);
        let answer = match exchange {
            ExchangeType::CREATE_CHILD_SA => {
                create_child_responder::process_request(up, link, &parts, ctx)
            }
            ExchangeType::INFORMATIONAL => {
                informational::process_request(up, link, (path, &parts), ctx)
            }
            _ => {
                ctx.counters.out_of_phase += 1;
                vec![Payload::notify(NotifyType::INVALID_SYNTAX, Vec::new())]
            }
        };
        link.respond(&mut up.protection, exchange, id, &answer, (path, &mut *ctx));
        up.doubt_silent(ctx);
        up.begin_next(link, ctx);
        self.after(ctx);
    }

    fn handle_response(
        &mut self,
        path: Path,
        exchange: ExchangeType,
        parts: Parts,
        ctx: &mut Context,
    ) {
        let Self { link, phase } = self;
        match phase {
            Phase::AuthSent(_) if exchange == ExchangeType::IKE_AUTH => {
                if let Phase::AuthSent(state) = std::mem::replace(phase, Phase::Closed) {
                    *phase = state.process_response(link, parts, ctx);
                }
            }
            Phase::Up(up) => {
                let tries = link.window.answered();
                match up.pending.take() {
                    Some(Pending::Child(started)) => {
                        create_child::process_response(up, link, started, &parts, ctx);
                    }
                    Some(Pending::RekeyIke(started)) => {
                        rekey_ike::process_response(up, link, started, &parts, ctx);
                    }
                    Some(Pending::DeleteChild(spi)) => delete::child_answered(up, spi, ctx),
                    Some(Pending::DeleteIke) => delete::ike_answered(up, ctx),
                    Some(Pending::UpdateAddresses(from)) => {
                        mobike::update_answered(up, link, (from, tries), &parts, ctx);
                    }
                    Some(Pending::CheckPath(check)) => {
                        mobike::check_answered(up, link, &check, (path, &parts), ctx);
                    }
                    Some(Pending::Liveness) => {
                        mobike::liveness_answered(up, link, (&parts, tries), ctx)
                    }
                    None => {}
                }
                up.doubt_silent(ctx);
                up.begin_next(link, ctx);
            }
            _ => ctx.counters.out_of_phase += 1,
        }
        self.after(ctx);
    }

    /// An IKE SA that ended keeps at most its last answer.
    pub(crate) fn after(&mut self, ctx: &Context) {
        let Phase::Up(up) = &self.phase else { return };
        let Standing::Ended { answer } = up.standing else { return };
        self.link.window.answered();
        if let Phase::Up(up) = std::mem::replace(&mut self.phase, Phase::Closed)
            && answer
        {
            self.phase = Phase::Spent(Box::new(Spent::new(up.protection, ctx)));
        }
    }
}

/// The peer's NAT gave it another address or port: follow an authentic, new request, if we are
/// not behind a NAT ourselves (RFC 7296 2.23).
fn move_to(link: &mut Link, up: &mut Established, path: Path, parts: &Parts, ctx: &mut Context) {
    if up.mobike {
        // Whoever moves on purpose says so; whatever else it is has to prove itself.
        if !parts.has(NotifyType::UPDATE_SA_ADDRESSES) {
            mobike::observe(up, link, path, ctx);
        }
        return;
    }
    if path == link.path || (link.nat.local && !link.nat.remote) {
        return;
    }
    link.path = path;
    if up.standing == Standing::Current {
        let path = ctx.esp_path(path);
        ctx.events.push_back(Event::PathChanged { tunnel: up.peer.tunnel, path });
    }
}
