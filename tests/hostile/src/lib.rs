//! The two real daemons in network namespaces, with a stranger beside them: what they are sent,
//! and what is done to them, while a ping runs through their tunnels.
//!
//! [`Net`] is the network. [`client::Client`] is a peer that says what it likes: it negotiates by
//! hand, with the primitives of the crate `ike`. [`raw`] sends datagrams from any source address.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a panic in a test is the report")]

pub mod client;
pub mod load;
mod net;
pub mod raw;
pub mod wire;

pub use net::{Net, SCENARIO, Side, at_most, wait_until};
