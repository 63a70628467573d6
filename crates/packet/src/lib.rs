//! Buffers, batches and checked header views: what a worker hands from the TUN device to the data
//! plane and from there to the UDP socket, and back.
//!
//! A batch is one flat buffer and a list of slots in it. It is filled, handed over by reference,
//! drained and cleared; in steady state nothing here allocates. This crate reads no socket and
//! knows no protocol above TCP and UDP.
#![forbid(unsafe_code)]

mod batch;
pub mod checksum;
pub mod ip;

pub use batch::{
    Datagram, DatagramBatch, Gso, GsoKind, InnerBatch, InnerPacket, MAX_DATAGRAM, MAX_INNER, Run,
    WireBatch,
};
pub use ip::IpView;
