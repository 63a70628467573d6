//! Poly1305 (RFC 8439 section 2.5): of many packets at once, one packet a lane, and of one.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod chain;
pub(crate) mod chains;
