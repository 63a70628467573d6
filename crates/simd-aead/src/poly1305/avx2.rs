//! Four packets at once, one packet a 64-bit lane. Numbers modulo 2^130 - 5 are five limbs of 26
//! bits, so that products of limbs and sums of five of them fit 64 bits.

use std::arch::x86_64::*;

use crate::forget::forget;

/// Packets in a register.
pub(crate) const LANES: usize = 4;
const LIMB: u64 = (1 << 26) - 1;

/// 16-octet numbers of four packets as two halves.
pub(crate) type Halves = [__m256i; 2];

/// A number of each packet in five limbs.
type Limbs = [__m256i; 5];

/// The tags of four packets in the making.
pub(crate) struct Poly {
    h: Limbs,
    r: Factors,
}

/// What a number is multiplied with.
#[derive(Clone, Copy)]
struct Factors {
    r: Limbs,
    /// 5 r: a product of limbs whose indexes sum to 5 or more is worth 2^130, which is 5 modulo the
    /// prime. The first is unused.
    s: Limbs,
}

impl Poly {
    /// For the `r` that RFC 8439 section 2.5.1 still has to clamp.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn new(r: Halves) -> Self {
        let lo = _mm256_and_si256(r[0], splat(0x0fff_fffc_0fff_ffff));
        let hi = _mm256_and_si256(r[1], splat(0x0fff_fffc_0fff_fffc));
        let r = Factors::new(limbs([lo, hi]));
        Self { h: [_mm256_setzero_si256(); 5], r }
    }

    /// The running values in 64, 64 and 3 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn words(&self) -> [[u64; LANES]; 3] {
        let h = self.h.map(|limb| rows(limb));
        let mut words = [[0; LANES]; 3];
        for lane in 0..LANES {
            let limb = |n: usize| u128::from(h[n][lane]);
            let low = limb(0) + (limb(1) << 26) + (limb(2) << 52) + (limb(3) << 78);
            let (low, carried) = low.overflowing_add(limb(4) << 104);
            words[0][lane] = low as u64;
            words[1][lane] = (low >> 64) as u64;
            words[2][lane] = (h[4][lane] >> 24) + u64::from(carried);
        }
        words
    }

    /// Sets the running values from what [`Poly::words`] gives.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn set_words(&mut self, [lo, hi, top]: [__m256i; 3]) {
        self.h = limbs([lo, hi]);
        self.h[4] = _mm256_or_si256(self.h[4], _mm256_slli_epi64::<24>(top));
    }

    /// One more block, in the lanes that `active` has all ones in.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn absorb(&mut self, block: Halves, active: __m256i) {
        let mut m = limbs(block);
        m[4] = _mm256_or_si256(m[4], splat(1 << 24));
        let h = carried(add_product([_mm256_setzero_si256(); 5], sum_of(self.h, m), &self.r));
        for (old, new) in self.h.iter_mut().zip(h) {
            *old = _mm256_blendv_epi8(*old, new, active);
        }
    }
}

impl Factors {
    /// For these limbs, each a bit longer than 26 bits at most.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(r: Limbs) -> Self {
        let s = [times5(r[0]), times5(r[1]), times5(r[2]), times5(r[3]), times5(r[4])];
        Self { r, s }
    }
}

/// `sum` and the products of `m` and `factors`, not carried. There is room for four of them.
#[inline]
#[target_feature(enable = "avx2")]
fn add_product(mut sum: Limbs, m: Limbs, factors: &Factors) -> Limbs {
    // From memory each time: there are sixteen registers.
    let Factors { r, s } = forget(factors);
    for i in 0..5 {
        for (k, sum) in sum.iter_mut().enumerate() {
            let factor = if k >= i { r[k - i] } else { s[k + 5 - i] };
            *sum = _mm256_add_epi64(*sum, _mm256_mul_epu32(m[i], factor));
        }
    }
    sum
}

