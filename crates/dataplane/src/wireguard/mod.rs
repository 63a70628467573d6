//! WireGuard peers beside the ESP tunnels: the table of peers, and how packets pass.
//!
//! Each peer has one lock, which the two data threads hold while they count the packets of a run or
//! of a super-packet, and never while they encrypt: the keys of a session stand beside it. ESP never
//! touches it. The lock also covers the peer's address: what the receiving thread learned is where
//! the next packet goes.

mod cookie;
pub(crate) mod flood;
mod handshake;
pub(crate) mod keypairs;
mod message;
pub(crate) mod receive;
pub(crate) mod send;
mod session;
mod timers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use packet::WireBatch;
use sa::{Path, Secret, TunnelId};

use crate::mtu::wireguard_mtu;
use cookie::Guard;
pub use handshake::public_key;
use session::{Session, Settings};

/// Data without an answer for this long means that nobody is there: an answer or a keepalive
/// comes after 10 seconds, a new handshake is tried after 15 and again after 20.
const SILENCE: Duration = Duration::from_secs(25);

/// What a WireGuard peer is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireGuardPeerConfig {
    /// Names it in both planes; no ESP tunnel has the same number.
    pub id: TunnelId,
    /// Our private key: 32 octets.
    pub private_key: Secret,
    /// The peer's public key.
    pub public_key: [u8; 32],
    /// 32 octets that both sides know, or none.
    pub preshared_key: Option<Secret>,
    /// Where it is, if that is known; otherwise it begins.
    pub path: Option<Path>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// Bounds the inner MTU beyond what the link says.
    pub mtu: Option<u16>,
    /// Age at which a session that we began is replaced; 120 seconds, or less.
    pub rekey_after: Duration,
}

impl WireGuardPeerConfig {
    /// Age at which sessions are replaced by the protocol's own rule.
    pub const REKEY_AFTER: Duration = timers::REKEY_AFTER_TIME;
}

/// One peer. Both data threads and the control plane share it.
pub struct WireGuardPeer {
    id: TunnelId,
    private_key: Secret,
    public_key: [u8; 32],
    mtu: Option<u16>,
    session: Mutex<Session>,
}

/// How a peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WireGuardStatus {
    /// Packets can pass.
    pub up: bool,
    /// Age of the session that is or was used last, if there was one.
    pub last_handshake: Option<Duration>,
    /// How long data is without any answer, if it is.
    pub unanswered: Option<Duration>,
    /// Where the peer is, if that is known.
    pub path: Option<Path>,
}

impl WireGuardPeer {
    /// A peer without session. `None` if a key does not have 32 octets.
    #[must_use]
    pub fn new(config: &WireGuardPeerConfig) -> Option<Self> {
        let octets = |secret: &Secret| <[u8; 32]>::try_from(secret.expose()).ok();
        let preshared = config.preshared_key.as_ref().map(|key| octets(key).ok_or(()));
        let session = Session::new(Settings {
            private: octets(&config.private_key)?,
            public: config.public_key,
            preshared: preshared.transpose().ok()?,
            index: index(config.id),
            keepalive: config.keepalive,
            path: config.path,
            rekey_after: config.rekey_after.min(WireGuardPeerConfig::REKEY_AFTER),
        });
        Some(Self {
            id: config.id,
            private_key: config.private_key.clone(),
            public_key: config.public_key,
            mtu: config.mtu,
            session: Mutex::new(session),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// Where it is, if that is known.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.lock().path()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self, now: Instant) -> WireGuardStatus {
        let standing = self.lock().standing(now);
        let age = |at: Instant| now.saturating_duration_since(at);
        let unanswered = standing.unanswered_since.map(age);
        WireGuardStatus {
            up: standing.session && unanswered.is_none_or(|silence| silence < SILENCE),
            last_handshake: standing.established.map(age),
            unanswered,
            path: standing.path,
        }
    }

    /// The longest inner packet over a link of `link_mtu`.
    #[must_use]
    pub fn inner_mtu(&self, link_mtu: u16, outer_ipv6: bool) -> u16 {
        wireguard_mtu(link_mtu, outer_ipv6).min(self.mtu.unwrap_or(u16::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WireGuardPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireGuardPeer({})", self.id)
    }
}

/// A peer's sessions have the indices of which the upper 24 bits are this.
fn index(id: TunnelId) -> u32 {
    id.0 & 0x00ff_ffff
}

/// All WireGuard peers, for both halves of the data plane.
#[derive(Default)]
pub struct WireGuard {
    /// One for each of our private keys.
    identities: Vec<Identity>,
    peers: BTreeMap<u32, Arc<WireGuardPeer>>,
}

/// One of our private keys, and who is known under it.
struct Identity {
    guard: Guard,
    private_key: Secret,
    peers: BTreeMap<[u8; 32], u32>,
}

impl WireGuard {
    /// A table of `peers`. Of two with one key under one private key, the later one counts.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = Arc<WireGuardPeer>>) -> Self {
        let mut table = Self::default();
        for peer in peers {
            let index = index(peer.id);
            let known = table.identities.iter_mut().find(|i| i.private_key == peer.private_key);
            match known {
                Some(identity) => drop(identity.peers.insert(peer.public_key, index)),
                None => {
                    let Ok(private) = peer.private_key.expose().try_into() else { continue };
                    table.identities.push(Identity {
                        guard: Guard::new(private),
                        private_key: peer.private_key.clone(),
                        peers: [(peer.public_key, index)].into(),
                    });
                }
            }
            table.peers.insert(index, peer);
        }
        table
    }

    /// The numbers of all peers.
    pub fn ids(&self) -> impl Iterator<Item = TunnelId> {
        self.peers.values().map(|peer| peer.id)
    }

    pub(crate) fn peer(&self, id: TunnelId) -> Option<&WireGuardPeer> {
        self.peers.get(&index(id)).map(AsRef::as_ref)
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Does what is due for all peers. Returns how many packets waited in vain.
    pub(crate) fn tick(&self, now: Instant, replies: &mut WireBatch) -> usize {
        self.peers.values().map(|peer| peer.lock().tick(now, replies)).sum()
    }

    /// Begins a handshake with one peer, although another one may run.
    pub(crate) fn rekey(&self, id: TunnelId, replies: &mut WireBatch) {
        if let Some(peer) = self.peer(id) {
            peer.lock().initiate(true, None, replies);
        }
    }
}

impl fmt::Debug for WireGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireGuard({} peers)", self.peers.len())
    }
}
