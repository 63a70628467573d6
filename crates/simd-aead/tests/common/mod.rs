//! Batches of every shape, and the libraries as oracles.

#![allow(dead_code, reason = "each test file uses its part")]

use aws_lc_rs::aead as aws;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use packet::checksum::add;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use simd_aead::{Aad, Algorithm, Checksum, Key, OpenJob, SealJob, TAG};

/// A seeded source of everything random in a test.
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit as u64) as usize
    }

    pub fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.0.fill_bytes(&mut octets);
        octets
    }
}

/// A key of ours and its octets, for the oracles.
pub struct TestKey {
    pub key: Key,
    pub octets: Vec<u8>,
}

impl TestKey {
    pub fn new(algorithm: Algorithm, dice: &mut Dice) -> Self {
        let octets = dice.octets(algorithm.key_len());
        Self { key: Key::new(algorithm, &octets).unwrap(), octets }
    }
}

/// What sealing one packet must give, ciphertext and tag, from every oracle that has the algorithm.
pub fn oracle(key: &TestKey, nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let algorithm = match key.key.algorithm() {
        Algorithm::Aes128Gcm => &aws::AES_128_GCM,
        Algorithm::Aes256Gcm => &aws::AES_256_GCM,
        Algorithm::ChaCha20Poly1305 => &aws::CHACHA20_POLY1305,
    };
    let aws_key = aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &key.octets).unwrap());
    let mut sealed = plain.to_vec();
    let aws_nonce = aws::Nonce::assume_unique_for_key(nonce);
    aws_key.seal_in_place_append_tag(aws_nonce, aws::Aad::from(aad), &mut sealed).unwrap();
    if key.key.algorithm() == Algorithm::ChaCha20Poly1305 {
        let key = chacha20poly1305::ChaCha20Poly1305::new_from_slice(&key.octets).unwrap();
        let mut other = plain.to_vec();
        let tag = key.encrypt_in_place_detached(&nonce.into(), aad, &mut other).unwrap();
        other.extend_from_slice(&tag);
        assert_eq!(sealed, other, "the oracles disagree");
    }
    sealed
}

/// The sum of RFC 1071 section 1, word by word.
pub fn ones_complement_sum(octets: &[u8]) -> u16 {
    octets.chunks(2).fold(0, |sum: u16, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// Seal jobs with the buffers that they are for, and what must come out.
pub struct Batch {
    pub src: Vec<u8>,
    pub dst: Vec<u8>,
    pub jobs: Vec<SealJob>,
    pub plain: Vec<Vec<u8>>,
    /// The destination after sealing: ciphertexts and tags, and the octets between the packets as
    /// they were.
    pub sealed: Vec<u8>,
}

/// One packet of a batch: its key and the three parts of its plaintext.
#[derive(Clone, Copy)]
pub struct Shape {
    pub key: usize,
    pub aad: usize,
    pub prefix: usize,
    pub body: usize,
    pub suffix: usize,
}

impl Batch {
    /// Lays the packets of `shapes` out in their order, with gaps that must stay as they are.
    pub fn new(keys: &[TestKey], shapes: &[Shape], dice: &mut Dice) -> Self {
        let mut batch = Self {
            src: Vec::new(),
            dst: Vec::new(),
            jobs: Vec::new(),
            plain: Vec::new(),
            sealed: Vec::new(),
        };
        for shape in shapes {
            let gap = dice.below(70);
            batch.src.extend(dice.octets(gap));
            batch.dst.extend(dice.octets(gap));
            let nonce: [u8; 12] = dice.octets(12).try_into().unwrap();
            let aad = dice.octets(shape.aad);
            let [prefix, body, suffix] =
                [shape.prefix, shape.body, shape.suffix].map(|len| dice.octets(len));
            let checksum = (prefix.len() >= 2 && dice.below(2) == 0).then(|| {
                let (field, covered) = (dice.below(prefix.len() - 1), dice.octets(6));
                let checksum = Checksum { field, sum: add(0, &covered), udp: dice.below(2) == 0 };
                (checksum, covered)
            });
            // What is past the length must not count.
            let mut given = Aad::new(&aad).unwrap();
            given.bytes[aad.len()..].fill(0x5a);
            batch.jobs.push(SealJob {
                key: shape.key as u32,
                nonce,
                aad: given,
                dst: batch.dst.len(),
                prefix: prefix.len(),
                body: batch.src.len()..batch.src.len() + body.len(),
                suffix: suffix.len(),
                checksum: checksum.as_ref().map(|(checksum, _)| *checksum),
            });
            batch.src.extend(&body);
            let mut plain = [prefix.clone(), body.clone(), suffix.clone()].concat();
            if let Some((Checksum { field, udp, .. }, covered)) = checksum {
                let sum = !ones_complement_sum(&[covered, body.clone()].concat());
                let sum = if udp && sum == 0 { 0xffff } else { sum };
                plain[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            }
            batch.sealed.extend_from_slice(&batch.dst[batch.sealed.len()..]);
            batch.sealed.extend(oracle(&keys[shape.key], nonce, &aad, &plain));
            batch.dst.extend([prefix, dice.octets(body.len()), suffix].concat());
            batch.dst.extend(dice.octets(TAG));
            batch.plain.push(plain);
        }
        let gap = dice.octets(33);
        batch.dst.extend(&gap);
        batch.sealed.extend(&gap);
        batch
    }

    /// Jobs that open what sealing gives, into a buffer of the same layout.
    pub fn open_jobs(&self) -> Vec<OpenJob> {
        let open = |job: &SealJob| OpenJob {
            key: job.key,
            nonce: job.nonce,
            aad: job.aad,
            src: job.dst..job.dst + job.plaintext_len() + TAG,
            dst: job.dst,
            ok: false,
            // Every other one.
            sum: (job.dst.is_multiple_of(2)).then_some(7),
        };
        self.jobs.iter().map(open).collect()
    }
}

pub fn key_refs(keys: &[TestKey]) -> Vec<&Key> {
    keys.iter().map(|key| &key.key).collect()
}
