//! Up to eight packets at once: ChaCha20 of two or four blocks of each packet, then Poly1305 of the
//! chunks of ciphertext that they made, one packet a lane.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx512::{rounds, rounds_of_two, transpose};
use crate::poly1305::avx512::{Halves, Poly, Powers, transpose as transpose_chunks};
use crate::text::CHUNK;

/// Octets in whole chunks from which on powers of r save more than they cost.
const POWERS_PAY: usize = 4 * CHUNK;

/// Encrypts (`SEAL`) or decrypts the texts of `tile` and computes the tags of its ciphertexts.
///
/// # Safety
/// The processor has AVX-512 with these extensions. The text pointers of every packet in the tile are
/// good for its length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
pub(crate) unsafe fn run<const SEAL: bool>(tile: &mut Tile) {
    let mut state = initial(tile);
    let longest = tile.longest();
    // Block 0 makes the one-time keys: block n + 1 is for chunk n. Four blocks at a time, or two where
    // that is enough.
    let mut keystream = [[_mm512_setzero_si512(); PACKETS]; 4];
    let mut chunks = if longest <= CHUNK { 2 } else { 4 };
    let words = if chunks == 2 {
        rounds(&state)
    } else {
        let (words, second) = rounds_of_two(&state, &next(&state));
        [keystream[2], keystream[3]] = halves(transpose(second));
        state = next(&state);
        words
    };
    [_, keystream[1]] = halves(transpose(words));

    let [r, s] = one_time_keys(&words);
    let mut poly = Poly::new(r);
    let aad_lens = load(&tile.aad_len);
    let aad = [load(&tile.aad[0]), load(&tile.aad[1])];
    poly.absorb(aad, _mm512_test_epi64_mask(aad_lens, aad_lens));

    let whole = tile.whole_from_source();
    let powers = (whole.len() >= POWERS_PAY).then(|| Powers::new(&poly));
    let mut run = Run::<SEAL> { tile, poly, whole };
    let (mut offset, mut first) = (0, 1);
    while offset < longest {
        for keystream in &keystream[first..chunks] {
            // SAFETY: the caller's promise; whole chunks have 64 octets at both ends.
            unsafe {
                let is_whole = run.whole.start <= offset && offset + CHUNK <= run.whole.end;
                match &powers {
                    Some(powers) if is_whole => {
                        let blocks = run.whole_chunk(keystream, offset);
                        run.poly.absorb_four::<SEAL>(powers, blocks);
                    }
                    _ if offset < longest => run.chunk(keystream, offset),
                    _ => {}
                }
            }
            offset += CHUNK;
        }
        if offset >= longest {
            break;
        }
        first = 0;
        state = next(&state);
        chunks = if longest - offset <= 2 * CHUNK { 2 } else { 4 };
        if chunks == 2 {
            [keystream[0], keystream[1]] = halves(transpose(rounds(&state)));
        } else {
            let (words, second) = rounds_of_two(&state, &next(&state));
            [keystream[0], keystream[1]] = halves(transpose(words));
            [keystream[2], keystream[3]] = halves(transpose(second));
            state = next(&state);
        }
    }

    let Run { mut poly, .. } = run;
    poly.absorb([aad_lens, load(&tile.len)], u8::MAX);
    for (half, tag) in tile.tag.iter_mut().zip(poly.tag(s)) {
        // SAFETY: the half is 64 writable octets.
        unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), tag) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn load(row: &[u64; PACKETS]) -> __m512i {
    // SAFETY: the row is 64 readable octets.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}

/// The states of blocks 0, in the lower eight lanes, and 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn initial(tile: &Tile) -> [__m512i; 16] {
    let mut state = [_mm512_setzero_si512(); 16];
    for (word, constant) in state.iter_mut().zip(CONSTANTS) {
        *word = _mm512_set1_epi32(constant as i32);
    }
    state[12] = _mm512_maskz_set1_epi32(0xff00, 1);
    let places = (4..12).chain(13..16);
    for (place, row) in places.zip(tile.key.iter().chain(&tile.nonce)) {
        // SAFETY: the row is 32 readable octets.
        let row = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
        state[place] = _mm512_broadcast_i64x4(row);
    }
    state
}

