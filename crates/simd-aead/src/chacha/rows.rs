//! ChaCha20 (RFC 8439 section 2.3), some blocks of one packet at a time: a register is one row of the states
//! of two blocks, four are a pair of blocks, and two, three or four pairs keep the units of a processor busy.

use std::arch::x86_64::*;

use super::{CONSTANTS, ChaChaKey};
use crate::poly1305::chain::{BLOCK, Chain, Multiplier, absorb};

/// Half of half a quarter round (RFC 8439 section 2.1) of each column, on the rows of pairs of blocks:
/// `x += y; z ^= x; z <<<= bits`.
macro_rules! step {
    ($set:ident $bits:tt $([$x:tt $y:tt $z:tt $spare:tt])*) => {
        concat!(
            $( "vpaddd ", $x, ", ", $x, ", ", $y, "\n", )*
            $( "vpxor ", $z, ", ", $z, ", ", $x, "\n", )*
            $( rotate!($set $bits $z $spare), )*
        )
    };
}

/// Rotates each word to the left.
macro_rules! rotate {
    (avx512 $bits:tt $z:tt $spare:tt) => {
        concat!("vprold ", $z, ", ", $z, ", ", $bits, "\n")
    };
    (avx2 16 $z:tt $spare:tt) => { concat!("vpshufb ", $z, ", ", $z, ", ymm12\n") };
    (avx2 8 $z:tt $spare:tt) => { concat!("vpshufb ", $z, ", ", $z, ", ymm13\n") };
    (avx2 12 $z:tt $spare:tt) => { rotate!($z $spare 12 20) };
    (avx2 7 $z:tt $spare:tt) => { rotate!($z $spare 7 25) };
    ($z:tt $spare:tt $left:literal $right:literal) => {
        concat!(
            "vpslld ", $spare, ", ", $z, ", ", $left, "\n",
            "vpsrld ", $z, ", ", $z, ", ", $right, "\n",
            "vpor ", $z, ", ", $z, ", ", $spare, "\n",
        )
    };
}

/// A round of the columns, with four gaps for instructions for other units, then from columns to diagonals
/// or back: the second row, which is known last, stays, and the others go past it.
macro_rules! round {
    (
        $set:ident $([$a:tt $b:tt $c:tt $d:tt $spare:tt])*,
        $by_a:literal $by_c:literal, $gap0:expr, $gap1:expr, $gap2:expr, $gap3:expr
    ) => {
        concat!(
            step!($set 16 $([$a $b $d $spare])*), $gap0,
            step!($set 12 $([$c $d $b $spare])*), $gap1,
            step!($set 8 $([$a $b $d $spare])*), $gap2,
            step!($set 7 $([$c $d $b $spare])*), $gap3,
            $(
                "vpshufd ", $a, ", ", $a, ", ", $by_a, "\n",
                "vpshufd ", $d, ", ", $d, ", 0x4e\n",
                "vpshufd ", $c, ", ", $c, ", ", $by_c, "\n",
            )*
        )
    };
}

/// So many double rounds, each with eight gaps. On Zen 4 one takes 33 cycles for one pair and for two, 47 for
/// three with AVX2 and 43 for four with AVX-512, whether or not the gaps have three blocks of Poly1305.
macro_rules! double_rounds {
    (
        $set:ident {$($n:literal [$a:tt $b:tt $c:tt $d:tt $spare:tt])*}
        {$($other:tt)*}
        $words:ident, $chain:ident, $r:ident, $at:expr, $times:expr, [$($gap0:expr),*] [$($gap1:expr),*]
    ) => {
        if $times > 0 {
            let [h0, h1, h2] = &mut $chain.0;
            std::arch::asm!(
                ".p2align 6",
                "2:",
                round!($set $([$a $b $c $d $spare])*, 0x93 0x39, $($gap0),*),
                round!($set $([$a $b $c $d $spare])*, 0x39 0x93, $($gap1),*),
                "dec r15",
                "jnz 2b",
                inout("r15") $times => _, inout("r14") $at => _, in("r11") $r.0.as_ptr(),
                inout("r8") *h0, inout("r9") *h1, inout("rdi") *h2,
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("r10") _, out("r12") _,
                $(
                    inout($a) $words[$n][0], inout($b) $words[$n][1],
                    inout($c) $words[$n][2], inout($d) $words[$n][3],
                )*
                $($other)*
                options(readonly, nostack),
            );
        }
    };
    (avx2 2, $($rest:tt)*) => {
        double_rounds!(
            avx2 {
                0 ["ymm0" "ymm1" "ymm2" "ymm3" "ymm14"]
                1 ["ymm4" "ymm5" "ymm6" "ymm7" "ymm15"]
            }
            { in("ymm12") left::<2>(), in("ymm13") left::<1>(), out("ymm14") _, out("ymm15") _, }
            $($rest)*
        )
    };
    (avx2 3, $($rest:tt)*) => {
        double_rounds!(
            avx2 {
                0 ["ymm0" "ymm1" "ymm2" "ymm3" "ymm14"]
                1 ["ymm4" "ymm5" "ymm6" "ymm7" "ymm15"]
                2 ["ymm8" "ymm9" "ymm10" "ymm11" "ymm14"]
            }
            { in("ymm12") left::<2>(), in("ymm13") left::<1>(), out("ymm14") _, out("ymm15") _, }
            $($rest)*
        )
    };
    (avx512 2, $($rest:tt)*) => {
        double_rounds!(
            avx512 {
                0 ["ymm0" "ymm1" "ymm2" "ymm3" ""]
                1 ["ymm4" "ymm5" "ymm6" "ymm7" ""]
            } {} $($rest)*
        )
    };
    (avx512 4, $($rest:tt)*) => {
        double_rounds!(
            avx512 {
                0 ["ymm0" "ymm1" "ymm2" "ymm3" ""]
                1 ["ymm4" "ymm5" "ymm6" "ymm7" ""]
                2 ["ymm8" "ymm9" "ymm10" "ymm11" ""]
                3 ["ymm12" "ymm13" "ymm14" "ymm15" ""]
            } {} $($rest)*
        )
    };
}

