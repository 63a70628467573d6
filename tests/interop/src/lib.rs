//! Our real daemons against strongSwan and wireguard-go, which nobody here wrote, in network
//! namespaces.
//!
//! [`charon::Charon`] is the peer: Debian's charon with ESP in user space. [`ours::Ours`] is one of
//! our two daemons as users run it. [`world`] puts both into the topologies of the lab,
//! [`suites`] lists what they negotiate, and [`soak`] lets them rekey for as long as one likes.
//! Nothing here knows the inside of our daemons: only their command lines, logs and status.

#![forbid(unsafe_code)]

pub mod binaries;
pub mod charon;
pub mod connection;
pub mod ours;
pub mod pair;
pub mod raw;
pub mod soak;
pub mod suites;
pub mod traffic;
pub mod wait;
pub mod wireguard;
pub mod world;
