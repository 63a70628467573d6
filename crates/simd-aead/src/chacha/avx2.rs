//! ChaCha20 (RFC 8439 section 2.3), 8 blocks at a time: each 32-bit lane of a register is one block,
//! and 16 registers are the 16 words of the state. Macros for the reason given in `chacha::avx512`.

use std::arch::x86_64::*;

use crate::forget::forget;

/// Two quarter rounds (RFC 8439 section 2.1) at a time, step by step side by side. Rotations by whole
/// octets are one shuffle, the others two shifts.
macro_rules! quarter_rounds {
    ($s:ident, $by16:ident, $by8:ident, $([$a:literal, $b:literal, $c:literal, $d:literal])*) => {
        $( $s[$a] = _mm256_add_epi32($s[$a], $s[$b]); )*
        $( $s[$d] = _mm256_shuffle_epi8(_mm256_xor_si256($s[$d], $s[$a]), $by16); )*
        $( $s[$c] = _mm256_add_epi32($s[$c], $s[$d]); )*
        $( $s[$b] = _mm256_xor_si256($s[$b], $s[$c]); )*
        $( $s[$b] = _mm256_or_si256(_mm256_slli_epi32::<12>($s[$b]), _mm256_srli_epi32::<20>($s[$b])); )*
        $( $s[$a] = _mm256_add_epi32($s[$a], $s[$b]); )*
        $( $s[$d] = _mm256_shuffle_epi8(_mm256_xor_si256($s[$d], $s[$a]), $by8); )*
        $( $s[$c] = _mm256_add_epi32($s[$c], $s[$d]); )*
        $( $s[$b] = _mm256_xor_si256($s[$b], $s[$c]); )*
        $( $s[$b] = _mm256_or_si256(_mm256_slli_epi32::<7>($s[$b]), _mm256_srli_epi32::<25>($s[$b])); )*
    };
}

/// Rotations to the left by 16 and 8 bits, as shuffles of the octets of a register.
const ROTATIONS: [[u8; 32]; 2] = [rotation(2), rotation(1)];

const fn rotation(octets: usize) -> [u8; 32] {
    let mut shuffle = [0; 32];
    let mut i = 0;
    while i < 32 {
        shuffle[i] = (i % 16 / 4 * 4 + (i + 4 - octets) % 4) as u8;
        i += 1;
    }
    shuffle
}

/// The block function: the twenty rounds of `state`, and `state` added.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn block(state: &[__m256i; 16]) -> [__m256i; 16] {
    // The compiler must not know them: it would make two shuffles of the first.
    let [by16, by8] = forget(&ROTATIONS);
    // SAFETY: each is 32 readable octets.
    let (by16, by8) = unsafe {
        (_mm256_loadu_si256(by16.as_ptr().cast()), _mm256_loadu_si256(by8.as_ptr().cast()))
    };
    let mut s = *state;
    for _ in 0..10 {
        quarter_rounds!(s, by16, by8, [0, 4, 8, 12] [1, 5, 9, 13]);
        quarter_rounds!(s, by16, by8, [2, 6, 10, 14] [3, 7, 11, 15]);
        quarter_rounds!(s, by16, by8, [0, 5, 10, 15] [1, 6, 11, 12]);
        quarter_rounds!(s, by16, by8, [2, 7, 8, 13] [3, 4, 9, 14]);
    }
    for (word, start) in s.iter_mut().zip(state) {
        *word = _mm256_add_epi32(*word, *start);
    }
    s
}

/// From one register a word to one register a block: eight words of each of the eight blocks.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn transpose(words: [__m256i; 8]) -> [__m256i; 8] {
    // Within each 128-bit half q: rows[w][b] holds words 4w..4w+4 of block 4q + b.
    let mut rows = [[_mm256_setzero_si256(); 4]; 2];
    for (w, row) in rows.iter_mut().enumerate() {
        let ab_lo = _mm256_unpacklo_epi32(words[4 * w], words[4 * w + 1]);
        let ab_hi = _mm256_unpackhi_epi32(words[4 * w], words[4 * w + 1]);
        let cd_lo = _mm256_unpacklo_epi32(words[4 * w + 2], words[4 * w + 3]);
        let cd_hi = _mm256_unpackhi_epi32(words[4 * w + 2], words[4 * w + 3]);
        *row = [
            _mm256_unpacklo_epi64(ab_lo, cd_lo),
            _mm256_unpackhi_epi64(ab_lo, cd_lo),
            _mm256_unpacklo_epi64(ab_hi, cd_hi),
            _mm256_unpackhi_epi64(ab_hi, cd_hi),
        ];
    }
    let mut blocks = [_mm256_setzero_si256(); 8];
    for b in 0..4 {
        blocks[b] = _mm256_permute2x128_si256::<0x20>(rows[0][b], rows[1][b]);
        blocks[4 + b] = _mm256_permute2x128_si256::<0x31>(rows[0][b], rows[1][b]);
    }
    blocks
}
