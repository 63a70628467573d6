//! Sums for the Internet checksum (RFC 1071) in the pass that seals or opens a packet: its octets are
//! summed when they come into the first-level cache to be encrypted, or are still there from
//! decryption.

pub(crate) mod avx512;

use std::arch::x86_64::*;

use packet::checksum::{add, fold};

use crate::job::SealJob;

/// The folded sum of octets, in the host's byte order.
///
/// # Safety
/// To be called only on a processor that has the kernel's instructions, with octets to be read.
pub(crate) type Sum = unsafe fn(*const u8, usize) -> u16;

/// Completes the checksum of a checked job.
///
/// # Safety
/// As for [`crate::text::Text::sealing`].
#[inline]
pub(crate) unsafe fn complete(job: &SealJob, src: *const u8, dst: *mut u8) {
    let Some(checksum) = &job.checksum else { return };
    // SAFETY: the caller's promise: the body lies in the source, the prefix with the field in the
    // destination.
    unsafe {
        let body = sum(src.add(job.body.start), job.body.len());
        dst.add(job.dst + checksum.field).cast::<[u8; 2]>().write(checksum.octets(body));
    }
}

/// The folded sum of the octets, in the host's byte order.
///
/// # Safety
/// `octets` is good for reads of `len`. The processor has AVX2.
#[inline]
pub(crate) unsafe fn folded(octets: *const u8, len: usize) -> u16 {
    // SAFETY: the caller's promise.
    u16::from_ne_bytes(fold(unsafe { sum(octets, len) }))
}

/// Octets from which on registers pay.
const LONG: usize = 64;

#[inline]
unsafe fn sum(octets: *const u8, len: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (head, long) =
            if len < LONG { (0, 0) } else { (len / LONG * LONG, sum_long(octets, len)) };
        add(long, std::slice::from_raw_parts(octets.add(head), len - head))
    }
}

/// The sum of the first octets, as many as fill whole units of [`LONG`].
///
/// # Safety
/// As for [`folded`].
#[target_feature(enable = "avx2")]
unsafe fn sum_long(octets: *const u8, len: usize) -> u64 {
    // 32-bit words in 64-bit lanes: no carry is lost before 2^32 of them.
    let low = _mm256_set1_epi64x(0xffff_ffff);
    let mut sums = [_mm256_setzero_si256(); 4];
    for unit in 0..len / LONG {
        for half in 0..2 {
            // SAFETY: the unit lies below `len`.
            let words = unsafe { _mm256_loadu_si256(octets.add(unit * LONG + half * 32).cast()) };
            let even = _mm256_and_si256(words, low);
            sums[half] = _mm256_add_epi64(sums[half], even);
            sums[half + 2] = _mm256_add_epi64(sums[half + 2], _mm256_srli_epi64::<32>(words));
        }
    }
    let [a, b, c, d] = sums;
    let sum = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    let sum = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let sum = _mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum));
    // At most `MAX_PLAINTEXT` / 4 words of 32 bits.
    _mm_cvtsi128_si64(sum) as u64
}