/// `r` and `s` of Poly1305: the first 32 octets of block 0 (RFC 8439 section 2.6).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn one_time_keys(words: &[__m512i; 16]) -> [Halves; 2] {
    let mut keys = [[_mm512_setzero_si512(); 2]; 2];
    for (half, words) in keys.as_flattened_mut().iter_mut().zip(words.chunks_exact(2)) {
        let low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(words[0]));
        let high = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(words[1]));
        *half = _mm512_or_si512(low, _mm512_slli_epi64::<32>(high));
    }
    keys
}

/// The states of the two blocks of each packet that follow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn next(state: &[__m512i; 16]) -> [__m512i; 16] {
    let mut next = *state;
    next[12] = _mm512_add_epi32(state[12], _mm512_set1_epi32(2));
    next
}

/// The key stream of the lower eight lanes and of the upper.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn halves(blocks: [__m512i; 16]) -> [[__m512i; PACKETS]; 2] {
    let mut halves = [[_mm512_setzero_si512(); PACKETS]; 2];
    for (half, blocks) in halves.iter_mut().zip(blocks.as_chunks().0) {
        *half = *blocks;
    }
    halves
}

/// The packets of a tile, and the running value of their tags.
struct Run<'a, const SEAL: bool> {
    tile: &'a Tile,
    poly: Poly,
    /// Offsets of the chunks that are whole in every lane and read from the source.
    whole: Range<usize>,
}

impl<const SEAL: bool> Run<'_, SEAL> {
    /// Applies the key stream to the chunk at `offset` of each packet, as far as it goes, and absorbs
    /// the ciphertext.
    ///
    /// # Safety
    /// The text pointers are good for their lengths.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    #[target_feature(enable = "avx512vbmi2")]
    unsafe fn chunk(&mut self, keystream: &[__m512i; PACKETS], offset: usize) {
        let mut cipher = [_mm512_setzero_si512(); PACKETS];
        for lane in 0..PACKETS {
            let (input, output, mask) = self.tile.text[lane].chunk(offset);
            // SAFETY: the mask has one bit for each octet of text from `offset` on; other octets are
            // not touched.
            unsafe {
                let input = _mm512_maskz_loadu_epi8(mask, input.cast());
                let result = _mm512_xor_si512(input, keystream[lane]);
                _mm512_mask_storeu_epi8(output.cast(), mask, result);
                cipher[lane] = if SEAL { _mm512_maskz_mov_epi8(mask, result) } else { input };
            }
        }
        let lens = load(&self.tile.len);
        let longest = self.tile.longest();
        for (n, block) in transpose_chunks(cipher).into_iter().enumerate() {
            let at = offset + 16 * n;
            if at < longest {
                let active = _mm512_cmpgt_epu64_mask(lens, _mm512_set1_epi64(at as i64));
                self.poly.absorb(block, active);
            }
        }
    }

    /// Applies the key stream to the whole chunk at `offset` of each packet; returns the ciphertext
    /// as four blocks.
    ///
    /// # Safety
    /// The text pointers are good for these chunks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    unsafe fn whole_chunk(&self, keystream: &[__m512i; PACKETS], offset: usize) -> [Halves; 4] {
        let mut cipher = [_mm512_setzero_si512(); PACKETS];
        for lane in 0..PACKETS {
            let text = &self.tile.text[lane];
            // SAFETY: the caller's promise: there are 64 octets at both.
            unsafe {
                let input = _mm512_loadu_si512(text.source().wrapping_add(offset).cast());
                let result = _mm512_xor_si512(input, keystream[lane]);
                _mm512_storeu_si512(text.output(offset).cast(), result);
                cipher[lane] = if SEAL { result } else { input };
            }
        }
        transpose_chunks(cipher)
    }
}
