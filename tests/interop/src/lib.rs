//! interop
#![forbid(unsafe_code)]
