//! Four blocks a register, four registers at a time. The sum of products that GHASH is stays
//! unreduced until the end of the packet, and then four packets are reduced together.

use std::arch::x86_64::*;

use super::key::{GcmKey, POWERS, to_vector};
use super::{PACKETS, Packet, Tags};
use crate::forget::forget;
use crate::job::Aad;
use crate::text::CHUNK;

/// Blocks hashed before the sum must be reduced: what the powers allow with one block before and one
/// behind, in whole chunks.
const SEGMENT: usize = (POWERS - 2) / 4 * 4;

/// Encrypts (`SEAL`) or decrypts the texts of `packets` and computes their tags. Packets should be
/// sorted by length.
///
/// # Safety
/// The text and cipher pointers of every packet are good for its length. `LAST` is the key's.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) unsafe fn run<const LAST: usize, const SEAL: bool>(
    key: &GcmKey,
    packets: &[Packet],
    tags: &mut Tags,
) {
    let masks = tag_masks::<LAST>(key, packets);
    for (four, packets) in packets.chunks(4).enumerate() {
        let hashes = match <&[Packet; 4]>::try_from(packets) {
            // SAFETY: the caller's promise, and just checked.
            Ok(packets) if side_by_side_pays(packets) => unsafe {
                side_by_side::<LAST, SEAL>(key, packets)
            },
            _ => {
                let mut sums = [Sum::zero(); 4];
                for (sum, packet) in sums.iter_mut().zip(packets) {
                    // SAFETY: the caller's promise.
                    *sum = unsafe { hash_and_crypt::<LAST, SEAL>(key, packet) };
                }
                gather(sums)
            }
        };
        let hashes = _mm512_shuffle_epi8(hashes.reduce(), swap_octets());
        let four_tags = _mm512_xor_si512(hashes, masks[four]);
        // SAFETY: the tags have room for `PACKETS`, 16 octets each, and `four` is below a quarter.
        unsafe { _mm512_storeu_si512(tags.0.as_mut_ptr().add(4 * four).cast(), four_tags) };
    }
}

/// Whether four packets take less time side by side than one after the other: none needs more than
/// one segment, and not too many lanes wait for the longest. A packet alone costs about four chunks
/// more, for what then nothing overlaps with.
fn side_by_side_pays(packets: &[Packet; 4]) -> bool {
    let chunks = |packet: &Packet| packet.text.len.div_ceil(CHUNK);
    let longest = packets.iter().map(chunks).max().unwrap_or_default();
    let all: usize = packets.iter().map(|packet| chunks(packet) + 4).sum();
    longest <= SEGMENT / 4 && 4 * longest <= all
}

/// AES of four registers of blocks that are past round 0, and between the rounds the products of the four registers of
/// ciphertext before, each for its own sum. A macro, because both must be in one stretch of code to
/// overlap.
macro_rules! encrypt_and_hash {
    ($key:expr, $blocks:ident, $sums:ident, $cipher:ident, $powers:ident) => {
        let rounds = forget($key).rounds();
        for n in 0..4 {
            let share = (LAST - 2) / 4;
            for round in &rounds[1 + n * share..1 + (n + 1) * share] {
                let round = load(round);
                for block in &mut $blocks {
                    *block = _mm512_aesenc_epi128(*block, round);
                }
            }
            // SAFETY: the powers begin at a power of the key, or the zeros behind.
            let powers = unsafe { _mm512_loadu_si512($powers[n].cast()) };
            $sums[n].add($cipher[n], powers);
            tie(&mut $blocks, &mut $sums[n]);
        }
        for round in &rounds[1 + (LAST - 2) / 4 * 4..LAST] {
            let round = load(round);
            for block in &mut $blocks {
                *block = _mm512_aesenc_epi128(*block, round);
            }
        }
        for block in &mut $blocks {
            *block = _mm512_aesenclast_epi128(*block, load(&rounds[LAST]));
        }
    };
}

