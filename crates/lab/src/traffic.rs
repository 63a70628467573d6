//! Traffic between hosts: echo requests, TCP streams and UDP datagrams, all from the lab itself.
//! What tests a path is checked octet by octet; what loads it is only counted.

pub mod flood;
pub mod load;
pub mod pattern;
pub mod ping;
pub mod tcp;
pub mod udp;
