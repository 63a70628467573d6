//! ike
#![forbid(unsafe_code)]
