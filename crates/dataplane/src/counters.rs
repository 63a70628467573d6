//! Counters: one for each reason to drop, and packets and octets of each tunnel and direction.
//! Written by the one owner of a direction, read by anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use sa::TunnelId;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a packet went nowhere. Each reason has one counter.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable name for `status`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// What came from the TUN device is not an IP packet.
    InnerMalformed => "inner_malformed",
    /// No route matches the inner destination.
    NoRoute => "no_route",
    /// The route's tunnel has no outbound SA: nothing leaves in clear.
    NoSa => "no_sa",
    /// The inner packet is outside the SA's traffic selectors (outbound).
    OutboundSelector => "outbound_selector",
    /// The packet is over the tunnel MTU and must not be fragmented; the sender was told.
    TooBig => "too_big",
    /// All sequence numbers of the SA are used (RFC 4303 3.3.3).
    SequenceExhausted => "sequence_exhausted",
    /// A batch that our own AEAD refused: a fault of ours.
    Internal => "internal",
    /// Shorter than anything that the port speaks.
    Runt => "runt",
    /// A WireGuard message, and no WireGuard peer is configured.
    WireGuardUnconfigured => "wireguard_unconfigured",
    /// A WireGuard handshake that names none of our public keys: its first MAC is wrong.
    WireGuardMac => "wireguard_mac",
    /// A WireGuard handshake above the rate that we take: it was answered with a cookie.
    WireGuardCookie => "wireguard_cookie",
    /// More WireGuard handshakes a second from one address than any peer sends.
    WireGuardFlood => "wireguard_flood",
    /// A WireGuard handshake from a public key that is no peer's.
    WireGuardUnknownPeer => "wireguard_unknown_peer",
    /// A WireGuard message for a session that we do not have.
    WireGuardUnknownIndex => "wireguard_unknown_index",
    /// A WireGuard handshake message that does not verify, or is older than the last one.
    WireGuardHandshake => "wireguard_handshake",
    /// Nobody knows yet where the WireGuard peer is.
    WireGuardNoEndpoint => "wireguard_no_endpoint",
    /// It waited for a WireGuard handshake that did not come, or too many waited.
    WireGuardQueue => "wireguard_queue",
    /// ESP that is too short or not a multiple of its block.
    EspMalformed => "esp_malformed",
    /// ESP for an SPI that is not ours.
    UnknownSpi => "unknown_spi",
    /// A sequence number that was seen.
    Replayed => "replayed",
    /// A sequence number left of the anti-replay window.
    TooOld => "too_old",
    /// The ICV does not match.
    IcvMismatch => "icv_mismatch",
    /// The trailer contradicts itself although the ICV matched.
    BadTrailer => "bad_trailer",
    /// A dummy packet of traffic flow confidentiality (next header 59).
    Dummy => "dummy",
    /// What was inside is not the IP packet that the trailer announces.
    InnerInvalid => "inner_invalid",
    /// The inner packet is outside the SA's traffic selectors (inbound, RFC 4301 5.2).
    InboundSelector => "inbound_selector",
    /// The inner source address is in a prefix that is routed to another peer, or is our own
    /// network's; or it is outside of everything that a WireGuard peer may say.
    InboundSource => "inbound_source",
    /// Congestion was marked outside and the inner packet cannot carry it (RFC 6040 4.2).
    EcnDrop => "ecn_drop",
}

/// Packets and octets of inner traffic of one tunnel in one direction.
#[derive(Debug, Default)]
pub struct TunnelCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl TunnelCounters {
    /// Packets so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Octets of inner packets so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// One writer: a load and a store, and no locked instruction.
    pub(crate) fn count(&self, octets: usize) {
        self.packets.store(self.packets.load(Relaxed) + 1, Relaxed);
        self.bytes.store(self.bytes.load(Relaxed) + octets as u64, Relaxed);
    }
}

/// The counters of one direction.
#[derive(Debug)]
pub struct Counters {
    drops: Box<[AtomicU64]>,
    keepalives: AtomicU64,
    tunnels: RwLock<BTreeMap<TunnelId, Arc<TunnelCounters>>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            keepalives: AtomicU64::new(0),
            tunnels: RwLock::default(),
        }
    }
}

impl Counters {
    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, |c| c.load(Relaxed))
    }

    /// NAT keepalives received.
    #[must_use]
    pub fn keepalives(&self) -> u64 {
        self.keepalives.load(Relaxed)
    }

    /// The counters of a tunnel, made on first use. Takes a lock: not for the packet path.
    #[must_use]
    pub fn tunnel(&self, tunnel: TunnelId) -> Arc<TunnelCounters> {
        let mut tunnels = self.tunnels.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tunnels.entry(tunnel).or_default())
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.store(counter.load(Relaxed) + 1, Relaxed);
        }
    }

    pub(crate) fn keepalive(&self) {
        self.keepalives.store(self.keepalives.load(Relaxed) + 1, Relaxed);
    }
}
