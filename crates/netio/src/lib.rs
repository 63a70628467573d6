//! The operating system's side of the packet path: the TUN device, the UDP sockets, the addresses and
//! routes of the device by netlink, and the news of those of the host.
//!
//! This crate moves bytes. It parses no protocol beyond what an offload needs, keeps no clock, no
//! thread and no policy, and it never encrypts. A worker drives it like this:
//!
//! 1. wait until a descriptor is readable ([`wait`]);
//! 2. [`tun::TunReader::read`] or [`udp::UdpReceiver::receive`] replaces the content of a batch;
//! 3. the data plane turns that batch into another one;
//! 4. [`udp::UdpSender::send`] or [`tun::TunWriter::write`] hands it to the kernel and reports
//!    what was dropped, by reason.
//!
//! Offloads are probed when a device or socket is opened and given up at run time when the kernel
//! refuses one, so that every call works on every kernel, only slower.

pub mod changes;
pub mod netlink;
pub mod priority;
pub mod tun;
pub mod udp;
pub mod wait;
