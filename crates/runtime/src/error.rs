//! Why a daemon does not run, or cannot be reached, in one line each.

use std::io;
use std::path::PathBuf;

use netio::netlink::NetlinkError;
use netio::tun::TunError;
use netio::udp::BindError;

/// A failure to start, to go on, or to reach a daemon.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, or a file that it names, is refused; exit code 2.
    #[error("{0}")]
    Config(String),
    /// No TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// No UDP socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An address or route was refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Nobody answers on the control socket.
    #[error("control socket {}: {cause}; is the daemon running?", .path.display())]
    NotRunning {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The control socket cannot be used.
    #[error("control socket {}: {cause}", .path.display())]
    ControlSocket {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The daemon refused what it was asked.
    #[error("{0}")]
    Refused(String),
    /// A thread of the packet path ended.
    #[error("the {thread} thread failed: {cause}")]
    Worker {
        /// Which one.
        thread: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// Anything else that the system refuses.
    #[error("cannot {attempt}: {cause}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl RunError {
    /// The process's exit code: 2 for a refused configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Config(_)) { 2 } else { 1 }
    }

    pub(crate) fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { attempt, cause }
    }
}
