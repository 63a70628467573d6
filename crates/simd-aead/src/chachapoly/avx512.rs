//! Up to eight packets at once. ChaCha20 of two or four blocks of each packet at a time leaves the
//! ciphertexts in memory. Poly1305 goes along the ciphertexts behind it: as far as possible in integer
//! registers during the rounds, the rest afterwards with one packet a lane.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx512::{TURN, rounds, rounds_of_two, transpose};
use crate::poly1305::avx512::{Halves, Poly, Powers, transpose as transpose_chunks};
use crate::text::{CHUNK, mask};

/// Octets in whole chunks from which on powers of r save more than they cost.
const POWERS_PAY: usize = 4 * CHUNK;

/// Encrypts (`SEAL`) or decrypts the texts of `tile` and computes the tags of its ciphertexts.
///
/// # Safety
/// The processor has AVX-512 with these extensions. The text and cipher pointers of every packet in
/// the tile are good for its length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
pub(crate) unsafe fn run<const SEAL: bool>(tile: &mut Tile) {
    if tile.longest() <= CHUNK {
        // SAFETY: the caller's promise.
        unsafe { run_short::<SEAL>(tile) };
        return;
    }
    let longest = tile.longest();
    let shortest = tile.shortest_of_all();
    let whole = tile.whole_from_source();
    // Block 0 makes the one-time keys: block n + 1 is for chunk n. Four blocks at a time, or two where
    // that is enough.
    let mut state = initial(tile);
    // SAFETY: no turns.
    let (words, second) = unsafe { rounds_of_two(&state, &next(&state), &mut tile.chains, 0) };
    let [r, s] = one_time_keys(&words);
    let mut poly = begin(tile, r);
    // Only if two states are to come.
    let chained = longest > 5 * CHUNK && shortest >= TURN;
    if chained {
        let cipher = tile.cipher;
        tile.chains.start(
            poly.words().map(|lanes| row(lanes)),
            r.map(|lanes| row(lanes)),
            cipher,
            TURN,
        );
    }
    let powers = (shortest >= POWERS_PAY).then(|| Powers::new(&poly));

    // SAFETY: the caller's promise.
    unsafe {
        apply::<true>(tile, &whole, &words, 0);
        apply::<false>(tile, &whole, &second, CHUNK);
    }
    let mut offset = 3 * CHUNK;
    while offset < longest {
        state = next(&next(&state));
        let left = longest - offset;
        // SAFETY: the caller's promise; and so many turns go as far as the ciphertexts are ready.
        unsafe {
            if left <= 2 * CHUNK {
                apply::<false>(tile, &whole, &rounds(&state), offset);
            } else {
                let ready = if SEAL { shortest.min(offset) } else { shortest };
                let turns =
                    if chained { tile.chains.ready(ready, 10, left <= 6 * CHUNK) } else { 0 };
                let (words, second) = rounds_of_two(&state, &next(&state), &mut tile.chains, turns);
                apply::<false>(tile, &whole, &words, offset);
                apply::<false>(tile, &whole, &second, offset + 2 * CHUNK);
            }
        }
        offset += 4 * CHUNK;
    }

    let mut offset = 0;
    if chained {
        poly.set_words(tile.chains.values().each_ref().map(|row| load(row)));
        offset = tile.chains.absorbed();
    }
    if let Some(powers) = &powers {
        while offset + CHUNK <= shortest {
            // SAFETY: the caller's promise; idle lanes read what the first one does.
            let chunks = unsafe { ciphertext(tile, offset) };
            poly.absorb_four::<SEAL>(powers, transpose_chunks(chunks));
            offset += CHUNK;
        }
    }
    while offset < longest {
        // SAFETY: the caller's promise.
        let chunks = unsafe { masked_ciphertext(tile, offset) };
        absorb(tile, &mut poly, chunks, offset);
        offset += CHUNK;
    }
    end(tile, poly, s);
}

/// The same for texts of one chunk at most, which need not come from memory again.
///
/// # Safety
/// As for [`run`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
unsafe fn run_short<const SEAL: bool>(tile: &mut Tile) {
    let words = rounds(&initial(tile));
    let [r, s] = one_time_keys(&words);
    let mut poly = begin(tile, r);
    let mut keystream = [_mm512_setzero_si512(); PACKETS];
    transpose(&words, |n, [_, _, low, high]| {
        keystream[n] = low;
        keystream[n + 4] = high;
    });
    // SAFETY: the caller's promise.
    let cipher = unsafe { chunk::<SEAL>(tile, &keystream, 0) };
    absorb(tile, &mut poly, cipher, 0);
    end(tile, poly, s);
}

/// Tags that so far have the associated data.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
fn begin(tile: &Tile, r: Halves) -> Poly {
    let mut poly = Poly::new(r);
    let lens = load(&tile.aad_len);
    let aad = [load(&tile.aad[0]), load(&tile.aad[1])];
    poly.absorb(aad, _mm512_test_epi64_mask(lens, lens));
    poly
}

