//! Eight packets at once, one packet a 64-bit lane. Numbers modulo 2^130 - 5 are three limbs of 44,
//! 44 and 42 bits, multiplied by the 52-bit multiply-add instructions (IFMA).

use std::arch::x86_64::*;

/// 16-octet numbers of eight packets as two halves.
pub(crate) type Halves = [__m512i; 2];

/// A number of each packet in three limbs.
type Limbs = [__m512i; 3];

const LIMB44: u64 = (1 << 44) - 1;
const LIMB42: u64 = (1 << 42) - 1;
/// The bit that RFC 8439 section 2.5.1 sets above each 16-octet block, in the third limb.
const PAD: u64 = 1 << (128 - 88);

/// The tags of eight packets in the making.
pub(crate) struct Poly {
    /// Carried only when it is multiplied next: the products that do not wait for it come before and
    /// hide how long that takes.
    h: Sum,
    r: Factors,
}

/// What a number is multiplied with.
#[derive(Clone, Copy)]
struct Factors {
    r: Limbs,
    /// 20 r1 and 20 r2: a product of limbs whose indexes sum to 3 is worth 2^132, which is 4 * 5
    /// modulo the prime.
    s: [__m512i; 2],
}

/// `r`, r^2, r^3 and r^4: with them four blocks are multiplied each with its own power, and the sum
/// is carried once.
pub(crate) struct Powers {
    /// r^4 first, as the blocks meet them.
    factors: [Factors; 4],
    /// The pad bits of four blocks times their powers.
    pads: Limbs,
}

/// A sum of products of limbs that is not carried yet: their lower 52 bits, and the bits above.
#[derive(Clone, Copy)]
struct Sum {
    lo: Limbs,
    hi: Limbs,
}

impl Poly {
    /// For the `r` that RFC 8439 section 2.5.1 still has to clamp.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    #[target_feature(enable = "avx512vbmi2")]
    pub(crate) fn new(r: Halves) -> Self {
        let lo = _mm512_and_si512(r[0], splat(0x0fff_fffc_0fff_ffff));
        let hi = _mm512_and_si512(r[1], splat(0x0fff_fffc_0fff_fffc));
        let r = Factors::new(limbs([lo, hi]));
        Self { h: Sum::of([_mm512_setzero_si512(); 3]), r }
    }

    /// The running value in 64, 64 and 3 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    pub(crate) fn words(&self) -> [__m512i; 3] {
        let [h0, h1, h2] = carry(self.h.carried());
        [
            _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1)),
            _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2)),
            _mm512_srli_epi64::<40>(h2),
        ]
    }

    /// Sets the running value from what [`Poly::words`] gives.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    #[target_feature(enable = "avx512vbmi2")]
    pub(crate) fn set_words(&mut self, [lo, hi, top]: [__m512i; 3]) {
        let [h0, h1, h2] = limbs([lo, hi]);
        self.h = Sum::of([h0, h1, _mm512_or_si512(h2, _mm512_slli_epi64::<40>(top))]);
    }

    /// One more block, in the lanes of `active`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    #[target_feature(enable = "avx512vbmi2")]
    pub(crate) fn absorb(&mut self, block: Halves, active: u8) {
        let mut m = limbs(block);
        m[2] = _mm512_or_si512(m[2], splat(PAD));
        let mut sum = Sum::of([_mm512_setzero_si512(); 3]);
        sum.add(sum_of(self.h.carried(), m), &self.r);
        for n in 0..3 {
            self.h.lo[n] = _mm512_mask_mov_epi64(self.h.lo[n], active, sum.lo[n]);
            self.h.hi[n] = _mm512_mask_mov_epi64(self.h.hi[n], active, sum.hi[n]);
        }
    }

    /// Four more blocks, in all lanes. `SEAL` gives each kernel a copy of its own, which the compiler
    /// then puts into it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    #[target_feature(enable = "avx512vbmi2")]
    pub(crate) fn absorb_four<const SEAL: bool>(&mut self, powers: &Powers, blocks: [Halves; 4]) {
        let mut sum = Sum::of(powers.pads);
        for n in [1, 2, 3] {
            sum.add(limbs(blocks[n]), &powers.factors[n]);
        }
        sum.add(sum_of(self.h.carried(), limbs(blocks[0])), &powers.factors[0]);
        self.h = sum;
    }

    /// The running value fully reduced, plus `s`: the tags.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    pub(crate) fn tag(self, s: Halves) -> Halves {
        let mut h = self.h.carried();
        for _ in 0..2 {
            h = carry(h);
            let top = _mm512_srli_epi64::<42>(h[2]);
            h[0] = _mm512_madd52lo_epu64(h[0], top, splat(5));
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
}

