//! Eight packets at once, one packet a 64-bit lane. Numbers modulo 2^130 - 5 are three limbs of 44,
//! 44 and 42 bits, multiplied by the 52-bit multiply-add instructions (IFMA).

use std::arch::x86_64::*;

/// 16-octet numbers of eight packets as two halves.
pub(crate) type Halves = [__m512i; 2];

const LIMB44: u64 = (1 << 44) - 1;
const LIMB42: u64 = (1 << 42) - 1;
/// The bit that RFC 8439 section 2.5.1 sets above each 16-octet block, in the third limb.
const PAD: u64 = 1 << (128 - 88);

/// What a block is multiplied with, and the constants of the multiplication. Kept in memory: in the
/// fused loop the registers are for ChaCha20's state, and the compiler, left to itself, would spill
/// that to hold these.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) r: [__m512i; 3],
    /// 20 r1 and 20 r2: a product of limbs whose indexes sum to 3 is worth 2^132, which is 4 * 5
    /// modulo the prime.
    pub(crate) s: [__m512i; 2],
    pub(crate) limb44: __m512i,
    pub(crate) limb42: __m512i,
    pub(crate) pad: __m512i,
}

/// `h = (h + block) * r` in the lanes of `$active`, where a block is 16 octets and the pad bit. A macro for the reason given in `chacha::avx512`.
macro_rules! absorb {
    ($h:ident, $factors:expr, $block:expr, $active:expr) => {{
        let [old0, old1, old2] = $h;
        let ([lo, hi], active) = ($block, $active);
        let Factors { r: [r0, r1, r2], s: [s1, s2], limb44, limb42, pad } = *forget($factors);
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(lo), _mm512_slli_epi64::<20>(hi));
        let h0 = _mm512_add_epi64(old0, _mm512_and_si512(lo, limb44));
        let h1 = _mm512_add_epi64(old1, _mm512_and_si512(middle, limb44));
        let top = _mm512_or_si512(_mm512_srli_epi64::<24>(hi), pad);
        let h2 = _mm512_add_epi64(old2, top);

        let zero = _mm512_setzero_si512();
        // The limb of h that is known last comes last.
        let lo0 = _mm512_madd52lo_epu64(zero, h2, s1);
        let hi0 = _mm512_madd52hi_epu64(zero, h2, s1);
        let lo1 = _mm512_madd52lo_epu64(zero, h2, s2);
        let hi1 = _mm512_madd52hi_epu64(zero, h2, s2);
        let lo2 = _mm512_madd52lo_epu64(zero, h2, r0);
        let hi2 = _mm512_madd52hi_epu64(zero, h2, r0);
        let lo0 = _mm512_madd52lo_epu64(lo0, h1, s2);
        let hi0 = _mm512_madd52hi_epu64(hi0, h1, s2);
        let lo1 = _mm512_madd52lo_epu64(lo1, h1, r0);
        let hi1 = _mm512_madd52hi_epu64(hi1, h1, r0);
        let lo2 = _mm512_madd52lo_epu64(lo2, h1, r1);
        let hi2 = _mm512_madd52hi_epu64(hi2, h1, r1);
        let lo0 = _mm512_madd52lo_epu64(lo0, h0, r0);
        let hi0 = _mm512_madd52hi_epu64(hi0, h0, r0);
        let lo1 = _mm512_madd52lo_epu64(lo1, h0, r1);
        let hi1 = _mm512_madd52hi_epu64(hi1, h0, r1);
        let lo2 = _mm512_madd52lo_epu64(lo2, h0, r2);
        let hi2 = _mm512_madd52hi_epu64(hi2, h0, r2);

        // A high half is worth 2^52, which is 2^8 of the next limb, and 2^10 above the top one.
        // Limb 0 keeps up to 49 bits: the products of the next block still fit.
        let t1 = _mm512_add_epi64(lo1, _mm512_slli_epi64::<8>(hi0));
        let t1 = _mm512_add_epi64(t1, _mm512_srli_epi64::<44>(lo0));
        let t2 = _mm512_add_epi64(lo2, _mm512_slli_epi64::<8>(hi1));
        let t2 = _mm512_add_epi64(t2, _mm512_srli_epi64::<44>(t1));
        let top = _mm512_slli_epi64::<10>(hi2);
        let top = _mm512_add_epi64(top, _mm512_srli_epi64::<42>(t2));
        let bottom = _mm512_add_epi64(_mm512_and_si512(lo0, limb44), top);
        $h = [
            _mm512_mask_add_epi64(old0, active, bottom, _mm512_slli_epi64::<2>(top)),
            _mm512_mask_and_epi64(old1, active, t1, limb44),
            _mm512_mask_and_epi64(old2, active, t2, limb42),
        ];
    }};
}

