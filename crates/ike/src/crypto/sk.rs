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

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn aead(encryption: IkeEncryption, key: &str) -> SkCipher {
        let suite =
            ChosenIke { encryption, integrity: None, prf: Hash::Sha256, group: KeGroup::X25519 };
        SkCipher::new(&suite, &Secret::new(hex(key)), &Secret::default()).unwrap()
    }

    /// RFC 7634 appendix B: a whole IKE message, header and SK payload header as AAD.
    #[test]
    fn chacha20_poly1305_matches_rfc_7634() {
        let key = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3";
        let mut cipher = aead(IkeEncryption::ChaCha20Poly1305, key);
        if let Kind::Aead { next_iv, .. } = &mut cipher.0 {
            *next_iv = 0x1011_1213_1415_1617;
        }
        let head = hex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029");
        let plain = hex("0000000c000040010000000a");
        let sealed = hex("1011121314151617 610394701f8d017f7c12924889
                          6b71bfe25236efd7cdc67066906315b2");
        let mut message = head.clone();
        cipher.seal(&mut message, &plain, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(message[head.len()..], sealed);
        assert_eq!(cipher.open(&message, head.len()).unwrap(), plain);
    }

    /// Test cases 4 and 16 of the GCM specification (SP 800-38D's submission). Their last octet of
    /// plaintext, 0x39, reads as the length of 57 octets of padding.
    #[test]
    fn aes_gcm_matches_the_specification() {
        let head = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        for (bits, key, sealed) in [
            (
                Bits::B128,
                "feffe9928665731c6d6a8f9467308308cafebabe",
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
                 21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
                 5bc94fbc3221a5db94fae95ae7121a47",
            ),
            (
                Bits::B256,
                "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308cafebabe",
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
                 76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ] {
            let cipher = aead(IkeEncryption::AesGcm16(bits), key);
            let message = [head.clone(), hex("facedbaddecaf888"), hex(sealed)].concat();
            assert_eq!(cipher.open(&message, head.len()).unwrap(), [0xd9, 0x31], "{bits:?}");
        }
    }

    /// IV, padding, ciphertext and ICV, computed with Python's `cryptography` and `hmac`: keys are
    /// the octets from 0 and from 100, the head 0 to 31, the IV 16 to 31.
    #[test]
    fn aes_cbc_with_hmac_matches_an_independent_computation() {
        let octets = |from: u8, length: usize| (from..).take(length).collect::<Vec<u8>>();
        for (bits, hash, sealed) in [
            (
                Bits::B128,
                Hash::Sha256,
                "c5b6f03905b9a9fdf5d7671ba2b04522c656124c1892151f5762a0f7030efb0e
                 fb180005ab971afcd38c07d2d9eba9d0",
            ),
            (
                Bits::B256,
                Hash::Sha384,
                "953a964c5c1af4f8d7824595da8a926e39dda4b26e5d605e9b0d19ea791d3e72
                 8c3b722f5a874a57322df4a36048ad9ba14ff6594f6fe722",
            ),
            (
                Bits::B256,
                Hash::Sha512,
                "953a964c5c1af4f8d7824595da8a926e39dda4b26e5d605e9b0d19ea791d3e72
                 9d60ec3f425be3f68d3a92a4c793e0adfdd12f0c8fbc795ee7c23c44acd9cf2c",
            ),
        ] {
            let suite = ChosenIke {
                encryption: IkeEncryption::AesCbc(bits),
                integrity: Some(hash),
                prf: Hash::Sha256,
                group: KeGroup::X25519,
            };
            let encryption = Secret::new(octets(0, bits.octets()));
            let integrity = Secret::new(octets(100, hash.octets()));
            let mut cipher = SkCipher::new(&suite, &encryption, &integrity).unwrap();
            let plain = b"a payload chain of 29 octets.";
            let message = [octets(0, 32), octets(16, 16), hex(sealed)].concat();
            assert_eq!(cipher.open(&message, 32).unwrap(), plain, "{suite}");
            let mut ours = octets(0, 32);
            cipher.seal(&mut ours, plain, &mut Iv(16));
            assert_eq!(ours, message, "{suite}");
        }
    }

    /// Counts up from an octet.
    struct Iv(u8);

    impl RngCore for Iv {
        fn next_u32(&mut self) -> u32 {
            unreachable!("an IV is drawn as octets")
        }
        fn next_u64(&mut self) -> u64 {
            unreachable!("an IV is drawn as octets")
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            dest.iter_mut().zip(self.0..).for_each(|(octet, next)| *octet = next);
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(dest);
            Ok(())
        }
    }

    #[test]
    fn no_two_messages_of_a_key_share_an_iv() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for suite in suites() {
            let mut cipher = cipher(&suite);
            let iv_len = if suite.encryption.is_aead() { AEAD_IV } else { BLOCK };
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..100 {
                let mut message = Vec::new();
                cipher.seal(&mut message, b"same", &mut rng);
                assert!(seen.insert(message[..iv_len].to_vec()), "{suite}");
            }
        }
    }

    #[test]
    fn keys_of_another_length_make_no_cipher() {
        for suite in suites() {
            let keys = super::super::SaKeys::initial(
                &suite,
                &Secret::new(vec![7; 32]),
                b"ni",
                b"nr",
                (1, 2),
            );
            let longer = |s: &Secret| Secret::new([s.expose(), &[0]].concat());
            assert!(SkCipher::new(&suite, &longer(&keys.ei), &keys.ai).is_none(), "{suite}");
            assert!(SkCipher::new(&suite, &Secret::default(), &keys.ai).is_none(), "{suite}");
            if suite.integrity.is_some() {
                assert!(SkCipher::new(&suite, &keys.ei, &longer(&keys.ai)).is_none(), "{suite}");
            }
        }
    }

    /// The sender may pad as it likes (RFC 7296 3.14), but not with more than there is.
    #[test]
    fn padding_longer_than_the_plaintext_is_refused() {
        let mut cipher = cipher(&suites()[0]);
        let Kind::Cbc { key, bits, mac, icv } = &mut cipher.0 else { unreachable!() };
        for (pad, opens) in [(0, Some(15)), (15, Some(0)), (16, None), (255, None)] {
            let mut block = [9; BLOCK];
            block[BLOCK - 1] = pad;
            let iv = [1; BLOCK];
            cbc_encrypt(*bits, key.expose(), &iv, &mut block);
            let mut message = [iv, block].concat();
            let tag = hmac::sign(mac, &message);
            message.extend_from_slice(&tag.as_ref()[..*icv]);
            let opened =
                SkCipher(Kind::Cbc { key: key.clone(), bits: *bits, mac: mac.clone(), icv: *icv })
                    .open(&message, 0);
            assert_eq!(opened.ok().map(|plain| plain.len()), opens, "padding of {pad}");
        }
    }
}
