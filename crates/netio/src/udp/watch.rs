//! Receiving on an event loop, for sockets of the control plane.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use packet::DatagramBatch;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::receive::{ReceiveReport, UdpReceiver};
use super::socket::UdpSocket;

/// A receiver that waits on tokio's event loop instead of a thread of its own.
#[derive(Debug)]
pub struct AsyncReceiver {
    ready: AsyncFd<Watched>,
    receiver: UdpReceiver,
}

#[derive(Debug)]
struct Watched(Arc<UdpSocket>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncReceiver {
    /// A receiver for `socket`, on the event loop of the caller.
    ///
    /// # Errors
    /// The system has no room for another watch.
    pub fn new(socket: &Arc<UdpSocket>) -> io::Result<Self> {
        let watched = Watched(Arc::clone(socket));
        // SAFETY: `Watched` holds the socket, which owns the descriptor and closes it on drop
        // only; so the descriptor is open, and the same, for as long as it is registered.
        let ready = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?;
        Ok(Self { ready, receiver: UdpReceiver::new(Arc::clone(socket)) })
    }

    /// Waits until there is something, then does as [`UdpReceiver::receive`].
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn receive(&mut self, batch: &mut DatagramBatch) -> io::Result<ReceiveReport> {
        let mut ready = self.ready.readable().await?;
        let report = self.receiver.receive(batch)?;
        if !report.more {
            ready.clear_ready();
        }
        Ok(report)
    }
}
