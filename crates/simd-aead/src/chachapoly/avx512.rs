//! Eight packets at once: ChaCha20 of two blocks of each packet, and between its rounds Poly1305 of
//! the two chunks of ciphertext before, one packet a lane. The rounds alone leave execution units
//! idle that the multiplications use.

use std::arch::x86_64::*;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx512::{double_round, quarter_rounds, transpose};
use crate::forget::forget;
use crate::poly1305::avx512::{Factors, Halves, absorb, splat, tag, transpose as transpose_chunks};
use crate::text::{CHUNK, mask};

/// Encrypts or decrypts the texts of `tile` and computes the tags of its ciphertexts.
///
/// # Safety
/// The text and cipher pointers of every packet in the tile are good for its length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) unsafe fn run(tile: &mut Tile) {
    let mut state = initial(tile);
    let mut words = state;
    for _ in 0..10 {
        double_round!(words);
    }
    for (word, start) in words.iter_mut().zip(&state) {
        *word = _mm512_add_epi32(*word, *start);
    }
    let [r, s] = one_time_keys(&words);
    // SAFETY: the caller's promise.
    unsafe { xor_chunks(tile, transpose(words), 0) };

    let lens = load(&tile.len);
    let factors = Factors::new(r);
    let mut h = [_mm512_setzero_si512(); 3];
    let aad_lens = load(&tile.aad_len);
    absorb!(
        h,
        &factors,
        [load(&tile.aad[0]), load(&tile.aad[1])],
        _mm512_test_epi64_mask(aad_lens, aad_lens)
    );

    // Pass p covers blocks 2p and 2p + 1 of the key stream, which are chunks 2p - 1 and 2p.
    let mut blocks = [[_mm512_setzero_si512(); 2]; 8];
    let passes = (tile.longest().div_ceil(CHUNK) + 2) / 2;
    for pass in 1..passes {
        let behind = (2 * pass).wrapping_sub(3).wrapping_mul(CHUNK);
        // SAFETY: the caller's promise.
        unsafe { ciphertext(tile, behind, &mut blocks) };
        let mut at = splat(behind as u64);
        state[12] = _mm512_add_epi32(state[12], _mm512_set1_epi32(2));
        let mut words = state;
        double_round!(words);
        double_round!(words);
        for block in &blocks {
            double_round!(words);
            absorb!(h, &factors, *block, _mm512_cmpgt_epu64_mask(lens, at));
            at = _mm512_add_epi64(at, splat(16));
        }
        for (word, start) in words.iter_mut().zip(&state) {
            *word = _mm512_add_epi32(*word, *start);
        }
        // SAFETY: the caller's promise.
        unsafe { xor_chunks(tile, transpose(words), pass) };
    }

    let behind = (2 * passes).wrapping_sub(3).wrapping_mul(CHUNK);
    // SAFETY: the caller's promise.
    unsafe { ciphertext(tile, behind, &mut blocks) };
    let mut at = splat(behind as u64);
    for block in &blocks {
        absorb!(h, &factors, *block, _mm512_cmpgt_epu64_mask(lens, at));
        at = _mm512_add_epi64(at, splat(16));
    }
    absorb!(h, &factors, [aad_lens, lens], u8::MAX);
    let tag = tag(h, s);
    for (half, tag) in tile.tag.iter_mut().zip(tag) {
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

/// Applies the key stream of `pass` to its two chunks of each packet; in pass 0 the first is none.
///
/// # Safety
/// The text pointers are good for their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn xor_chunks(tile: &Tile, keystream: [__m512i; 16], pass: usize) {
    for (lane, keystream) in keystream.into_iter().enumerate() {
        let text = &tile.text[lane % PACKETS];
        // Chunk -1 is far past every length, like the chunks after the last.
        let offset = (2 * pass + lane / PACKETS).wrapping_sub(1).wrapping_mul(CHUNK);
        // SAFETY: the mask has one bit for each octet of text from `offset` on; other octets are not
        // touched.
        unsafe {
            let (input, output, mask) = text.chunk(offset);
            let input = _mm512_maskz_loadu_epi8(mask, input.cast());
            _mm512_mask_storeu_epi8(output.cast(), mask, _mm512_xor_si512(input, keystream));
        }
    }
}

/// The two chunks of ciphertext at `offset` of each packet, as eight blocks; zeros past its end.
///
/// # Safety
/// The cipher pointers are good for their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn ciphertext(tile: &Tile, offset: usize, blocks: &mut [Halves; 8]) {
    for (half, blocks) in blocks.chunks_exact_mut(4).enumerate() {
        let offset = offset.wrapping_add(half * CHUNK);
        let mut chunks = [_mm512_setzero_si512(); PACKETS];
        for (lane, chunk) in chunks.iter_mut().enumerate() {
            let rest = tile.text[lane].len.saturating_sub(offset);
            let place = if rest == 0 { 0 } else { offset };
            let place = tile.cipher[lane].wrapping_add(place);
            // SAFETY: the mask has one bit for each octet of ciphertext from `offset` on.
            *chunk = unsafe { _mm512_maskz_loadu_epi8(mask(rest), place.cast()) };
        }
        blocks.copy_from_slice(&transpose_chunks(chunks));
    }
}
