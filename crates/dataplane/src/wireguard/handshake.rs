//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s with WireGuard's messages (whitepaper 5.4).
//!
//! Ephemeral keys and timestamps come in as arguments. Every value that keys are made from is wiped
//! when it is dropped.

use blake2::digest::{FixedOutput, Update};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use hmac::{Mac, SimpleHmac};
use sa::Secret;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::message::{INITIATION, MACS, RESPONSE, array, put, word};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG: usize = 16;
/// Octets of an initiation, and of a response, before their MACs.
const INITIATION_BODY: usize = INITIATION - MACS;
const RESPONSE_BODY: usize = RESPONSE - MACS;

/// A timestamp, of which only the order counts (TAI64N, whitepaper 5.1).
pub(super) type Timestamp = [u8; 12];
type Octets = Zeroizing<[u8; 32]>;

/// The public key of a private one; `None` if that does not have 32 octets.
#[must_use]
pub fn public_key(private: &Secret) -> Option<[u8; 32]> {
    let octets: [u8; 32] = private.expose().try_into().ok()?;
    Some(PublicKey::from(&StaticSecret::from(octets)).to_bytes())
}

/// Our own static key pair.
pub(super) struct Own {
    private: StaticSecret,
    pub(super) public: PublicKey,
}

impl Own {
    pub(super) fn new(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        Self { public: PublicKey::from(&private), private }
    }
}

/// What both sides know before a handshake.
pub(super) struct Statics {
    own: Own,
    pub(super) peer: PublicKey,
    /// `None` if the peer's key is a point of low order: no handshake succeeds.
    shared: Option<SharedSecret>,
    preshared: Octets,
}

impl Statics {
    pub(super) fn new(own: Own, peer: [u8; 32], preshared: Option<[u8; 32]>) -> Self {
        let peer = PublicKey::from(peer);
        let shared = agree(&own.private, &peer);
        Self { own, peer, shared, preshared: Zeroizing::new(preshared.unwrap_or_default()) }
    }
}

/// The keys of a session: what we seal with, and what we open with.
pub(super) struct SessionKeys {
    pub(super) send: Octets,
    pub(super) receive: Octets,
}

/// An initiation of ours that has no answer yet.
pub(super) struct Initiated {
    state: Symmetric,
    ephemeral: StaticSecret,
}

impl Initiated {
    /// Writes an initiation without its MACs to `message`.
    pub(super) fn begin(
        statics: &Statics,
        ephemeral: StaticSecret,
        index: u32,
        timestamp: &Timestamp,
        message: &mut [u8; INITIATION],
    ) -> Option<Self> {
        let mut state = Symmetric::new(&statics.peer);
        message.fill(0);
        put(message, 0, &[1, 0, 0, 0])?;
        put(message, 4, &index.to_le_bytes())?;
        let public = PublicKey::from(&ephemeral);
        put(message, 8, public.as_bytes())?;
        state.mix_ephemeral(&public);
        let key = state.mix_key(agree(&ephemeral, &statics.peer)?.as_bytes());
        state.seal(&key, statics.own.public.as_bytes(), message.get_mut(40..88)?)?;
        let key = state.mix_key(statics.shared.as_ref()?.as_bytes());
        state.seal(&key, timestamp, message.get_mut(88..INITIATION_BODY)?)?;
        Some(Self { state, ephemeral })
    }

    /// Takes the response. Returns the peer's index and the keys; `None` if it does not verify.
    pub(super) fn finish(
        &self,
        statics: &Statics,
        message: &[u8; RESPONSE],
    ) -> Option<(u32, SessionKeys)> {
        let mut state = self.state.clone();
        let ephemeral = PublicKey::from(array::<32>(message, 12)?);
        state.mix_ephemeral(&ephemeral);
        state.mix_key(agree(&self.ephemeral, &ephemeral)?.as_bytes());
        state.mix_key(agree(&statics.own.private, &ephemeral)?.as_bytes());
        let key = state.mix_preshared(&statics.preshared);
        state.open(&key, message.get(44..RESPONSE_BODY)?, &mut [])?;
        let [send, receive] = state.split();
        Some((word(message, 4)?, SessionKeys { send, receive }))
    }
}

/// An initiation that came in, as far as it can be read without knowing who the peer may be.
pub(super) struct Received {
    state: Symmetric,
    /// The static key that it claims, and that its sender shows to own only in the second half.
    pub(super) claimed: [u8; 32],
    ephemeral: PublicKey,
    index: u32,
    timestamp: [u8; 28],
}

impl Received {
    /// Reads the first half, which takes one multiplication.
    pub(super) fn read(own: &Own, message: &[u8; INITIATION]) -> Option<Self> {
        let mut state = Symmetric::new(&own.public);
        let ephemeral = PublicKey::from(array::<32>(message, 8)?);
        state.mix_ephemeral(&ephemeral);
        let key = state.mix_key(agree(&own.private, &ephemeral)?.as_bytes());
        let mut claimed = [0; 32];
        state.open(&key, message.get(40..88)?, &mut claimed)?;
        let (index, timestamp) = (word(message, 4)?, array(message, 88)?);
        Some(Self { state, claimed, ephemeral, index, timestamp })
    }

