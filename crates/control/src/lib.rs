//! Policy without input or output: the configuration of both daemons, and which tunnels it asks
//! for.
//!
//! The crate reads no file, clock or socket. The runtime brings the text of a configuration and
//! reads the key files that it names.
#![forbid(unsafe_code)]

pub mod config;
