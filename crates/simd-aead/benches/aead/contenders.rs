//! Who runs, and on what: each contender is a closure that does one whole batch.

use std::fmt;
use std::hint::black_box;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aws_lc_rs::aead as aws;
use ring::aead as ring;
use simd_aead::{
    Aad, Algorithm, Backend, Key, OpenJob, SealJob, TAG, open_batch_on, seal_batch_on,
};

use crate::{REFERENCE, without_avx512};

/// What a packet of ESP has: 8 octets of associated data.
const AAD: [u8; 8] = [1, 2, 3, 4, 0, 0, 0, 1];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Seal,
    Open,
}

/// One combination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub algorithm: Algorithm,
    pub operation: Operation,
    /// Octets of plaintext in each packet.
    pub size: usize,
    /// Packets.
    pub batch: usize,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Seal => "seal",
            Self::Open => "open",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{} B x {}", self.algorithm, self.operation, self.size, self.batch)
    }
}

pub type Contender = Box<dyn FnMut()>;

/// The reference, then our backends, then the other libraries.
pub fn all(cell: Cell) -> Vec<(String, Contender)> {
    let mut all = vec![(REFERENCE.to_owned(), reference(cell))];
    for backend in backends() {
        all.push((format!("ours {backend}"), ours(cell, backend)));
    }
    all.push(("ring".to_owned(), with_ring(cell)));
    all.push(("RustCrypto".to_owned(), with_rust_crypto(cell)));
    all
}

/// Our backends that take part.
pub fn backends() -> impl Iterator<Item = Backend> {
    Backend::available().filter(|backend| !(without_avx512() && backend.name() == "avx512"))
}

pub fn reference(cell: Cell) -> Contender {
    with_aws_lc(cell)
}

fn nonce(index: usize) -> [u8; 12] {
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    nonce
}

fn key_octets(algorithm: Algorithm) -> Vec<u8> {
    (0..algorithm.key_len() as u8).collect()
}

/// The packets of a cell, one behind the other, each with room for its tag.
fn buffer(cell: Cell) -> Vec<u8> {
    (0..cell.batch * (cell.size + TAG)).map(|octet| octet as u8).collect()
}

/// Seals from one buffer into another, as the data plane does.
fn ours(cell: Cell, backend: Backend) -> Contender {
    let key = Key::new(cell.algorithm, &key_octets(cell.algorithm)).unwrap();
    let aad = Aad::new(&AAD).unwrap();
    let stride = cell.size + TAG;
    let src = buffer(cell);
    let mut dst = src.clone();
    let jobs: Vec<SealJob> = (0..cell.batch)
        .map(|index| SealJob {
            key: 0,
            nonce: nonce(index),
            aad,
            dst: index * stride,
            prefix: 0,
            body: index * stride..index * stride + cell.size,
            suffix: 0,
            checksum: None,
        })
        .collect();
    if cell.operation == Operation::Seal {
        return Box::new(move || {
            seal_batch_on(backend, &[&key], &src, &mut dst, black_box(&jobs)).unwrap();
        });
    }
    let mut plain = vec![0; src.len()];
    seal_batch_on(backend, &[&key], &src, &mut dst, &jobs).unwrap();
    let mut jobs: Vec<OpenJob> = (0..cell.batch)
        .map(|index| OpenJob {
            key: 0,
            nonce: nonce(index),
            aad,
            src: index * stride..(index + 1) * stride,
            dst: index * stride,
            ok: false,
            sum: None,
        })
        .collect();
    Box::new(move || {
        open_batch_on(backend, &[&key], &dst, &mut plain, black_box(&mut jobs)).unwrap();
        assert!(jobs.iter().all(|job| job.ok));
    })
}

/// Runs `packet` on the index, the text and the tag of every packet in `buffer`. Sealing goes on from
/// the ciphertext of the batch before, which is as good a plaintext and saves the libraries a copy.
fn each(cell: Cell, buffer: &mut [u8], mut packet: impl FnMut(usize, &mut [u8], &mut [u8])) {
    for (index, packet_octets) in buffer.chunks_exact_mut(cell.size + TAG).enumerate() {
        let (text, tag) = packet_octets.split_at_mut(cell.size);
        packet(index, text, tag);
    }
}

