//! ChaCha20 (RFC 8439 section 2.3), 16 blocks at a time: each 32-bit lane of a register is one block,
//! and 16 registers are the 16 words of the state.
//!
//! The hot parts are macros: the compiler must not make them calls, which would send every register
//! through memory, and `inline(always)` does not go with target features.

use std::arch::x86_64::*;

/// Two quarter rounds (RFC 8439 section 2.1) at a time, step by step side by side. Measured on Zen 4,
/// pairs keep the execution units busier than four at a time.
macro_rules! quarter_rounds {
    ($s:ident, $([$a:literal, $b:literal, $c:literal, $d:literal])*) => {
        $( $s[$a] = _mm512_add_epi32($s[$a], $s[$b]); )*
        $( $s[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($s[$d], $s[$a])); )*
        $( $s[$c] = _mm512_add_epi32($s[$c], $s[$d]); )*
        $( $s[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($s[$b], $s[$c])); )*
        $( $s[$a] = _mm512_add_epi32($s[$a], $s[$b]); )*
        $( $s[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($s[$d], $s[$a])); )*
        $( $s[$c] = _mm512_add_epi32($s[$c], $s[$d]); )*
        $( $s[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($s[$b], $s[$c])); )*
    };
}

/// A column round and a diagonal round on the state `$s`.
macro_rules! double_round {
    ($s:ident) => {
        quarter_rounds!($s, [0, 4, 8, 12] [1, 5, 9, 13] [2, 6, 10, 14] [3, 7, 11, 15]);
        quarter_rounds!($s, [0, 5, 10, 15] [1, 6, 11, 12] [2, 7, 8, 13] [3, 4, 9, 14]);
    };
}

pub(crate) use {double_round, quarter_rounds};

/// From one register a word to one register a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn transpose(words: [__m512i; 16]) -> [__m512i; 16] {
    // Within each 128-bit quarter q: rows[w][b] holds words 4w..4w+4 of block 4q + b.
    let mut rows = [[_mm512_setzero_si512(); 4]; 4];
    for (w, row) in rows.iter_mut().enumerate() {
        let ab_lo = _mm512_unpacklo_epi32(words[4 * w], words[4 * w + 1]);
        let ab_hi = _mm512_unpackhi_epi32(words[4 * w], words[4 * w + 1]);
        let cd_lo = _mm512_unpacklo_epi32(words[4 * w + 2], words[4 * w + 3]);
        let cd_hi = _mm512_unpackhi_epi32(words[4 * w + 2], words[4 * w + 3]);
        *row = [
            _mm512_unpacklo_epi64(ab_lo, cd_lo),
            _mm512_unpackhi_epi64(ab_lo, cd_lo),
            _mm512_unpacklo_epi64(ab_hi, cd_hi),
            _mm512_unpackhi_epi64(ab_hi, cd_hi),
        ];
    }
    let mut blocks = [_mm512_setzero_si512(); 16];
    for b in 0..4 {
        let w01_even = _mm512_shuffle_i64x2::<0x88>(rows[0][b], rows[1][b]);
        let w01_odd = _mm512_shuffle_i64x2::<0xdd>(rows[0][b], rows[1][b]);
        let w23_even = _mm512_shuffle_i64x2::<0x88>(rows[2][b], rows[3][b]);
        let w23_odd = _mm512_shuffle_i64x2::<0xdd>(rows[2][b], rows[3][b]);
        blocks[b] = _mm512_shuffle_i64x2::<0x88>(w01_even, w23_even);
        blocks[8 + b] = _mm512_shuffle_i64x2::<0xdd>(w01_even, w23_even);
        blocks[4 + b] = _mm512_shuffle_i64x2::<0x88>(w01_odd, w23_odd);
        blocks[12 + b] = _mm512_shuffle_i64x2::<0xdd>(w01_odd, w23_odd);
    }
    blocks
}
