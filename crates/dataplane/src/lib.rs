//! The data plane without input or output: ESP in UDP and WireGuard, both directions.
//!
//! [`Outbound`] turns inner packets into datagrams, [`Inbound`] turns datagrams into inner packets.
//! Each is owned by one thread; the control plane reaches them by commands and hears of them by
//! events and counters. The crate reads no clock and no socket, and in steady state it allocates
//! nothing for a packet. The handshakes of [`WireGuardPeer`]s are the one exception: they take
//! ephemeral keys from the randomness of the system, and the date, by which a peer tells a new
//! initiation from a repeated one. Their timers go by the time that the caller gives.
//!
//! The loop that drives it: `apply` what the control plane sent, fill a batch, `seal` or `open`,
//! send what came out, then drain `poll_event`.
#![forbid(unsafe_code)]

mod cipher;
mod command;
mod counters;
pub mod demux;
pub mod ecn;
mod fragment;
mod icmp;
mod inbound;
pub mod mss;
pub mod mtu;
mod open;
mod outbound;
pub mod probe;
mod replay;
mod seal;
mod segment;
mod sources;
mod spd;
#[cfg(test)]
mod vectors;
mod wireguard;

pub use command::{
    DataEvent, InboundCommand, Limit, OutboundCommand, Route, RouteTarget, SourceRoute,
};
pub use counters::{Counters, DropReason, TunnelCounters};
pub use icmp::IcmpSource;
pub use inbound::Inbound;
pub use outbound::Outbound;
pub use wireguard::{WireGuard, WireGuardPeer, WireGuardPeerConfig, WireGuardStatus, public_key};

/// The AEAD backend that seals and opens, for `status` and the log.
#[must_use]
pub fn aead_backend() -> simd_aead::Backend {
    simd_aead::backend()
}
