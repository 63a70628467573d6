//! An AES key with everything that does not change from packet to packet.

use std::arch::x86_64::*;

use zeroize::Zeroize;

/// How many powers of the hash key are kept: enough for 94 blocks of text, more than fit an IP
/// packet of 1500 octets, to be hashed with the associated data and the lengths in one sum that is
/// reduced once.
pub(crate) const POWERS: usize = 96;

/// Zeros behind the last power, which a load of four powers may reach.
const BEHIND: usize = 4;

/// The round keys and the powers of the hash key. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
#[repr(C, align(64))]
pub(crate) struct GcmKey {
    /// Each round key four times over, for registers of four blocks.
    rounds: [[u128; 4]; 15],
    /// H^96 down to H^1, so that consecutive blocks meet consecutive powers. Each is multiplied by x
    /// and its bits are reversed, which is what the carry-less multiplication asks for.
    powers: [u128; POWERS + BEHIND],
    /// 10 for AES-128, 14 for AES-256.
    pub(crate) last_round: usize,
}

impl GcmKey {
    /// `None` unless `key` has 16 or 32 octets.
    ///
    /// # Safety
    /// The processor has AES-NI and PCLMULQDQ.
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    pub(crate) unsafe fn new(key: &[u8]) -> Option<Box<Self>> {
        let last_round = match key.len() {
            16 => 10,
            32 => 14,
            _ => return None,
        };
        let mut this =
            Box::new(Self { rounds: [[0; 4]; 15], powers: [0; POWERS + BEHIND], last_round });
        let mut words = [0u32; 60];
        expand(key, &mut words[..4 * (last_round + 1)]);
        for (round, words) in this.rounds.iter_mut().zip(words.as_chunks::<4>().0) {
            let key = (words.iter().rev()).fold(0, |key, &word| key << 32 | u128::from(word));
            *round = [key; 4];
        }
        words.zeroize();
        this.fill_powers();
        Some(this)
    }

    /// The round keys, each in four lanes.
    #[inline(always)]
    pub(crate) fn rounds(&self) -> &[[u128; 4]; 15] {
        &self.rounds
    }

    /// Where H^`highest` and the powers below it begin. `highest` is 1 to [`POWERS`].
    #[inline(always)]
    pub(crate) fn powers_from(&self, highest: usize) -> *const u128 {
        debug_assert!((1..=POWERS).contains(&highest));
        self.powers.as_ptr().wrapping_add(POWERS - highest)
    }

    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    fn fill_powers(&mut self) {
        let key = |round: usize| to_vector(self.rounds[round][0]);
        let mut h = key(0);
        for round in 1..self.last_round {
            h = _mm_aesenc_si128(h, key(round));
        }
        let h = from_vector(_mm_aesenclast_si128(h, key(self.last_round)));
        // The specification numbers bits from the left (SP 800-38D section 6.3). Reversed within
        // octets and octets within the block, one multiplication by x is a shift to the left.
        let h = h.swap_bytes();
        let carried = 0u128.wrapping_sub(h >> 127);
        let first = h << 1 ^ carried & (0xc2 << 120 | 1);
        let mut power = to_vector(first);
        for place in self.powers[..POWERS].iter_mut().rev() {
            *place = from_vector(power);
            power = multiply(power, to_vector(first));
        }
    }
}

/// FIPS 197 section 5.2, on little-endian words. The S-box is the processor's: no table.
#[target_feature(enable = "aes,sse4.1")]
fn expand(key: &[u8], words: &mut [u32]) {
    let n = key.len() / 4;
    let mut constant = 1u32;
    for i in 0..words.len() {
        words[i] = match key.as_chunks::<4>().0.get(i) {
            Some(&octets) => u32::from_le_bytes(octets),
            None => {
                let mut word = words[i - 1];
                if i % n == 0 {
                    word = substitute(word.rotate_right(8)) ^ constant;
                    constant = (constant << 1) ^ ((constant >> 7) * 0x11b);
                } else if n > 6 && i % n == 4 {
                    word = substitute(word);
                }
                words[i - n] ^ word
            }
        };
    }
}

/// The S-box on each octet. The same word in all columns makes ShiftRows do nothing.
#[target_feature(enable = "aes,sse4.1")]
fn substitute(word: u32) -> u32 {
    let columns = _mm_set1_epi32(word as i32);
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())) as u32
}

/// The product of two numbers modulo the GCM polynomial; if each carries a factor x, so does it.
#[target_feature(enable = "pclmulqdq,sse4.1")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let polynomial = to_vector(0xc2 << 120 | 1);
    let low = _mm_clmulepi64_si128::<0x00>(a, b);
    let high = _mm_clmulepi64_si128::<0x11>(a, b);
    let middle =
        _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    let folded = _mm_clmulepi64_si128::<0x01>(polynomial, low);
    let middle = _mm_xor_si128(middle, _mm_xor_si128(folded, _mm_shuffle_epi32::<0x4e>(low)));
    let folded = _mm_clmulepi64_si128::<0x01>(polynomial, middle);
    _mm_xor_si128(high, _mm_xor_si128(folded, _mm_shuffle_epi32::<0x4e>(middle)))
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(crate) fn to_vector(value: u128) -> __m128i {
    _mm_set_epi64x((value >> 64) as i64, value as i64)
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(crate) fn from_vector(value: __m128i) -> u128 {
    let (low, high) = (_mm_extract_epi64::<0>(value), _mm_extract_epi64::<1>(value));
    u128::from(low as u64) | u128::from(high as u64) << 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_key_leaves_zeros() {
        if !is_x86_feature_detected!("aes") || !is_x86_feature_detected!("pclmulqdq") {
            return;
        }
        for len in [16, 32] {
            // SAFETY: just checked; SSSE3 and SSE4.1 are older.
            let key = unsafe { GcmKey::new(&[0x42; 32][..len]) }.unwrap();
            assert!(key.rounds[1][0] != 0 && key.powers[0] != 0);
            let place = Box::into_raw(key);
            // SAFETY: dropped once; the memory stays allocated until the end, and integers may have
            // any value.
            unsafe {
                place.drop_in_place();
                assert!((*place).rounds.as_flattened().iter().all(|&block| block == 0));
                assert!((*place).powers.iter().all(|&power| power == 0));
                drop(Box::from_raw(place.cast::<std::mem::MaybeUninit<GcmKey>>()));
            }
        }
    }
}
