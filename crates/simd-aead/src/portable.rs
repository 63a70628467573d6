//! Packet after packet through audited libraries: the backend of every processor, with AES-GCM of
//! aws-lc and ChaCha20-Poly1305 of the `chacha20poly1305` crate; and the AVX-512 backend's way for
//! AES-GCM of packets so long that aws-lc is faster.

use aws_lc_rs::aead as aws;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use packet::checksum::{add, fold};

use crate::job::{OpenJob, SealJob, TAG};
use crate::key::{Algorithm, Key};

/// A key as a library holds it. Both wipe their copy on drop.
pub(crate) enum LibraryKey {
    AwsLc(Box<aws::LessSafeKey>),
    RustCrypto(Box<chacha20poly1305::ChaCha20Poly1305>),
}

impl LibraryKey {
    /// `None` if `key` has the wrong length.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match algorithm {
            Algorithm::Aes128Gcm => &aws::AES_128_GCM,
            Algorithm::Aes256Gcm => &aws::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => {
                let cipher = chacha20poly1305::ChaCha20Poly1305::new_from_slice(key).ok()?;
                return Some(Self::RustCrypto(Box::new(cipher)));
            }
        };
        let key = aws::UnboundKey::new(algorithm, key).ok()?;
        Some(Self::AwsLc(Box::new(aws::LessSafeKey::new(key))))
    }

    /// Encrypts `text` in place and returns its tag. `None` only beyond the length limits of the
    /// algorithms, which [`crate::MAX_PLAINTEXT`] excludes.
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; TAG]> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws::Aad::from(aad), text).ok()?;
                tag.as_ref().try_into().ok()
            }
            Self::RustCrypto(key) => {
                key.encrypt_in_place_detached(&nonce.into(), aad, text).ok().map(Into::into)
            }
        }
    }

    /// Verifies and decrypts `sealed` (ciphertext and tag) into `text`, which is a tag shorter.
    fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], text: &mut [u8]) -> bool {
        let Some((cipher, tag)) = sealed.split_last_chunk::<TAG>() else { return false };
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, aws::Aad::from(aad), cipher, tag, text).is_ok()
            }
            Self::RustCrypto(key) => {
                text.copy_from_slice(cipher);
                key.decrypt_in_place_detached(&nonce.into(), aad, text, tag.into()).is_ok()
            }
        }
    }
}

/// The longest suffix that is sealed behind the body without a copy of the body.
const SHORT_SUFFIX: usize = 16;

/// Runs a checked job.
pub(crate) fn seal_one(key: &LibraryKey, src: &[u8], dst: &mut [u8], job: &SealJob) {
    let body = &src[job.body.clone()];
    let dst = &mut dst[job.dst..job.dst + job.plaintext_len() + TAG];
    if let Some(checksum) = &job.checksum {
        checksum.complete(&mut dst[..job.prefix], body);
    }
    let sealed = match key {
        LibraryKey::AwsLc(key) if job.prefix == 0 && job.suffix <= SHORT_SUFFIX => {
            seal_across(key, job, body, dst)
        }
        _ => {
            dst[job.prefix..job.prefix + body.len()].copy_from_slice(body);
            seal_in_place(key, job, dst)
        }
    };
    if sealed.is_none() {
        // Unreachable within the checked limits; never leave plaintext where ciphertext belongs.
        dst.fill(0);
    }
}

fn seal_in_place(key: &LibraryKey, job: &SealJob, dst: &mut [u8]) -> Option<()> {
    let (text, tag) = dst.split_last_chunk_mut::<TAG>()?;
    *tag = key.seal(job.nonce, job.aad.as_slice(), text)?;
    Some(())
}

/// From one buffer to the other in one pass.
fn seal_across(key: &aws::LessSafeKey, job: &SealJob, body: &[u8], dst: &mut [u8]) -> Option<()> {
    let (text, end) = dst.split_at_mut_checked(body.len())?;
    let mut suffix = [0; SHORT_SUFFIX];
    let suffix = suffix.get_mut(..job.suffix)?;
    suffix.copy_from_slice(end.get(..job.suffix)?);
    let nonce = aws::Nonce::assume_unique_for_key(job.nonce);
    let aad = aws::Aad::from(job.aad.as_slice());
    key.seal_out_of_place_scatter(nonce, aad, body, text, suffix, end).ok()
}

/// Runs a checked job.
pub(crate) fn open_one(key: &LibraryKey, src: &[u8], dst: &mut [u8], job: &mut OpenJob) {
    let text = &mut dst[job.dst..job.dst + job.plaintext_len()];
    job.ok = key.open(job.nonce, job.aad.as_slice(), &src[job.src.clone()], text);
    job.sum = job.sum.map(|_| if job.ok { u16::from_ne_bytes(fold(add(0, text))) } else { 0 });
    if !job.ok {
        text.fill(0);
    }
}

/// Runs checked jobs.
pub(crate) fn seal(keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &[SealJob]) {
    for job in jobs {
        seal_one(&keys[job.key as usize].portable, src, dst, job);
    }
}

/// Runs checked jobs.
pub(crate) fn open(keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &mut [OpenJob]) {
    for job in jobs {
        open_one(&keys[job.key as usize].portable, src, dst, job);
    }
}