/// Keeps the compiler from moving products past rounds: it would put all of them behind the last round,
/// too far from the rounds for the processor to do both at once. No instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn tie(blocks: &mut [__m512i; 4], sum: &mut Sum) {
    let [a, b, c, d] = blocks;
    // SAFETY: the registers come out as they went in.
    unsafe {
        std::arch::asm!(
            "/* {} {} {} {} {} {} {} */",
            inout(zmm_reg) *a, inout(zmm_reg) *b, inout(zmm_reg) *c, inout(zmm_reg) *d,
            inout(zmm_reg) sum.low, inout(zmm_reg) sum.middle, inout(zmm_reg) sum.high,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
}

/// Where one of four packets reads and writes.
struct Lane {
    /// Good for the chunks in the middle, where no lane needs a mask.
    input: *const u8,
    output: *mut u8,
    /// The power that meets the first block. A block is as long as a power.
    powers: *const u8,
}

/// Encrypts or decrypts four packets of at most a segment, one chunk of each at a time; returns their
/// unreduced hashes, one a lane.
///
/// # Safety
/// The text and cipher pointers are good for the lengths.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn side_by_side<const LAST: usize, const SEAL: bool>(
    key: &GcmKey,
    packets: &[Packet; 4],
) -> Sum {
    let zero = _mm512_setzero_si512();
    let mut sums = [Sum::zero(); 4];
    let mut cipher = [zero; 4];
    let mut powers: [*const u8; 4] = [key.powers_from(1).cast(); 4];
    // With round 0 done for everything but the counter.
    let mut nonces = [zero; 4];
    let (mut longest, mut middle) = (0, 0..usize::MAX);
    let lanes = packets.each_ref().map(|packet| {
        let text = &packet.text;
        longest = longest.max(text.len);
        let whole = text.whole_from_source();
        middle = middle.start.max(whole.start)..middle.end.min(whole.end);
        let powers = key.powers_from(text.len.div_ceil(16) + 1).cast();
        Lane { input: text.source(), output: text.output(0), powers }
    });
    for (block, packet) in nonces.iter_mut().zip(packets) {
        let nonce = _mm512_broadcast_i32x4(to_vector(nonce(packet)));
        *block = _mm512_xor_si512(nonce, load(&key.rounds()[0]));
    }
    // The counters 2 to 5 of the next four blocks. A segment needs no more than their last octet.
    let mut counters = load(&[2 << 120, 3 << 120, 4 << 120, 5 << 120]);
    for offset in (0..longest).step_by(CHUNK) {
        let mut blocks = [zero; 4];
        for (block, nonce) in blocks.iter_mut().zip(nonces) {
            *block = _mm512_xor_si512(nonce, counters);
        }
        counters = _mm512_add_epi32(counters, load(&[4 << 120; 4]));
        encrypt_and_hash!(key, blocks, sums, cipher, powers);
        if middle.contains(&offset) {
            let lanes = forget(&lanes);
            for n in 0..4 {
                let lane = &lanes[n];
                // SAFETY: the caller's promise: in the middle every lane has a whole chunk here.
                unsafe {
                    let input = _mm512_loadu_si512(lane.input.wrapping_add(offset).cast());
                    let result = _mm512_xor_si512(input, blocks[n]);
                    _mm512_storeu_si512(lane.output.wrapping_add(offset).cast(), result);
                    cipher[n] = if SEAL { result } else { input };
                }
                cipher[n] = _mm512_shuffle_epi8(cipher[n], swap_octets());
                powers[n] = lane.powers.wrapping_add(offset);
            }
        } else {
            for (n, packet) in packets.iter().enumerate() {
                let (input, output, mask) = packet.text.chunk(offset);
                // SAFETY: the caller's promise; the mask has a bit for each octet of text from
                // `offset` on.
                unsafe {
                    let input = _mm512_maskz_loadu_epi8(mask, input.cast());
                    let result = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(input, blocks[n]));
                    _mm512_mask_storeu_epi8(output.cast(), mask, result);
                    cipher[n] = if SEAL { result } else { input };
                }
                cipher[n] = _mm512_shuffle_epi8(cipher[n], swap_octets());
                // Past the end the ciphertext is zero and the power does not matter.
                let offset = if mask == 0 { 0 } else { offset };
                powers[n] = lanes[n].powers.wrapping_add(offset);
            }
        }
    }
    for n in 0..4 {
        // SAFETY: as in `encrypt_and_hash`.
        sums[n].add(cipher[n], unsafe { _mm512_loadu_si512(powers[n].cast()) });
    }

    let mut sum = gather(sums);
    let (mut before, mut before_powers, mut lengths) = ([0; 4], [0; 4], [0; 4]);
    for (n, packet) in packets.iter().enumerate() {
        before[n] = aad_block(packet.aad);
        before_powers[n] = power(key, packet.text.len.div_ceil(16) + 2);
        lengths[n] = lengths_block(packet);
    }
    sum.add(load(&before), load(&before_powers));
    sum.add(load(&lengths), load(&[power(key, 1); 4]));
    sum
}

