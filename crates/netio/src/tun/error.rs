//! Why a TUN device could not be opened.

use std::io;

use thiserror::Error;

/// Why a TUN device could not be opened, in words that say what to do.
#[derive(Debug, Error)]
pub enum TunError {
    /// The name is empty, too long, or holds a character that the kernel refuses.
    #[error("TUN device name {name:?} is not valid: 1 to 15 characters without '/' or blanks")]
    Name {
        /// The name that was asked for.
        name: String,
    },
    /// There is no device node.
    #[error(
        "/dev/net/tun is missing: load the tun module (modprobe tun), or give the container the \
         device (--device /dev/net/tun)"
    )]
    NoDeviceNode,
    /// The process lacks the capability.
    #[error("no permission to create TUN device {name}: CAP_NET_ADMIN is needed")]
    Permission {
        /// The name that was asked for.
        name: String,
    },
    /// Another process holds the device.
    #[error("TUN device {name} is already in use by another process")]
    Busy {
        /// The name that was asked for.
        name: String,
    },
    /// Offloads were demanded, but the kernel has none.
    #[error("the kernel refuses offloads on TUN device {name}: {cause}; use mode = \"auto\"")]
    NoOffload {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Anything else.
    #[error("cannot create TUN device {name}: {cause}")]
    Io {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl TunError {
    /// Names the fault behind an error of `open` or `TUNSETIFF`.
    pub(super) fn from_io(name: &str, cause: io::Error) -> Self {
        let name = name.to_owned();
        match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Self::NoDeviceNode,
            Some(libc::EPERM | libc::EACCES) => Self::Permission { name },
            Some(libc::EBUSY) => Self::Busy { name },
            _ => Self::Io { name, cause },
        }
    }
}
