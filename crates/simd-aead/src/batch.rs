//! The two calls of the fast path.

use crate::backend::{Backend, Kind, backend};
use crate::job::{BadJob, OpenJob, SealJob, check_open, check_seal};
use crate::key::Key;
use crate::portable;
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512, simd};

/// Seals every packet of `jobs`: ciphertext replaces the plaintext in `dst`, the tag is written
/// behind it. Nothing is written unless every job fits the buffers and no two overlap.
pub fn seal_batch(
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
) -> Result<(), BadJob> {
    seal_batch_on(backend(), keys, src, dst, jobs)
}

/// Opens every packet of `jobs` and says in [`OpenJob::ok`] which are authentic. The octets at `dst`
/// of the others are zero. Nothing is written unless every job fits the buffers and no two overlap.
pub fn open_batch(
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
) -> Result<(), BadJob> {
    open_batch_on(backend(), keys, src, dst, jobs)
}

/// [`seal_batch`] on a given backend, for tests and benchmarks.
pub fn seal_batch_on(
    backend: Backend,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &[SealJob],
) -> Result<(), BadJob> {
    check_seal(keys, src, dst, jobs)?;
    match backend.kind() {
        // SAFETY: a `Backend` exists only for what the processor has, and the jobs are checked.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { simd::seal(&avx512::KERNELS, keys, src, dst, jobs) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2Vaes => unsafe { simd::seal(&avx2::WITH_VAES, keys, src, dst, jobs) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { simd::seal(&avx2::KERNELS, keys, src, dst, jobs) },
        Kind::Portable => portable::seal(keys, src, dst, jobs),
    }
    Ok(())
}

/// [`open_batch`] on a given backend, for tests and benchmarks.
pub fn open_batch_on(
    backend: Backend,
    keys: &[&Key],
    src: &[u8],
    dst: &mut [u8],
    jobs: &mut [OpenJob],
) -> Result<(), BadJob> {
    check_open(keys, src, dst, jobs)?;
    match backend.kind() {
        // SAFETY: a `Backend` exists only for what the processor has, and the jobs are checked.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { simd::open(&avx512::KERNELS, keys, src, dst, jobs) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2Vaes => unsafe { simd::open(&avx2::WITH_VAES, keys, src, dst, jobs) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { simd::open(&avx2::KERNELS, keys, src, dst, jobs) },
        Kind::Portable => portable::open(keys, src, dst, jobs),
    }
    Ok(())
}
