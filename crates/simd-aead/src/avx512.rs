//! The AVX-512 backend: Ice Lake, Zen 4 and later.

use crate::chachapoly::{self, avx512::run};
use crate::gcm;
use crate::job::{OpenJob, SealJob, TAG};
use crate::key::{Algorithm, Key};
use crate::window::{Picks, WINDOW};

/// Whether this processor has every instruction that the kernels use.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("bmi2")
}

/// Runs checked jobs.
///
/// # Safety
/// [`is_supported`], and the jobs passed the batch's check against `src` and `dst`.
pub(crate) unsafe fn seal(keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &[SealJob]) {
    for jobs in jobs.chunks(WINDOW) {
        let (mut chacha, mut aes) = (Picks::new(), Picks::new());
        for (index, job) in jobs.iter().enumerate() {
            match keys[job.key as usize].algorithm() {
                Algorithm::ChaCha20Poly1305 => chacha.push(index),
                Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => aes.push(index),
            }
        }
        chacha.sort_longest_first(|index| jobs[index].plaintext_len());
        aes.sort_longest_first(|index| jobs[index].plaintext_len());
        while let Some(run) = aes.take_alike(|a, b| jobs[a].key == jobs[b].key) {
            let first = &jobs[usize::from(run.as_slice()[0])];
            match keys[first.key as usize].gcm() {
                // SAFETY: the caller's promise.
                Some(key) => unsafe {
                    gcm::seal(key, src.as_ptr(), dst.as_mut_ptr(), jobs, run.as_slice());
                },
                None => debug_assert!(false, "the key was made where this backend is supported"),
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            chachapoly::seal(run, keys, src, dst, jobs, chacha.as_slice());
        }
    }
}

/// Runs checked jobs.
///
/// # Safety
/// As for [`seal`].
pub(crate) unsafe fn open(keys: &[&Key], src: &[u8], dst: &mut [u8], jobs: &mut [OpenJob]) {
    for jobs in jobs.chunks_mut(WINDOW) {
        let (mut chacha, mut aes) = (Picks::new(), Picks::new());
        for (index, job) in jobs.iter_mut().enumerate() {
            job.ok = false;
            if job.src.len() < TAG {
                continue;
            }
            match keys[job.key as usize].algorithm() {
                Algorithm::ChaCha20Poly1305 => chacha.push(index),
                Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => aes.push(index),
            }
        }
        chacha.sort_longest_first(|index| jobs[index].plaintext_len());
        aes.sort_longest_first(|index| jobs[index].plaintext_len());
        while let Some(run) = aes.take_alike(|a, b| jobs[a].key == jobs[b].key) {
            let first = &jobs[usize::from(run.as_slice()[0])];
            match keys[first.key as usize].gcm() {
                // SAFETY: the caller's promise.
                Some(key) => unsafe {
                    gcm::open(key, src.as_ptr(), dst.as_mut_ptr(), jobs, run.as_slice());
                },
                None => debug_assert!(false, "the key was made where this backend is supported"),
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            chachapoly::open(run, keys, src, dst, jobs, chacha.as_slice());
        }
    }
}
