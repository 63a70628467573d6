//! Poly1305 (RFC 8439 section 2.5) of many packets at once, one packet a lane.
//!
//! Each packet is a plain Horner chain: its key is used once, so powers of `r` would not pay.

pub(crate) mod avx2;
pub(crate) mod avx512;
