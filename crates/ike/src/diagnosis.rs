//! Why a tunnel does not come up, in one line: both sides next to each other, and the first thing
//! that differs.
//!
//! Text from the peer is never trusted to be short or printable: identities are escaped by their
//! `Display`, notifications are named by number.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use sa::SelectorSet;

use crate::message::{Identity, NotifyType};

/// What is being negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The IKE SA.
    Ike,
    /// The Child SA.
    Child,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ike => "IKE",
            Self::Child => "ESP",
        })
    }
}

/// The one line. `Display` is stable enough to be shown; match on the variant, not on the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Diagnosis {
    /// We answered NO_PROPOSAL_CHOSEN: nothing that the peer offers suits us.
    Proposal {
        /// Of which SA.
        subject: Subject,
        /// The first transform type that differs, with both sides.
        difference: String,
    },
    /// The peer answered NO_PROPOSAL_CHOSEN, and never says what it would take.
    ProposalRefused {
        /// Of which SA.
        subject: Subject,
        /// What we offered.
        ours: String,
    },
    /// The peer's AUTH does not fit our key.
    PreSharedKey {
        /// Who we are.
        ours: Identity,
        /// Who the peer says it is.
        theirs: Identity,
    },
    /// The peer refused our AUTH.
    AuthenticationRefused {
        /// Who we said we are.
        ours: Identity,
        /// Whom we asked for.
        theirs: Option<Identity>,
    },
    /// The peer is not who the configuration wants, or wants us to be someone else.
    Identity {
        /// Whose identity it is that differs: theirs, or the one they ask of us.
        whose: Whose,
        /// What is configured here.
        ours: String,
        /// What the peer sent.
        theirs: Identity,
    },
    /// Traffic selectors without overlap.
    Selectors {
        /// What we accept on our side and on theirs.
        ours: (SelectorSet, SelectorSet),
        /// What they offer for our side and for theirs.
        theirs: (SelectorSet, SelectorSet),
    },
    /// We answered NO_ADDITIONAL_SAS: a tunnel has one Child SA.
    SecondChild {
        /// What the Child SA that there is carries on our side and on theirs.
        ours: (SelectorSet, SelectorSet),
        /// What the second one would carry.
        theirs: (SelectorSet, SelectorSet),
    },
    /// The peer answered TS_UNACCEPTABLE.
    SelectorsRefused {
        /// What we offered for our side and for theirs.
        ours: (SelectorSet, SelectorSet),
    },
    /// Nobody answered.
    NoAnswer {
        /// Where the requests went.
        remote: SocketAddr,
        /// How often.
        tries: u32,
        /// For how long.
        waited: Duration,
        /// Something unauthenticated that may be the reason.
        hint: Option<Hint>,
    },
    /// Port 500 answered, and the port that we floated to does not.
    WrongPort {
        /// The port that does not answer.
        remote: SocketAddr,
        /// The port that did.
        answered: u16,
        /// How often we asked.
        tries: u32,
    },
    /// A user took the tunnel down here, and the peer, who proved to be this, wants it up.
    AdminDown(Identity),
    /// The peer knows us and answered TEMPORARY_FAILURE.
    RefusedForNow,
    /// The peer answered with another error.
    Refused(NotifyType),
    /// The tunnel has no pre-shared key.
    NoKey,
    /// No tunnel of ours is for a peer at this address.
    UnknownPeer,
    /// The peer broke the protocol.
    Protocol(String),
}

/// Whose identity differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The peer's own.
    Theirs,
    /// The one that the peer asks of us.
    Ours,
}

/// What an unauthenticated datagram said while we waited. Never more than a hint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// A notification in clear.
    Notify(NotifyType),
    /// An answer came from another address or port than the one that we asked.
    OtherSource(SocketAddr),
    /// Something that answers the request but is not what the RFC allows.
    Malformed,
    /// Two different answers to IKE_SA_INIT: one of them is not the peer's.
    TwoAnswers,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify(kind) => write!(f, "an unauthenticated {kind:?} came back"),
            Self::OtherSource(from) => write!(f, "an answer came from {from} instead"),
            Self::Malformed => f.write_str("an answer came that makes no sense"),
            Self::TwoAnswers => f.write_str("two different answers to the first request came"),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proposal { subject, difference } => {
                write!(f, "no common {subject} proposal: {difference}")
            }
            Self::ProposalRefused { subject, ours } => write!(
                f,
                "the peer accepts none of our {subject} proposals: we offer {ours}, and it does \
                 not say what it accepts"
            ),
            Self::PreSharedKey { ours, theirs } => write!(
                f,
                "pre-shared key: the peer's AUTH as {theirs} does not match our key for it (we \
                 are {ours})"
            ),
            Self::AuthenticationRefused { ours, theirs } => {
                write!(f, "pre-shared key or identity: the peer refuses us as {ours}")?;
                match theirs {
                    Some(theirs) => write!(f, ", asked for as {theirs}"),
                    None => Ok(()),
                }
            }
            Self::Identity { whose: Whose::Theirs, ours, theirs } => {
                write!(f, "identity: the peer is {theirs}, we expect {ours}")
            }
            Self::Identity { whose: Whose::Ours, ours, theirs } => {
                write!(f, "identity: the peer asks for {theirs}, we are {ours}")
            }
            Self::Selectors { ours, theirs } => write!(
                f,
                "traffic selectors: they offer {} for our side and {} for theirs, we accept {} \
                 and {}",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Self::SecondChild { ours, theirs } => write!(
                f,
                "the peer wants a second Child SA, {} === {}, and a tunnel has one, {} === {}: put \
                 all networks into one",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Self::SelectorsRefused { ours } => write!(
                f,
                "traffic selectors: the peer accepts none of ours: we offer {} for our side and \
                 {} for theirs",
                ours.0, ours.1
            ),
            Self::NoAnswer { remote, tries, waited, hint } => {
                write!(
                    f,
                    "no answer from {remote}: {tries} tries in {:.1} s",
                    waited.as_secs_f64()
                )?;
                hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
            }
            Self::WrongPort { remote, answered, tries } => write!(
                f,
                "wrong port: port {answered} answers, {remote} does not ({tries} tries): is UDP \
                 {} open on the way?",
                remote.port()
            ),
            Self::AdminDown(peer) => {
                write!(f, "{peer} asks for the tunnel, which was taken down here: refused")
            }
            Self::RefusedForNow => f.write_str(
                "the peer refuses for now (TEMPORARY_FAILURE): was the tunnel taken down there?",
            ),
            Self::Refused(kind) => write!(f, "the peer answered {kind:?}"),
            Self::NoKey => f.write_str("no pre-shared key is configured for this tunnel"),
            Self::UnknownPeer => f.write_str("no tunnel is configured for a peer at this address"),
            Self::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
        }
    }
}
