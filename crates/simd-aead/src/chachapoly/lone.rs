//! One packet. ChaCha20 of several of its blocks at a time; Poly1305 of the blocks before in integer
//! registers during the rounds.

use std::arch::x86_64::*;

use crate::chacha::ChaChaKey;
use crate::chacha::rows::State;
use crate::job::Aad;
use crate::poly1305::chain::{BLOCK, Chain, Multiplier};
use crate::text::{CHUNK, Text};

/// A kernel: encrypts or decrypts the text and returns the tag of its ciphertext, which is at the pointer.
///
/// # Safety
/// To be called only on a processor that has the kernel's instructions, with text and cipher pointers that
/// are good for the text's length.
pub(crate) type Run = unsafe fn(&ChaChaKey, [u8; 12], Aad, &Text, *const u8) -> u128;

/// The kernel for AVX2 and BMI2, with three `PAIRS` of blocks at a time, or with AVX-512VL (`AVX512`), with
/// four.
///
/// # Safety
/// As for [`Run`].
#[target_feature(enable = "avx2,bmi2")]
pub(crate) unsafe fn run<const AVX512: bool, const PAIRS: usize, const SEAL: bool>(
    key: &ChaChaKey,
    nonce: [u8; 12],
    aad: Aad,
    text: &Text,
    cipher: *const u8,
) -> u128 {
    let mut state = State::new(key, nonce);
    let (mut r, mut last) = (Multiplier::new(0), [0; CHUNK]);
    let mut packet = Packet {
        text,
        cipher,
        r: &mut r,
        chain: Chain([0; 3]),
        offset: 0,
        absorbed: 0,
        last: &mut last,
    };
    // SAFETY: the caller's promise.
    unsafe {
        let s = if is_narrow::<PAIRS>(CHUNK + text.len) {
            packet.begin::<AVX512, NARROW, SEAL>(&mut state, aad)
        } else {
            packet.begin::<AVX512, PAIRS, SEAL>(&mut state, aad)
        };
        while packet.offset < text.len {
            if is_narrow::<PAIRS>(text.len - packet.offset) {
                packet.go_on::<AVX512, NARROW, SEAL>(&mut state);
            } else {
                packet.go_on::<AVX512, PAIRS, SEAL>(&mut state);
            }
        }
        packet.end(aad, s)
    }
}

/// Pairs of blocks that take no longer than one: 88 ns on Zen 4 at 3.7 GHz. Three take 126 ns with AVX2, and
/// four 116 ns with AVX-512.
const NARROW: usize = 2;

/// Whether [`NARROW`] is better for so many octets of key stream than `PAIRS` pairs at a time: where once is
/// enough, or twice and the others are not.
#[inline]
fn is_narrow<const PAIRS: usize>(left: usize) -> bool {
    let (narrow, wide) = (2 * NARROW * CHUNK, 2 * PAIRS * CHUNK);
    left <= narrow || wide < left && left <= 2 * narrow
}

/// How far a packet is.
struct Packet<'a> {
    text: &'a Text,
    cipher: *const u8,
    /// The references are to what is in memory, so that the rest need not be.
    r: &'a mut Multiplier,
    chain: Chain,
    /// Octets of text that are done.
    offset: usize,
    /// Octets of ciphertext that are in the tag.
    absorbed: usize,
    /// The ciphertext of the last chunk if it is not whole, and zeros.
    last: &'a mut [u8; CHUNK],
}

