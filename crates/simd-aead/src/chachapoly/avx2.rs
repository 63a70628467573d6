//! Up to eight packets at once: ChaCha20 of one block of each packet, then Poly1305 of the chunk of
//! ciphertext that it made, one packet a lane.

use std::arch::x86_64::*;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx2::{block, transpose};
use crate::poly1305::avx2::{
    Halves, LANES, Poly, Powers, Sum, rows, splat, transpose as transpose_pairs,
};
use crate::text::CHUNK;

/// Registers that eight packets take in Poly1305.
const GROUPS: usize = PACKETS / LANES;
/// The length from which on powers of r save more than they cost.
const POWERS_PAY: usize = 4 * CHUNK;
/// Octets of a chunk in a register.
const HALF: usize = CHUNK / 2;

/// Encrypts or decrypts the texts of `tile` and computes the tags of its ciphertexts.
///
/// # Safety
/// The processor has AVX2. The text and cipher pointers of every packet in the tile are good for its
/// length.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn run<const SEAL: bool>(tile: &mut Tile) {
    let mut state = initial(tile);
    let (mut poly, s) = one_time_keys(&block(&state));
    for (group, poly) in poly.iter_mut().enumerate() {
        let block = [load(&tile.aad[0], group), load(&tile.aad[1], group)];
        poly.absorb(block, longer(load(&tile.aad_len, group), 0));
    }
    let shortest = tile.shortest();
    let powers = (shortest >= POWERS_PAY).then(|| [Powers::new(&poly[0]), Powers::new(&poly[1])]);
    for offset in (0..tile.longest()).step_by(CHUNK) {
        state[12] = _mm256_add_epi32(state[12], _mm256_set1_epi32(1));
        let words = block(&state);
        // SAFETY: the caller's promise; a whole chunk is wholly in every text.
        unsafe {
            match &powers {
                _ if offset + CHUNK > shortest => {
                    one_by_one::<SEAL, false>(tile, &words, offset, &mut poly);
                }
                Some(powers) => four::<SEAL>(tile, &words, offset, powers, &mut poly),
                None => one_by_one::<SEAL, true>(tile, &words, offset, &mut poly),
            }
        }
    }
    for (group, poly) in poly.iter_mut().enumerate() {
        let block = [load(&tile.aad_len, group), load(&tile.len, group)];
        poly.absorb(block, splat(u64::MAX));
        for (lane, tag) in poly.tags(s[group]).into_iter().enumerate() {
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
fn one_time_keys(words: &[__m256i; 16]) -> ([Poly; GROUPS], [[u128; LANES]; GROUPS]) {
    let pairs = pairs(transpose(words.as_chunks().0[0]));
    let number = |[lo, hi]: Halves| {
        let (lo, hi) = (rows(lo), rows(hi));
        [0, 1, 2, 3].map(|lane| u128::from(lo[lane]) | u128::from(hi[lane]) << 64)
    };
    let [[r0, s0], [r1, s1]] = pairs;
    ([Poly::new(r0), Poly::new(r1)], [number(s0), number(s1)])
}

/// From two blocks of each packet, one register a packet, to both blocks of each group of packets.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs([a, b, c, d, e, f, g, h]: [__m256i; PACKETS]) -> [[Halves; 2]; GROUPS] {
    [transpose_pairs([a, b, c, d]), transpose_pairs([e, f, g, h])]
}

/// Applies the key stream `words` to the chunk at `offset` of each packet, which is whole in every
/// one, and absorbs its ciphertext.
///
/// # Safety
/// The text pointers are good for these chunks.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four<const SEAL: bool>(
    tile: &Tile,
    words: &[__m256i; 16],
    offset: usize,
    powers: &[Powers; GROUPS],
    poly: &mut [Poly; GROUPS],
) {
    let [first, last] = [words.as_chunks().0[0], words.as_chunks().0[1]];
    // SAFETY: the caller's promise.
    let blocks = pairs(unsafe { crypt::<SEAL, true>(tile, transpose(first), offset) });
    let mut sums = [Sum::zero(); GROUPS];
    for group in 0..GROUPS {
        sums[group] = poly[group].absorb_first_two::<SEAL>(&powers[group], blocks[group]);
    }
    // SAFETY: the caller's promise.
    let blocks = pairs(unsafe { crypt::<SEAL, true>(tile, transpose(last), offset + HALF) });
    for group in 0..GROUPS {
        poly[group].absorb_last_two::<SEAL>(&powers[group], sums[group], blocks[group]);
    }
}

/// The same block by block, and where not every packet has a whole chunk unless `WHOLE`.
///
/// # Safety
/// The text pointers are good for their lengths, and for all of the chunks if `WHOLE`.
#[target_feature(enable = "avx2")]
unsafe fn one_by_one<const SEAL: bool, const WHOLE: bool>(
    tile: &Tile,
    words: &[__m256i; 16],
    offset: usize,
    poly: &mut [Poly; GROUPS],
) {
    for (half, words) in words.as_chunks().0.iter().enumerate() {
        let at = offset + half * HALF;
        if at >= tile.longest() {
            return;
        }
        // SAFETY: the caller's promise.
        let cipher = unsafe { crypt::<SEAL, WHOLE>(tile, transpose(*words), at) };
        for (group, blocks) in pairs(cipher).into_iter().enumerate() {
            let lens = load(&tile.len, group);
            for (number, block) in blocks.into_iter().enumerate() {
                poly[group].absorb(block, longer(lens, at + 16 * number));
            }
        }
    }
}

/// Applies the key stream to the half chunk at `at` of each packet; returns the ciphertext, with zeros
/// past its end.
///
/// # Safety
/// The text pointers are good for their lengths, and for all of the half chunk if `WHOLE`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn crypt<const SEAL: bool, const WHOLE: bool>(
    tile: &Tile,
    keystream: [__m256i; PACKETS],
    at: usize,
) -> [__m256i; PACKETS] {
    let mut cipher = [_mm256_setzero_si256(); PACKETS];
    for lane in 0..PACKETS {
        // SAFETY: the caller's promise.
        cipher[lane] = unsafe { crypt_lane::<SEAL, WHOLE>(tile, lane, at, keystream[lane]) };
    }
    cipher
}

/// Applies `keystream` to the half chunk at `at` of the packet in `lane`; returns its ciphertext,
/// with zeros past its end.
///
/// # Safety
/// The text and cipher pointers are good for their lengths; for all of the half chunk if `WHOLE`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn crypt_lane<const SEAL: bool, const WHOLE: bool>(
    tile: &Tile,
    lane: usize,
    at: usize,
    keystream: __m256i,
) -> __m256i {
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
