//! What the control plane tells the data plane, and what it hears back.

use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use sa::{InboundSa, Lifetime, OutboundSa, Path, Spi, TunnelId};

use crate::WireGuard;

/// Where packets for a prefix go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteTarget {
    /// Into this tunnel's current SA.
    Tunnel(TunnelId),
    /// To this WireGuard peer.
    WireGuard(TunnelId),
    /// Nowhere.
    Drop,
}

/// One entry of the route table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Inner destinations.
    pub prefix: IpNet,
    /// Where they go.
    pub target: RouteTarget,
}

/// One entry of the table of inner sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceRoute {
    /// Inner sources.
    pub prefix: IpNet,
    /// The tunnels that may bring them: both of an IPsec connection, or one WireGuard peer's number
    /// twice. `None` for our own network, whose addresses come from nobody else.
    pub owner: Option<[TunnelId; 2]>,
}

/// A command to [`Outbound`](crate::Outbound).
#[derive(Clone, Debug)]
pub enum OutboundCommand {
    /// The tunnel sends with this SA from now on.
    Install(Box<OutboundSa>),
    /// The SA is gone; if it is the tunnel's current one, the tunnel sends nothing.
    Remove {
        /// Its tunnel.
        tunnel: TunnelId,
        /// The peer's SPI.
        spi: Spi,
    },
    /// The peer's outer address moved.
    SetPath {
        /// The tunnel.
        tunnel: TunnelId,
        /// Its path from now on.
        path: Path,
    },
    /// The outer path takes datagrams of this many octets, IP header included.
    SetLinkMtu {
        /// The tunnel.
        tunnel: TunnelId,
        /// Octets.
        mtu: u16,
    },
    /// The whole route table.
    SetRoutes(Vec<Route>),
    /// These entries are added to the table, or take the place of those for the same prefixes.
    ChangeRoutes(Vec<Route>),
    /// All WireGuard peers; the same as the receiving half has.
    SetWireGuard(Arc<WireGuard>),
    /// Seal this inner packet into the tunnel, whatever the routes and the tunnel MTU say; see
    /// [`crate::probe`]. It leaves with [`Outbound::seal_probes`](crate::Outbound::seal_probes),
    /// and no counter of traffic counts it.
    Probe {
        /// The tunnel.
        tunnel: TunnelId,
        /// The packet.
        packet: Vec<u8>,
        /// It asks whether the path takes more than is known.
        asks: bool,
    },
}

/// A command to [`Inbound`](crate::Inbound).
#[derive(Clone, Debug)]
pub enum InboundCommand {
    /// Packets for this SA are opened from now on.
    Install(Box<InboundSa>),
    /// Packets for this SA are dropped from now on.
    Remove {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Our SPI.
        spi: Spi,
    },
    /// As for outbound: bounds the MSS that inbound SYNs may announce.
    SetLinkMtu {
        /// The tunnel.
        tunnel: TunnelId,
        /// Octets.
        mtu: u16,
    },
    /// The whole table of who may use which inner source addresses.
    SetSources(Vec<SourceRoute>),
    /// All WireGuard peers; the same as the sending half has.
    SetWireGuard(Arc<WireGuard>),
    /// Handshakes, rekeys and keepalives that are due now, of all WireGuard peers. Wanted four times
    /// a second.
    WireGuardTimers(Instant),
    /// Begin a handshake with this WireGuard peer now.
    WireGuardRekey(TunnelId),
}

/// Which limit of a lifetime was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Octets.
    Bytes,
    /// Packets.
    Packets,
    /// Sequence numbers are running out.
    Sequence,
    /// No sequence number is left: the SA sends nothing any more (RFC 4303 3.3.3).
    Exhausted,
}

impl Limit {
    /// The soft limit of `lifetime` that this many packets and octets have reached.
    pub(crate) fn reached(lifetime: &Lifetime, packets: u64, bytes: u64) -> Option<Self> {
        if lifetime.packets.is_some_and(|most| packets >= most) {
            return Some(Self::Packets);
        }
        lifetime.bytes.is_some_and(|most| bytes >= most).then_some(Self::Bytes)
    }
}

/// What the data plane noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataEvent {
    /// The first packet that opened on a new inbound SA.
    FirstPacket {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Our SPI.
        spi: Spi,
    },
    /// An authenticated packet, newer than all before, came from another address.
    PathObserved {
        /// Its tunnel.
        tunnel: TunnelId,
        /// Our SPI.
        spi: Spi,
        /// Where it came from, and to.
        path: Path,
    },
    /// The answer to a probe came out of the tunnel. It is not delivered, nor counted as traffic.
    ProbeAnswered {
        /// Its tunnel.
        tunnel: TunnelId,
        /// The probe's sequence number.
        sequence: u16,
    },
    /// The SA should be rekeyed now. Sent once for each SA for its lifetime, and once for each of
    /// the two limits of its sequence numbers.
    SoftLimit {
        /// Its tunnel.
        tunnel: TunnelId,
        /// The SPI of the half that noticed.
        spi: Spi,
        /// Which limit.
        limit: Limit,
    },
    /// ESP for an SPI that is not ours, from this peer. Sent at most once a second.
    UnknownSpi {
        /// The SPI.
        spi: Spi,
        /// Where it came from.
        path: Path,
        /// Octets of the datagram.
        octets: usize,
    },
}