impl Factors {
    /// For these limbs, each below 2^45.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn new(r: Limbs) -> Self {
        let zero = _mm512_setzero_si512();
        let times20 = |limb| _mm512_madd52lo_epu64(zero, limb, splat(20));
        Self { r, s: [times20(r[1]), times20(r[2])] }
    }

    /// `h` times these.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn product(&self, h: Limbs) -> Limbs {
        let mut sum = Sum::of([_mm512_setzero_si512(); 3]);
        sum.add(h, self);
        sum.carried()
    }
}

impl Powers {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    pub(crate) fn new(poly: &Poly) -> Self {
        let r = &poly.r;
        let second = Factors::new(r.product(r.r));
        let third = Factors::new(r.product(second.r));
        let fourth = Factors::new(second.product(second.r));
        let all = sum_of(sum_of(r.r, second.r), sum_of(third.r, fourth.r));
        let zero = _mm512_setzero_si512();
        let pads = Factors::new(carry(all)).product([zero, zero, splat(PAD)]);
        Self { factors: [fourth, third, second, *r], pads }
    }
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn of(lo: Limbs) -> Self {
        Self { lo, hi: [_mm512_setzero_si512(); 3] }
    }

    /// Adds the products of `m`, with limbs below 2^46, and `factors`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn add(&mut self, m: Limbs, factors: &Factors) {
        let Factors { r: [r0, r1, r2], s: [s1, s2] } = *factors;
        // The limb of h that is known last comes last.
        for (m, row) in [(m[2], [s1, s2, r0]), (m[1], [s2, r0, r1]), (m[0], [r0, r1, r2])] {
            for (k, r) in row.into_iter().enumerate() {
                self.lo[k] = _mm512_madd52lo_epu64(self.lo[k], m, r);
                self.hi[k] = _mm512_madd52hi_epu64(self.hi[k], m, r);
            }
        }
    }

    /// The limbs of at most four products: below 2^44, 2^44 + 2^9 and 2^42. A high half is worth 2^52,
    /// which is 2^8 of the next limb, and 2^10 above the top one; multiplications do the shifts to the
    /// left together with their addition.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
    fn carried(self) -> Limbs {
        let Self { lo, hi } = self;
        let t1 = _mm512_madd52lo_epu64(lo[1], hi[0], splat(1 << 8));
        let t1 = _mm512_add_epi64(t1, _mm512_srli_epi64::<44>(lo[0]));
        let t2 = _mm512_madd52lo_epu64(lo[2], hi[1], splat(1 << 8));
        let t2 = _mm512_add_epi64(t2, _mm512_srli_epi64::<44>(t1));
        // Below 2^49.
        let top = _mm512_madd52lo_epu64(_mm512_srli_epi64::<42>(t2), hi[2], splat(1 << 10));
        let bottom = _mm512_and_si512(lo[0], splat(LIMB44));
        let bottom = _mm512_madd52lo_epu64(bottom, top, splat(5));
        let middle = _mm512_and_si512(t1, splat(LIMB44));
        [
            _mm512_and_si512(bottom, splat(LIMB44)),
            _mm512_add_epi64(middle, _mm512_srli_epi64::<44>(bottom)),
            _mm512_and_si512(t2, splat(LIMB42)),
        ]
    }
}

/// Three limbs; the top one has 40 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
#[target_feature(enable = "avx512vbmi2")]
fn limbs([lo, hi]: Halves) -> Limbs {
    let middle = _mm512_shrdi_epi64::<44>(lo, hi);
    [
        _mm512_and_si512(lo, splat(LIMB44)),
        _mm512_and_si512(middle, splat(LIMB44)),
        _mm512_srli_epi64::<24>(hi),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn sum_of(a: Limbs, b: Limbs) -> Limbs {
    let sum = |n: usize| _mm512_add_epi64(a[n], b[n]);
    [sum(0), sum(1), sum(2)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq,bmi2")]
fn splat(value: u64) -> __m512i {
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
