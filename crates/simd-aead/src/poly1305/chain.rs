//! The tag of one packet in the making (RFC 8439 section 2.5) in 64-bit integer registers, alone or while
//! `chacha` does its rounds.

use zeroize::Zeroize;

/// Octets of a block.
pub(crate) const BLOCK: usize = 16;

/// A running value in 64, 64 and more bits: what exceeds 2^130 comes in again with the next block. Every
/// step waits for the one before: 14 cycles a block on Zen 4, for 30 instructions, so that the processor
/// has time for others.
pub(crate) struct Chain(pub(crate) [u64; 3]);

/// `r`, clamped, in two halves, and 5/4 of the upper half: what is worth 2^128 times it. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(crate) struct Multiplier(pub(crate) [u64; 3]);

impl Multiplier {
    /// RFC 8439 section 2.5.1 still has to clamp `r`.
    #[inline]
    pub(crate) fn new(r: u128) -> Self {
        let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let [low, high] = [r as u64, (r >> 64) as u64];
        Self([low, high, high + (high >> 2)])
    }
}

/// Instructions for the block at r14, in three parts. The running value is in r8, r9 and rdi, the
/// multiplier at r11. Changes rax, rcx, rdx, rsi, r10 and r12, which the parts hand on.
macro_rules! absorb {
    // What exceeds 2^130 comes in again five times below; before it, because it is known last, the block.
    (take) => {
        concat!(
            "mov r10, rdi\n",
            "mov rdx, rdi\n",
            "and r10d, 3\n",
            "shr rdx, 2\n",
            "and rdi, -4\n",
            "add r8, [r14]\n",
            "adc r9, [r14 + 8]\n",
            "adc r10, 1\n",
            "add r14, 16\n",
            "add rdx, rdi\n",
            "add r8, rdx\n",
            "adc r9, 0\n",
            "adc r10, 0\n",
        )
    };
    // The products of the lower two words, which the sum waits for longest, before those of the top one.
    (low) => {
        concat!(
            "mov rdx, r8\n",
            "mulx rcx, rax, [r11]\n",
            "mulx rdi, rsi, [r11 + 8]\n",
            "mov rdx, r9\n",
            "mulx r8, r12, [r11]\n",
            "mulx r9, rdx, [r11 + 16]\n",
            "add rcx, rsi\n",
            "adc rdi, r8\n",
        )
    };
    (high) => {
        concat!(
            "mov r8, r10\n",
            "imul r10, [r11 + 16]\n",
            "imul r8, [r11]\n",
            "add rcx, r12\n",
            "adc rdi, r8\n",
            "add r9, r10\n",
            "mov r8, rax\n",
            "add r8, rdx\n",
            "adc r9, rcx\n",
            "adc rdi, 0\n",
        )
    };
}
pub(crate) use absorb;

impl Chain {
    /// Absorbs the blocks at `at`.
    ///
    /// # Safety
    /// So many blocks are there. The processor has BMI2.
    #[inline]
    pub(crate) unsafe fn absorb(&mut self, r: &Multiplier, at: *const u8, blocks: usize) {
        if blocks == 0 {
            return;
        }
        let [h0, h1, h2] = &mut self.0;
        // SAFETY: arithmetic on registers, but for the multiplier and by the caller's promise the blocks.
        unsafe {
            std::arch::asm!(
                "2:",
                absorb!(take), absorb!(low), absorb!(high),
                "dec r15",
                "jnz 2b",
                inout("r15") blocks => _, inout("r14") at => _, in("r11") r.0.as_ptr(),
                inout("r8") *h0, inout("r9") *h1, inout("rdi") *h2,
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("r10") _, out("r12") _,
                options(readonly, nostack),
            );
        }
    }

