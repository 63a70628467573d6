//! The AVX2 backends: Haswell, Zen and later; with VAES on 256 bits, Alder Lake, Zen 3 and later.

use crate::chachapoly;
use crate::gcm::{self, avx2::aesni, avx2::vaes};
use crate::simd::Kernels;
use crate::sum;

const CHACHA: chachapoly::Kernel = chachapoly::Kernel {
    seal: chachapoly::avx2::run::<true>,
    open: chachapoly::avx2::run::<false>,
    seal_one: chachapoly::lone::run::<false, 3, true>,
    open_one: chachapoly::lone::run::<false, 3, false>,
    sum: sum::folded,
    fixed: 720,
    pass: 157,
    one_fixed: 130,
    one_pass: 24,
};

/// To be used only where [`is_supported`].
pub(crate) const KERNELS: Kernels = Kernels {
    chacha: CHACHA,
    gcm: gcm::Kernels {
        longest: usize::MAX,
        sum: sum::folded,
        seal: gcm::Runs {
            many: [aesni::run::<10, true>, aesni::run::<14, true>],
            one: [aesni::run::<10, true>, aesni::run::<14, true>],
        },
        open: gcm::Runs {
            many: [aesni::run::<10, false>, aesni::run::<14, false>],
            one: [aesni::run::<10, false>, aesni::run::<14, false>],
        },
    },
};

/// To be used only where [`is_supported`] and [`has_vaes`].
pub(crate) const WITH_VAES: Kernels = Kernels {
    chacha: CHACHA,
    gcm: gcm::Kernels {
        longest: usize::MAX,
        sum: sum::folded,
        seal: gcm::Runs {
            many: [vaes::run::<10, true>, vaes::run::<14, true>],
            one: [vaes::run::<10, true>, vaes::run::<14, true>],
        },
        open: gcm::Runs {
            many: [vaes::run::<10, false>, vaes::run::<14, false>],
            one: [vaes::run::<10, false>, vaes::run::<14, false>],
        },
    },
};

/// Whether this processor has every instruction that [`KERNELS`] use.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi2")
}

/// Whether it also has AES and carry-less multiplication on 256 bits.
pub(crate) fn has_vaes() -> bool {
    is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq")
}
