//! Up to eight packets at once. ChaCha20 of one block of each packet at a time; Poly1305 of the chunks
//! before in integer registers during its rounds, and of the last, short ones with one packet a lane.

use std::arch::x86_64::*;

use super::tile::{PACKETS, Tile};
use crate::chacha::CONSTANTS;
use crate::chacha::avx2::{TURN, block, transpose};
use crate::poly1305::avx2::{Halves, LANES, Poly, rows, splat, transpose as transpose_pairs};
use crate::text::CHUNK;

/// Registers that eight packets take in Poly1305.
const GROUPS: usize = PACKETS / LANES;
/// The length from which on tags in the integer units save more than they cost.
const CHAINS_PAY: usize = 2 * CHUNK;
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
    // SAFETY: no turns.
    let words = unsafe { block(&state, &mut tile.chains, 0) };
    let (mut poly, r, s) = one_time_keys(&words);
    for (group, poly) in poly.iter_mut().enumerate() {
        let block = [load(&tile.aad[0], group), load(&tile.aad[1], group)];
        poly.absorb(block, longer(load(&tile.aad_len, group), 0));
    }
    let (longest, shortest) = (tile.longest(), tile.shortest());
    let whole = tile.whole_in_every_lane();
    let mut offset = 0;
    if whole >= CHAINS_PAY {
        // SAFETY: the caller's promise.
        offset = unsafe { run_chained::<SEAL>(tile, &mut state, &mut poly, r, whole) };
    }
    while offset < longest {
        // SAFETY: the caller's promise; a whole chunk is wholly in every text.
        unsafe {
            let words = next_block(tile, &mut state, 0);
            if offset + CHUNK > shortest {
                one_by_one::<SEAL, false>(tile, &words, offset, &mut poly);
            } else {
                one_by_one::<SEAL, true>(tile, &words, offset, &mut poly);
            }
        }
        offset += CHUNK;
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

/// The chunks before `whole`, which are whole in every lane, and the one there, if any: the tags follow
/// them in the integer units. Returns how far it came; `state` is that of the block before.
///
/// # Safety
/// As for [`run`].
#[target_feature(enable = "avx2")]
unsafe fn run_chained<const SEAL: bool>(
    tile: &mut Tile,
    state: &mut [__m256i; 16],
    poly: &mut [Poly; GROUPS],
    r: [[u64; PACKETS]; 2],
    whole: usize,
) -> usize {
    let [first, last] = poly.each_ref().map(|poly| poly.words());
    let h = std::array::from_fn(|n| both(first[n], last[n]));
    let cipher = tile.cipher;
    tile.chains.start(h, r, cipher, TURN);
    let from_source = tile.whole_from_source();
    for offset in (0..whole).step_by(CHUNK) {
        let ready = if SEAL { offset } else { offset + CHUNK };
        let turns = tile.chains.ready(ready, PACKETS / 2, true);
        // SAFETY: the caller's promise; so far the ciphertexts are ready.
        unsafe {
            let words = next_block(tile, state, turns);
            if from_source.contains(&offset) {
                crypt_from_source(tile, &words, offset);
            } else {
                for (half, words) in words.as_chunks().0.iter().enumerate() {
                    crypt::<SEAL, true>(tile, transpose(*words), offset + half * HALF);
                }
            }
        }
    }
    // Sealing, the last chunk is not in the tags.
    let turns = tile.chains.ready(whole, PACKETS / 2, true);
    let rest = whole < tile.longest();
    if turns > 0 || rest {
        // SAFETY: the caller's promise; so far the ciphertexts are ready.
        let words = unsafe { next_block(tile, state, turns) };
        give(tile, poly);
        if rest {
            // SAFETY: the caller's promise.
            unsafe { one_by_one::<SEAL, false>(tile, &words, whole, poly) };
        }
    } else {
        give(tile, poly);
    }
    whole + CHUNK
}

/// The key stream of the block after `state`, which becomes that block's.
///
/// # Safety
/// As for [`block`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn next_block(tile: &mut Tile, state: &mut [__m256i; 16], turns: usize) -> [__m256i; 16] {
    state[12] = _mm256_add_epi32(state[12], _mm256_set1_epi32(1));
    // SAFETY: the caller's promise.
    unsafe { block(state, &mut tile.chains, turns) }
}

/// Applies the key stream `words` to the chunk at `offset` of each packet, which is whole in every one
/// and read from the source.
///
/// # Safety
/// The text pointers are good for these chunks.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn crypt_from_source(tile: &Tile, words: &[__m256i; 16], offset: usize) {
    for (half, words) in words.as_chunks().0.iter().enumerate() {
        let at = offset + half * HALF;
        for (text, keystream) in tile.text.iter().zip(transpose(*words)) {
            // SAFETY: the caller's promise: there are 32 octets at both.
            unsafe {
                let input = _mm256_loadu_si256(text.source().wrapping_add(at).cast());
                let result = _mm256_xor_si256(input, keystream);
                _mm256_storeu_si256(text.output(at).cast(), result);
            }
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

/// Eight lanes from four and four.
fn both(first: [u64; LANES], last: [u64; LANES]) -> [u64; PACKETS] {
    std::array::from_fn(|lane| if lane < LANES { first[lane] } else { last[lane - LANES] })
}

/// Goes on in vectors where the integer units ended.
#[target_feature(enable = "avx2")]
fn give(tile: &Tile, poly: &mut [Poly; GROUPS]) {
    let values = tile.chains.values();
    for (group, poly) in poly.iter_mut().enumerate() {
        poly.set_words(values.each_ref().map(|row| load(row, group)));
    }
}

/// `r` and `s` of Poly1305: the first 32 octets of block 0 (RFC 8439 section 2.6).
#[inline]
#[target_feature(enable = "avx2")]
fn one_time_keys(
    words: &[__m256i; 16],
) -> ([Poly; GROUPS], [[u64; PACKETS]; 2], [[u128; LANES]; GROUPS]) {
    let pairs = pairs(transpose(words.as_chunks().0[0]));
    let number = |[lo, hi]: Halves| {
        let (lo, hi) = (rows(lo), rows(hi));
        [0, 1, 2, 3].map(|lane| u128::from(lo[lane]) | u128::from(hi[lane]) << 64)
    };
    let [[r0, s0], [r1, s1]] = pairs;
    let r = std::array::from_fn(|half| both(rows(r0[half]), rows(r1[half])));
    ([Poly::new(r0), Poly::new(r1)], r, [number(s0), number(s1)])
}

/// From two blocks of each packet, one register a packet, to both blocks of each group of packets.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs([a, b, c, d, e, f, g, h]: [__m256i; PACKETS]) -> [[Halves; 2]; GROUPS] {
    [transpose_pairs([a, b, c, d]), transpose_pairs([e, f, g, h])]
}

/// Applies the key stream `words` to the chunk at `offset` of each packet and absorbs its ciphertext,
/// block by block; not every packet has a whole chunk unless `WHOLE`.
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
