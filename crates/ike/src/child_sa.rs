//! A Child SA: negotiated values, its life, and its outbound half, which are two things.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sa::{InboundSa, OutboundSa, Path, Secret, SelectorSet, Spi};

use crate::config::PeerConfig;
use crate::context::Context;
use crate::crypto::child_keymat;
use crate::diagnosis::{Diagnosis, Subject};
use crate::event::{ChildInfo, Event};
use crate::message::{Notify, NotifyType, Payload, Proposal};
use crate::suite::{ChosenEsp, Hash, KeGroup};

/// The most selectors that we send for one side; beyond that we narrow to the first and say
/// ADDITIONAL_TS_POSSIBLE (RFC 7296 2.9).
const MAX_SELECTORS: usize = 32;

/// How long an answer of ours may be on its way to a peer that asks for it again and again.
const UNCONFIRMED: Duration = Duration::from_secs(60);

/// Where in its life a Child SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It carries the tunnel's traffic.
    Live,
    /// Another Child SA took its place; its DELETE is still to come.
    Replaced,
    /// Our DELETE is under way.
    Deleting,
}

/// The half that sends.
#[derive(Debug)]
pub(crate) enum OutboundHalf {
    /// The peer may not have it yet (we were the responder of a rekey): installed when the first
    /// packet came on the inbound half, when the old SA is deleted, or at `at`.
    Waiting { sa: Box<OutboundSa>, at: Instant },
    /// Installed.
    Sending,
    /// Another Child SA sends in its place.
    Superseded,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) life: Life,
    pub(crate) half: OutboundHalf,
    pub(crate) info: ChildInfo,
    pub(crate) expires_at: Instant,
    /// Its lifetime is over, and nothing took its place.
    pub(crate) expired: bool,
    /// Whether the peer is known to have it: its exchange was ours, or the peer went on since.
    pub(crate) known: bool,
    /// The lower of the two nonces that made it (RFC 7296 2.8.1).
    pub(crate) lowest_nonce: Vec<u8>,
}

/// What both sides agreed on.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) chosen: ChosenEsp,
    /// Number of the peer's proposal, for the answer.
    pub(crate) number: u8,
    /// The peer's inbound SPI.
    pub(crate) peer_spi: Spi,
    pub(crate) local: SelectorSet,
    pub(crate) remote: SelectorSet,
    pub(crate) additional: bool,
}

/// Why no Child SA comes about; one conversion to what the peer is told, one to what people are.
#[derive(Debug)]
pub(crate) enum ChildRefusal {
    NoProposal(String),
    Selectors(Box<((SelectorSet, SelectorSet), (SelectorSet, SelectorSet))>),
    /// A second Child SA: the selectors of the one that there is, and those asked for.
    Second(Box<((SelectorSet, SelectorSet), (SelectorSet, SelectorSet))>),
    InvalidKe(KeGroup),
    Syntax,
}

impl ChildRefusal {
    pub(crate) fn notify(&self) -> Notify {
        match self {
            Self::NoProposal(_) => Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, Vec::new()),
            Self::Selectors(_) => Notify::new(NotifyType::TS_UNACCEPTABLE, Vec::new()),
            Self::Second(_) => Notify::new(NotifyType::NO_ADDITIONAL_SAS, Vec::new()),
            Self::InvalidKe(group) => {
                Notify::new(NotifyType::INVALID_KE_PAYLOAD, group.id().to_be_bytes().to_vec())
            }
            Self::Syntax => Notify::new(NotifyType::INVALID_SYNTAX, Vec::new()),
        }
    }

    /// `None` for what is no failure but a step of the negotiation.
    pub(crate) fn diagnosis(&self) -> Option<Diagnosis> {
        Some(match self {
            Self::NoProposal(difference) => {
                Diagnosis::Proposal { subject: Subject::Child, difference: difference.clone() }
            }
            Self::Selectors(both) => {
                Diagnosis::Selectors { ours: both.0.clone(), theirs: both.1.clone() }
            }
            Self::Second(both) => {
                Diagnosis::SecondChild { ours: both.0.clone(), theirs: both.1.clone() }
            }
            Self::InvalidKe(_) => return None,
            Self::Syntax => Diagnosis::Protocol("a Child SA without its payloads".into()),
        })
    }

    pub(crate) fn count(&self, ctx: &mut Context) {
        match self {
            Self::NoProposal(_) => ctx.counters.no_proposal += 1,
            Self::Selectors(_) | Self::Second(_) => ctx.counters.ts_unacceptable += 1,
            Self::InvalidKe(_) => ctx.counters.invalid_ke += 1,
            Self::Syntax => ctx.counters.malformed += 1,
        }
    }
}

