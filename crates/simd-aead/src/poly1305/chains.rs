//! The tags of eight packets in the making, as `chacha` goes on with them while it does the rounds of
//! ChaCha20: in 64-bit integer registers, two packets side by side.

use zeroize::Zeroize;

/// Pairs of packets. A turn is one pair's.
const PAIRS: usize = LANES / 2;
const LANES: usize = 8;

/// A number of each packet.
type Row = [u64; LANES];

/// A row for each number, a lane for each packet. The assembly counts on this layout, and finds the
/// first pair after the last one by the alignment.
#[repr(C, align(128))]
#[derive(Zeroize)]
pub(crate) struct Chains {
    /// The running values in 64, 64 and 3 bits.
    h: [Row; 3],
    /// `r`, clamped, in two halves.
    r: [Row; 2],
    /// 5/4 of the upper half of `r`: what is worth 2^128 times it.
    s: Row,
    /// Addresses of the ciphertext that comes next.
    #[zeroize(skip)]
    at: [*const u8; LANES],
    /// Octets of each of two packets that a turn absorbs.
    turn: usize,
    /// Turns done.
    pub(crate) turns: usize,
}

impl Chains {
    pub(crate) const fn new() -> Self {
        let row = [0; LANES];
        let at = [std::ptr::null(); LANES];
        Self { h: [row; 3], r: [row; 2], s: row, at, turn: 0, turns: 0 }
    }

    /// Goes on from the running values `h` with the ciphertexts at `at`, so many octets a turn. RFC 8439
    /// section 2.5.1 still has to clamp `r`.
    #[inline]
    pub(crate) fn start(&mut self, h: [Row; 3], r: [Row; 2], at: [*const u8; LANES], turn: usize) {
        self.h = h;
        self.r[0] = r[0].map(|lo| lo & 0x0fff_fffc_0fff_ffff);
        self.r[1] = r[1].map(|hi| hi & 0x0fff_fffc_0fff_fffc);
        self.s = self.r[1].map(|hi| hi + (hi >> 2));
        self.at = at;
        self.turn = turn;
        self.turns = 0;
    }

    /// The running values.
    pub(crate) fn values(&self) -> [Row; 3] {
        self.h
    }

    /// Octets of each packet that were absorbed, when all packets are equally far.
    pub(crate) fn absorbed(&self) -> usize {
        debug_assert!(self.turns.is_multiple_of(PAIRS));
        self.turns / PAIRS * self.turn
    }

    /// How many turns can follow, at most `most`, if `ready` octets of each packet are there. If these
    /// are the `last`, all packets are equally far after them.
    pub(crate) fn ready(&self, ready: usize, most: usize, last: bool) -> usize {
        let all = (ready / self.turn * PAIRS).min(self.turns + most);
        (if last { all / PAIRS * PAIRS } else { all }).saturating_sub(self.turns)
    }

    /// The pair whose turn it is.
    pub(crate) fn pair(&mut self) -> *mut u64 {
        let lane = self.turns % PAIRS * 2;
        (&raw mut *self).cast::<u64>().wrapping_add(lane)
    }
}

