//! Waiting for changes of the host's addresses and routes, by rtnetlink multicast.
//!
//! What changed is not parsed: who waits asks the system what it wants to know
//! ([`crate::udp::source_for`]). So a routing table that is filled costs a wake-up and no memory.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is announced: addresses of both families, and routes and rules that choose among them.
const GROUPS: libc::c_int = libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV4_RULE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// Announcements that are taken in a row; the rest wakes the caller again.
const IN_A_ROW: usize = 256;

/// Wakes when an address or a route of this network namespace comes, goes or changes.
#[derive(Debug)]
pub struct Changes {
    ready: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Changes from now on, on the event loop and in the network namespace of the caller.
    ///
    /// # Errors
    /// The system has no rtnetlink, or no room for another descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let route = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS.cast_unsigned()))?;
        // SAFETY: the descriptor is owned by what is registered, which closes it on drop only.
        let ready = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { ready })
    }

    /// Waits for a change since the last call. Several in a row are one, and one may be announced
    /// twice. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let mut changed = false;
            for _ in 0..IN_A_ROW {
                // Truncated to nothing: that there is something is all that counts.
                match recv(ready.get_inner().as_raw_fd(), &mut [0], MsgFlags::empty()) {
                    // More than the socket holds were announced.
                    Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if changed {
                return Ok(());
            }
        }
    }
}