    /// The tag: the running value modulo 2^130 - 5, plus `s`.
    #[inline]
    pub(crate) fn tag(self, s: u128) -> u128 {
        let [h0, h1, h2] = self.0;
        let low = u128::from(h0) | u128::from(h1) << 64;
        let (low, carry) = low.overflowing_add(5 * u128::from(h2 >> 2));
        let top = (h2 & 3) + u64::from(carry);
        // Less than 2^130 + 2^66: the prime comes off once at most. Whether it does is no branch.
        let (less, carry) = low.overflowing_add(5);
        let off = (top + u64::from(carry)) >> 2;
        let mask = u128::from(off).wrapping_neg();
        (low & !mask | less & mask).wrapping_add(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chacha::{ChaChaKey, rows::State};
    use crate::poly1305::chains::tests::expected;
    use crate::{avx2, avx512};

    const WORDS: [u64; 5] = [0, 1, 0xffff_ffff, 0xffff_ffff_ffff_fffb, u64::MAX];
    const KEYS: [u128; 3] = [u128::MAX, 0, u128::MAX >> 4 & !3 | 4 << 64];
    const S: u128 = 0xfedc_ba98_7654_3210 << 64 | 3;

    /// The tag after `blocks` equal blocks, computed otherwise.
    fn expected_tag(h: [u64; 3], r: &Multiplier, block: [u64; 2], blocks: usize) -> u128 {
        let limbs = expected(h, [r.0[0], r.0[1]], block, blocks);
        let number =
            limbs.into_iter().rev().fold(0, |number: u128, limb| number << 26 | u128::from(limb));
        number.wrapping_add(S)
    }

    /// Some blocks at the pointer during the rounds, at most so many; returns how many.
    type During = unsafe fn(&mut Chain, &Multiplier, *const u8, usize) -> usize;

    unsafe fn during<const AVX512: bool, const PAIRS: usize>(
        chain: &mut Chain,
        r: &Multiplier,
        at: *const u8,
        blocks: usize,
    ) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            let mut state = State::new(&ChaChaKey([7; 8]), [8; 12]);
            state.next::<AVX512, PAIRS>(chain, r, at, blocks).1
        }
    }

    /// What this processor can run, and how many blocks there is time for.
    fn kernels() -> impl Iterator<Item = (During, usize)> {
        let avx2: [(During, usize); 2] = [(during::<false, 2>, 20), (during::<false, 3>, 30)];
        let avx512: [(During, usize); 2] = [(during::<true, 2>, 20), (during::<true, 4>, 30)];
        let avx2 = avx2.into_iter().filter(|_| avx2::is_supported());
        avx2.chain(avx512.into_iter().filter(|_| avx512::is_supported()))
    }

    #[test]
    fn the_largest_and_smallest_numbers_carry_right() {
        if !avx2::is_supported() {
            return;
        }
        for (word, top) in WORDS.into_iter().flat_map(|word| (0..5).map(move |top| (word, top))) {
            for [lo, hi] in WORDS.into_iter().flat_map(|lo| WORDS.map(|hi| [lo, hi])) {
                let octets = [lo.to_le_bytes(), hi.to_le_bytes()].as_flattened().repeat(30);
                let h = [word, word, top];
                for r in KEYS.map(Multiplier::new) {
                    for blocks in 0..4 {
                        let mut chain = Chain(h);
                        // SAFETY: there are so many blocks, and the processor has BMI2.
                        unsafe { chain.absorb(&r, octets.as_ptr(), blocks) };
                        assert_eq!(chain.tag(S), expected_tag(h, &r, [lo, hi], blocks));
                    }
                    for (kernel, blocks) in kernels() {
                        let mut chain = Chain(h);
                        // SAFETY: likewise.
                        let done = unsafe { kernel(&mut chain, &r, octets.as_ptr(), blocks) };
                        assert_eq!(done, blocks);
                        assert_eq!(chain.tag(S), expected_tag(h, &r, [lo, hi], blocks));
                    }
                }
            }
        }
    }

    #[test]
    fn any_number_of_blocks_during_the_rounds_is_absorbed_in_order() {
        let octets: Vec<u8> = (0..40 * BLOCK as u32).map(|n| ((n * n) >> 3) as u8).collect();
        let r = Multiplier::new(0x8070_6050_4030_2010_1122_3344_5566_7788);
        for (kernel, most) in kernels() {
            for blocks in 0..=40 {
                let (mut chain, mut alone) = (Chain([1, 2, 3]), Chain([1, 2, 3]));
                // SAFETY: there are so many blocks, and the processor has BMI2.
                let done = unsafe { kernel(&mut chain, &r, octets.as_ptr(), blocks) };
                assert!(done <= blocks && done + 1 >= blocks.min(most), "{done} of {blocks}");
                // SAFETY: likewise.
                unsafe { alone.absorb(&r, octets.as_ptr(), done) };
                assert_eq!(chain.tag(S), alone.tag(S), "{blocks}");
            }
        }
    }

    #[test]
    fn a_tag_is_of_the_remainder() {
        let r = Multiplier::new(0);
        let low = [0, 1, 5, u64::MAX - 5, u64::MAX - 4, u64::MAX - 3, u64::MAX];
        for h0 in low {
            for h in [0, u64::MAX].into_iter().flat_map(|h1| (0..8).map(move |h2| [h0, h1, h2])) {
                assert_eq!(Chain(h).tag(S), expected_tag(h, &r, [0, 0], 0), "{h:x?}");
            }
        }
        // 2^191 - 1 leaves 5 * 2^61 - 1.
        let h = [u64::MAX, u64::MAX, u64::MAX >> 1];
        assert_eq!(Chain(h).tag(0), (5 << 61) - 1);
    }
}
