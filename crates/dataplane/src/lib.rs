//! d
#![forbid(unsafe_code)]
pub mod demux;
pub mod ecn;
pub mod mss;
pub mod mtu;
mod replay;