/// What hides the hash of each packet: the encrypted counter block 1, all of them at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn tag_masks<const LAST: usize>(key: &GcmKey, packets: &[Packet]) -> [__m512i; 4] {
    let mut counters = [0u128; PACKETS];
    for (counter, packet) in counters.iter_mut().zip(packets) {
        *counter = nonce(packet) | 1 << 120;
    }
    let mut blocks = [_mm512_setzero_si512(); 4];
    for (block, counters) in blocks.iter_mut().zip(counters.as_chunks::<4>().0) {
        *block = load(counters);
    }
    encrypt::<LAST, 4>(key, blocks)
}

/// The counter block of a packet, with a counter of zero.
#[inline(always)]
fn nonce(packet: &Packet) -> u128 {
    let mut block = [0; 16];
    block[..12].copy_from_slice(&packet.nonce);
    u128::from_le_bytes(block)
}

/// The first four counter blocks of the text, 2 to 5, the counter little-endian. Counter 1 is the
/// tag's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn first_counters(packet: &Packet) -> __m512i {
    let nonce = _mm512_broadcast_i32x4(to_vector(nonce(packet)));
    _mm512_or_si512(nonce, load(&[2 << 96, 3 << 96, 4 << 96, 5 << 96]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn load(blocks: &[u128; 4]) -> __m512i {
    // SAFETY: 64 readable octets.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}

/// AES of `N` registers of blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn encrypt<const LAST: usize, const N: usize>(
    key: &GcmKey,
    mut blocks: [__m512i; N],
) -> [__m512i; N] {
    let rounds = key.rounds();
    for block in &mut blocks {
        *block = _mm512_xor_si512(*block, load(&rounds[0]));
    }
    for round in &rounds[1..LAST] {
        let round = load(round);
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, round);
        }
    }
    for block in &mut blocks {
        *block = _mm512_aesenclast_epi128(*block, load(&rounds[LAST]));
    }
    blocks
}

/// Reverses the octets of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn swap_octets() -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// Makes the counter, the last four octets of each block, big-endian.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn swap_counter() -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
}

/// A sum of 256-bit products in each lane, in three overlapping parts.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds the products of `blocks`, their octets swapped, and `powers`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn add(&mut self, blocks: __m512i, powers: __m512i) {
        let m0 = _mm512_clmulepi64_epi128::<0x01>(blocks, powers);
        let m1 = _mm512_clmulepi64_epi128::<0x10>(blocks, powers);
        let low = _mm512_clmulepi64_epi128::<0x00>(blocks, powers);
        let high = _mm512_clmulepi64_epi128::<0x11>(blocks, powers);
        self.low = _mm512_xor_si512(self.low, low);
        self.middle = _mm512_ternarylogic_epi64::<0x96>(self.middle, m0, m1);
        self.high = _mm512_xor_si512(self.high, high);
    }

    /// The sums modulo the GCM polynomial.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn reduce(self) -> __m512i {
        let polynomial = load(&[0xc2 << 120 | 1; 4]);
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, self.low);
        let swapped = _mm512_shuffle_epi32::<0x4e>(self.low);
        let middle = _mm512_ternarylogic_epi64::<0x96>(self.middle, folded, swapped);
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, middle);
        let swapped = _mm512_shuffle_epi32::<0x4e>(middle);
        _mm512_ternarylogic_epi64::<0x96>(self.high, folded, swapped)
    }
}

