//! ChaCha20 (RFC 8439 section 2.3), 16 blocks at a time: each 32-bit lane of a register is one block,
//! and 16 registers are the 16 words of the state.

use std::arch::x86_64::*;

use crate::poly1305::chains::{Chains, turn};

/// Octets of a turn of [`rounds_of_two`]: five blocks.
pub(crate) const TURN: usize = 80;

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

/// A step of two quarter rounds, in assembly, on registers by number.
macro_rules! two_steps {
    ($bits:literal, $([$x:literal, $y:literal, $z:literal])*) => {
        concat!($(
            "vpaddd zmm", $x, ", zmm", $x, ", zmm", $y, "\n",
            "vpxord zmm", $z, ", zmm", $z, ", zmm", $x, "\n",
            "vprold zmm", $z, ", zmm", $z, ", ", $bits, "\n",
        )*)
    };
}

/// Four quarter rounds side by side, and in the gaps between the steps of two of them instructions for
/// other units. Small portions in turns keep all units busy: Zen 4 does not look far ahead.
macro_rules! four_quarter_rounds {
    (
        [$a:literal, $b:literal, $c:literal, $d:literal]
        [$e:literal, $f:literal, $g:literal, $h:literal]
        [$i:literal, $j:literal, $k:literal, $l:literal]
        [$m:literal, $n:literal, $o:literal, $p:literal],
        $gap0:expr, $gap1:expr, $gap2:expr, $gap3:expr, $gap4:expr, $gap5:expr, $gap6:expr, $gap7:expr
    ) => {
        concat!(
            two_steps!(16, [$a, $b, $d] [$e, $f, $h]), $gap0,
            two_steps!(16, [$i, $j, $l] [$m, $n, $p]), $gap1,
            two_steps!(12, [$c, $d, $b] [$g, $h, $f]), $gap2,
            two_steps!(12, [$k, $l, $j] [$o, $p, $n]), $gap3,
            two_steps!(8, [$a, $b, $d] [$e, $f, $h]), $gap4,
            two_steps!(8, [$i, $j, $l] [$m, $n, $p]), $gap5,
            two_steps!(7, [$c, $d, $b] [$g, $h, $f]), $gap6,
            two_steps!(7, [$k, $l, $j] [$o, $p, $n]), $gap7,
        )
    };
}

