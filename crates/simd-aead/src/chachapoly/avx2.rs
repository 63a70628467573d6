//! Up to eight packets at once: ChaCha20 of one block of each packet, then Poly1305 of the chunk of
//! ciphertext that it made, one packet a lane.

use std::arch::x86_64::*;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx2::{block, transpose};
use crate::poly1305::avx2::{Factors, LANES, absorb, splat, tags, transpose as transpose_pairs};
use crate::text::CHUNK;

/// Registers that eight packets take in Poly1305.
const GROUPS: usize = PACKETS / LANES;

/// Encrypts or decrypts the texts of `tile` and computes the tags of its ciphertexts.
///
/// # Safety
/// The processor has AVX2. The text and cipher pointers of every packet in the tile are good for its
/// length.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn run<const SEAL: bool>(tile: &mut Tile) {
    let mut state = initial(tile);
    let (factors, s) = one_time_keys(&block(&state));
    let mut h = [[_mm256_setzero_si256(); 5]; GROUPS];
    for (group, h) in h.iter_mut().enumerate() {
        let lens = load(&tile.aad_len, group);
        let block = [load(&tile.aad[0], group), load(&tile.aad[1], group)];
        absorb(h, &factors[group], block, Some(longer(lens, 0)));
    }
    let longest = tile.longest();
    let shortest = tile.len.iter().fold(usize::MAX, |least, &len| least.min(len as usize));
    for offset in (0..longest).step_by(CHUNK) {
        state[12] = _mm256_add_epi32(state[12], _mm256_set1_epi32(1));
        let words = block(&state);
        // SAFETY: the caller's promise; a whole chunk is wholly in every text.
        unsafe {
            if offset + CHUNK <= shortest {
                step::<SEAL, true>(tile, &words, offset, &factors, &mut h);
            } else {
                step::<SEAL, false>(tile, &words, offset, &factors, &mut h);
            }
        }
    }
    for (group, h) in h.iter_mut().enumerate() {
        let block = [load(&tile.aad_len, group), load(&tile.len, group)];
        absorb(h, &factors[group], block, None);
        let tags = tags(*h, s[group]);
        for (lane, tag) in tags.into_iter().enumerate() {
            tile.tag[0][LANES * group + lane] = tag as u64;
            tile.tag[1][LANES * group + lane] = (tag >> 64) as u64;
        }
    }
}

/// Four lanes of a row.
#[inline]
#[target_feature(enable = "avx2")]
fn load(row: &[u64; PACKETS], group: usize) -> __m256i {
    let four = &row.as_chunks::<LANES>().0[group];
    // SAFETY: these are 32 readable octets.
    unsafe { _mm256_loadu_si256(four.as_ptr().cast()) }
}

/// All ones in the lanes where there is text from `offset` on. Lengths and offsets are far below
/// 2^63.
#[inline]
#[target_feature(enable = "avx2")]
fn longer(lens: __m256i, offset: usize) -> __m256i {
    _mm256_cmpgt_epi64(lens, splat(offset as u64))
}

/// The states of the blocks 0.
#[inline]
#[target_feature(enable = "avx2")]
fn initial(tile: &Tile) -> [__m256i; 16] {
    let mut state = [_mm256_setzero_si256(); 16];
    for (word, constant) in state.iter_mut().zip(CONSTANTS) {
        *word = _mm256_set1_epi32(constant as i32);
    }
    let places = (4..12).chain(13..16);
    for (place, row) in places.zip(tile.key.iter().chain(&tile.nonce)) {
        // SAFETY: the row is 32 readable octets.
        state[place] = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
    }
    state
}

