//! What the SIMD backends share: a batch is cut into windows, each window's packets are ordered, and
//! handed to the kernels of one instruction set.

use crate::chachapoly;
use crate::gcm;
use crate::job::{OpenJob, SealJob, TAG};
use crate::key::{Algorithm, Key};
use crate::portable;
use crate::window::{IN_ORDER, Picks, WINDOW};

/// The kernels of one instruction set.
pub(crate) struct Kernels {
    pub(crate) chacha: chachapoly::Kernel,
    pub(crate) gcm: gcm::Kernels,
}

/// Runs checked jobs.
///
/// # Safety
/// The processor has the instructions of `kernels`, and the jobs passed the batch's check against
/// `src` and `dst`.
pub(crate) unsafe fn seal(
    kernels: &Kernels,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
) {
    for jobs in jobs.chunks(WINDOW) {
        let in_order = &IN_ORDER[..jobs.len()];
        match alike(keys, jobs, |job| (job.key, job.plaintext_len())) {
            // SAFETY: the caller's promise.
            Some(Algorithm::ChaCha20Poly1305) => unsafe {
                chachapoly::seal(&kernels.chacha, keys, src, dst, jobs, in_order);
                continue;
            },
            // SAFETY: likewise.
            Some(Algorithm::Aes128Gcm | Algorithm::Aes256Gcm) => unsafe {
                seal_aes(kernels, keys, src, dst, jobs, in_order);
                continue;
            },
            None => {}
        }
        let (mut chacha, mut aes) = (Picks::new(), Picks::new());
        for (index, job) in jobs.iter().enumerate() {
            match keys[job.key as usize].algorithm() {
                Algorithm::ChaCha20Poly1305 => chacha.push(index),
                Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => aes.push(index),
            }
        }
        aes.sort_longest_first(|index| jobs[index].plaintext_len());
        while let Some(run) = aes.take_alike(|a, b| jobs[a].key == jobs[b].key) {
            // SAFETY: the caller's promise.
            unsafe { seal_aes(kernels, keys, src, dst, jobs, run.as_slice()) };
        }
        chacha.sort_longest_first(|index| jobs[index].plaintext_len());
        // SAFETY: the caller's promise.
        unsafe {
            chachapoly::seal(&kernels.chacha, keys, src, dst, jobs, chacha.as_slice());
        }
    }
}

/// The algorithm of `jobs`, at least one, if they are already as a kernel takes them: under one key,
/// and none longer than the one before. A burst is: one length, and the last packet shorter.
fn alike<J>(keys: &[&Key], jobs: &[J], of: impl Fn(&J) -> (u32, usize)) -> Option<Algorithm> {
    let (key, mut least) = of(&jobs[0]);
    for job in jobs {
        let (other, len) = of(job);
        if other != key || len > least {
            return None;
        }
        least = len;
    }
    Some(keys[key as usize].algorithm())
}

/// Seals the jobs at `indexes`, at least one, all under one AES key.
///
/// # Safety
/// As for [`seal`].
unsafe fn seal_aes(
    kernels: &Kernels,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
    indexes: &[u8],
) {
    let key = keys[jobs[usize::from(indexes[0])].key as usize];
    let len = |index: u8| jobs[usize::from(index)].plaintext_len();
    let singles = for_the_library(kernels, indexes, len);
    for &index in &indexes[..singles] {
        portable::seal_one(&key.portable, src, dst, &jobs[usize::from(index)]);
    }
    let rest = &indexes[singles..];
    if rest.is_empty() {
        return;
    }
    if let Some(key) = key.gcm() {
        // SAFETY: the caller's promise.
        unsafe {
            gcm::seal(&kernels.gcm, key, src.as_ptr(), dst.as_mut_ptr(), jobs, rest);
        }
    }
}

/// Runs checked jobs.
///
/// # Safety
/// As for [`seal`].
pub(crate) unsafe fn open(
    kernels: &Kernels,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
) {
    for jobs in jobs.chunks_mut(WINDOW) {
        let in_order = &IN_ORDER[..jobs.len()];
        let mut tags = true;
        for job in jobs.iter_mut() {
            job.ok = false;
            job.sum = job.sum.map(|_| 0);
            tags &= job.src.len() >= TAG;
        }
        let all = if tags { alike(keys, jobs, |job| (job.key, job.src.len())) } else { None };
        match all {
            // SAFETY: the caller's promise.
            Some(Algorithm::ChaCha20Poly1305) => unsafe {
                chachapoly::open(&kernels.chacha, keys, src, dst, jobs, in_order);
                continue;
            },
            // SAFETY: likewise.
            Some(Algorithm::Aes128Gcm | Algorithm::Aes256Gcm) => unsafe {
                open_aes(kernels, keys, src, dst, jobs, in_order);
                continue;
            },
            None => {}
        }
        let (mut chacha, mut aes) = (Picks::new(), Picks::new());
        for (index, job) in jobs.iter().enumerate() {
            if job.src.len() < TAG {
                continue;
            }
            match keys[job.key as usize].algorithm() {
                Algorithm::ChaCha20Poly1305 => chacha.push(index),
                Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => aes.push(index),
            }
        }
        aes.sort_longest_first(|index| jobs[index].plaintext_len());
        while let Some(run) = aes.take_alike(|a, b| jobs[a].key == jobs[b].key) {
            // SAFETY: the caller's promise.
            unsafe { open_aes(kernels, keys, src, dst, jobs, run.as_slice()) };
        }
        chacha.sort_longest_first(|index| jobs[index].plaintext_len());
        // SAFETY: the caller's promise.
        unsafe {
            chachapoly::open(&kernels.chacha, keys, src, dst, jobs, chacha.as_slice());
        }
    }
}

/// Opens the jobs at `indexes`, at least one, all under one AES key and at least a tag long.
///
/// # Safety
/// As for [`seal`].
unsafe fn open_aes(
    kernels: &Kernels,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
    indexes: &[u8],
) {
    let key = keys[jobs[usize::from(indexes[0])].key as usize];
    let len = |index: u8| jobs[usize::from(index)].plaintext_len();
    let singles = for_the_library(kernels, indexes, len);
    for &index in &indexes[..singles] {
        portable::open_one(&key.portable, src, dst, &mut jobs[usize::from(index)]);
    }
    let rest = &indexes[singles..];
    if rest.is_empty() {
        return;
    }
    if let Some(key) = key.gcm() {
        // SAFETY: the caller's promise.
        unsafe {
            gcm::open(&kernels.gcm, key, src.as_ptr(), dst.as_mut_ptr(), jobs, rest);
        }
    }
}

/// How many of the AES jobs at `indexes`, longest first, aws-lc does in less time than a kernel.
fn for_the_library(kernels: &Kernels, indexes: &[u8], len: impl Fn(u8) -> usize) -> usize {
    indexes.iter().take_while(|&&index| len(index) > kernels.gcm.longest).count()
}
