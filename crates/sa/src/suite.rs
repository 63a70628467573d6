//! The ESP suites that both planes know, and their sizes on the wire.

use std::fmt;

/// AES key size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Bits {
    /// 128-bit keys.
    B128,
    /// 256-bit keys.
    B256,
}

impl Bits {
    /// Key length in octets.
    #[must_use]
    pub fn octets(self) -> usize {
        match self {
            Self::B128 => 16,
            Self::B256 => 32,
        }
    }

    /// Key length in bits, as it stands in the Key Length attribute (RFC 7296 3.3.5).
    #[must_use]
    pub fn bits(self) -> u16 {
        match self {
            Self::B128 => 128,
            Self::B256 => 256,
        }
    }
}

/// HMAC-SHA2 integrity for AES-CBC (RFC 4868): the ICV is half of the hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum CbcIntegrity {
    /// HMAC-SHA2-256-128.
    Sha256,
    /// HMAC-SHA2-384-192.
    Sha384,
    /// HMAC-SHA2-512-256.
    Sha512,
}

impl CbcIntegrity {
    /// Key length in octets: the length of the hash (RFC 4868 2.1.1).
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Length of the truncated ICV in octets.
    #[must_use]
    pub fn icv_len(self) -> usize {
        self.key_len() / 2
    }
}

/// One ESP suite: how a Child SA encrypts and authenticates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum EspSuite {
    /// AES-GCM with a 16-octet ICV (RFC 4106).
    AesGcm16(Bits),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868).
    AesCbc(Bits, CbcIntegrity),
}

impl EspSuite {
    /// Every suite, best first: our own order of preference.
    pub const ALL: [Self; 9] = [
        Self::AesGcm16(Bits::B256),
        Self::AesGcm16(Bits::B128),
        Self::ChaCha20Poly1305,
        Self::AesCbc(Bits::B256, CbcIntegrity::Sha512),
        Self::AesCbc(Bits::B256, CbcIntegrity::Sha384),
        Self::AesCbc(Bits::B256, CbcIntegrity::Sha256),
        Self::AesCbc(Bits::B128, CbcIntegrity::Sha512),
        Self::AesCbc(Bits::B128, CbcIntegrity::Sha384),
        Self::AesCbc(Bits::B128, CbcIntegrity::Sha256),
    ];

    /// Octets of KEYMAT for encryption in one direction: the key, and for the AEADs the 4-octet
    /// salt after it (RFC 4106 8.1, RFC 7634 2).
    #[must_use]
    pub fn encryption_keymat_len(self) -> usize {
        match self {
            Self::AesGcm16(bits) => bits.octets() + 4,
            Self::ChaCha20Poly1305 => 32 + 4,
            Self::AesCbc(bits, _) => bits.octets(),
        }
    }

    /// Octets of KEYMAT for integrity in one direction; 0 for the AEADs.
    #[must_use]
    pub fn integrity_keymat_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 0,
            Self::AesCbc(_, integrity) => integrity.key_len(),
        }
    }

    /// Octets of the explicit IV in each packet.
    #[must_use]
    pub fn iv_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 8,
            Self::AesCbc(..) => 16,
        }
    }

    /// Octets of the ICV in each packet.
    #[must_use]
    pub fn icv_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 16,
            Self::AesCbc(_, integrity) => integrity.icv_len(),
        }
    }

    /// The multiple, in octets, to which the ESP trailer pads the plaintext: the cipher's block,
    /// and at least 4 (RFC 4303 2.4).
    #[must_use]
    pub fn pad_to(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 4,
            Self::AesCbc(..) => 16,
        }
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AesGcm16(bits) => write!(f, "AES{}-GCM-16", bits.bits()),
            Self::ChaCha20Poly1305 => write!(f, "CHACHA20-POLY1305"),
            Self::AesCbc(bits, integrity) => {
                write!(f, "AES{}/SHA2-{}", bits.bits(), integrity.key_len() * 8)
            }
        }
    }
}