/// `r` and `s` of Poly1305: the first 32 octets of block 0 (RFC 8439 section 2.6).
#[inline]
#[target_feature(enable = "avx2")]
fn one_time_keys(words: &[__m256i; 16]) -> ([Factors; GROUPS], [[u128; LANES]; GROUPS]) {
    let mut first = [_mm256_setzero_si256(); 8];
    first.copy_from_slice(&words[..8]);
    let keys = transpose(first);
    let group = |group: usize| {
        let [r, s] = transpose_pairs([0, 1, 2, 3].map(|lane| keys[LANES * group + lane]));
        let mut numbers = [0; LANES];
        for (number, lane) in numbers.iter_mut().zip(0..) {
            let half = |half: __m256i| {
                let mut row = [0u64; LANES];
                // SAFETY: the row is 32 writable octets.
                unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), half) };
                u128::from(row[lane])
            };
            *number = half(s[0]) | half(s[1]) << 64;
        }
        (Factors::new(r), numbers)
    };
    let ((r0, s0), (r1, s1)) = (group(0), group(1));
    ([r0, r1], [s0, s1])
}

/// Applies the key stream `words` to the chunk at `offset` of each packet and absorbs its ciphertext.
/// `WHOLE`: every packet has a whole chunk there.
///
/// # Safety
/// The text and cipher pointers are good for their lengths.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn step<const SEAL: bool, const WHOLE: bool>(
    tile: &Tile,
    words: &[__m256i; 16],
    offset: usize,
    factors: &[Factors; GROUPS],
    h: &mut [[__m256i; 5]; GROUPS],
) {
    for half in 0..2 {
        let at = offset + half * CHUNK / 2;
        let mut eight = [_mm256_setzero_si256(); 8];
        eight.copy_from_slice(&words[8 * half..8 * half + 8]);
        let keystream = transpose(eight);
        let mut cipher = [_mm256_setzero_si256(); PACKETS];
        for lane in 0..PACKETS {
            // SAFETY: the caller's promise.
            cipher[lane] = unsafe { crypt::<SEAL, WHOLE>(tile, lane, at, keystream[lane]) };
        }
        let [a, b, c, d, e, f, g, i] = cipher;
        let pairs = [transpose_pairs([a, b, c, d]), transpose_pairs([e, f, g, i])];
        for number in 0..2 {
            for group in 0..GROUPS {
                let lens = load(&tile.len, group);
                let active = if WHOLE { None } else { Some(longer(lens, at + 16 * number)) };
                absorb(&mut h[group], &factors[group], pairs[group][number], active);
            }
        }
    }
}

/// Applies `keystream` to the half chunk at `at` of the packet in `lane`; returns its ciphertext,
/// with zeros past its end.
///
/// # Safety
/// The text and cipher pointers are good for their lengths; for all of the half chunk if `WHOLE`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn crypt<const SEAL: bool, const WHOLE: bool>(
    tile: &Tile,
    lane: usize,
    at: usize,
    keystream: __m256i,
) -> __m256i {
    const HALF: usize = CHUNK / 2;
    let text = &tile.text[lane];
    let rest = if WHOLE { HALF } else { text.len.saturating_sub(at).min(HALF) };
    if rest == 0 {
        return _mm256_setzero_si256();
    }
    let within = at % CHUNK;
    let (input, output) = (text.input(at - within).wrapping_add(within), text.output(at));
    if rest == HALF {
        // SAFETY: the caller's promise: there are 32 octets at both.
        unsafe {
            let input = _mm256_loadu_si256(input.cast());
            let result = _mm256_xor_si256(input, keystream);
            _mm256_storeu_si256(output.cast(), result);
            return if SEAL { result } else { input };
        }
    }
    let (mut buffer, mut octets) = ([0u8; HALF], [0u8; HALF]);
    // SAFETY: the caller's promise: there are `rest` octets at both, fewer than the buffers have.
    unsafe {
        input.copy_to_nonoverlapping(buffer.as_mut_ptr(), rest);
        let input = _mm256_loadu_si256(buffer.as_ptr().cast());
        _mm256_storeu_si256(octets.as_mut_ptr().cast(), _mm256_xor_si256(input, keystream));
        octets[rest..].fill(0);
        output.copy_from_nonoverlapping(octets.as_ptr(), rest);
        if SEAL { _mm256_loadu_si256(octets.as_ptr().cast()) } else { input }
    }
}