/// Goes on with the chunks of ciphertext at `offset`, as far as each text goes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
fn absorb(tile: &Tile, poly: &mut Poly, chunks: [__m512i; PACKETS], offset: usize) {
    let lens = load(&tile.len);
    let longest = tile.longest();
    for (n, block) in transpose_chunks(chunks).into_iter().enumerate() {
        let at = offset + 16 * n;
        if at < longest {
            let active = _mm512_cmpgt_epu64_mask(lens, _mm512_set1_epi64(at as i64));
            poly.absorb(block, active);
        }
    }
}

/// Absorbs the lengths, and leaves the tags in the tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
fn end(tile: &mut Tile, mut poly: Poly, s: Halves) {
    poly.absorb([load(&tile.aad_len), load(&tile.len)], u8::MAX);
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn row(lanes: __m512i) -> [u64; PACKETS] {
    let mut row = [0; PACKETS];
    // SAFETY: the row is 64 writable octets.
    unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), lanes) };
    row
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

/// Applies the key stream of two blocks of each packet to the chunks at `offset`, as far as they go. If
/// these are the `FIRST` two, the first of them is not for text, and the second is for the chunk.
///
/// # Safety
/// The text pointers are good for their lengths.
// Not inline: the compiler would copy the words once more.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn apply<const FIRST: bool>(
    tile: &Tile,
    whole: &Range<usize>,
    words: &[__m512i; 16],
    offset: usize,
) {
    let chunks = if FIRST { 1 } else { 2 };
    if whole.start <= offset && offset + chunks * CHUNK <= whole.end {
        transpose(words, |n, blocks| {
            for (k, block) in blocks.into_iter().enumerate().skip(4 - 2 * chunks) {
                let text = &tile.text[n + k % 2 * 4];
                let at = if FIRST { offset } else { offset + k / 2 * CHUNK };
                // SAFETY: the caller's promise: there are 64 octets at both.
                unsafe {
                    let input = _mm512_loadu_si512(text.source().wrapping_add(at).cast());
                    let result = _mm512_xor_si512(input, block);
                    _mm512_storeu_si512(text.output(at).cast(), result);
                }
            }
        });
        return;
    }
    let mut keystream = [_mm512_setzero_si512(); 2 * PACKETS];
    transpose(words, |n, blocks| {
        for (k, block) in blocks.into_iter().enumerate() {
            keystream[n + 4 * k] = block;
        }
    });
    for (n, keystream) in keystream.as_chunks().0.iter().skip(2 - chunks).enumerate() {
        let at = offset + n * CHUNK;
        if at < tile.longest() {
            // SAFETY: the caller's promise.
            unsafe { chunk::<true>(tile, keystream, at) };
        }
    }
}

/// Applies the key stream to the chunk at `offset` of each packet, as far as it goes; returns the
/// ciphertext, zeros past its end.
///
/// # Safety
/// The text pointers are good for their lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn chunk<const SEAL: bool>(
    tile: &Tile,
    keystream: &[__m512i; PACKETS],
    offset: usize,
) -> [__m512i; PACKETS] {
    let mut cipher = [_mm512_setzero_si512(); PACKETS];
    for (lane, text) in tile.text.iter().enumerate() {
        let (input, output, mask) = text.chunk(offset);
        // SAFETY: the mask has one bit for each octet of text from `offset` on; other octets are not
        // touched.
        unsafe {
            let input = _mm512_maskz_loadu_epi8(mask, input.cast());
            let result = _mm512_xor_si512(input, keystream[lane]);
            _mm512_mask_storeu_epi8(output.cast(), mask, result);
            cipher[lane] = if SEAL { _mm512_maskz_mov_epi8(mask, result) } else { input };
        }
    }
    cipher
}

/// 64 octets of each ciphertext.
///
/// # Safety
/// The cipher pointers are good for so many octets from `offset` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn ciphertext(tile: &Tile, offset: usize) -> [__m512i; PACKETS] {
    // SAFETY: the caller's promise.
    tile.cipher.map(|cipher| unsafe { _mm512_loadu_si512(cipher.wrapping_add(offset).cast()) })
}

/// 64 octets of each ciphertext, zeros past its end.
///
/// # Safety
/// The cipher pointers are good for their lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn masked_ciphertext(tile: &Tile, offset: usize) -> [__m512i; PACKETS] {
    let mut chunks = [_mm512_setzero_si512(); PACKETS];
    for (lane, chunk) in chunks.iter_mut().enumerate() {
        let rest = (tile.len[lane] as usize).saturating_sub(offset);
        // Masked accesses to unmapped memory trap into slow microcode.
        let at = tile.cipher[lane].wrapping_add(if rest == 0 { 0 } else { offset });
        // SAFETY: the caller's promise.
        *chunk = unsafe { _mm512_maskz_loadu_epi8(mask(rest), at.cast()) };
    }
    chunks
}