fn with_aws_lc(cell: Cell) -> Contender {
    let algorithm = match cell.algorithm {
        Algorithm::Aes128Gcm => &aws::AES_128_GCM,
        Algorithm::Aes256Gcm => &aws::AES_256_GCM,
        Algorithm::ChaCha20Poly1305 => &aws::CHACHA20_POLY1305,
    };
    let octets = key_octets(cell.algorithm);
    let key = aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &octets).unwrap());
    let mut sealed = buffer(cell);
    let seal = move |sealed: &mut [u8]| {
        each(cell, sealed, |index, text, tag| {
            let nonce = aws::Nonce::assume_unique_for_key(nonce(index));
            let made = key.seal_in_place_separate_tag(nonce, aws::Aad::from(AAD), text).unwrap();
            tag.copy_from_slice(made.as_ref());
        });
    };
    if cell.operation == Operation::Seal {
        return Box::new(move || seal(black_box(&mut sealed)));
    }
    seal(&mut sealed);
    let key = aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &octets).unwrap());
    let mut plain = vec![0; cell.size];
    Box::new(move || {
        each(cell, black_box(&mut sealed), |index, text, tag| {
            let nonce = aws::Nonce::assume_unique_for_key(nonce(index));
            let aad = aws::Aad::from(AAD);
            key.open_separate_gather(nonce, aad, text, tag, &mut plain).unwrap();
        });
    })
}

/// Opening in place destroys the ciphertext, so it includes the copy that another buffer would need.
fn with_ring(cell: Cell) -> Contender {
    let algorithm = match cell.algorithm {
        Algorithm::Aes128Gcm => &ring::AES_128_GCM,
        Algorithm::Aes256Gcm => &ring::AES_256_GCM,
        Algorithm::ChaCha20Poly1305 => &ring::CHACHA20_POLY1305,
    };
    let octets = key_octets(cell.algorithm);
    let key = ring::LessSafeKey::new(ring::UnboundKey::new(algorithm, &octets).unwrap());
    let mut sealed = buffer(cell);
    let seal = move |sealed: &mut [u8]| {
        each(cell, sealed, |index, text, tag| {
            let nonce = ring::Nonce::assume_unique_for_key(nonce(index));
            let made = key.seal_in_place_separate_tag(nonce, ring::Aad::from(AAD), text).unwrap();
            tag.copy_from_slice(made.as_ref());
        });
    };
    if cell.operation == Operation::Seal {
        return Box::new(move || seal(black_box(&mut sealed)));
    }
    seal(&mut sealed);
    let key = ring::LessSafeKey::new(ring::UnboundKey::new(algorithm, &octets).unwrap());
    let mut plain = vec![0; cell.size + TAG];
    Box::new(move || {
        for (index, packet) in black_box(&sealed).chunks_exact(cell.size + TAG).enumerate() {
            plain.copy_from_slice(packet);
            let nonce = ring::Nonce::assume_unique_for_key(nonce(index));
            key.open_in_place(nonce, ring::Aad::from(AAD), &mut plain).unwrap();
        }
    })
}

fn with_rust_crypto(cell: Cell) -> Contender {
    let octets = key_octets(cell.algorithm);
    match cell.algorithm {
        Algorithm::Aes128Gcm => {
            rust_crypto(cell, aes_gcm::Aes128Gcm::new_from_slice(&octets).unwrap())
        }
        Algorithm::Aes256Gcm => {
            rust_crypto(cell, aes_gcm::Aes256Gcm::new_from_slice(&octets).unwrap())
        }
        Algorithm::ChaCha20Poly1305 => {
            rust_crypto(cell, chacha20poly1305::ChaCha20Poly1305::new_from_slice(&octets).unwrap())
        }
    }
}

/// Opening as in [`with_ring`].
fn rust_crypto<K>(cell: Cell, key: K) -> Contender
where
    K: AeadInPlace + 'static,
{
    let nonce = |index| aes_gcm::aead::Nonce::<K>::clone_from_slice(&nonce(index));
    let mut sealed = buffer(cell);
    let seal = move |key: &K, sealed: &mut [u8]| {
        each(cell, sealed, |index, text, tag| {
            let made = key.encrypt_in_place_detached(&nonce(index), &AAD, text).unwrap();
            tag.copy_from_slice(&made);
        });
    };
    if cell.operation == Operation::Seal {
        return Box::new(move || seal(&key, black_box(&mut sealed)));
    }
    seal(&key, &mut sealed);
    let mut plain = vec![0; cell.size];
    Box::new(move || {
        for (index, packet) in black_box(&sealed).chunks_exact(cell.size + TAG).enumerate() {
            let (cipher, tag) = packet.split_at(cell.size);
            plain.copy_from_slice(cipher);
            let tag = aes_gcm::aead::Tag::<K>::from_slice(tag);
            key.decrypt_in_place_detached(&nonce(index), &AAD, &mut plain, tag).unwrap();
        }
    })
}
