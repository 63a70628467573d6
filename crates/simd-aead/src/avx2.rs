//! The AVX2 backend: Haswell, Zen and later.

use crate::chachapoly;
use crate::simd::Kernels;

/// To be used only where [`is_supported`].
pub(crate) const KERNELS: Kernels = Kernels {
    chacha: chachapoly::Kernel {
        seal: chachapoly::avx2::run::<true>,
        open: chachapoly::avx2::run::<false>,
        fixed: 690,
        pass: 226,
    },
    // aws-lc's own kernels for these processors are no slower.
    gcm: None,
};

/// Whether this processor has every instruction that the kernels use.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
}
