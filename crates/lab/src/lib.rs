//! Topologies in network namespaces, traffic through them, and the impairments between them.
//!
//! [`topology::Network`] holds named hosts, each a [`netns::Host`]: a thread in namespaces of its
//! own that runs programs ([`process`]) and closures. [`traffic`] and [`capture`] work between any
//! two hosts. The binary `vgw-lab` reads a [`scenario`], builds it with the two real daemons in it
//! and reports what it measured; tests put other peers into the same topologies.
//!
//! [`mod@bench`] measures the daemons beside other programs in such a topology.
//!
//! This crate imports none of the daemons' own crates: it only knows their command lines. `netio`
//! and `packet` are there for the null relay of the benchmark and for its UDP traffic.
//! Nothing here has a name in the file system; when the process ends, however it ends, the kernel
//! removes the namespaces, and every child dies with the thread that started it.

#![forbid(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod daemon;
pub mod error;
pub mod layout;
pub mod nat;
pub mod netns;
pub mod privilege;
pub mod process;
pub mod progress;
pub mod random;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod settings;
pub mod status;
pub mod steps;
pub mod stop;
pub mod topology;
pub mod traffic;
pub mod up;
mod wireguard;
pub mod world;

pub use error::{LabError, Result};
