//! The SK payload's protection (RFC 7296 section 3.14, RFC 5282, RFC 7634).

use std::fmt;

use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::NoPadding};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hmac;
use rand_core::RngCore;
use sa::{Bits, Secret};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::prf::algorithm;
use crate::suite::{ChosenIke, Hash, IkeEncryption};

/// Why an SK payload does not open. The causes are not told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the encrypted payload does not authenticate")]
pub struct SkError;

/// One direction's protection of an IKE SA.
pub struct SkCipher(Kind);

enum Kind {
    Aead { key: Box<LessSafeKey>, salt: [u8; 4], next_iv: u64 },
    Cbc { key: Secret, bits: Bits, mac: Box<hmac::Key>, icv: usize },
}

const AEAD_IV: usize = 8;
const TAG: usize = 16;
const BLOCK: usize = 16;

impl SkCipher {
    /// The cipher of one direction from its encryption key (with salt) and integrity key; `None`
    /// if their lengths are not the suite's.
    #[must_use]
    pub fn new(suite: &ChosenIke, encryption: &Secret, integrity: &Secret) -> Option<Self> {
        let algorithm_of = match suite.encryption {
            IkeEncryption::AesCbc(bits) => {
                let hash = suite.integrity?;
                if encryption.len() != bits.octets() || integrity.len() != hash.octets() {
                    return None;
                }
                let mac = Box::new(hmac::Key::new(algorithm(hash), integrity.expose()));
                let icv = Hash::octets(hash) / 2;
                return Some(Self(Kind::Cbc { key: encryption.clone(), bits, mac, icv }));
            }
            IkeEncryption::AesGcm16(Bits::B128) => &AES_128_GCM,
            IkeEncryption::AesGcm16(Bits::B256) => &AES_256_GCM,
            IkeEncryption::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let (salt, key) =
            encryption.expose().split_last_chunk::<4>().map(|(key, salt)| (*salt, key))?;
        let key = UnboundKey::new(algorithm_of, key).ok()?;
        Some(Self(Kind::Aead { key: Box::new(LessSafeKey::new(key)), salt, next_iv: 0 }))
    }

    /// Octets that the payload body has more than the plaintext of `length` octets.
    #[must_use]
    pub fn overhead(&self, length: usize) -> usize {
        match &self.0 {
            Kind::Aead { .. } => AEAD_IV + 1 + TAG,
            Kind::Cbc { icv, .. } => BLOCK + (BLOCK - length % BLOCK) + icv,
        }
    }

    /// The longest plaintext whose payload body fits in `room` octets.
    #[must_use]
    pub fn fits(&self, room: usize) -> usize {
        match &self.0 {
            Kind::Aead { .. } => room.saturating_sub(AEAD_IV + 1 + TAG),
            Kind::Cbc { icv, .. } => {
                (room.saturating_sub(BLOCK + icv) / BLOCK * BLOCK).saturating_sub(1)
            }
        }
    }

    /// Appends IV, ciphertext and ICV of `plaintext` to `message`, which already holds everything
    /// before the body, with all lengths final.
    pub fn seal(&mut self, message: &mut Vec<u8>, plaintext: &[u8], rng: &mut dyn RngCore) {
        match &mut self.0 {
            Kind::Aead { key, salt, next_iv } => {
                // A counter from zero never repeats under a key: 2^64 messages cannot be sent.
                let iv = next_iv.to_be_bytes();
                *next_iv += 1;
                let mut body = plaintext.to_vec();
                body.push(0);
                let nonce = nonce(*salt, iv);
                if key.seal_in_place_append_tag(nonce, Aad::from(&*message), &mut body).is_ok() {
                    message.extend_from_slice(&iv);
                    message.extend_from_slice(&body);
                }
            }
            Kind::Cbc { key, bits, mac, icv } => {
                let mut iv = [0; BLOCK];
                rng.fill_bytes(&mut iv);
                let padding = BLOCK - (plaintext.len() + 1) % BLOCK;
                let padding = if padding == BLOCK { 0 } else { padding };
                let mut body = plaintext.to_vec();
                body.resize(plaintext.len() + padding, 0);
                body.push(u8::try_from(padding).unwrap_or(0));
                cbc_encrypt(*bits, key.expose(), &iv, &mut body);
                message.extend_from_slice(&iv);
                message.extend_from_slice(&body);
                let tag = hmac::sign(mac, message);
                message.extend_from_slice(tag.as_ref().get(..*icv).unwrap_or_default());
            }
        }
    }

    /// Opens the body that starts at `body` of `datagram`; everything before it is authenticated
    /// too. Returns the payload chain without padding.
    ///
    /// # Errors
    /// It is too short, does not authenticate, or its padding is longer than what is there.
    pub fn open(&self, datagram: &[u8], body: usize) -> Result<Vec<u8>, SkError> {
        let (head, body) = datagram.split_at_checked(body).ok_or(SkError)?;
        let mut plain = match &self.0 {
            Kind::Aead { key, salt, .. } => {
                let (iv, sealed) = body.split_first_chunk::<AEAD_IV>().ok_or(SkError)?;
                let mut buffer = sealed.to_vec();
                let nonce = nonce(*salt, *iv);
                let length = key
                    .open_in_place(nonce, Aad::from(head), &mut buffer)
                    .map_err(|_| SkError)?
                    .len();
                buffer.truncate(length);
                buffer
            }
            Kind::Cbc { key, bits, mac, icv } => {
                let split = datagram.len().checked_sub(*icv).ok_or(SkError)?;
                let (covered, tag) = datagram.split_at_checked(split).ok_or(SkError)?;
                let expected = hmac::sign(mac, covered);
                let expected = expected.as_ref().get(..*icv).ok_or(SkError)?;
                if !bool::from(expected.ct_eq(tag)) {
                    return Err(SkError);
                }
                let sealed = covered.get(head.len()..).ok_or(SkError)?;
                let (iv, sealed) = sealed.split_first_chunk::<BLOCK>().ok_or(SkError)?;
                if sealed.is_empty() || sealed.len() % BLOCK != 0 {
                    return Err(SkError);
                }
                let mut buffer = sealed.to_vec();
                cbc_decrypt(*bits, key.expose(), iv, &mut buffer);
                buffer
            }
        };
        let padding = usize::from(plain.pop().ok_or(SkError)?);
        let length = plain.len().checked_sub(padding).ok_or(SkError)?;
        plain.truncate(length);
        Ok(plain)
    }
}

impl fmt::Debug for SkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Aead { .. } => "SkCipher(AEAD)",
            Kind::Cbc { .. } => "SkCipher(CBC, HMAC)",
        })
    }
}

