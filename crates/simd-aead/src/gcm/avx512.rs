//! Four packets side by side, four blocks of each in a register. The sum of products that GHASH is stays
//! unreduced until the end of the packets, and then all four are reduced together. Packets that are too
//! long for that, or too few, go through the kernel for VAES on 256 bits.

use std::arch::x86_64::*;

use super::avx2::vaes;
use super::key::{GcmKey, POWERS, to_vector};
use super::{PACKETS, Packet, Tags, aad_block, lengths_block, nonce, power};
use crate::forget::forget;
use crate::text::CHUNK;

/// Chunks of the longest packet whose sum need not be reduced before its end: what the powers allow with
/// one block before and one behind.
const LONGEST: usize = (POWERS - 2) / 4;

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
                side_by_side::<LAST, SEAL>(key, packets).reduce()
            },
            _ => {
                let mut hashes = [0; 4];
                for (hash, packet) in hashes.iter_mut().zip(packets) {
                    // SAFETY: the caller's promise.
                    *hash = unsafe { vaes::hash_and_crypt::<LAST, SEAL>(key, packet) };
                }
                load(&hashes)
            }
        };
        let hashes = _mm512_shuffle_epi8(hashes, swap_octets());
        let four_tags = _mm512_xor_si512(hashes, masks[four]);
        // SAFETY: the tags have room for `PACKETS`, 16 octets each, and `four` is below a quarter.
        unsafe { _mm512_storeu_si512(tags.0.as_mut_ptr().add(4 * four).cast(), four_tags) };
    }
}

/// Whether four packets take less time side by side than one after the other: none is too long, and not too many lanes wait for the longest. A packet alone costs about four chunks
/// more, for what then nothing overlaps with.
fn side_by_side_pays(packets: &[Packet; 4]) -> bool {
    let chunks = |packet: &Packet| packet.text.len.div_ceil(CHUNK);
    let longest = packets.iter().map(chunks).max().unwrap_or_default();
    let all: usize = packets.iter().map(|packet| chunks(packet) + 4).sum();
    longest <= LONGEST && 4 * longest <= all
}

/// AES of four registers of blocks past round 0, and between the rounds the products of the four registers of
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

/// Encrypts or decrypts four packets of at most [`LONGEST`] chunks, one chunk of each at a time; returns their
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
    // The counters 2 to 5 of the next four blocks. No packet needs more than their last octet.
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
