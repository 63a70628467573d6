//! Traffic between hosts: echo requests, TCP streams and UDP datagrams, all from the lab itself
//! and all checked octet by octet.

pub mod pattern;
pub mod ping;
pub mod tcp;
pub mod udp;
