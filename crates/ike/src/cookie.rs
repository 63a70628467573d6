//! COOKIE challenges (RFC 7296 section 2.6): proof of a source address without keeping state.

use std::time::{Duration, Instant};

use rand_core::RngCore;
use sa::{Path, Secret};
use subtle::ConstantTimeEq;

use crate::crypto::prf;
use crate::suite::Hash;

/// How long a secret makes new cookies; it stays good for as long again.
const ROTATE: Duration = Duration::from_secs(60);

/// The secret that cookies are made with, and the one before it.
#[derive(Debug)]
pub(crate) struct Cookies {
    current: (u8, Secret),
    previous: Option<(u8, Secret)>,
    rotate_at: Option<Instant>,
}

impl Cookies {
    pub(crate) fn new(rng: &mut dyn RngCore) -> Self {
        Self { current: (0, secret(rng)), previous: None, rotate_at: None }
    }

    /// Makes a new secret if the present one is old.
    pub(crate) fn rotate(&mut self, rng: &mut dyn RngCore, now: Instant) {
        let due = *self.rotate_at.get_or_insert(now + ROTATE);
        if due > now {
            return;
        }
        let next = (self.current.0.wrapping_add(1), secret(rng));
        let old = std::mem::replace(&mut self.current, next);
        // After a long pause both secrets are too old.
        self.previous = (now.saturating_duration_since(due) < ROTATE).then_some(old);
        self.rotate_at = Some(now + ROTATE);
    }

    /// The cookie for an initiator: `version | prf(secret, Ni | IPi | SPIi)`. The port is covered
    /// too, since the answer must come back through the same mapping.
    pub(crate) fn make(&self, path: Path, spi: u64, nonce: &[u8]) -> Vec<u8> {
        compute(&self.current, path, spi, nonce)
    }

    /// Whether `cookie` is one of ours for this initiator.
    pub(crate) fn check(&self, cookie: &[u8], path: Path, spi: u64, nonce: &[u8]) -> bool {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|s| bool::from(compute(s, path, spi, nonce).as_slice().ct_eq(cookie)))
    }
}

fn secret(rng: &mut dyn RngCore) -> Secret {
    let mut octets = vec![0; 32];
    rng.fill_bytes(&mut octets);
    Secret::new(octets)
}

fn compute(secret: &(u8, Secret), path: Path, spi: u64, nonce: &[u8]) -> Vec<u8> {
    let source = path.remote.to_string();
    let mac = prf(Hash::Sha256, secret.1.expose(), &[nonce, source.as_bytes(), &spi.to_be_bytes()]);
    let mut out = vec![secret.0];
    out.extend_from_slice(mac.expose());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_cookie_is_good_for_its_sender_and_for_two_minutes_at_most() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let path = |port: u16| Path {
            local: ([192, 0, 2, 1], 500).into(),
            remote: ([192, 0, 2, 2], port).into(),
        };
        let start = Instant::now();
        let mut cookies = Cookies::new(&mut rng);
        cookies.rotate(&mut rng, start);
        let cookie = cookies.make(path(500), 7, b"nonce");
        assert!(cookies.check(&cookie, path(500), 7, b"nonce"));
        assert!(!cookies.check(&cookie, path(501), 7, b"nonce"));
        assert!(!cookies.check(&cookie, path(500), 8, b"nonce"));
        assert!(!cookies.check(&cookie, path(500), 7, b"other"));
        assert!(!cookies.check(&[], path(500), 7, b"nonce"));
        cookies.rotate(&mut rng, start + ROTATE);
        assert!(cookies.check(&cookie, path(500), 7, b"nonce"), "the secret before still counts");
        cookies.rotate(&mut rng, start + 2 * ROTATE);
        assert!(!cookies.check(&cookie, path(500), 7, b"nonce"));
    }
}
