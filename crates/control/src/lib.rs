//! Policy without input or output: the configuration of both daemons, which tunnels should exist,
//! and which of them carries the traffic.
//!
//! [`gateway::Gateway`] owns the IKE endpoint and the WireGuard peers and turns what happens into [`Action`]s, which the
//! runtime carries out in order. The crate reads no file, clock or socket: the runtime brings the
//! text of a configuration, reads the key files that it names, and brings the time.
#![forbid(unsafe_code)]

mod action;
pub mod config;
mod failover;
pub mod gateway;
mod lines;
mod path;
mod probe;
mod reload;
mod roaming;
pub mod status;
mod tunnel;
mod tunnels;
mod wireguard;

pub use action::{Action, Interface, Request, Severity, TunnelVerb};
pub use gateway::Gateway;
pub use wireguard::PRIVATE_KEY;

pub use status::{ConnectionStatus, Status, TunnelStatus};
