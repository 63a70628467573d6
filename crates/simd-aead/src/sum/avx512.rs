//! The sum of what was opened, for the Internet checksum (RFC 1071), with AVX-512.

use std::arch::x86_64::*;

use packet::checksum::fold;

use crate::text::{CHUNK, mask};

/// The folded sum of the octets, in the host's byte order.
///
/// Bits of the same place are added before they are numbers: three registers make one of sums and one
/// of carries, which are worth twice as much, with two instructions. Four chunks leave one register.
///
/// # Safety
/// `octets` is good for reads of `len`.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn folded(octets: *const u8, len: usize) -> u16 {
    let zero = _mm512_setzero_si512();
    let (mut ones, mut twos, mut fours) = (zero, zero, zero);
    let mut offset = 0;
    while offset + 4 * CHUNK <= len {
        // SAFETY: the caller's promise: there are four chunks.
        let [a, b, c, d] = [0, 1, 2, 3]
            .map(|n| unsafe { _mm512_loadu_si512(octets.add(offset + n * CHUNK).cast()) });
        let (sum, carry) = add(ones, a, b);
        let (sum, more) = add(sum, c, d);
        ones = sum;
        let (sum, carry) = add(twos, carry, more);
        twos = sum;
        fours = _mm512_add_epi64(fours, words(carry));
        offset += 4 * CHUNK;
    }
    // Each lane has far fewer than 2^30 sums of two words of 32 bits.
    let twos = _mm512_slli_epi64::<1>(words(twos));
    let mut sum =
        _mm512_add_epi64(_mm512_slli_epi64::<2>(fours), _mm512_add_epi64(words(ones), twos));
    while offset < len {
        // SAFETY: the caller's promise: as many octets as the mask has bits.
        let chunk =
            unsafe { _mm512_maskz_loadu_epi8(mask(len - offset), octets.add(offset).cast()) };
        sum = _mm512_add_epi64(sum, words(chunk));
        offset += CHUNK;
    }
    u16::from_ne_bytes(fold(_mm512_reduce_add_epi64(sum) as u64))
}

/// Of three bits in each place the sum and the carry.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add(a: __m512i, b: __m512i, c: __m512i) -> (__m512i, __m512i) {
    (_mm512_ternarylogic_epi64::<0x96>(a, b, c), _mm512_ternarylogic_epi64::<0xe8>(a, b, c))
}

/// The sum of the two 32-bit words of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(lanes: __m512i) -> __m512i {
    let low = _mm512_set1_epi64(0xffff_ffff);
    _mm512_add_epi64(_mm512_and_si512(lanes, low), _mm512_srli_epi64::<32>(lanes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avx512::is_supported;
    use crate::sum;

    #[test]
    fn every_length_has_the_sum_that_is_computed_otherwise() {
        if !is_supported() {
            return;
        }
        let mut octets: Vec<u8> =
            (0..1600_u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
        octets.splice(700..1300, std::iter::repeat_n(0xff, 600));
        for start in [0, 1, 650] {
            for len in 0..=octets.len() - start {
                let octets = &octets[start..start + len];
                // SAFETY: the slice has these octets; the processor has the instructions.
                let (sum, expected) =
                    unsafe { (folded(octets.as_ptr(), len), sum::folded(octets.as_ptr(), len)) };
                assert_eq!(sum, expected, "{len} octets from {start}");
            }
        }
    }
}
