//! What IKE hands to the data plane for each half of a Child SA.

use std::fmt;
use std::time::Duration;

use crate::{EspSuite, Path, Secret, SelectorSet, Spi};

/// Names one tunnel of the configuration in both planes. The number is ours and never on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TunnelId(pub u32);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// When a Child SA must be replaced, whichever comes first. These are soft limits: the owner
/// rekeys at them; the data plane stops using the SA only at its own hard limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Age at which the SA is rekeyed.
    pub time: Duration,
    /// Octets of ESP payload in one direction, if limited.
    pub bytes: Option<u64>,
    /// Packets in one direction, if limited.
    pub packets: Option<u64>,
}

/// The half that receives: named by our SPI.
#[derive(Clone, Debug)]
pub struct InboundSa {
    /// The tunnel that it belongs to.
    pub tunnel: TunnelId,
    /// The SPI that we allocated.
    pub spi: Spi,
    /// How packets are protected.
    pub suite: EspSuite,
    /// Whether sequence numbers are 64 bits (RFC 4304).
    pub esn: bool,
    /// Encryption key, then the salt for AEADs ([`EspSuite::encryption_keymat_len`] octets).
    pub encryption: Secret,
    /// Integrity key, empty for AEADs ([`EspSuite::integrity_keymat_len`] octets).
    pub integrity: Secret,
    /// Packets of the anti-replay window, 64 to 8192.
    pub replay_window: u32,
    /// What an inner source address may be: the peer's selectors.
    pub remote_selectors: SelectorSet,
    /// What an inner destination may be: our selectors.
    pub local_selectors: SelectorSet,
    /// When to rekey.
    pub lifetime: Lifetime,
}

/// The half that sends: named by the peer's SPI.
#[derive(Clone, Debug)]
pub struct OutboundSa {
    /// The tunnel that it belongs to.
    pub tunnel: TunnelId,
    /// The SPI that the peer allocated.
    pub spi: Spi,
    /// How packets are protected.
    pub suite: EspSuite,
    /// Whether sequence numbers are 64 bits (RFC 4304).
    pub esn: bool,
    /// Encryption key, then the salt for AEADs.
    pub encryption: Secret,
    /// Integrity key, empty for AEADs.
    pub integrity: Secret,
    /// What an inner source may be: our selectors.
    pub local_selectors: SelectorSet,
    /// What an inner destination may be: the peer's selectors.
    pub remote_selectors: SelectorSet,
    /// Where the ESP datagrams go.
    pub path: Path,
    /// When to rekey.
    pub lifetime: Lifetime,
}