/// Limbs of 26 bits, of which 1 and 4 may be a bit longer. Two chains of carries run side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn carried([d0, d1, d2, d3, d4]: Limbs) -> Limbs {
    let sum = |a, b| _mm256_add_epi64(a, b);
    let low = |d| _mm256_and_si256(d, splat(LIMB));
    let high = |d| _mm256_srli_epi64::<26>(d);
    let (d0, d1) = (low(d0), sum(d1, high(d0)));
    let (d3, d4) = (low(d3), sum(d4, high(d3)));
    let (d1, d2) = (low(d1), sum(d2, high(d1)));
    let (d4, d0) = (low(d4), sum(d0, times5(high(d4))));
    let (d2, d3) = (low(d2), sum(d3, high(d2)));
    let (d0, d1) = (low(d0), sum(d1, high(d0)));
    let (d3, d4) = (low(d3), sum(d4, high(d3)));
    [d0, d1, d2, d3, d4]
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_of(a: Limbs, b: Limbs) -> Limbs {
    let sum = |n: usize| _mm256_add_epi64(a[n], b[n]);
    [sum(0), sum(1), sum(2), sum(3), sum(4)]
}

/// Five limbs of 26 bits, the last of 24.
#[inline]
#[target_feature(enable = "avx2")]
fn limbs([lo, hi]: Halves) -> Limbs {
    let limb = splat(LIMB);
    let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(lo), _mm256_slli_epi64::<12>(hi));
    [
        _mm256_and_si256(lo, limb),
        _mm256_and_si256(_mm256_srli_epi64::<26>(lo), limb),
        _mm256_and_si256(middle, limb),
        _mm256_and_si256(_mm256_srli_epi64::<14>(hi), limb),
        _mm256_srli_epi64::<40>(hi),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn times5(value: __m256i) -> __m256i {
    _mm256_add_epi64(value, _mm256_slli_epi64::<2>(value))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn splat(value: u64) -> __m256i {
    _mm256_set1_epi64x(value as i64)
}

impl Poly {
    /// The running values fully reduced, plus `s`: the tags.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn tags(&self, s: [u128; LANES]) -> [u128; LANES] {
        let h = &self.h;
        let h = [rows(h[0]), rows(h[1]), rows(h[2]), rows(h[3]), rows(h[4])];
        std::array::from_fn(|lane| tag(h.map(|limb| limb[lane]), s[lane]))
    }
}

/// The lanes of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn rows(value: __m256i) -> [u64; LANES] {
    let mut row = [0; LANES];
    // SAFETY: the row is 32 writable octets.
    unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), value) };
    row
}

/// The same for one packet. Nothing here depends on the numbers but the numbers.
fn tag(mut h: [u64; 5], s: u128) -> u128 {
    for _ in 0..2 {
        for i in 0..4 {
            h[i + 1] += h[i] >> 26;
            h[i] &= LIMB;
        }
        h[0] += 5 * (h[4] >> 26);
        h[4] &= LIMB;
    }
    h[1] += h[0] >> 26;
    h[0] &= LIMB;
    // Bits 0 to 127 and above.
    let low = |h: &[u64; 5]| {
        let low = u128::from(h[0]) | u128::from(h[1]) << 26 | u128::from(h[2]) << 52;
        low.wrapping_add(u128::from(h[3]) << 78).wrapping_add(u128::from(h[4]) << 104)
    };
    // h - p is h + 5 - 2^130: there is a 2^130 to subtract exactly if h is not below p.
    let mut g = h;
    g[0] += 5;
    for i in 0..4 {
        g[i + 1] += g[i] >> 26;
        g[i] &= LIMB;
    }
    let reduced = u128::from(g[4] >> 26 & 1).wrapping_neg();
    (low(&g) & reduced | low(&h) & !reduced).wrapping_add(s)
}

/// From two blocks of each packet, one register a packet, to two blocks of all packets.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn transpose(pairs: [__m256i; LANES]) -> [Halves; 2] {
    let lo01 = _mm256_unpacklo_epi64(pairs[0], pairs[1]);
    let hi01 = _mm256_unpackhi_epi64(pairs[0], pairs[1]);
    let lo23 = _mm256_unpacklo_epi64(pairs[2], pairs[3]);
    let hi23 = _mm256_unpackhi_epi64(pairs[2], pairs[3]);
    [
        [
            _mm256_permute2x128_si256::<0x20>(lo01, lo23),
            _mm256_permute2x128_si256::<0x20>(hi01, hi23),
        ],
        [
            _mm256_permute2x128_si256::<0x31>(lo01, lo23),
            _mm256_permute2x128_si256::<0x31>(hi01, hi23),
        ],
    ]
}
