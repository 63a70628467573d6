//! What the cores must not have: threads, clocks, sockets, signals and files. It builds a daemon
//! from a configuration, runs it, and reaches a running one.
//!
//! Two threads carry packets ([`worker`]); a third, the caller's, drives the control plane on one
//! event loop ([`run`]). Protocol and policy are never decided here.
#![forbid(unsafe_code)]

pub mod client;
mod daemon;
mod device;
mod driver;
mod error;
pub mod keys;
mod load;
mod log;
mod often;
mod outbox;
mod planes;
mod server;
mod service;
mod sockets;
pub mod worker;

pub use daemon::run;
pub use error::RunError;
pub use load::load;
