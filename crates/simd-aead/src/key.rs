//! Keys, expanded once.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::chacha::ChaChaKey;
use crate::portable::LibraryKey;
#[cfg(target_arch = "x86_64")]
use crate::{avx2, gcm::GcmKey};

/// The AEADs of this crate. All have 12-octet nonces and 16-octet tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// AES-GCM with a 16-octet key (NIST SP 800-38D).
    Aes128Gcm,
    /// AES-GCM with a 32-octet key (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 with a 32-octet key (RFC 8439).
    ChaCha20Poly1305,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Length of the key in octets.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// The key's length is not the algorithm's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{algorithm} takes a key of {} octets, not {len}", algorithm.key_len())]
pub struct InvalidKey {
    /// The algorithm asked for.
    pub algorithm: Algorithm,
    /// The length given, in octets.
    pub len: usize,
}

/// A key, expanded for every backend that this processor has. Wiped on drop.
pub struct Key {
    algorithm: Algorithm,
    pub(crate) portable: LibraryKey,
    #[cfg(target_arch = "x86_64")]
    chacha: Option<Box<ChaChaKey>>,
    #[cfg(target_arch = "x86_64")]
    gcm: Option<Box<GcmKey>>,
}

impl Key {
    /// Expands `key`, which must be [`Algorithm::key_len`] octets.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, InvalidKey> {
        let invalid = InvalidKey { algorithm, len: key.len() };
        let portable = LibraryKey::new(algorithm, key).ok_or(invalid)?;
        #[cfg(target_arch = "x86_64")]
        let chacha = match algorithm {
            Algorithm::ChaCha20Poly1305 => Some(Box::new(ChaChaKey::new(key).ok_or(invalid)?)),
            Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => None,
        };
        #[cfg(target_arch = "x86_64")]
        let gcm = match algorithm {
            Algorithm::Aes128Gcm | Algorithm::Aes256Gcm if avx2::is_supported() => {
                // SAFETY: the processor has AES-NI and PCLMULQDQ; SSSE3 and SSE4.1 are older than AVX2.
                unsafe { GcmKey::new(key) }
            }
            _ => None,
        };
        Ok(Self {
            algorithm,
            portable,
            #[cfg(target_arch = "x86_64")]
            chacha,
            #[cfg(target_arch = "x86_64")]
            gcm,
        })
    }

    /// The key as the SIMD backends take it, if it is for ChaCha20-Poly1305.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn chacha(&self) -> Option<&ChaChaKey> {
        self.chacha.as_deref()
    }

    /// The key as the SIMD backends take it, if it is for AES-GCM and the processor has one of them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn gcm(&self) -> Option<&GcmKey> {
        self.gcm.as_deref()
    }

    /// Which AEAD the key is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        for algorithm in Algorithm::ALL {
            for len in 0..=64 {
                let key = Key::new(algorithm, &vec![1; len]);
                assert_eq!(key.is_ok(), len == algorithm.key_len(), "{algorithm}, {len}");
            }
        }
    }

    #[test]
    fn debug_shows_the_algorithm_and_nothing_else() {
        let key = Key::new(Algorithm::Aes256Gcm, &[0x41; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(AES-256-GCM)");
    }
}