    /// Checks that the claimed key is the peer's and that its owner wrote this. Returns the
    /// timestamp.
    pub(super) fn authenticate(&mut self, statics: &Statics) -> Option<Timestamp> {
        if self.claimed != *statics.peer.as_bytes() {
            return None;
        }
        let key = self.state.mix_key(statics.shared.as_ref()?.as_bytes());
        let mut timestamp = [0; 12];
        self.state.open(&key, &self.timestamp, &mut timestamp)?;
        Some(timestamp)
    }

    /// Answers after [`Self::authenticate`]: writes a response without its MACs to `message`.
    /// Returns the peer's index and the keys.
    pub(super) fn respond(
        self,
        statics: &Statics,
        own_ephemeral: StaticSecret,
        index: u32,
        message: &mut [u8; RESPONSE],
    ) -> Option<(u32, SessionKeys)> {
        let Self { mut state, ephemeral, index: peer_index, .. } = self;
        message.fill(0);
        put(message, 0, &[2, 0, 0, 0])?;
        put(message, 4, &index.to_le_bytes())?;
        put(message, 8, &peer_index.to_le_bytes())?;
        let public = PublicKey::from(&own_ephemeral);
        put(message, 12, public.as_bytes())?;
        state.mix_ephemeral(&public);
        state.mix_key(agree(&own_ephemeral, &ephemeral)?.as_bytes());
        state.mix_key(agree(&own_ephemeral, &statics.peer)?.as_bytes());
        let key = state.mix_preshared(&statics.preshared);
        state.seal(&key, &[], message.get_mut(44..RESPONSE_BODY)?)?;
        let [receive, send] = state.split();
        Some((peer_index, SessionKeys { send, receive }))
    }
}

/// Noise's symmetric state: the chaining key and the hash of everything said so far.
#[derive(Clone)]
struct Symmetric {
    chain: Octets,
    hash: [u8; 32],
}

impl Symmetric {
    fn new(responder: &PublicKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let named = hash(&[&chain, IDENTIFIER]);
        Self { chain: Zeroizing::new(chain), hash: hash(&[&named, responder.as_bytes()]) }
    }

    fn mix_hash(&mut self, octets: &[u8]) {
        self.hash = hash(&[&self.hash, octets]);
    }

    /// An ephemeral key enters both the hash and the chaining key, as in all handshakes with a
    /// pre-shared key.
    fn mix_ephemeral(&mut self, public: &PublicKey) {
        self.mix_hash(public.as_bytes());
        self.mix_key(public.as_bytes());
    }

    /// Takes `input` into the chaining key. Returns a key.
    fn mix_key(&mut self, input: &[u8; 32]) -> Octets {
        let [chain, key, _] = derive(&self.chain, input);
        self.chain = chain;
        key
    }

    fn mix_preshared(&mut self, preshared: &[u8; 32]) -> Octets {
        let [chain, mixed, key] = derive(&self.chain, preshared);
        self.chain = chain;
        self.mix_hash(&*mixed);
        key
    }

    /// Encrypts `plain` into `out`, which is a tag longer.
    fn seal(&mut self, key: &Octets, plain: &[u8], out: &mut [u8]) -> Option<()> {
        let (body, tag) = out.split_at_mut_checked(plain.len())?;
        body.copy_from_slice(plain);
        let cipher = ChaCha20Poly1305::new((&**key).into());
        let made = cipher.encrypt_in_place_detached(&[0; 12].into(), &self.hash, body).ok()?;
        put(tag, 0, &made)?;
        self.mix_hash(out);
        Some(())
    }

    /// Decrypts `sealed` into `out`, which is a tag shorter.
    fn open(&mut self, key: &Octets, sealed: &[u8], out: &mut [u8]) -> Option<()> {
        let (body, tag) = sealed.split_last_chunk::<TAG>()?;
        put(out, 0, body)?;
        let cipher = ChaCha20Poly1305::new((&**key).into());
        let nonce = [0; 12].into();
        cipher.decrypt_in_place_detached(&nonce, &self.hash, out, &(*tag).into()).ok()?;
        self.mix_hash(sealed);
        Some(())
    }

    /// The initiator's sending key and its receiving key.
    fn split(self) -> [Octets; 2] {
        let [first, second, _] = derive(&self.chain, &[]);
        [first, second]
    }
}

/// KDF1, KDF2 and KDF3 are the first one, two and all of these (whitepaper 5.4).
fn derive(key: &[u8; 32], input: &[u8]) -> [Octets; 3] {
    let secret = mac(key, &[input]);
    let first = mac(&secret, &[&[1]]);
    let second = mac(&secret, &[&*first, &[2]]);
    let third = mac(&secret, &[&*second, &[3]]);
    [first, second, third]
}

/// HMAC with BLAKE2s, not BLAKE2s's own keyed mode.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Octets {
    // A key of any length is good, and this one has 32 octets.
    let Ok(mut mac) = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key) else {
        return Octets::default();
    };
    parts.iter().for_each(|part| Update::update(&mut mac, part));
    Zeroizing::new(mac.finalize_fixed().into())
}

pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}

/// `None` if the other side sent a point of low order, which would make the secret public.
fn agree(private: &StaticSecret, public: &PublicKey) -> Option<SharedSecret> {
    Some(private.diffie_hellman(public)).filter(SharedSecret::was_contributory)
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