pub(crate) use absorb;

impl Factors {
    /// For the clamped `r` (RFC 8439 section 2.5.1).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    pub(crate) fn new(r: Halves) -> Self {
        let lo = _mm512_and_si512(r[0], splat(0x0fff_fffc_0fff_ffff));
        let hi = _mm512_and_si512(r[1], splat(0x0fff_fffc_0fff_fffc));
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(lo), _mm512_slli_epi64::<20>(hi));
        let r0 = _mm512_and_si512(lo, splat(LIMB44));
        let r1 = _mm512_and_si512(middle, splat(LIMB44));
        let r2 = _mm512_srli_epi64::<24>(hi);
        let s1 = _mm512_mullo_epi64(r1, splat(20));
        let s2 = _mm512_mullo_epi64(r2, splat(20));
        let (limb44, limb42, pad) = (splat(LIMB44), splat(LIMB42), splat(PAD));
        Self { r: [r0, r1, r2], s: [s1, s2], limb44, limb42, pad }
    }
}

/// The running value `h` fully reduced, plus `s`: the tags.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn tag(mut h: [__m512i; 3], s: Halves) -> Halves {
    for _ in 0..2 {
        h = carry(h);
        let top = _mm512_srli_epi64::<42>(h[2]);
        h[0] = _mm512_add_epi64(h[0], _mm512_mullo_epi64(top, splat(5)));
        h[2] = _mm512_and_si512(h[2], splat(LIMB42));
    }
    h = carry(h);
    // h - p is h + 5 - 2^130: there is a 2^130 to subtract exactly if h is not below p.
    let g = carry([_mm512_add_epi64(h[0], splat(5)), h[1], h[2]]);
    let below = _mm512_cmplt_epu64_mask(g[2], splat(1 << 42));
    for (h, g) in h.iter_mut().zip(g) {
        *h = _mm512_mask_mov_epi64(g, below, *h);
    }
    let lo = _mm512_or_si512(h[0], _mm512_slli_epi64::<44>(h[1]));
    let hi = _mm512_or_si512(_mm512_srli_epi64::<20>(h[1]), _mm512_slli_epi64::<24>(h[2]));
    let lo = _mm512_add_epi64(lo, s[0]);
    let carried = _mm512_cmplt_epu64_mask(lo, s[0]);
    let hi = _mm512_add_epi64(hi, s[1]);
    [lo, _mm512_mask_add_epi64(hi, carried, hi, splat(1))]
}
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn splat(value: u64) -> __m512i {
    _mm512_set1_epi64(value as i64)
}

/// Moves what exceeds a limb one up; the top limb keeps what exceeds it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn carry([h0, h1, h2]: [__m512i; 3]) -> [__m512i; 3] {
    let h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
    let h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
    [_mm512_and_si512(h0, splat(LIMB44)), _mm512_and_si512(h1, splat(LIMB44)), h2]
}

/// From 64 octets of each packet, one register a packet, to four blocks of all packets.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
pub(crate) fn transpose(chunks: [__m512i; 8]) -> [Halves; 4] {
    let zero = _mm512_setzero_si512();
    // Each 128-bit quarter q of lo[p] and hi[p]: the halves of block q of packets 2p and 2p + 1.
    let (mut lo, mut hi) = ([zero; 4], [zero; 4]);
    for p in 0..4 {
        lo[p] = _mm512_unpacklo_epi64(chunks[2 * p], chunks[2 * p + 1]);
        hi[p] = _mm512_unpackhi_epi64(chunks[2 * p], chunks[2 * p + 1]);
    }
    let (lo, hi) = (quarters(lo), quarters(hi));
    [[lo[0], hi[0]], [lo[1], hi[1]], [lo[2], hi[2]], [lo[3], hi[3]]]
}

/// Transposes a matrix of 128-bit quarters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    let even01 = _mm512_shuffle_i64x2::<0x88>(rows[0], rows[1]);
    let odd01 = _mm512_shuffle_i64x2::<0xdd>(rows[0], rows[1]);
    let even23 = _mm512_shuffle_i64x2::<0x88>(rows[2], rows[3]);
    let odd23 = _mm512_shuffle_i64x2::<0xdd>(rows[2], rows[3]);
    [
        _mm512_shuffle_i64x2::<0x88>(even01, even23),
        _mm512_shuffle_i64x2::<0x88>(odd01, odd23),
        _mm512_shuffle_i64x2::<0xdd>(even01, even23),
        _mm512_shuffle_i64x2::<0xdd>(odd01, odd23),
    ]
}