/// Instructions of a turn, for `chacha`: of its first packet (`a`), whose running value is in
/// r8, r9 and r10 and whose ciphertext is at r14, or its second (`b`), with r11, r12, r13 and rbp. The
/// pair is at rbx. Changes rax, rcx, rdx, rsi and rdi, which `low`, `high` and `reduce` of a block hand
/// on.
macro_rules! turn {
    (a $($part:tt)*) => { turn!(["r8" "r9" "r10" "r14" "0"] $($part)*) };
    (b $($part:tt)*) => { turn!(["r11" "r12" "r13" "rbp" "8"] $($part)*) };
    // The running value, and the first block.
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] load) => {
        concat!(
            "mov ", $at, ", [rbx + 384 + ", $lane, "]\n",
            "mov ", $h0, ", [rbx + ", $lane, "]\n",
            "mov ", $h1, ", [rbx + 64 + ", $lane, "]\n",
            "mov ", $h2, ", [rbx + 128 + ", $lane, "]\n",
            "add ", $h0, ", [", $at, "]\n",
            "adc ", $h1, ", [", $at, " + 8]\n",
            "adc ", $h2, ", 1\n",
        )
    };
    // The products of the lowest word and of the top one.
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] low) => {
        concat!(
            "mov rdx, ", $h0, "\n",
            "mulx rcx, rax, [rbx + 192 + ", $lane, "]\n",
            "mulx rdi, rsi, [rbx + 256 + ", $lane, "]\n",
            "mov rdx, ", $h2, "\n",
            "imul rdx, [rbx + 192 + ", $lane, "]\n",
            "imul ", $h2, ", [rbx + 320 + ", $lane, "]\n",
            "add rcx, rsi\n",
            "adc rdi, rdx\n",
        )
    };
    // The products of the middle word; the sums are in the lower two words and in rdi.
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] high) => {
        concat!(
            "mov rdx, ", $h1, "\n",
            "mulx ", $h0, ", rsi, [rbx + 192 + ", $lane, "]\n",
            "add rcx, rsi\n",
            "adc rdi, ", $h0, "\n",
            "mulx ", $h1, ", ", $h0, ", [rbx + 320 + ", $lane, "]\n",
            "add ", $h1, ", ", $h2, "\n",
            "add ", $h0, ", rax\n",
            "adc ", $h1, ", rcx\n",
            "adc rdi, 0\n",
        )
    };
    // What exceeds 2^130 comes in again five times below; before it, the block at an offset.
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] reduce $next:literal) => {
        concat!(
            turn!([$h0 $h1 $h2 $at $lane] excess),
            "add ", $h0, ", [", $at, " + ", $next, "]\n",
            "adc ", $h1, ", [", $at, " + ", $next, " + 8]\n",
            "adc ", $h2, ", 1\n",
            turn!([$h0 $h1 $h2 $at $lane] fold),
        )
    };
    // The same after the last block, where the turn was so long, and the running value goes back.
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] store $turn:literal) => {
        concat!(
            turn!([$h0 $h1 $h2 $at $lane] excess),
            "add ", $at, ", ", $turn, "\n",
            turn!([$h0 $h1 $h2 $at $lane] fold),
            "mov [rbx + 384 + ", $lane, "], ", $at, "\n",
            "mov [rbx + ", $lane, "], ", $h0, "\n",
            "mov [rbx + 64 + ", $lane, "], ", $h1, "\n",
            "mov [rbx + 128 + ", $lane, "], ", $h2, "\n",
        )
    };
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] excess) => {
        concat!(
            "mov ", $h2, ", rdi\n",
            "shr rdi, 2\n",
            "and ", $h2, ", 3\n",
            "lea rdx, [rdi + 4 * rdi]\n",
        )
    };
    ([$h0:tt $h1:tt $h2:tt $at:tt $lane:tt] fold) => {
        concat!("add ", $h0, ", rdx\n", "adc ", $h1, ", 0\n", "adc ", $h2, ", 0\n")
    };
    // The pair after this one.
    (next) => { "add rbx, 16\nbtr rbx, 6\n" };
}
pub(crate) use turn;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{avx2, avx512, chacha};

    const LIMB: u64 = (1 << 26) - 1;

    /// A number below 2^131 in five limbs of 26 bits.
    fn limbs([lo, hi, top]: [u64; 3]) -> [u64; 5] {
        let low = u128::from(lo) | u128::from(hi) << 64;
        let limb = |n: u32| (low >> (26 * n)) as u64 & LIMB;
        [limb(0), limb(1), limb(2), limb(3), (low >> 104) as u64 | top << 24]
    }

    /// The same modulo 2^130 - 5, reduced.
    fn reduced(mut h: [u64; 5]) -> [u64; 5] {
        for _ in 0..4 {
            for n in 0..5 {
                let carry = h[n] >> 26;
                h[n] &= LIMB;
                if n < 4 { h[n + 1] += carry } else { h[0] += 5 * carry }
            }
        }
        let is_prime_or_more = h[0] >= LIMB - 4 && h[1..].iter().all(|&limb| limb == LIMB);
        if is_prime_or_more { [h[0] - (LIMB - 4), 0, 0, 0, 0] } else { h }
    }

    /// `h` after `blocks` equal blocks, as RFC 8439 section 2.5.1 says it.
    pub(crate) fn expected(h: [u64; 3], r: [u64; 2], block: [u64; 2], blocks: usize) -> [u64; 5] {
        let (mut h, r) = (reduced(limbs(h)), limbs([r[0], r[1], 0]));
        for _ in 0..blocks {
            let sum: Vec<u64> =
                h.iter().zip(limbs([block[0], block[1], 1])).map(|(h, m)| h + m).collect();
            let mut product = [0; 5];
            for (i, sum) in sum.iter().enumerate() {
                for (j, r) in r.iter().enumerate() {
                    product[(i + j) % 5] += sum * r * if i + j < 5 { 1 } else { 5 };
                }
            }
            h = reduced(product);
        }
        h
    }

    /// Some turns of each packet, at the end of which it has had so many blocks.
    type Turns = fn(&mut Chains) -> [usize; LANES];

    fn during_avx512(chains: &mut Chains) -> [usize; LANES] {
        chains.turn = chacha::avx512::TURN;
        // SAFETY: any octets make a register; the caller has the instructions and fifteen blocks.
        unsafe {
            let state = std::mem::zeroed();
            chacha::avx512::rounds_of_two(&state, &state, chains, 10);
        }
        [15, 15, 15, 15, 10, 10, 10, 10]
    }

    fn during_avx2(chains: &mut Chains) -> [usize; LANES] {
        chains.turn = chacha::avx2::TURN;
        // SAFETY: likewise.
        unsafe { chacha::avx2::block(&std::mem::zeroed(), chains, 5) };
        [8, 8, 4, 4, 4, 4, 4, 4]
    }

    #[test]
    fn the_largest_and_smallest_numbers_carry_right() {
        let kernels: [(bool, Turns); 2] =
            [(avx512::is_supported(), during_avx512), (avx2::is_supported(), during_avx2)];
        let words = [0, 1, 0xffff_ffff, 0xffff_ffff_ffff_fffb, u64::MAX];
        let keys =
            [[0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc], [0, 0], [u64::MAX >> 4 & !3, 4]];
        for (word, top) in words.into_iter().flat_map(|word| (0..5).map(move |top| (word, top))) {
            for [lo, hi] in words.into_iter().flat_map(|lo| words.map(|hi| [lo, hi])) {
                for (r, (_, turns)) in keys
                    .into_iter()
                    .flat_map(|r| kernels.map(|kernel| (r, kernel)))
                    .filter(|(_, (supported, _))| *supported)
                {
                    let octets = [lo.to_le_bytes(), hi.to_le_bytes()].as_flattened().repeat(15);
                    let mut chains = Chains::new();
                    let h = [word, word, top];
                    chains.start(
                        h.map(|h| [h; LANES]),
                        r.map(|r| [r; LANES]),
                        [octets.as_ptr(); LANES],
                        0,
                    );
                    let blocks = turns(&mut chains);
                    let r = chains.r.map(|row| row[0]);
                    for (lane, blocks) in blocks.into_iter().enumerate() {
                        let value = reduced(limbs(chains.values().map(|row| row[lane])));
                        assert_eq!(value, expected(h, r, [lo, hi], blocks));
                    }
                }
            }
        }
    }
}
