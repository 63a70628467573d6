//! The AVX-512 backend: Ice Lake, Zen 4 and later.

use crate::chachapoly;
use crate::gcm::{self, avx2::vaes};
use crate::simd::Kernels;
use crate::sum;

/// To be used only where [`is_supported`].
pub(crate) const KERNELS: Kernels = Kernels {
    chacha: chachapoly::Kernel {
        seal: chachapoly::avx512::run::<true>,
        open: chachapoly::avx512::run::<false>,
        seal_one: chachapoly::lone::run::<true, 4, true>,
        open_one: chachapoly::lone::run::<true, 4, false>,
        sum: sum::avx512::folded,
        fixed: 420,
        pass: 105,
        one_fixed: 140,
        one_pass: 18,
    },
    gcm: gcm::Kernels {
        longest: 3500,
        sum: sum::avx512::folded,
        seal: gcm::Runs {
            many: [gcm::avx512::run::<10, true>, gcm::avx512::run::<14, true>],
            one: [vaes::run::<10, true>, vaes::run::<14, true>],
        },
        open: gcm::Runs {
            many: [gcm::avx512::run::<10, false>, gcm::avx512::run::<14, false>],
            one: [vaes::run::<10, false>, vaes::run::<14, false>],
        },
    },
};

/// Whether this processor has every instruction that the kernels use.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("bmi2")
}
