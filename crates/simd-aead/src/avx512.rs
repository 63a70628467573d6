//! The AVX-512 backend: Ice Lake, Zen 4 and later.

use crate::chachapoly;
use crate::gcm;
use crate::simd::Kernels;

/// To be used only where [`is_supported`].
pub(crate) const KERNELS: Kernels = Kernels {
    chacha: chachapoly::Kernel {
        seal: chachapoly::avx512::run::<true>,
        open: chachapoly::avx512::run::<false>,
        fixed: 350,
        pass: 112,
    },
    gcm: Some(gcm::Kernels {
        fewest: 2,
        longest: 3500,
        seal: [gcm::avx512::run::<10, true>, gcm::avx512::run::<14, true>],
        open: [gcm::avx512::run::<10, false>, gcm::avx512::run::<14, false>],
    }),
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
