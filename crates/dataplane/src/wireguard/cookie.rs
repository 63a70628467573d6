//! The two MACs of handshake messages and the cookies behind the second (whitepaper 5.4.4, 5.4.7):
//! what a message costs us before anything is multiplied, and what ours must show.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::{AeadInPlace, XChaCha20Poly1305};
use rand_core::{OsRng, RngCore};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::flood::WITHOUT_COOKIE;
use super::handshake::{Own, Received, hash};
use super::message::{COOKIE, INITIATION, MACS, RESPONSE, array, put, word};

/// How long a cookie counts, for who gave it and for who got it.
const COOKIE_AGE: Duration = Duration::from_secs(120);
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Stands in front of all handshakes to one of our public keys: checks the first MAC, limits their
/// rate by cookies, and only then spends a multiplication on finding out who it is.
pub(super) struct Guard {
    own: Own,
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    /// What cookies are made from, with the number of the two minutes since `start`.
    secret: Zeroizing<[u8; 32]>,
    start: OnceLock<Instant>,
    /// Messages with a good first MAC in this second.
    count: AtomicU32,
}

/// A handshake message that may be worked on.
pub(super) enum Verified {
    /// An initiation by who may be the owner of the key in it.
    Initiation(Box<Received>),
    /// A response to an initiation of ours.
    Response([u8; RESPONSE]),
}

/// A handshake message that may not.
pub(super) enum Refused {
    /// It is for another public key.
    Mac,
    /// This cookie is for its sender.
    Cookie([u8; COOKIE]),
    /// Its sender asks too often.
    Flood,
    /// It does not verify.
    Invalid,
}

impl Guard {
    pub(super) fn new(private: [u8; 32]) -> Self {
        let own = Own::new(private);
        let mut secret = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *secret);
        Self {
            mac1_key: hash(&[LABEL_MAC1, own.public.as_bytes()]),
            cookie_key: hash(&[LABEL_COOKIE, own.public.as_bytes()]),
            own,
            secret,
            start: OnceLock::new(),
            count: AtomicU32::new(0),
        }
    }

    /// Checks an initiation or a response from `source`. `allow` has the last word on whether it is
    /// worth a multiplication.
    pub(super) fn verify(
        &self,
        source: IpAddr,
        message: &[u8],
        now: Instant,
        allow: impl FnOnce() -> bool,
    ) -> Result<Verified, Refused> {
        let (body, macs) = message.split_last_chunk::<MACS>().ok_or(Refused::Invalid)?;
        let (mac1, mac2) = macs.split_at(MACS / 2);
        if !bool::from(mac(&self.mac1_key, &[body]).ct_eq(mac1)) {
            return Err(Refused::Mac);
        }
        // Only the receiving thread counts, and it stops before a wrap could let anybody pass.
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.saturating_add(1), Ordering::Relaxed);
        if count >= WITHOUT_COOKIE {
            let cookie = self.cookie(source, now);
            if !bool::from(mac(&cookie, &[body, mac1]).ct_eq(mac2)) {
                let reply = self.reply(message, &cookie, mac1);
                return Err(reply.map_or(Refused::Invalid, Refused::Cookie));
            }
        }
        if !allow() {
            return Err(Refused::Flood);
        }
        if let Ok(initiation) = <&[u8; INITIATION]>::try_from(message) {
            let received = Received::read(&self.own, initiation).ok_or(Refused::Invalid)?;
            return Ok(Verified::Initiation(Box::new(received)));
        }
        message.try_into().map(Verified::Response).map_err(|_| Refused::Invalid)
    }

    /// Begins a new second of the rate limit.
    pub(super) fn begin_second(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    fn cookie(&self, source: IpAddr, now: Instant) -> [u8; 16] {
        let start = *self.start.get_or_init(|| now);
        let age = now.saturating_duration_since(start).as_secs() / COOKIE_AGE.as_secs();
        let address = match source {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        mac(&*self.secret, &[&age.to_le_bytes(), &address.octets()])
    }

    fn reply(&self, message: &[u8], cookie: &[u8; 16], mac1: &[u8]) -> Option<[u8; COOKIE]> {
        let mut nonce = [0; 24];
        OsRng.fill_bytes(&mut nonce);
        let mut sealed = *cookie;
        let cipher = XChaCha20Poly1305::new(&self.cookie_key.into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), mac1, &mut sealed).ok()?;
        let mut reply = [0; COOKIE];
        put(&mut reply, 0, &[3, 0, 0, 0])?;
        put(&mut reply, 4, message.get(4..8)?)?;
        put(&mut reply, 8, &nonce)?;
        put(&mut reply, 32, &sealed)?;
        put(&mut reply, 48, &tag)?;
        Some(reply)
    }
}

/// Makes the MACs of our own messages to one peer, and keeps its cookie.
pub(super) struct Stamper {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    /// Sender index and first MAC of our last handshake message, until a cookie for it came.
    last: Option<(u32, [u8; 16])>,
    cookie: Option<(Zeroizing<[u8; 16]>, Instant)>,
}

impl Stamper {
    pub(super) fn new(peer: &[u8; 32]) -> Self {
        Self {
            mac1_key: hash(&[LABEL_MAC1, peer]),
            cookie_key: hash(&[LABEL_COOKIE, peer]),
            last: None,
            cookie: None,
        }
    }

    /// Writes both MACs of a handshake message of ours with this sender index.
    pub(super) fn stamp(&mut self, index: u32, message: &mut [u8], now: Option<Instant>) {
        let Some((body, macs)) = message.split_last_chunk_mut::<MACS>() else { return };
        let (first, second) = macs.split_at_mut(MACS / 2);
        let mac1 = mac(&self.mac1_key, &[body]);
        first.copy_from_slice(&mac1);
        self.last = Some((index, mac1));
        let age =
            |at: &Instant| now.map_or(Duration::ZERO, |now| now.saturating_duration_since(*at));
        self.cookie.take_if(|(_, at)| age(at) >= COOKIE_AGE);
        if let Some((cookie, _)) = &self.cookie {
            second.copy_from_slice(&mac(&**cookie, &[body, &mac1]));
        }
    }

    /// Takes a cookie for our last handshake message. `None` if it is for none or does not verify.
    pub(super) fn take(&mut self, message: &[u8], now: Instant) -> Option<()> {
        let (_, mac1) = self.last.filter(|(index, _)| word(message, 4) == Some(*index))?;
        let nonce = array::<24>(message, 8)?;
        let mut cookie = Zeroizing::new(array::<16>(message, 32)?);
        let tag = array::<16>(message, 48)?;
        let cipher = XChaCha20Poly1305::new(&self.cookie_key.into());
        cipher.decrypt_in_place_detached(&nonce.into(), &mac1, &mut *cookie, &tag.into()).ok()?;
        self.last = None;
        self.cookie = Some((cookie, now));
        Some(())
    }

    /// Forgets a cookie that is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        self.cookie.take_if(|(_, at)| now.saturating_duration_since(*at) >= COOKIE_AGE);
    }
}

/// BLAKE2s in its keyed mode with 16 octets.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // Keys here have 16 or 32 octets, and 32 are allowed.
    let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else { return [0; 16] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_fixed().into()
}