/// SA, TSi and TSr of our offer.
pub(crate) fn build_offer(peer: &PeerConfig, spi: Spi, pfs: bool) -> [Payload; 3] {
    [
        Payload::Sa(peer.esp.offer(spi, pfs)),
        Payload::TsI(peer.local_selectors.clone()),
        Payload::TsR(peer.remote_selectors.clone()),
    ]
}

/// The responder's choice from an offer.
pub(crate) fn accept_offer(
    peer: &PeerConfig,
    offer: &[Proposal],
    (tsi, tsr): (&SelectorSet, &SelectorSet),
    pfs: bool,
) -> Result<Accepted, ChildRefusal> {
    let (chosen, proposal) = peer
        .esp
        .choose(offer, pfs)
        .ok_or_else(|| ChildRefusal::NoProposal(peer.esp.difference(offer, pfs)))?;
    let peer_spi = spi_of(proposal)?;
    let mut local = peer.local_selectors.intersection(tsr);
    let mut remote = peer.remote_selectors.intersection(tsi);
    if local.is_empty() || remote.is_empty() {
        let ours = (peer.local_selectors.clone(), peer.remote_selectors.clone());
        return Err(ChildRefusal::Selectors(Box::new((ours, (tsr.clone(), tsi.clone())))));
    }
    let additional = local.0.len() > MAX_SELECTORS || remote.0.len() > MAX_SELECTORS;
    local.0.truncate(MAX_SELECTORS);
    remote.0.truncate(MAX_SELECTORS);
    Ok(Accepted { chosen, number: proposal.number, peer_spi, local, remote, additional })
}

/// The initiator's check of an answer: one of our suites, and selectors within ours.
pub(crate) fn check_answer(
    peer: &PeerConfig,
    answer: &[Proposal],
    (tsi, tsr): (&SelectorSet, &SelectorSet),
    pfs: bool,
    additional: bool,
) -> Result<Accepted, ChildRefusal> {
    let [one] = answer else {
        return Err(ChildRefusal::Syntax);
    };
    let (chosen, proposal) = peer
        .esp
        .choose(answer, pfs)
        .ok_or_else(|| ChildRefusal::NoProposal(peer.esp.difference(answer, pfs)))?;
    let within = |answer: &SelectorSet, ours: &SelectorSet| {
        !answer.is_empty() && answer.0.iter().all(|a| ours.0.iter().any(|o| o.contains(a)))
    };
    if !within(tsi, &peer.local_selectors) || !within(tsr, &peer.remote_selectors) {
        let ours = (peer.local_selectors.clone(), peer.remote_selectors.clone());
        return Err(ChildRefusal::Selectors(Box::new((ours, (tsi.clone(), tsr.clone())))));
    }
    Ok(Accepted {
        chosen,
        number: one.number,
        peer_spi: spi_of(proposal)?,
        local: tsi.clone(),
        remote: tsr.clone(),
        additional,
    })
}

fn spi_of(proposal: &Proposal) -> Result<Spi, ChildRefusal> {
    let spi = <[u8; 4]>::try_from(proposal.spi.as_slice()).map_err(|_| ChildRefusal::Syntax)?;
    // 0..=255 are reserved, and 0 would look like the non-ESP marker.
    Some(Spi::from_be_bytes(spi)).filter(|spi| spi.0 > 255).ok_or(ChildRefusal::Syntax)
}

