//! ChaCha20 (RFC 8439 section 2.3), 8 blocks at a time: each 32-bit lane of a register is one block,
//! and 16 registers are the 16 words of the state.

use std::arch::x86_64::*;

use crate::poly1305::chains::{Chains, turn};

/// Octets of a turn of [`block`]: four blocks of Poly1305.
pub(crate) const TURN: usize = 64;

/// Half of two quarter rounds (RFC 8439 section 2.1), in assembly, on registers by number. The first
/// rotation is a shuffle by the octets at an offset in the frame, the other one two shifts. In the two
/// gaps come instructions for other units.
macro_rules! half_rounds {
    (
        $shuffle:literal $left:literal $right:literal
        [$a:literal, $b:literal, $c:literal, $d:literal] [$e:literal, $f:literal, $g:literal, $h:literal],
        $gap0:expr, $gap1:expr
    ) => {
        concat!(
            half_rounds!("vpaddd" $a, $a, $b), half_rounds!("vpaddd" $e, $e, $f),
            half_rounds!("vpxor" $d, $d, $a), half_rounds!("vpxor" $h, $h, $e),
            "vpshufb ymm", $d, ", ymm", $d, ", [rsp + ", $shuffle, "]\n",
            "vpshufb ymm", $h, ", ymm", $h, ", [rsp + ", $shuffle, "]\n",
            $gap0,
            half_rounds!("vpaddd" $c, $c, $d), half_rounds!("vpaddd" $g, $g, $h),
            half_rounds!("vpxor" $b, $b, $c), half_rounds!("vpxor" $f, $f, $g),
            "vpslld ymm10, ymm", $b, ", ", $left, "\n",
            "vpslld ymm11, ymm", $f, ", ", $left, "\n",
            "vpsrld ymm", $b, ", ymm", $b, ", ", $right, "\n",
            "vpsrld ymm", $f, ", ymm", $f, ", ", $right, "\n",
            half_rounds!("vpor" $b, $b, 10), half_rounds!("vpor" $f, $f, 11),
            $gap1,
        )
    };
    ($operation:literal $to:literal, $from:literal, $and:literal) => {
        concat!($operation, " ymm", $to, ", ymm", $from, ", ymm", $and, "\n")
    };
}

/// Two quarter rounds side by side, with four gaps.
macro_rules! two_quarter_rounds {
    (
        [$($x:literal),*] [$($y:literal),*],
        $gap0:expr, $gap1:expr, $gap2:expr, $gap3:expr
    ) => {
        concat!(
            half_rounds!(128 12 20 [$($x),*] [$($y),*], $gap0, $gap1),
            half_rounds!(160 7 25 [$($x),*] [$($y),*], $gap2, $gap3),
        )
    };
}

/// Puts the two words of the third row that were worked on aside, and takes the other two.
macro_rules! exchange {
    ($out:literal, $in:literal) => {
        concat!(
            "vmovdqa [rsp + ",
            $out,
            "], ymm8\n",
            "vmovdqa [rsp + ",
            $out,
            " + 32], ymm9\n",
            "vmovdqa ymm8, [rsp + ",
            $in,
            "]\n",
            "vmovdqa ymm9, [rsp + ",
            $in,
            " + 32]\n",
        )
    };
}

