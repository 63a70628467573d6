//! One packet at a time, eight registers of blocks side by side, for processors without AVX-512: with two
//! blocks a register where VAES and VPCLMULQDQ work on 256 bits, otherwise with one. Between the AES
//! rounds of eight registers come the products of GHASH of the eight before. The sum of products stays
//! unreduced until the end of a packet of up to [`WHOLE`] blocks.

use std::arch::x86_64::*;

use super::key::{GcmKey, POWERS, from_vector, to_vector};
use super::{Packet, Tags, aad_block, lengths_block, nonce, power};
use crate::forget::forget;
use crate::text::CHUNK;

/// Blocks hashed before the sum must be reduced: what the powers allow with one block before and one
/// behind.
const WHOLE: usize = POWERS - 2;

/// Blocks of a segment of a longer packet: whole steps.
const SEGMENT: usize = 80;

/// Registers of blocks in a step. On Zen and Intel since Haswell, four to eight hide the latency of a
/// round.
const REGISTERS: usize = 8;

/// Which of the products of a step comes after `round`, [`REGISTERS`] for none.
const fn product_after(round: usize, last: usize) -> usize {
    let after: &[usize] =
        if last == 14 { &[1, 2, 4, 5, 7, 8, 10, 11] } else { &[1, 2, 3, 4, 5, 6, 7, 8] };
    let mut n = 0;
    while n < REGISTERS && after[n] != round {
        n += 1;
    }
    n
}

/// The sum `low + middle x^64 + high x^128` modulo the GCM polynomial.
#[inline]
#[target_feature(enable = "avx2,aes,pclmulqdq")]
fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let polynomial = to_vector(0xc2 << 120 | 1);
    let folded = _mm_clmulepi64_si128::<0x01>(polynomial, low);
    let middle = _mm_xor_si128(middle, _mm_xor_si128(folded, _mm_shuffle_epi32::<0x4e>(low)));
    let folded = _mm_clmulepi64_si128::<0x01>(polynomial, middle);
    _mm_xor_si128(high, _mm_xor_si128(folded, _mm_shuffle_epi32::<0x4e>(middle)))
}

/// Octets of each block in reverse, and the last four of each alone: the counter.
static SWAPS: [[u128; 2]; 2] = [
    [0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f; 2],
    [0x0c0d_0e0f_0b0a_0908_0706_0504_0302_0100; 2],
];

/// The key stream of the next `$n` registers, and if `$hash`, between the rounds the products of the step
/// of ciphertext at `$cipher` and the powers at `$powers`. A macro, because both must be in one stretch of
/// code to overlap.
macro_rules! encrypt {
    ($n:ident, $hash:ident, $key:ident, $counters:expr, $sum:expr, $cipher:expr, $powers:expr) => {{
        let mut blocks = counter_blocks::<$n>($key, $counters);
        let key = forget($key);
        encrypt!(@rounds $hash, key, blocks, $sum, $cipher, $powers, 1 2 3 4 5 6 7 8 9 10 11 12 13);
        last_round_of(&mut blocks, key_of(key, LAST));
        blocks
    }};
    (@rounds $hash:ident, $key:ident, $blocks:ident, $sum:expr, $cipher:expr, $powers:expr,
        $($number:literal)*) => {
        $(if $number < LAST {
            round_of(&mut $blocks, key_of($key, $number));
            let n = const { product_after($number, LAST) };
            if $hash && n < REGISTERS {
                $sum.add_from($cipher.wrapping_add(n * WIDTH), $powers.wrapping_add(n * WIDTH));
                tie(&mut $blocks, $sum);
            }
        })*
    };
}

