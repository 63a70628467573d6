//! simd-aead