/// The key streams of two states at once. One state has too few independent operations: on Zen 4 a
/// double round of one takes 60 cycles and of two 108. Two fill all 32 registers with none left
/// over, which only assembly can do.
///
/// Meanwhile, `chains` have `turns` turns, at most ten: the integer units do them in the same time.
///
/// # Safety
/// The ciphertexts of `chains` go on for so many turns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) unsafe fn rounds_of_two(
    first: &[__m512i; 16],
    second: &[__m512i; 16],
    chains: &mut Chains,
    turns: usize,
) -> ([__m512i; 16], [__m512i; 16]) {
    let (mut s, mut t) = (*first, *second);
    let pair = chains.pair();
    chains.turns += turns;
    // SAFETY: arithmetic on registers, but for the rows of `chains` and, by the caller's promise, the
    // ciphertexts; the function's features include the instructions. What the stack holds is taken
    // off again.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "push rbp",
            "push rcx",
            "mov rbx, rax",
            "test r15d, r15d",
            "jz 3f",
            ".p2align 6",
            "2:",
            four_quarter_rounds!([0, 4, 8, 12] [1, 5, 9, 13] [2, 6, 10, 14] [3, 7, 11, 15],
                turn!(a load), turn!(b load), turn!(a low), turn!(a high),
                turn!(a reduce 16), turn!(b low), turn!(b high), turn!(b reduce 16)),
            four_quarter_rounds!([16, 20, 24, 28] [17, 21, 25, 29] [18, 22, 26, 30] [19, 23, 27, 31],
                turn!(a low), turn!(a high), turn!(a reduce 32), turn!(b low),
                turn!(b high), turn!(b reduce 32), turn!(a low), turn!(a high)),
            four_quarter_rounds!([0, 5, 10, 15] [1, 6, 11, 12] [2, 7, 8, 13] [3, 4, 9, 14],
                turn!(a reduce 48), turn!(b low), turn!(b high), turn!(b reduce 48),
                turn!(a low), turn!(a high), turn!(a reduce 64), turn!(b low)),
            four_quarter_rounds!([16, 21, 26, 31] [17, 22, 27, 28] [18, 23, 24, 29] [19, 20, 25, 30],
                turn!(b high), turn!(b reduce 64), turn!(a low), turn!(a high),
                turn!(a store 80), turn!(b low), turn!(b high), turn!(b store 80)),
            turn!(next),
            "dec r15d",
            "jnz 2b",
            "3:",
            "pop rcx",
            "test ecx, ecx",
            "jz 5f",
            "4:",
            four_quarter_rounds!([0, 4, 8, 12] [1, 5, 9, 13] [2, 6, 10, 14] [3, 7, 11, 15],
                "", "", "", "", "", "", "", ""),
            four_quarter_rounds!([16, 20, 24, 28] [17, 21, 25, 29] [18, 22, 26, 30] [19, 23, 27, 31],
                "", "", "", "", "", "", "", ""),
            four_quarter_rounds!([0, 5, 10, 15] [1, 6, 11, 12] [2, 7, 8, 13] [3, 4, 9, 14],
                "", "", "", "", "", "", "", ""),
            four_quarter_rounds!([16, 21, 26, 31] [17, 22, 27, 28] [18, 23, 24, 29] [19, 20, 25, 30],
                "", "", "", "", "", "", "", ""),
            "dec ecx",
            "jnz 4b",
            "5:",
            "pop rbp",
            "pop rbx",
            inout("rax") pair => _, inout("r15") turns => _, inout("rcx") 10 - turns => _,
            out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, out("r12") _, out("r13") _, out("r14") _,
            inout("zmm0") s[0], inout("zmm1") s[1], inout("zmm2") s[2], inout("zmm3") s[3],
            inout("zmm4") s[4], inout("zmm5") s[5], inout("zmm6") s[6], inout("zmm7") s[7],
            inout("zmm8") s[8], inout("zmm9") s[9], inout("zmm10") s[10], inout("zmm11") s[11],
            inout("zmm12") s[12], inout("zmm13") s[13], inout("zmm14") s[14], inout("zmm15") s[15],
            inout("zmm16") t[0], inout("zmm17") t[1], inout("zmm18") t[2], inout("zmm19") t[3],
            inout("zmm20") t[4], inout("zmm21") t[5], inout("zmm22") t[6], inout("zmm23") t[7],
            inout("zmm24") t[8], inout("zmm25") t[9], inout("zmm26") t[10], inout("zmm27") t[11],
            inout("zmm28") t[12], inout("zmm29") t[13], inout("zmm30") t[14], inout("zmm31") t[15],
        );
    }
    (add(s, first), add(t, second))
}

/// `words` plus the state that they were made from.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn add(mut words: [__m512i; 16], state: &[__m512i; 16]) -> [__m512i; 16] {
    for (word, start) in words.iter_mut().zip(state) {
        *word = _mm512_add_epi32(*word, *start);
    }
    words
}

/// The key stream of one state: the block function of RFC 8439 section 2.3 for 16 blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn rounds(state: &[__m512i; 16]) -> [__m512i; 16] {
    let mut words = *state;
    for _ in 0..10 {
        double_round!(words);
    }
    add(words, state)
}

/// From one register a word to one register a block; `each` gets four at a time, the block `n`,
/// `n + 4`, `n + 8` and `n + 12` for `n` from 0 to 3, so that few registers are in use at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn transpose(words: &[__m512i; 16], mut each: impl FnMut(usize, [__m512i; 4])) {
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
    for b in 0..4 {
        let [row0, row1, row2, row3] = rows.map(|row| row[b]);
        let w01_even = _mm512_shuffle_i64x2::<0x88>(row0, row1);
        let w01_odd = _mm512_shuffle_i64x2::<0xdd>(row0, row1);
        let w23_even = _mm512_shuffle_i64x2::<0x88>(row2, row3);
        let w23_odd = _mm512_shuffle_i64x2::<0xdd>(row2, row3);
        each(
            b,
            [
                _mm512_shuffle_i64x2::<0x88>(w01_even, w23_even),
                _mm512_shuffle_i64x2::<0x88>(w01_odd, w23_odd),
                _mm512_shuffle_i64x2::<0xdd>(w01_even, w23_even),
                _mm512_shuffle_i64x2::<0xdd>(w01_odd, w23_odd),
            ],
        );
    }
}
