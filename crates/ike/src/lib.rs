//! IKEv2 (RFC 7296) without input or output: both roles, pre-shared keys.
//!
//! The crate takes datagrams, commands, the time and randomness as arguments, and returns events,
//! datagrams to send and the time at which it wants to be woken. It never reads a clock, opens a
//! socket or spawns a thread.
//!
//! The loop that drives it, after each input:
//! `handle_*(input, now)`, then drain `poll_event()`, then drain `poll_transmit()`, then read
//! `poll_timeout()`. Events come before transmits because an inbound SA must be in the SAD before
//! the message that lets the peer use it leaves.
#![forbid(unsafe_code)]

mod child_sa;
mod collision;
mod config;
mod context;
mod cookie;
mod counters;
pub mod crypto;
mod diagnosis;
mod endpoint;
mod established;
mod event;
mod exchange;
mod fragment;
mod grace;
mod half_open;
mod ike_sa;
mod index;
mod invalid_spi;
mod link;
pub mod message;
mod nat;
mod peers;
mod sealed;
pub mod suite;
mod timers;
mod tunnels;
mod window;

pub use config::{Dpd, EndpointConfig, IkeRng, PeerConfig, Retransmit};
pub use counters::Counters;
pub use diagnosis::{Diagnosis, Hint, Subject, Whose};
pub use endpoint::Endpoint;
pub use event::{
    ChildInfo, Command, DownReason, Event, IkeInfo, Nat, Timer, Transmit, TransmitPayload,
};
pub use message::Identity;
