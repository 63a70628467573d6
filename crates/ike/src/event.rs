//! What goes into an [`Endpoint`](crate::Endpoint) besides datagrams, and what comes out of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sa::{InboundSa, OutboundSa, Path, SelectorSet, Spi, TunnelId};

use crate::config::PeerConfig;
use crate::diagnosis::Diagnosis;
use crate::message::Identity;
use crate::suite::{ChosenEsp, ChosenIke};

/// Something that the owner wants, or that the data plane saw.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the tunnel exist: negotiate an IKE SA if there is none, a Child SA if there is none.
    /// Nothing happens if both exist or are being negotiated.
    Initiate(TunnelId),
    /// Negotiate a new IKE SA beside the present one, which it replaces once it stands: how a
    /// changed configuration is applied make-before-break.
    Reestablish(TunnelId),
    /// Replace the Child SA.
    RekeyChild(TunnelId),
    /// Replace the IKE SA; the Child SA moves to the new one.
    RekeyIke(TunnelId),
    /// End the IKE SA and its Child SAs, with a DELETE to the peer.
    Delete(TunnelId),
    /// End the Child SA only, with a DELETE to the peer.
    DeleteChild(TunnelId),
    /// Ask the peer now whether it lives.
    Liveness(TunnelId),
    /// The first packet was opened on a new inbound SA: the peer has it, so we may send on the
    /// new outbound half.
    InboundSeen {
        /// The tunnel.
        tunnel: TunnelId,
        /// The new inbound SA.
        spi: Spi,
    },
    /// ESP arrived for an SPI that nobody knows: perhaps from before a restart of ours. Its sender
    /// is told so, in clear, and rarely (RFC 7296 1.5).
    UnknownEsp {
        /// The SPI.
        spi: Spi,
        /// The path of the ESP datagram.
        path: Path,
        /// Octets of its payload: the answer is never longer.
        octets: usize,
    },
    /// Authenticated ESP arrived: as good as an answer to a liveness request.
    TrafficSeen {
        /// The tunnel.
        tunnel: TunnelId,
    },
    /// Nothing comes through the tunnel's Child SA any more, or something does again. A peer that goes on
    /// answering IKE but nothing that is inside may have lost the Child SA: it is rekeyed, once.
    PathSilent {
        /// The tunnel.
        tunnel: TunnelId,
        /// Whether it is so.
        silent: bool,
    },
    /// ESP was sent: no NAT keepalive is needed for a while.
    TrafficSent {
        /// The tunnel.
        tunnel: TunnelId,
    },
    /// Authenticated ESP came from a new address: the peer's NAT changed its mapping.
    PathObserved {
        /// The tunnel.
        tunnel: TunnelId,
        /// The path of the ESP datagram.
        path: Path,
    },
    /// The host's own outer address for this tunnel is another one now. What exists goes on from
    /// there; with MOBIKE the peer is told at once.
    LocalAddressChanged {
        /// The tunnel.
        tunnel: TunnelId,
        /// The new address.
        local: IpAddr,
    },
    /// Put a new configuration in the place of the one with the same tunnel. SAs that exist keep
    /// what they negotiated; the next exchange uses the new one.
    ReplacePeer(Box<PeerConfig>),
}

/// What happened, in order. Drain before [`Transmit`]s are sent.
#[derive(Clone, Debug)]
pub enum Event {
    /// Must be in the SAD before the next transmit is sent.
    InstallInbound(InboundSa),
    /// From now on the tunnel sends with this SA; it takes the place of the current one.
    InstallOutbound(OutboundSa),
    /// Receive no more with this SA.
    RemoveInbound {
        /// The tunnel.
        tunnel: TunnelId,
        /// Our SPI.
        spi: Spi,
    },
    /// Send no more with this SA. If it is not the tunnel's current one, only its keys go.
    RemoveOutbound {
        /// The tunnel.
        tunnel: TunnelId,
        /// The peer's SPI.
        spi: Spi,
    },
    /// An IKE SA is authenticated.
    IkeUp {
        /// The tunnel.
        tunnel: TunnelId,
        /// What was negotiated.
        info: IkeInfo,
    },
    /// The IKE SA was replaced; its Child SA lives on.
    IkeRekeyed {
        /// The tunnel.
        tunnel: TunnelId,
        /// What was negotiated.
        info: IkeInfo,
    },
    /// A Child SA stands.
    ChildUp {
        /// The tunnel.
        tunnel: TunnelId,
        /// What was negotiated.
        info: ChildInfo,
    },
    /// The Child SA was replaced.
    ChildRekeyed {
        /// The tunnel.
        tunnel: TunnelId,
        /// What was negotiated.
        info: ChildInfo,
    },
    /// An outer address moved: NAT rebinding, the float to port 4500, MOBIKE, or our own. The outbound
    /// SA uses this path from now on.
    PathChanged {
        /// The tunnel.
        tunnel: TunnelId,
        /// Where ESP goes now.
        path: Path,
    },
    /// The tunnel has no Child SA any more; its IKE SA may still stand.
    ChildDown {
        /// The tunnel.
        tunnel: TunnelId,
        /// Why.
        reason: DownReason,
    },
    /// The tunnel has no IKE SA any more, and no attempt of ours is under way. Also the end of an
    /// attempt that never came up (`Failed` came before it then).
    IkeDown {
        /// The tunnel.
        tunnel: TunnelId,
        /// Why.
        reason: DownReason,
    },
    /// Something did not come about. If it was an initiation, `IkeDown` follows.
    Failed {
        /// The tunnel, if it is known which.
        tunnel: Option<TunnelId>,
        /// The peer.
        remote: SocketAddr,
        /// One line for the log and for `status`.
        diagnosis: Diagnosis,
    },
}

