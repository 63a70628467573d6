//! The TUN device: created, probed for offloads, and split into a reader and a writer.

mod coalesce;
#[cfg(test)]
mod coalesce_tests;
mod error;
mod flow;
mod open;
mod read;
mod vnet;
mod write;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

pub use error::TunError;
pub use read::{ReadReport, TunReader};
pub use vnet::{HEADER_LEN, VnetHeader};
pub use write::{TunWriter, WriteReport};

/// Which of the two ways to talk to the device is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TunMode {
    /// Offloads if the kernel has them, else plain.
    #[default]
    Auto,
    /// Offloads, or an error.
    Offload,
    /// One packet of at most the MTU for each system call.
    Plain,
}

/// What the device does for us. All false in plain mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TunOffloads {
    /// Transport checksums are left to us on reading and to the kernel on writing.
    pub checksum: bool,
    /// TCP super-packets both ways (TSO).
    pub tcp: bool,
    /// UDP super-packets both ways (USO; Linux 6.2 and later).
    pub udp: bool,
}

/// An open TUN device. It disappears from the system when the last half of it is dropped.
#[derive(Debug)]
pub struct Tun {
    name: String,
    offloads: TunOffloads,
    device: Arc<Device>,
}

/// The descriptor of the device, and whether a `virtio_net_hdr` precedes each packet.
#[derive(Debug)]
enum Device {
    /// Made by the `tun-tap` crate: no header.
    Plain(tun_tap::Iface),
    /// Made by us with `IFF_VNET_HDR`.
    Vnet(File),
}

impl Device {
    fn has_header(&self) -> bool {
        matches!(self, Self::Vnet(_))
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(iface) => iface.as_raw_fd(),
            Self::Vnet(file) => file.as_raw_fd(),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: `Iface` owns the descriptor and closes it only on drop; the borrow cannot
            // outlive `self`, which holds the `Iface`.
            Self::Plain(iface) => unsafe { BorrowedFd::borrow_raw(iface.as_raw_fd()) },
            Self::Vnet(file) => file.as_fd(),
        }
    }
}

impl Tun {
    /// Creates the device `name` in the network namespace of the calling thread. It is down and
    /// has no address; see [`crate::netlink`].
    ///
    /// # Errors
    /// [`TunError`] names what is missing: the device node, the capability, a free name, or (in
    /// [`TunMode::Offload`]) the kernel's offloads.
    pub fn open(name: &str, mode: TunMode) -> Result<Self, TunError> {
        open::open(name, mode)
    }

    /// The name that the kernel gave the device.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which offloads were accepted.
    #[must_use]
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// A half that reads. One reader is enough; several share the packets between them.
    #[must_use]
    pub fn reader(&self) -> TunReader {
        TunReader::new(Arc::clone(&self.device))
    }

    /// A half that writes. Each thread takes its own.
    #[must_use]
    pub fn writer(&self) -> TunWriter {
        TunWriter::new(Arc::clone(&self.device), self.offloads)
    }
}