/// The sum of the four lanes of each of four sums, in the lane of its number.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn gather(sums: [Sum; 4]) -> Sum {
    let [a, b, c, d] = sums;
    Sum {
        low: gather_part(a.low, b.low, c.low, d.low),
        middle: gather_part(a.middle, b.middle, c.middle, d.middle),
        high: gather_part(a.high, b.high, c.high, d.high),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn gather_part(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    let ab =
        _mm512_xor_si512(_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b));
    let cd =
        _mm512_xor_si512(_mm512_shuffle_i64x2::<0x88>(c, d), _mm512_shuffle_i64x2::<0xdd>(c, d));
    _mm512_xor_si512(_mm512_shuffle_i64x2::<0x88>(ab, cd), _mm512_shuffle_i64x2::<0xdd>(ab, cd))
}

/// Encrypts or decrypts one packet; returns the unreduced hash of its associated data, ciphertext
/// and lengths.
///
/// # Safety
/// The text and cipher pointers are good for the length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
unsafe fn hash_and_crypt<const LAST: usize, const SEAL: bool>(
    key: &GcmKey,
    packet: &Packet,
) -> Sum {
    let len = packet.text.len;
    let lengths = lengths_block(packet);
    let mut progress = Progress::new(packet);
    let mut before = aad_block(packet.aad);
    // Blocks of this segment; then the power that meets `before`, if there is associated data.
    let mut blocks = len.div_ceil(16);
    let mut weight = blocks.min(SEGMENT) + usize::from(blocks <= SEGMENT) + 1;
    while blocks > SEGMENT {
        let mut sum = Sum::zero();
        sum.add(pair(before, 0), pair(power(key, weight), 0));
        progress.weight = SEGMENT;
        // SAFETY: the caller's promise; a segment is whole groups of chunks and one rest.
        unsafe { progress.segment::<LAST, SEAL>(key, packet, &mut sum, SEGMENT * 16) };
        let total = gather([sum, Sum::zero(), Sum::zero(), Sum::zero()]).reduce();
        before = low_block(total);
        blocks -= SEGMENT;
        // The hash so far is added to the next block rather than a block of its own.
        weight = blocks.min(SEGMENT) + usize::from(blocks <= SEGMENT);
    }
    let mut sum = Sum::zero();
    sum.add(pair(before, lengths), pair(power(key, weight), power(key, 1)));
    progress.weight = blocks + 1;
    let rest = len - progress.offset;
    // SAFETY: the caller's promise.
    unsafe { progress.segment::<LAST, SEAL>(key, packet, &mut sum, rest) };
    sum
}

/// The associated data, zero-padded, as a block with its octets swapped. Without associated data
/// there is no such block; one of zeros has the same hash.
#[inline(always)]
fn aad_block(aad: Aad) -> u128 {
    let mut block = [0; 16];
    block[..12].copy_from_slice(&aad.bytes);
    let unused = 8 * (12 - u32::from(aad.len.min(12)));
    u128::from_be_bytes(block) >> 32 >> unused << unused << 32
}

/// The lengths in bits (SP 800-38D section 7.1, step 5) as a block with its octets swapped.
#[inline(always)]
fn lengths_block(packet: &Packet) -> u128 {
    ((8 * u128::from(packet.aad.len)) << 64) | (8 * packet.text.len as u128)
}