/// Everything from which a Child SA's keys come.
pub(crate) struct Seed<'a> {
    pub(crate) prf: Hash,
    pub(crate) d: &'a Secret,
    /// The fresh shared secret, with perfect forward secrecy.
    pub(crate) fresh: Option<&'a Secret>,
    pub(crate) ni: &'a [u8],
    pub(crate) nr: &'a [u8],
    /// Whether the exchange that makes it is ours.
    pub(crate) ours: bool,
}

/// Makes the Child SA and installs its inbound half; the outbound half waits.
pub(crate) fn install(
    peer: &Arc<PeerConfig>,
    accepted: Accepted,
    inbound: Spi,
    seed: &Seed<'_>,
    path: Path,
    ctx: &mut Context,
) -> ChildSa {
    let suite = accepted.chosen.suite;
    let keys = child_keymat(seed.prf, seed.d, seed.fresh, seed.ni, seed.nr, suite);
    let (to_peer, from_peer) =
        if seed.ours { (keys.initiator, keys.responder) } else { (keys.responder, keys.initiator) };
    ctx.counters.children += 1;
    ctx.events.push_back(Event::InstallInbound(InboundSa {
        tunnel: peer.tunnel,
        spi: inbound,
        suite,
        esn: accepted.chosen.esn,
        encryption: from_peer.0,
        integrity: from_peer.1,
        replay_window: peer.replay_window,
        remote_selectors: accepted.remote.clone(),
        local_selectors: accepted.local.clone(),
        lifetime: peer.child_lifetime,
    }));
    let sa = OutboundSa {
        tunnel: peer.tunnel,
        spi: accepted.peer_spi,
        suite,
        esn: accepted.chosen.esn,
        encryption: to_peer.0,
        integrity: to_peer.1,
        local_selectors: accepted.local.clone(),
        remote_selectors: accepted.remote.clone(),
        path: ctx.esp_path(path),
        lifetime: peer.child_lifetime,
    };
    let info = ChildInfo {
        inbound,
        outbound: accepted.peer_spi,
        suite: accepted.chosen,
        local_selectors: accepted.local,
        remote_selectors: accepted.remote,
        additional_ts_possible: accepted.additional,
        established: ctx.now,
        rekey_at: ctx.rekey_at(peer.child_lifetime.time, peer),
    };
    ChildSa {
        inbound,
        outbound: info.outbound,
        life: Life::Live,
        half: OutboundHalf::Waiting { sa: Box::new(sa), at: ctx.now + ctx.config.outbound_switch },
        info,
        expires_at: ctx.now + peer.child_lifetime.time,
        expired: false,
        known: seed.ours,
        lowest_nonce: seed.ni.min(seed.nr).to_vec(),
    }
}

impl ChildSa {
    /// Sends with this one from now on.
    /// Returns the path that it was negotiated on, if it was not in use before.
    pub(crate) fn install_outbound(&mut self, ctx: &mut Context) -> Option<Path> {
        match std::mem::replace(&mut self.half, OutboundHalf::Sending) {
            half @ (OutboundHalf::Sending | OutboundHalf::Superseded) => {
                self.half = half;
                None
            }
            OutboundHalf::Waiting { sa, .. } => {
                let path = sa.path;
                ctx.events.push_back(Event::InstallOutbound(*sa));
                Some(path)
            }
        }
    }

    /// Whether the peer may not know it yet, because our answer may be lost. A peer that asks for the
    /// answer no more has it, or gave the IKE SA up.
    pub(crate) fn is_unconfirmed(&self, now: Instant) -> bool {
        !self.known && now < self.info.established + UNCONFIRMED
    }

    /// When the half that waits sends although nothing came on the other one: not before the peer has
    /// the SA.
    pub(crate) fn switch_at(&self) -> Option<Instant> {
        let OutboundHalf::Waiting { at, .. } = &self.half else { return None };
        Some(if self.known { *at } else { (*at).max(self.info.established + UNCONFIRMED) })
    }

    /// Whether the outbound half is still to be installed.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.half, OutboundHalf::Waiting { .. })
    }

    /// Whether the outbound half is the one in use, as far as its IKE SA goes.
    pub(crate) fn sends(&self) -> bool {
        matches!(self.half, OutboundHalf::Sending)
    }
}