impl Packet<'_> {
    /// The first `PAIRS` pairs of blocks: the one-time key, then key stream. Returns the `s` of Poly1305.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline]
    #[target_feature(enable = "avx2,bmi2")]
    unsafe fn begin<const AVX512: bool, const PAIRS: usize, const SEAL: bool>(
        &mut self,
        state: &mut State,
        aad: Aad,
    ) -> u128 {
        // SAFETY: the caller's promise; no blocks.
        let (words, _) =
            unsafe { state.next::<AVX512, PAIRS>(&mut self.chain, self.r, self.cipher, 0) };
        let (r, s) = one_time_key(&words[0]);
        *self.r = Multiplier::new(r);
        self.chain = Chain([0; 3]);
        if aad.len > 0 {
            let mut block = [0; BLOCK];
            block[..12].copy_from_slice(&aad.bytes);
            let bits = 8 * u32::from(aad.len.min(12));
            let block = (u128::from_le_bytes(block) & ((1 << bits) - 1)).to_le_bytes();
            // SAFETY: one block; the processor has BMI2.
            unsafe { self.chain.absorb(self.r, block.as_ptr(), 1) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.apply::<SEAL, 1, PAIRS>(&words) };
        s
    }

    /// The next `PAIRS` pairs of blocks; meanwhile the tag follows the ciphertext as far as it is there.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline]
    #[target_feature(enable = "avx2,bmi2")]
    unsafe fn go_on<const AVX512: bool, const PAIRS: usize, const SEAL: bool>(
        &mut self,
        state: &mut State,
    ) {
        let ready = if SEAL { self.offset } else { self.whole() };
        let at = self.cipher.wrapping_add(self.absorbed);
        let blocks = (ready - self.absorbed) / BLOCK;
        // SAFETY: the caller's promise; so many whole blocks of ciphertext are there.
        unsafe {
            let (words, blocks) = state.next::<AVX512, PAIRS>(&mut self.chain, self.r, at, blocks);
            self.absorbed += blocks * BLOCK;
            self.apply::<SEAL, 0, PAIRS>(&words);
        }
    }

    /// The rest of the ciphertext and the lengths (RFC 8439 section 2.8); returns the tag.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn end(mut self, aad: Aad, s: u128) -> u128 {
        let (len, whole) = (self.text.len, self.whole());
        let lengths = (u128::from(aad.len) | (len as u128) << 64).to_le_bytes();
        // SAFETY: the caller's promise; the last chunk has as much room as a chunk.
        unsafe {
            let at = self.cipher.wrapping_add(self.absorbed);
            self.chain.absorb(self.r, at, (whole - self.absorbed) / BLOCK);
            self.chain.absorb(self.r, self.last.as_ptr(), (len - whole).div_ceil(BLOCK));
            self.chain.absorb(self.r, lengths.as_ptr(), 1);
        }
        self.chain.tag(s)
    }

    /// Octets of text in whole chunks.
    #[inline]
    fn whole(&self) -> usize {
        self.text.len / CHUNK * CHUNK
    }

    /// Applies the key stream `words` from its block `FIRST` on to the chunks that come next, as far as they
    /// go.
    ///
    /// # Safety
    /// As for [`run`].
    // Inline, or the words would go through memory.
    #[inline(always)]
    unsafe fn apply<const SEAL: bool, const FIRST: usize, const PAIRS: usize>(
        &mut self,
        words: &[[__m256i; 4]; PAIRS],
    ) {
        let text = self.text;
        for block in FIRST..2 * PAIRS {
            // SAFETY: the processor has AVX2.
            let keystream = unsafe { halves(&words[block / 2], block % 2) };
            let at = self.offset + (block - FIRST) * CHUNK;
            let rest = text.len.saturating_sub(at);
            if rest < CHUNK {
                if rest > 0 {
                    // SAFETY: the caller's promise.
                    unsafe { apply_last::<SEAL>(text, keystream, at, self.last) };
                }
                break;
            }
            let input = text.input(at).cast::<__m256i>();
            let output = text.output(at).cast::<__m256i>();
            for (half, keystream) in keystream.into_iter().enumerate() {
                // SAFETY: the caller's promise: there are 64 octets at both.
                unsafe {
                    let input = _mm256_loadu_si256(input.wrapping_add(half));
                    let result = _mm256_xor_si256(input, keystream);
                    _mm256_storeu_si256(output.wrapping_add(half), result);
                }
            }
        }
        self.offset += (2 * PAIRS - FIRST) * CHUNK;
    }
}

/// `r` and `s` of Poly1305: the first 32 octets of block 0 (RFC 8439 section 2.6).
#[inline]
#[target_feature(enable = "avx2")]
fn one_time_key(pair: &[__m256i; 4]) -> (u128, u128) {
    let number = |row: __m256i| {
        let row = _mm256_castsi256_si128(row);
        let [lo, hi] =
            [_mm_cvtsi128_si64(row), _mm_extract_epi64::<1>(row)].map(|half| half as u64);
        u128::from(lo) | u128::from(hi) << 64
    };
    (number(pair[0]), number(pair[1]))
}

/// A block of a pair in two halves.
#[inline]
#[target_feature(enable = "avx2")]
fn halves([a, b, c, d]: &[__m256i; 4], block: usize) -> [__m256i; 2] {
    if block == 0 {
        [_mm256_permute2x128_si256::<0x20>(*a, *b), _mm256_permute2x128_si256::<0x20>(*c, *d)]
    } else {
        [_mm256_permute2x128_si256::<0x31>(*a, *b), _mm256_permute2x128_si256::<0x31>(*c, *d)]
    }
}

/// Applies `keystream` to the chunk at `at`, which is not whole, and leaves its ciphertext in `last`, with
/// zeros past its end.
///
/// # Safety
/// The text pointers are good for the text's length.
#[target_feature(enable = "avx2")]
unsafe fn apply_last<const SEAL: bool>(
    text: &Text,
    keystream: [__m256i; 2],
    at: usize,
    last: &mut [u8; CHUNK],
) {
    let rest = text.len - at;
    let mut octets = [0; CHUNK];
    // SAFETY: the caller's promise: there are `rest` octets at both, fewer than the arrays have.
    unsafe {
        text.input(at).copy_to_nonoverlapping(last.as_mut_ptr(), rest);
        for (half, keystream) in keystream.into_iter().enumerate() {
            let input = _mm256_loadu_si256(last.as_ptr().cast::<__m256i>().add(half));
            let result = _mm256_xor_si256(input, keystream);
            _mm256_storeu_si256(octets.as_mut_ptr().cast::<__m256i>().add(half), result);
        }
        text.output(at).copy_from_nonoverlapping(octets.as_ptr(), rest);
    }
    if SEAL {
        octets[rest..].fill(0);
        *last = octets;
    }
}