/// A kernel on one width of registers. A macro, because intrinsics of both widths have no common name,
/// and because rounds and products must be in one stretch of code to overlap.
macro_rules! kernel {
    (
        $features:literal, $register:ident in $class:ident, $blocks:literal blocks,
        $load:ident $store:ident $zero:ident $xor:ident $add:ident $shuffle:ident
        $round:ident $last_round:ident $multiply:ident
    ) => {
        type Register = $register;

        /// Octets of a register.
        const WIDTH: usize = 16 * $blocks;
        /// Octets of a step.
        const STEP: usize = REGISTERS * WIDTH;

        /// Counters of the registers of a step less those of its first, the last is the step's length.
        static COUNTERS: [[u128; $blocks]; REGISTERS + 1] = {
            let mut counters = [[0; $blocks]; REGISTERS + 1];
            let mut n = 0;
            while n <= REGISTERS {
                counters[n] = [(($blocks * n) as u128) << 96; $blocks];
                n += 1;
            }
            counters
        };

        /// Encrypts (`SEAL`) or decrypts the texts of `packets` and computes their tags.
        ///
        /// # Safety
        /// The processor has these extensions. The text and cipher pointers of every packet are good for
        /// its length. `LAST` is the key's.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn run<const LAST: usize, const SEAL: bool>(
            key: &GcmKey,
            packets: &[Packet],
            tags: &mut Tags,
        ) {
            for (tags, packets) in
                tags.0.chunks_exact_mut(REGISTERS * $blocks).zip(packets.chunks(REGISTERS * $blocks))
            {
                if packets.len() <= $blocks {
                    hide::<LAST, 1>(key, packets, tags);
                } else {
                    hide::<LAST, REGISTERS>(key, packets, tags);
                }
            }
            for (tag, packet) in tags.0.iter_mut().zip(packets) {
                // SAFETY: the caller's promise.
                *tag ^= unsafe { hash_and_crypt::<LAST, SEAL>(key, packet) }.swap_bytes();
            }
        }

        /// What hides the hash of each packet: the encrypted counter block 1, in `N` registers.
        #[inline]
        #[target_feature(enable = $features)]
        fn hide<const LAST: usize, const N: usize>(key: &GcmKey, packets: &[Packet], tags: &mut [u128]) {
            for (tag, packet) in tags.iter_mut().zip(packets) {
                *tag = nonce(packet) | 1 << 120;
            }
            let mut blocks = [$zero(); N];
            for (block, tags) in blocks.iter_mut().zip(tags.as_chunks::<$blocks>().0) {
                *block = $xor(read(tags), key_of(key, 0));
            }
            for round in 1..LAST {
                let round = key_of(key, round);
                for block in &mut blocks {
                    *block = $round(*block, round);
                }
            }
            for (block, tags) in blocks.iter().zip(tags.as_chunks_mut::<$blocks>().0) {
                let block = $last_round(*block, key_of(key, LAST));
                // SAFETY: as many octets as a register has.
                unsafe { $store(tags.as_mut_ptr().cast(), block) };
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn read(blocks: &[u128; $blocks]) -> Register {
            // SAFETY: as many octets as a register has.
            unsafe { $load(blocks.as_ptr().cast()) }
        }

        /// A round key in every block of a register.
        #[inline]
        #[target_feature(enable = $features)]
        fn key_of(key: &GcmKey, round: usize) -> Register {
            // SAFETY: a round key is there four times, which is longer than a register.
            unsafe { $load(key.rounds()[round].as_ptr().cast()) }
        }

        /// A sum of 256-bit products for each block of a register, in three overlapping parts.
        struct Sum {
            low: Register,
            middle: Register,
            high: Register,
        }

        impl Sum {
            #[inline]
            #[target_feature(enable = $features)]
            fn zero() -> Self {
                Self { low: $zero(), middle: $zero(), high: $zero() }
            }

            /// Adds the products of `blocks`, their octets swapped, and `powers`.
            #[inline]
            #[target_feature(enable = $features)]
            fn add(&mut self, blocks: Register, powers: Register) {
                self.low = $xor(self.low, $multiply::<0x00>(blocks, powers));
                self.high = $xor(self.high, $multiply::<0x11>(blocks, powers));
                self.middle = $xor(self.middle, $multiply::<0x01>(blocks, powers));
                self.middle = $xor(self.middle, $multiply::<0x10>(blocks, powers));
            }

            /// Adds the product of the register of ciphertext at `cipher` and the powers at `powers`.
            ///
            /// # Safety
            /// Both are good for a register.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn add_from(&mut self, cipher: *const u8, powers: *const u8) {
                // SAFETY: the caller's promise; the shuffle is longer than a register.
                unsafe {
                    let swap = $load(forget(&SWAPS)[0].as_ptr().cast());
                    let blocks = $shuffle($load(cipher.cast()), swap);
                    self.add(blocks, $load(powers.cast()));
                }
            }
        }

        /// Counter blocks of the next `N` registers, past round 0.
        #[inline]
        #[target_feature(enable = $features)]
        fn counter_blocks<const N: usize>(key: &GcmKey, counters: &mut Register) -> [Register; N] {
            // SAFETY: longer than a register.
            let swap = unsafe { $load(forget(&SWAPS)[1].as_ptr().cast()) };
            let mut blocks = [$zero(); N];
            for (block, more) in blocks.iter_mut().zip(forget(&COUNTERS)) {
                *block = $shuffle($add(*counters, read(more)), swap);
                *block = $xor(*block, key_of(key, 0));
            }
            *counters = $add(*counters, read(&COUNTERS[N]));
            blocks
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn round_of<const N: usize>(blocks: &mut [Register; N], key: Register) {
            for block in blocks {
                *block = $round(*block, key);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn last_round_of<const N: usize>(blocks: &mut [Register; N], key: Register) {
            for block in blocks {
                *block = $last_round(*block, key);
            }
        }

        /// Keeps the compiler from moving products past rounds, as in `gcm::avx512`. No instruction.
        #[inline]
        #[target_feature(enable = $features)]
        fn tie(blocks: &mut [Register], sum: &mut Sum) {
            let [a, b, c, d, e, f, g, h] = blocks else { return };
            // SAFETY: the registers come out as they went in.
            unsafe {
                std::arch::asm!(
                    "/* {} {} {} {} {} {} {} {} {} {} {} */",
                    inout($class) *a, inout($class) *b, inout($class) *c, inout($class) *d,
                    inout($class) *e, inout($class) *f, inout($class) *g, inout($class) *h,
                    inout($class) sum.low, inout($class) sum.middle, inout($class) sum.high,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }

        /// Encrypts or decrypts one packet; returns the hash of its associated data, ciphertext and
        /// lengths.
        ///
        /// # Safety
        /// The text and cipher pointers are good for the length.
        // One copy for all callers.
        #[inline(never)]
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn hash_and_crypt<const LAST: usize, const SEAL: bool>(
            key: &GcmKey,
            packet: &Packet,
        ) -> u128 {
            let len = packet.text.len;
            // Counter 1 is the tag's.
            let mut first = [nonce(packet); 2];
            first[0] |= 2 << 96;
            first[1] |= 3 << 96;
            // SAFETY: two blocks, at least a register.
            let mut counters = unsafe { $load(first.as_ptr().cast()) };
            let mut before = aad_block(packet.aad);
            let (mut offset, mut blocks) = (0, len.div_ceil(16));
            // Behind a segment the hash so far is added to the next block; the associated data is a block
            // of its own.
            let mut own = 1;
            loop {
                let is_last = blocks <= WHOLE;
                let weight = if is_last { blocks + 1 } else { SEGMENT };
                let end = if is_last { len } else { offset + 16 * SEGMENT };
                let (x, y) = (to_vector(before), to_vector(power(key, weight + own)));
                let mut low = _mm_clmulepi64_si128::<0x00>(x, y);
                let mut high = _mm_clmulepi64_si128::<0x11>(x, y);
                let mut middle = _mm_xor_si128(
                    _mm_clmulepi64_si128::<0x01>(x, y),
                    _mm_clmulepi64_si128::<0x10>(x, y),
                );
                if is_last {
                    let (x, y) = (to_vector(lengths_block(packet)), to_vector(power(key, 1)));
                    low = _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(x, y));
                    high = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(x, y));
                    middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x01>(x, y));
                    middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x10>(x, y));
                }
                // SAFETY: the caller's promise.
                let sum = unsafe {
                    segment::<LAST, SEAL>(key, packet, &mut counters, offset..end, weight)
                };
                low = _mm_xor_si128(low, fold(sum.low));
                middle = _mm_xor_si128(middle, fold(sum.middle));
                high = _mm_xor_si128(high, fold(sum.high));
                before = from_vector(reduce(low, middle, high));
                if is_last {
                    return before;
                }
                blocks -= SEGMENT;
                offset = end;
                own = 0;
            }
        }

        /// Encrypts or decrypts a part of a packet; returns the sum of its products. `weight` is the power
        /// that meets the first block.
        ///
        /// # Safety
        /// The text and cipher pointers are good for the part. Unless it is the last, it is whole steps.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn segment<const LAST: usize, const SEAL: bool>(
            key: &GcmKey,
            packet: &Packet,
            counters: &mut Register,
            part: std::ops::Range<usize>,
            weight: usize,
        ) -> Sum {
            const WHOLE_STEP: usize = REGISTERS;
            const HASH: bool = true;
            const NOTHING: bool = false;
            let mut sum = Sum::zero();
            // What is not hashed yet, and the powers that it meets.
            let mut cipher = packet.cipher.wrapping_add(part.start);
            let mut powers = key.powers_from(weight).cast::<u8>();
            let mut offset = part.start;
            // SAFETY: the caller's promise; steps before the end are whole, and powers go on as far as
            // blocks.
            unsafe {
                if part.end - offset >= STEP {
                    let blocks =
                        encrypt!(WHOLE_STEP, NOTHING, key, counters, (&mut sum), cipher, powers);
                    apply(packet, offset, blocks);
                    offset += STEP;
                    while part.end - offset >= STEP {
                        let blocks =
                            encrypt!(WHOLE_STEP, HASH, key, counters, (&mut sum), cipher, powers);
                        apply(packet, offset, blocks);
                        cipher = cipher.wrapping_add(STEP);
                        powers = powers.wrapping_add(STEP);
                        offset += STEP;
                    }
                    let at = (offset, cipher, powers);
                    match (part.end - offset).div_ceil(WIDTH) {
                        0 => {
                            for n in 0..REGISTERS {
                                sum.add_from(
                                    cipher.wrapping_add(n * WIDTH),
                                    powers.wrapping_add(n * WIDTH),
                                );
                            }
                        }
                        1..=2 => end::<LAST, SEAL, 2, true>(key, packet, counters, &mut sum, at),
                        3..=4 => end::<LAST, SEAL, 4, true>(key, packet, counters, &mut sum, at),
                        5..=6 => end::<LAST, SEAL, 6, true>(key, packet, counters, &mut sum, at),
                        _ => end::<LAST, SEAL, 8, true>(key, packet, counters, &mut sum, at),
                    }
                } else {
                    let at = (offset, cipher, powers);
                    match (part.end - offset).div_ceil(WIDTH) {
                        0 => {}
                        1..=2 => end::<LAST, SEAL, 2, false>(key, packet, counters, &mut sum, at),
                        3..=4 => end::<LAST, SEAL, 4, false>(key, packet, counters, &mut sum, at),
                        5..=6 => end::<LAST, SEAL, 6, false>(key, packet, counters, &mut sum, at),
                        _ => end::<LAST, SEAL, 8, false>(key, packet, counters, &mut sum, at),
                    }
                }
            }
            sum
        }

        /// Applies the key stream `blocks` to the step at `offset`, which is whole.
        ///
        /// # Safety
        /// The text pointers are good for it.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn apply(packet: &Packet, offset: usize, blocks: [Register; REGISTERS]) {
            for (n, block) in blocks.into_iter().enumerate() {
                let (chunk, within) = (offset + n * WIDTH / CHUNK * CHUNK, n * WIDTH % CHUNK);
                // SAFETY: the caller's promise.
                unsafe {
                    let input = $load(packet.text.input(chunk).wrapping_add(within).cast());
                    let output = packet.text.output(chunk + within);
                    $store(output.cast(), $xor(input, block));
                }
            }
        }

        /// Does the end of the text, at most `N` registers from the offset of `at` on, and hashes it; if
        /// `HASH`, also the step before it, whose ciphertext and powers `at` has. Otherwise those are the
        /// end's own.
        ///
        /// # Safety
        /// The text and cipher pointers are good for the length.
        #[target_feature(enable = $features)]
        unsafe fn end<const LAST: usize, const SEAL: bool, const N: usize, const HASH: bool>(
            key: &GcmKey,
            packet: &Packet,
            counters: &mut Register,
            sum: &mut Sum,
            at: (usize, *const u8, *const u8),
        ) {
            let (offset, cipher, powers) = at;
            // SAFETY: the caller's promise.
            let blocks = unsafe { encrypt!(N, HASH, key, counters, sum, cipher, powers) };
            let powers = if HASH { powers.wrapping_add(STEP) } else { powers };
            for (n, block) in blocks.into_iter().enumerate() {
                let position = offset + n * WIDTH;
                let Some(rest @ 1..) = packet.text.len.checked_sub(position) else { return };
                let (chunk, within) = (position / CHUNK * CHUNK, position % CHUNK);
                let input = packet.text.input(chunk).wrapping_add(within);
                let output = packet.text.output(position);
                // SAFETY: the caller's promise: there are `rest` octets at both. The powers of a register
                // of blocks reach into the zeros behind the last at most.
                unsafe {
                    let cipher = if rest >= WIDTH {
                        let input = $load(input.cast());
                        let result = $xor(input, block);
                        $store(output.cast(), result);
                        if SEAL { result } else { input }
                    } else {
                        let mut octets = [[0u8; WIDTH]; 2];
                        input.copy_to_nonoverlapping(octets[0].as_mut_ptr(), rest);
                        let input = $load(octets[0].as_ptr().cast());
                        $store(octets[1].as_mut_ptr().cast(), $xor(input, block));
                        octets[1][rest..].fill(0);
                        output.copy_from_nonoverlapping(octets[1].as_ptr(), rest);
                        if SEAL { $load(octets[1].as_ptr().cast()) } else { input }
                    };
                    let swap = $load(SWAPS[0].as_ptr().cast());
                    let powers = $load(powers.wrapping_add(n * WIDTH).cast());
                    sum.add($shuffle(cipher, swap), powers);
                }
            }
        }
    };
}

/// Two blocks a register.
pub(crate) mod vaes {
    use super::*;

    kernel!(
        "avx2,aes,pclmulqdq,vaes,vpclmulqdq", __m256i in ymm_reg, 2 blocks,
        _mm256_loadu_si256 _mm256_storeu_si256 _mm256_setzero_si256 _mm256_xor_si256
        _mm256_add_epi32 _mm256_shuffle_epi8
        _mm256_aesenc_epi128 _mm256_aesenclast_epi128 _mm256_clmulepi64_epi128
    );

    /// The sum of both halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn fold(sum: __m256i) -> __m128i {
        _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
    }
}

/// One block a register.
pub(crate) mod aesni {
    use super::*;

    kernel!(
        "avx2,aes,pclmulqdq", __m128i in xmm_reg, 1 blocks,
        _mm_loadu_si128 _mm_storeu_si128 _mm_setzero_si128 _mm_xor_si128
        _mm_add_epi32 _mm_shuffle_epi8
        _mm_aesenc_si128 _mm_aesenclast_si128 _mm_clmulepi64_si128
    );

    /// There is nothing to add up.
    #[inline(always)]
    fn fold(sum: __m128i) -> __m128i {
        sum
    }
}
