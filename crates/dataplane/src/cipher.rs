//! The protection of one half of a Child SA: an AEAD key for the batch kernels, or AES-CBC with
//! HMAC (RFC 3602, RFC 4868), which is done packet by packet.

use std::fmt;

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockDecryptMut, BlockEncrypt, BlockEncryptMut, InnerIvInit, KeyInit};
use aws_lc_rs::hmac;
use sa::{Bits, CbcIntegrity, EspSuite, Secret};
use simd_aead::{Aad, Algorithm, Key};
use subtle::ConstantTimeEq;

pub(crate) enum Cipher {
    Aead { key: Key, salt: [u8; 4] },
    Cbc(Box<Cbc>),
}

/// AES-CBC, then HMAC over header, IV, ciphertext, and the upper half of an extended number.
pub(crate) struct Cbc {
    block: Block,
    mac: hmac::Key,
    icv: usize,
    /// Encrypts sequence numbers into IVs that nobody can foresee: a key of its own, derived.
    iv: aes::Aes128,
}

/// AES with its round keys, expanded once for each SA and wiped on drop.
#[expect(clippy::large_enum_variant, reason = "stands in a box with the rest of its SA's keys")]
enum Block {
    Aes128(aes::Aes128),
    Aes256(aes::Aes256),
}

const BLOCK: usize = 16;

impl Cipher {
    /// `None` if a key's length is not the suite's.
    pub(crate) fn new(suite: EspSuite, encryption: &Secret, integrity: &Secret) -> Option<Self> {
        let algorithm = match suite {
            EspSuite::AesGcm16(Bits::B128) => Algorithm::Aes128Gcm,
            EspSuite::AesGcm16(Bits::B256) => Algorithm::Aes256Gcm,
            EspSuite::ChaCha20Poly1305 => Algorithm::ChaCha20Poly1305,
            EspSuite::AesCbc(bits, hash) => {
                return Cbc::new(bits, hash, encryption, integrity).map(|c| Self::Cbc(Box::new(c)));
            }
        };
        let (key, salt) = encryption.expose().split_last_chunk::<4>()?;
        let key = Key::new(algorithm, key).ok()?;
        Some(Self::Aead { key, salt: *salt })
    }
}

impl Cbc {
    fn new(
        bits: Bits,
        hash: CbcIntegrity,
        encryption: &Secret,
        integrity: &Secret,
    ) -> Option<Self> {
        if encryption.len() != bits.octets() || integrity.len() != hash.key_len() {
            return None;
        }
        let algorithm = match hash {
            CbcIntegrity::Sha256 => hmac::HMAC_SHA256,
            CbcIntegrity::Sha384 => hmac::HMAC_SHA384,
            CbcIntegrity::Sha512 => hmac::HMAC_SHA512,
        };
        let mac = hmac::Key::new(algorithm, integrity.expose());
        let derived = hmac::sign(&mac, b"vgw ESP AES-CBC IV");
        let iv = aes::Aes128::new_from_slice(derived.as_ref().get(..BLOCK)?).ok()?;
        let block = match bits {
            Bits::B128 => Block::Aes128(aes::Aes128::new_from_slice(encryption.expose()).ok()?),
            Bits::B256 => Block::Aes256(aes::Aes256::new_from_slice(encryption.expose()).ok()?),
        };
        Some(Self { block, mac, icv: hash.icv_len(), iv })
    }

    /// The IV of the packet with this sequence number: unpredictable and never the same.
    pub(crate) fn iv(&self, sequence: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[8..].copy_from_slice(&sequence.to_be_bytes());
        let mut block = block.into();
        self.iv.encrypt_block(&mut block);
        block.into()
    }

    /// `packet` holds ESP header, IV, plaintext with trailer, and room for the ICV.
    pub(crate) fn seal(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let covered = packet.len().checked_sub(self.icv)?;
        let (head, icv) = packet.split_at_mut_checked(covered)?;
        let (clear, body) = head.split_at_mut_checked(8 + BLOCK)?;
        let iv = clear.get(8..)?;
        let length = body.len();
        match &self.block {
            Block::Aes128(aes) => cbc::Encryptor::inner_iv_slice_init(aes, iv)
                .ok()?
                .encrypt_padded_mut::<NoPadding>(body, length)
                .ok()?,
            Block::Aes256(aes) => cbc::Encryptor::inner_iv_slice_init(aes, iv)
                .ok()?
                .encrypt_padded_mut::<NoPadding>(body, length)
                .ok()?,
        };
        let tag = self.sign(head, high);
        icv.copy_from_slice(tag.as_ref().get(..self.icv)?);
        Some(())
    }

    /// Checks and decrypts a whole ESP packet into `plain`, which has the ciphertext's length.
    pub(crate) fn open(&self, packet: &[u8], high: Option<u32>, plain: &mut [u8]) -> Option<()> {
        let covered = packet.len().checked_sub(self.icv)?;
        let (head, icv) = packet.split_at_checked(covered)?;
        let tag = self.sign(head, high);
        if !bool::from(tag.as_ref().get(..self.icv)?.ct_eq(icv)) {
            return None;
        }
        let (clear, body) = head.split_at_checked(8 + BLOCK)?;
        let iv = clear.get(8..)?;
        if body.len() != plain.len() {
            return None;
        }
        plain.copy_from_slice(body);
        match &self.block {
            Block::Aes128(aes) => cbc::Decryptor::inner_iv_slice_init(aes, iv)
                .ok()?
                .decrypt_padded_mut::<NoPadding>(plain)
                .ok()?,
            Block::Aes256(aes) => cbc::Decryptor::inner_iv_slice_init(aes, iv)
                .ok()?
                .decrypt_padded_mut::<NoPadding>(plain)
                .ok()?,
        };
        Some(())
    }

    fn sign(&self, covered: &[u8], high: Option<u32>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(covered);
        if let Some(high) = high {
            context.update(&high.to_be_bytes());
        }
        context.sign()
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aead { key, .. } => write!(f, "Cipher({key:?})"),
            Self::Cbc(cbc) => match cbc.block {
                Block::Aes128(_) => f.write_str("Cipher(AES-128-CBC, HMAC)"),
                Block::Aes256(_) => f.write_str("Cipher(AES-256-CBC, HMAC)"),
            },
        }
    }
}

/// The nonce of an AEAD: salt, then the explicit IV (RFC 4106 4, RFC 7634 2).
pub(crate) fn nonce(salt: [u8; 4], iv: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&iv);
    nonce
}

/// The associated data of an AEAD: SPI and sequence number, 64 bits of it with ESN (RFC 4106 5).
pub(crate) fn aad(spi: sa::Spi, sequence: u64, esn: bool) -> Aad {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&spi.to_be_bytes());
    if esn {
        bytes[4..].copy_from_slice(&sequence.to_be_bytes());
        return Aad { bytes, len: 12 };
    }
    let low = sequence.to_be_bytes();
    bytes[4..8].copy_from_slice(&low[4..]);
    Aad { bytes, len: 8 }
}