/// The twenty rounds; in some of them, Poly1305 of three blocks or two in each double round.
macro_rules! rounds {
    ($set:ident $pairs:tt, $words:ident, $chain:ident, $r:ident, $at:ident, [$three:expr, $two:expr, $none:expr]) => {{
        double_rounds!($set $pairs, $words, $chain, $r, $at, $three,
            [absorb!(take), absorb!(low), absorb!(high), absorb!(take)]
            [absorb!(low), concat!(absorb!(high), absorb!(take)), absorb!(low), absorb!(high)]);
        rounds!($set $pairs, $words, $chain, $r, $at.wrapping_add($three * 3 * BLOCK), [$two, $none]);
    }};
    ($set:ident $pairs:tt, $words:ident, $chain:ident, $r:ident, $at:expr, [$two:expr, $none:expr]) => {{
        double_rounds!($set $pairs, $words, $chain, $r, $at, $two,
            [absorb!(take), absorb!(low), absorb!(high), ""] [absorb!(take), absorb!(low), absorb!(high), ""]);
        double_rounds!($set $pairs, $words, $chain, $r, $at, $none, ["", "", "", ""] ["", "", "", ""]);
    }};
}

/// Rotation to the left by so many octets, as a shuffle of the octets of a register.
#[inline]
#[target_feature(enable = "avx2")]
fn left<const OCTETS: usize>() -> __m256i {
    const {
        let mut shuffle = [0; 32];
        let mut i = 0;
        while i < 32 {
            shuffle[i] = (i % 16 / 4 * 4 + (i + 4 - OCTETS) % 4) as u8;
            i += 1;
        }
        // SAFETY: any octets make a register.
        unsafe { std::mem::transmute::<[u8; 32], __m256i>(shuffle) }
    }
}

/// The state of the next two blocks.
pub(crate) struct State([__m256i; 4]);

impl State {
    /// Before block 0.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn new(key: &ChaChaKey, nonce: [u8; 12]) -> Self {
        let row = |words: &[u32; 4]| {
            // SAFETY: the words are 16 readable octets.
            _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(words.as_ptr().cast()) })
        };
        let [first, second] = key.0.as_chunks().0 else { unreachable!() };
        let mut words = [0; 16];
        words[4..].copy_from_slice(&nonce);
        let words = u128::from_le_bytes(words);
        let last = _mm_set_epi64x((words >> 64) as i64, words as i64);
        let last = _mm256_broadcastsi128_si256(last);
        let counters = _mm256_set_epi32(0, 0, 0, 1, 0, 0, 0, 0);
        Self([row(&CONSTANTS), row(first), row(second), _mm256_add_epi32(last, counters)])
    }

    /// The key stream of the next `PAIRS` pairs of blocks, row by row: two or three, or with `AVX512` two or
    /// four. Meanwhile, `chain` absorbs blocks at `at`, as many as there is time for, but at most `blocks`;
    /// returns how many.
    ///
    /// # Safety
    /// So many blocks are there. The processor has BMI2, and AVX-512VL if `AVX512`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) unsafe fn next<const AVX512: bool, const PAIRS: usize>(
        &mut self,
        chain: &mut Chain,
        r: &Multiplier,
        at: *const u8,
        blocks: usize,
    ) -> ([[__m256i; 4]; PAIRS], usize) {
        let two = _mm256_set_epi32(0, 0, 0, 2, 0, 0, 0, 2);
        let start: [_; PAIRS] = std::array::from_fn(|_| {
            let pair = self.0;
            self.0[3] = _mm256_add_epi32(pair[3], two);
            pair
        });
        let mut words = start;
        let three = if PAIRS == 2 { 0 } else { blocks.clamp(20, 30) - 20 };
        let two = blocks.min(20) / 2 - three;
        let none = 10 - three - two;
        // SAFETY: arithmetic on registers, but for the blocks of the caller's promise.
        unsafe {
            match (AVX512, PAIRS) {
                (false, 2) => rounds! { avx2 2, words, chain, r, at, [two, none] },
                (false, 3) => rounds! { avx2 3, words, chain, r, at, [three, two, none] },
                (true, 2) => rounds! { avx512 2, words, chain, r, at, [two, none] },
                (true, 4) => rounds! { avx512 4, words, chain, r, at, [three, two, none] },
                _ => unreachable!(),
            }
        }
        for (word, start) in words.as_flattened_mut().iter_mut().zip(start.as_flattened()) {
            *word = _mm256_add_epi32(*word, *start);
        }
        (words, 3 * three + 2 * two)
    }
}