/// A double round, with sixteen gaps.
macro_rules! double_round {
    (
        [$($gap0:expr),*] [$($gap1:expr),*] [$($gap2:expr),*] [$($gap3:expr),*]
    ) => {
        concat!(
            two_quarter_rounds!([0, 4, 8, 12] [1, 5, 9, 13], $($gap0),*),
            exchange!(0, 64),
            two_quarter_rounds!([2, 6, 8, 14] [3, 7, 9, 15], $($gap1),*),
            two_quarter_rounds!([0, 5, 8, 15] [1, 6, 9, 12], $($gap2),*),
            exchange!(64, 0),
            two_quarter_rounds!([2, 7, 8, 13] [3, 4, 9, 14], $($gap3),*),
        )
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

/// The block function: the twenty rounds of `state`, and `state` added. Sixteen registers hold fourteen
/// words and two that shifts need; the other two words wait in memory.
///
/// Meanwhile, `chains` have `turns` turns, at most five: the integer units do them in the same time.
///
/// # Safety
/// The processor has BMI2. The ciphertexts of `chains` go on for so many turns.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn block(
    state: &[__m256i; 16],
    chains: &mut Chains,
    turns: usize,
) -> [__m256i; 16] {
    let mut words = [_mm256_setzero_si256(); 16];
    let pair = chains.pair();
    chains.turns += turns;
    // SAFETY: reads the state and the rotations, writes the words, a frame of the stack that is given
    // back, the rows of `chains`, and reads by the caller's promise the ciphertexts. The processor has
    // the instructions.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "push rbp",
            "mov rdx, rsp",
            "sub rsp, 288",
            "and rsp, -64",
            "mov [rsp + 192], rdx",
            "mov [rsp + 200], rsi",
            "mov [rsp + 208], rdi",
            "mov [rsp + 216], rcx",
            "mov rbx, rax",
            "vmovdqu ymm0, [r8]", "vmovdqa [rsp + 128], ymm0",
            "vmovdqu ymm0, [r8 + 32]", "vmovdqa [rsp + 160], ymm0",
            "vmovdqa ymm0, [rsi]", "vmovdqa ymm1, [rsi + 32]",
            "vmovdqa ymm2, [rsi + 64]", "vmovdqa ymm3, [rsi + 96]",
            "vmovdqa ymm4, [rsi + 128]", "vmovdqa ymm5, [rsi + 160]",
            "vmovdqa ymm6, [rsi + 192]", "vmovdqa ymm7, [rsi + 224]",
            "vmovdqa ymm8, [rsi + 320]", "vmovdqa ymm9, [rsi + 352]",
            "vmovdqa [rsp + 64], ymm8", "vmovdqa [rsp + 96], ymm9",
            "vmovdqa ymm8, [rsi + 256]", "vmovdqa ymm9, [rsi + 288]",
            "vmovdqa ymm12, [rsi + 384]", "vmovdqa ymm13, [rsi + 416]",
            "vmovdqa ymm14, [rsi + 448]", "vmovdqa ymm15, [rsi + 480]",
            "test r15d, r15d",
            "jz 3f",
            "2:",
            double_round!(
                [turn!(a load), turn!(b load), turn!(a low), turn!(a high)]
                [turn!(a reduce 16), "", turn!(b low), turn!(b high)]
                [turn!(b reduce 16), turn!(a low), turn!(a high), turn!(a reduce 32)]
                ["", turn!(b low), turn!(b high), turn!(b reduce 32)]),
            double_round!(
                [turn!(a low), turn!(a high), turn!(a reduce 48), ""]
                [turn!(b low), turn!(b high), turn!(b reduce 48), turn!(a low)]
                ["", turn!(a high), turn!(a store 64), turn!(b low)]
                ["", turn!(b high), turn!(b store 64), turn!(next)]),
            "dec r15d",
            "jnz 2b",
            "3:",
            "cmp dword ptr [rsp + 216], 0",
            "je 5f",
            "4:",
            double_round!(["", "", "", ""] ["", "", "", ""] ["", "", "", ""] ["", "", "", ""]),
            double_round!(["", "", "", ""] ["", "", "", ""] ["", "", "", ""] ["", "", "", ""]),
            "dec dword ptr [rsp + 216]",
            "jnz 4b",
            "5:",
            "mov rsi, [rsp + 200]",
            "mov rdi, [rsp + 208]",
            "vpaddd ymm0, ymm0, [rsi]", "vmovdqa [rdi], ymm0",
            "vpaddd ymm1, ymm1, [rsi + 32]", "vmovdqa [rdi + 32], ymm1",
            "vpaddd ymm2, ymm2, [rsi + 64]", "vmovdqa [rdi + 64], ymm2",
            "vpaddd ymm3, ymm3, [rsi + 96]", "vmovdqa [rdi + 96], ymm3",
            "vpaddd ymm4, ymm4, [rsi + 128]", "vmovdqa [rdi + 128], ymm4",
            "vpaddd ymm5, ymm5, [rsi + 160]", "vmovdqa [rdi + 160], ymm5",
            "vpaddd ymm6, ymm6, [rsi + 192]", "vmovdqa [rdi + 192], ymm6",
            "vpaddd ymm7, ymm7, [rsi + 224]", "vmovdqa [rdi + 224], ymm7",
            "vpaddd ymm8, ymm8, [rsi + 256]", "vmovdqa [rdi + 256], ymm8",
            "vpaddd ymm9, ymm9, [rsi + 288]", "vmovdqa [rdi + 288], ymm9",
            "vmovdqa ymm10, [rsp + 64]", "vmovdqa ymm11, [rsp + 96]",
            "vpaddd ymm10, ymm10, [rsi + 320]", "vmovdqa [rdi + 320], ymm10",
            "vpaddd ymm11, ymm11, [rsi + 352]", "vmovdqa [rdi + 352], ymm11",
            "vpaddd ymm12, ymm12, [rsi + 384]", "vmovdqa [rdi + 384], ymm12",
            "vpaddd ymm13, ymm13, [rsi + 416]", "vmovdqa [rdi + 416], ymm13",
            "vpaddd ymm14, ymm14, [rsi + 448]", "vmovdqa [rdi + 448], ymm14",
            "vpaddd ymm15, ymm15, [rsi + 480]", "vmovdqa [rdi + 480], ymm15",
            "mov rsp, [rsp + 192]",
            "pop rbp",
            "pop rbx",
            inout("rax") pair => _, inout("r15") turns => _, inout("rcx") 5 - turns => _,
            inout("rsi") state => _, inout("rdi") &mut words => _, inout("r8") &ROTATIONS => _,
            out("rdx") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _,
            out("r14") _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _,
            out("ymm5") _, out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _,
            out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
            out("ymm15") _,
        );
    }
    words
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