/// Why something ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// By our own command.
    Requested,
    /// The peer sent a DELETE.
    DeletedByPeer,
    /// The peer did not answer.
    PeerDead {
        /// How long nothing was heard from it.
        silence: Duration,
        /// The request that was given up: transmissions, and the time since the first.
        unanswered: Option<(u32, Duration)>,
    },
    /// A new IKE SA of the same peer took its place.
    Replaced,
    /// Its lifetime ended and it could not be rekeyed.
    Expired,
    /// It was never up; the diagnosis of the `Failed` event before says why.
    Failed,
    /// The peer broke the protocol, or said that it lost the SA; the text says how.
    Protocol(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("taken down by us"),
            Self::DeletedByPeer => f.write_str("deleted by the peer"),
            Self::PeerDead { silence, unanswered: Some((tries, waited)) } if silence < waited => {
                let (waited, silence) = (waited.as_secs(), silence.as_secs());
                write!(
                    f,
                    "the peer is dead: no answer to a request sent {tries} times in {waited} s, though something else came from it {silence} s ago"
                )
            }
            Self::PeerDead { silence, .. } => {
                write!(f, "the peer is dead: nothing heard for {} s", silence.as_secs())
            }
            Self::Replaced => f.write_str("replaced by a new IKE SA of the peer"),
            Self::Expired => f.write_str("its lifetime ended before it was rekeyed"),
            Self::Failed => f.write_str("negotiation failed"),
            Self::Protocol(what) => f.write_str(what),
        }
    }
}

/// On which sides NAT_DETECTION found address translation. A peer that forces encapsulation looks
/// as if it were behind one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Nat {
    /// We are behind a NAT.
    pub local: bool,
    /// The peer is behind a NAT.
    pub remote: bool,
}

/// An IKE SA, for `status`.
#[derive(Clone, PartialEq, Debug)]
pub struct IkeInfo {
    /// Whether we began it.
    pub initiator: bool,
    /// Where its messages go.
    pub path: Path,
    /// The initiator's SPI.
    pub initiator_spi: u64,
    /// The responder's SPI.
    pub responder_spi: u64,
    /// What was negotiated; `Display` gives the text.
    pub suite: ChosenIke,
    /// NAT between the two.
    pub nat: Nat,
    /// Who we are to the peer.
    pub local_id: Identity,
    /// Who the peer proved to be.
    pub remote_id: Identity,
    /// Whether messages may be fragmented.
    pub fragmentation: bool,
    /// Whether addresses may change under it (MOBIKE).
    pub mobike: bool,
    /// Whether we began the first IKE SA of the tunnel: with MOBIKE, we are the side that says
    /// where it is.
    pub began: bool,
    /// Addresses at which the peer says that it can be reached, too (RFC 4555 3.6): at most eight, and
    /// used for nothing but to be looked at.
    pub additional_addresses: Vec<IpAddr>,
    /// When it was authenticated, or rekeyed.
    pub established: Instant,
    /// When we are going to rekey it.
    pub rekey_at: Instant,
}

/// A Child SA, for `status`.
#[derive(Clone, PartialEq, Debug)]
pub struct ChildInfo {
    /// Our SPI.
    pub inbound: Spi,
    /// The peer's SPI.
    pub outbound: Spi,
    /// Suite, ESN and the group of a fresh key exchange; `Display` gives the text.
    pub suite: ChosenEsp,
    /// Our side after narrowing.
    pub local_selectors: SelectorSet,
    /// The peer's side after narrowing.
    pub remote_selectors: SelectorSet,
    /// Whether the responder said that it would accept more selectors in other Child SAs.
    pub additional_ts_possible: bool,
    /// When it was made.
    pub established: Instant,
    /// When we are going to rekey it.
    pub rekey_at: Instant,
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From which of our sockets, and to whom.
    pub path: Path,
    /// What.
    pub payload: TransmitPayload,
}

/// What a [`Transmit`] carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransmitPayload {
    /// An IKE message without non-ESP marker: the sender puts one before it on every port but
    /// [`EndpointConfig::ike_port`](crate::EndpointConfig::ike_port).
    Ike(Vec<u8>),
    /// One 0xFF octet (RFC 3948 2.3).
    NatKeepalive,
}

/// What a wake-up is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Timer {
    /// A request is retransmitted or given up.
    Retransmit,
    /// A half-open or spent IKE SA goes.
    Expire,
    /// A rekey starts, or a lifetime ends.
    Lifetime,
    /// A liveness exchange starts, or a peer is dead.
    Liveness,
    /// A NAT keepalive is sent.
    Keepalive,
    /// The outbound half of a rekeyed Child SA is used although nothing came in.
    Switch,
    /// An old inbound SA stops receiving.
    Grace,
    /// Something that failed is tried again.
    Retry,
}
