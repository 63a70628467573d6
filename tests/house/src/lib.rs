//! The rules of the house as tests: which crate may import which, and where `unsafe` may stand.
//!
//! This crate holds no code of its own; see `tests/`.
#![forbid(unsafe_code)]