/// The power of the hash key that meets a block so far from the end.
#[inline(always)]
fn power(key: &GcmKey, weight: usize) -> u128 {
    // SAFETY: the pointer is to one of the key's powers.
    unsafe { *key.powers_from(weight) }
}

/// Two blocks in the lower lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn pair(first: u128, second: u128) -> __m512i {
    let half = |value: u128, shift| (value >> shift) as i64;
    let two = _mm256_set_epi64x(half(second, 64), half(second, 0), half(first, 64), half(first, 0));
    _mm512_zextsi256_si512(two)
}

/// The block in the lowest lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn low_block(blocks: __m512i) -> u128 {
    let block = _mm512_castsi512_si128(blocks);
    let (low, high) = (_mm_extract_epi64::<0>(block), _mm_extract_epi64::<1>(block));
    u128::from(low as u64) | u128::from(high as u64) << 64
}

/// How far a packet is.
struct Progress {
    /// The next four counter blocks, the counter little-endian.
    counters: __m512i,
    offset: usize,
    /// The power that meets the next block.
    weight: usize,
}

impl Progress {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn new(packet: &Packet) -> Self {
        Self { counters: first_counters(packet), offset: 0, weight: 0 }
    }

    /// Does the next `len` octets of the text and adds their products to `sum`.
    ///
    /// # Safety
    /// The text and cipher pointers are good for these octets. Unless they are the last, they are
    /// whole chunks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    unsafe fn segment<const LAST: usize, const SEAL: bool>(
        &mut self,
        key: &GcmKey,
        packet: &Packet,
        sum: &mut Sum,
        len: usize,
    ) {
        let end = self.offset + len;
        // SAFETY: the caller's promise; each call is for chunks below `end`.
        unsafe {
            while end - self.offset > 4 * CHUNK {
                self.group::<LAST, SEAL, 4, true>(key, packet, sum);
            }
            match (end - self.offset).div_ceil(CHUNK) {
                0 => {}
                1 => self.group::<LAST, SEAL, 1, false>(key, packet, sum),
                2 => self.group::<LAST, SEAL, 2, false>(key, packet, sum),
                3 => self.group::<LAST, SEAL, 3, false>(key, packet, sum),
                _ => self.group::<LAST, SEAL, 4, false>(key, packet, sum),
            }
        }
    }

    /// Does the next `N` chunks, all of them whole if `WHOLE`.
    ///
    /// # Safety
    /// The text and cipher pointers are good for these chunks, the last as far as the text goes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    unsafe fn group<const LAST: usize, const SEAL: bool, const N: usize, const WHOLE: bool>(
        &mut self,
        key: &GcmKey,
        packet: &Packet,
        sum: &mut Sum,
    ) {
        let mut keystream = [_mm512_setzero_si512(); N];
        let four = load(&[4 << 96; 4]);
        for block in &mut keystream {
            *block = _mm512_shuffle_epi8(self.counters, swap_counter());
            self.counters = _mm512_add_epi32(self.counters, four);
        }
        let keystream = encrypt::<LAST, N>(key, keystream);
        for (n, keystream) in keystream.into_iter().enumerate() {
            let offset = self.offset + n * CHUNK;
            // SAFETY: the caller's promise; the mask, where there is one, has a bit for each octet of
            // text from `offset` on. The powers are those from the chunk's weight down, which may
            // reach into the zeros behind the last.
            unsafe {
                let (input, output, mut mask) = packet.text.chunk(offset);
                if WHOLE || n + 1 < N {
                    mask = u64::MAX;
                }
                let input = _mm512_maskz_loadu_epi8(mask, input.cast());
                let result = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(input, keystream));
                _mm512_mask_storeu_epi8(output.cast(), mask, result);
                let cipher = if SEAL { result } else { input };
                let powers = _mm512_loadu_si512(key.powers_from(self.weight - 4 * n).cast());
                sum.add(_mm512_shuffle_epi8(cipher, swap_octets()), powers);
            }
        }
        self.offset += N * CHUNK;
        self.weight = self.weight.saturating_sub(4 * N);
    }
}