fn nonce(salt: [u8; 4], iv: [u8; 8]) -> Nonce {
    let mut octets = [0; 12];
    octets[..4].copy_from_slice(&salt);
    octets[4..].copy_from_slice(&iv);
    Nonce::assume_unique_for_key(octets)
}

/// Encrypts whole blocks in place. The key's length was checked when the cipher was made.
fn cbc_encrypt(bits: Bits, key: &[u8], iv: &[u8; BLOCK], body: &mut [u8]) {
    let length = body.len();
    match bits {
        Bits::B128 => {
            if let Ok(cipher) = cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv) {
                let _ = cipher.encrypt_padded_mut::<NoPadding>(body, length);
            }
        }
        Bits::B256 => {
            if let Ok(cipher) = cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv) {
                let _ = cipher.encrypt_padded_mut::<NoPadding>(body, length);
            }
        }
    }
}

fn cbc_decrypt(bits: Bits, key: &[u8], iv: &[u8; BLOCK], body: &mut [u8]) {
    match bits {
        Bits::B128 => {
            if let Ok(cipher) = cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv) {
                let _ = cipher.decrypt_padded_mut::<NoPadding>(body);
            }
        }
        Bits::B256 => {
            if let Ok(cipher) = cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv) {
                let _ = cipher.decrypt_padded_mut::<NoPadding>(body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::KeGroup;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn suites() -> Vec<ChosenIke> {
        let mut out = Vec::new();
        for bits in [Bits::B128, Bits::B256] {
            for hash in Hash::ALL {
                out.push((IkeEncryption::AesCbc(bits), Some(hash)));
            }
            out.push((IkeEncryption::AesGcm16(bits), None));
        }
        out.push((IkeEncryption::ChaCha20Poly1305, None));
        out.into_iter()
            .map(|(encryption, integrity)| ChosenIke {
                encryption,
                integrity,
                prf: Hash::Sha256,
                group: KeGroup::X25519,
            })
            .collect()
    }

    fn cipher(suite: &ChosenIke) -> SkCipher {
        let keys =
            super::super::SaKeys::initial(suite, &Secret::new(vec![7; 32]), b"ni", b"nr", (1, 2));
        SkCipher::new(suite, &keys.ei, &keys.ai).unwrap()
    }

    #[test]
    fn every_suite_opens_what_it_seals_and_no_flipped_bit() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for suite in suites() {
            for length in [0, 1, 15, 16, 17, 200] {
                let mut cipher = cipher(&suite);
                let plain: Vec<u8> = (0..length).map(|i| i as u8).collect();
                let mut message = b"header and payload header".to_vec();
                let body = message.len();
                let overhead = cipher.overhead(plain.len());
                cipher.seal(&mut message, &plain, &mut rng);
                assert_eq!(message.len(), body + plain.len() + overhead, "{suite}");
                assert!(plain.len() <= cipher.fits(plain.len() + overhead), "{suite}");
                assert_eq!(cipher.open(&message, body).unwrap(), plain, "{suite}");
                for i in 0..message.len() {
                    let mut bad = message.clone();
                    bad[i] ^= 1 << (i % 8);
                    assert_eq!(cipher.open(&bad, body), Err(SkError), "{suite} octet {i}");
                }
                for cut in 0..message.len() {
                    assert_eq!(cipher.open(&message[..cut], body), Err(SkError), "{suite}");
                }
            }
        }
    }

    /// RFC 3602 section 4, case 1: one block of AES-CBC with a 128-bit key.
    #[test]
    fn aes_cbc_matches_rfc_3602() {
        let key = 0x06a9_2140_36b8_a15b_512e_03d5_3412_0006_u128.to_be_bytes();
        let iv = 0x3daf_ba42_9d9e_b430_b422_da80_2c9f_ac41_u128.to_be_bytes();
        let mut block = *b"Single block msg";
        cbc_encrypt(Bits::B128, &key, &iv, &mut block);
        assert_eq!(block, 0xe353_779c_1079_aeb8_2708_942d_be77_181a_u128.to_be_bytes());
        cbc_decrypt(Bits::B128, &key, &iv, &mut block);
        assert_eq!(&block, b"Single block msg");
    }
}
