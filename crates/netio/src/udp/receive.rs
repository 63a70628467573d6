//! Receiving: `recvmmsg` with `UDP_GRO`, so that one call takes several super-datagrams.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use packet::{Datagram, DatagramBatch};

use super::control::{CONTROL_LEN, Control, Name};
use super::socket::UdpSocket;

/// Octets for each message. No datagram and no coalesced run is longer (their IP length has 16
/// bits), so nothing is ever truncated; [`ReceiveReport::truncated`] counts it if it happens.
const SLOT: usize = 1 << 16;
/// Messages of one call.
const MESSAGES: usize = 16;

/// Octets that one call is to take at most, as far as the lengths of the last messages tell: they
/// stay in the cache until they are opened and written, and nothing waits long behind them.
const CALL_OCTETS: usize = 4 * SLOT;

/// What one call received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceiveReport {
    /// Messages that are in the batch; each may be several coalesced datagrams.
    pub messages: usize,
    /// Whether the socket may have more.
    pub more: bool,
    /// Messages dropped because they did not fit, or without an address.
    pub truncated: u64,
}

/// Receives on one socket.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: Arc<UdpSocket>,
    names: Box<[Name; MESSAGES]>,
    controls: Box<[Control; MESSAGES]>,
    /// How many messages the next call asks for.
    limit: usize,
}

impl UdpReceiver {
    /// A receiver for `socket`.
    #[must_use]
    pub fn new(socket: Arc<UdpSocket>) -> Self {
        Self {
            socket,
            names: Box::new([Name::empty(); MESSAGES]),
            controls: Box::new([Control::default(); MESSAGES]),
            limit: MESSAGES,
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }

    /// Replaces the content of `batch` with what the socket has, without blocking. The octets of
    /// `batch` keep their full length from call to call, so that nothing is cleared or allocated
    /// after the first one: do not call [`DatagramBatch::clear`] in between.
    ///
    /// # Errors
    /// The socket is broken. "Nothing there" is not an error but zero messages.
    pub fn receive(&mut self, batch: &mut DatagramBatch) -> io::Result<ReceiveReport> {
        batch.datagrams.clear();
        if batch.bytes.len() < MESSAGES * SLOT {
            batch.bytes.resize(MESSAGES * SLOT, 0);
        }
        let lens = match self.receive_slots(&mut batch.bytes) {
            Ok(lens) => lens,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(ReceiveReport::default()),
            Err(e) => return Err(e),
        };
        let mut report = ReceiveReport { more: lens.count == self.limit, ..Default::default() };
        let longest = lens.payload.iter().take(lens.count).max();
        self.limit = limit_after(longest.copied().unwrap_or(0));
        for slot in 0..lens.count {
            match self.datagram(slot, &lens) {
                Some(datagram) => batch.datagrams.push(datagram),
                None => report.truncated += 1,
            }
        }
        report.messages = batch.datagrams.len();
        Ok(report)
    }

    fn datagram(&self, slot: usize, lens: &Lens) -> Option<Datagram> {
        let len = lens.payload[slot];
        if lens.flags[slot] & libc::MSG_TRUNC != 0 || len > SLOT {
            return None;
        }
        let bound = self.socket.local();
        let received = self.controls[slot].read(lens.control[slot]);
        let mut local = bound;
        if bound.ip().is_unspecified() {
            local.set_ip(received.local?);
        }
        let start = slot * SLOT;
        Some(Datagram {
            local,
            remote: self.names[slot].address()?,
            range: start..start + len,
            segment: received.segment.filter(|s| (1..len).contains(s)).unwrap_or(len),
            tos: received.tos,
        })
    }

    fn receive_slots(&mut self, bytes: &mut [u8]) -> io::Result<Lens> {
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MESSAGES];
        // SAFETY: `mmsghdr` is a C structure of integers and pointers, for which all zeros is a
        // value.
        let mut messages: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
        let slots = bytes.chunks_exact_mut(SLOT);
        for (i, (message, slot)) in messages.iter_mut().zip(slots).enumerate() {
            parts[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
            let header = &mut message.msg_hdr;
            header.msg_iov = &raw mut parts[i];
            header.msg_iovlen = 1;
            header.msg_name = self.names[i].as_mut_ptr();
            header.msg_namelen = Name::ROOM;
            header.msg_control = self.controls[i].as_mut_ptr();
            header.msg_controllen = CONTROL_LEN as _;
        }
        let count = loop {
            // SAFETY: each of the MESSAGES headers points to an iovec, a name and a control buffer
            // of the length given, all of which are borrowed mutably by this function and live
            // over the call; the iovecs are disjoint slots of `bytes`.
            let count = unsafe {
                libc::recvmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    self.limit.min(MESSAGES) as _,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count.min(MESSAGES),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        let mut lens = Lens { count, ..Lens::default() };
        for (i, message) in messages.iter().take(count).enumerate() {
            lens.payload[i] = message.msg_len as usize;
            lens.control[i] = message.msg_hdr.msg_controllen;
            lens.flags[i] = message.msg_hdr.msg_flags;
        }
        Ok(lens)
    }
}

/// How many messages to ask for when the longest of the last ones had `longest` octets.
fn limit_after(longest: usize) -> usize {
    (CALL_OCTETS / longest.max(1)).clamp(1, MESSAGES)
}

#[derive(Default)]
struct Lens {
    count: usize,
    payload: [usize; MESSAGES],
    control: [usize; MESSAGES],
    flags: [libc::c_int; MESSAGES],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_many_small_messages_or_a_few_large_ones() {
        assert_eq!([0, 1, 1428, 16_384].map(limit_after), [MESSAGES; 4]);
        assert_eq!([20_000, 33_000, 64_260, SLOT].map(limit_after), [13, 7, 4, 4]);
    }
}
