//! Waiting for descriptors, and waking a worker that waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes a thread that waits in [`readable`] on it. Wakes add up to one until they are taken.
#[derive(Debug)]
pub struct Waker(EventFd);

impl Waker {
    /// A waker that nobody has woken yet.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes the descriptor readable. Never blocks, never fails: a full counter is awake already.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    /// Takes all wakes.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `descriptors` is readable (or in error) and returns which, as bits in their
/// order; 0 after `timeout` or an interrupting signal. At most 32 descriptors, which is more than
/// a worker has; further ones are not watched.
///
/// # Errors
/// A descriptor that is not open.
pub fn readable(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<u32> {
    wait(descriptors, PollFlags::POLLIN, timeout)
}

/// Waits until `descriptor` takes more, at most `timeout`. Whether it does.
///
/// # Errors
/// A descriptor that is not open.
pub fn writable(descriptor: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    Ok(wait(&[descriptor], PollFlags::POLLOUT, Some(timeout))? != 0)
}

const MAX_DESCRIPTORS: usize = 32;

fn wait(
    descriptors: &[BorrowedFd<'_>],
    events: PollFlags,
    timeout: Option<Duration>,
) -> io::Result<u32> {
    let Some(first) = descriptors.first() else { return Ok(0) };
    let mut watched: [PollFd<'_>; MAX_DESCRIPTORS] =
        std::array::from_fn(|i| PollFd::new(*descriptors.get(i).unwrap_or(first), events));
    let count = descriptors.len().min(MAX_DESCRIPTORS);
    let timeout = match timeout {
        None => PollTimeout::NONE,
        Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
    };
    match poll(&mut watched[..count], timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(0),
        Err(errno) => return Err(errno.into()),
    }
    let mut bits = 0;
    for (i, fd) in watched[..count].iter().enumerate() {
        // Errors and hang-ups count as readable: the read that follows reports them.
        if fd.revents().is_some_and(|r| !r.is_empty()) {
            bits |= 1 << i;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_seen_once_by_its_bit() {
        let (a, b) = (Waker::new().unwrap(), Waker::new().unwrap());
        let now = Some(Duration::ZERO);
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], now).unwrap(), 0);
        b.wake();
        b.wake();
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], None).unwrap(), 0b10);
        b.clear();
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], now).unwrap(), 0);
    }

    #[test]
    fn a_fresh_eventfd_takes_more_at_once() {
        assert!(writable(Waker::new().unwrap().as_fd(), Duration::ZERO).unwrap());
    }
}
