//! Reading: everything that the device has, up to a batch, for one wake.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::readv;
use nix::unistd::read;
use packet::{InnerBatch, InnerPacket, MAX_INNER};

use super::Device;
use super::vnet::{HEADER_LEN, VnetHeader};

/// Octets of a batch: three of the largest super-packets, so that a batch stays within an L2
/// cache together with what it is sealed into.
const BATCH_OCTETS: usize = 3 * (MAX_INNER + 1);
/// Packets of a batch: as many as one UDP GSO send takes.
const BATCH_PACKETS: usize = 64;

/// What one call read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadReport {
    /// Packets and super-packets that are in the batch.
    pub packets: usize,
    /// Whether the device may have more: the batch was full before the device was empty.
    pub more: bool,
    /// Packets dropped because their `virtio_net_hdr` cannot be right.
    pub bad_header: u64,
}

/// The half of a TUN device that reads.
#[derive(Debug)]
pub struct TunReader {
    device: Arc<Device>,
}

impl TunReader {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self { device }
    }

    /// Replaces the content of `batch` with what the device has, without blocking. The octets of
    /// `batch` keep their full length from call to call, so that nothing is cleared or allocated
    /// after the first one: do not call [`InnerBatch::clear`] in between.
    ///
    /// # Errors
    /// The device is gone or down for good. "Nothing there" is not an error but zero packets.
    pub fn read(&mut self, batch: &mut InnerBatch) -> io::Result<ReadReport> {
        batch.packets.clear();
        if batch.bytes.len() < BATCH_OCTETS {
            batch.bytes.resize(BATCH_OCTETS, 0);
        }
        let mut report = ReadReport { more: true, ..ReadReport::default() };
        let mut at = 0;
        while batch.packets.len() < BATCH_PACKETS {
            let Some(room) = batch.bytes.get_mut(at..at + MAX_INNER) else { break };
            let read = match self.read_one(room) {
                Ok(read) => read,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    report.more = false;
                    break;
                }
                // The interface is down for now; the reader hears of it again by poll.
                Err(Errno::EIO) => {
                    report.more = false;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            };
            match read {
                Read::Packet(len, header) => {
                    let range = at..at + len;
                    at += len;
                    let VnetHeader { gso, checksum, .. } = header;
                    batch.packets.push(InnerPacket { range, gso, checksum, sum: None });
                }
                Read::Bad => report.bad_header += 1,
            }
        }
        report.packets = batch.packets.len();
        Ok(report)
    }

    fn read_one(&self, room: &mut [u8]) -> Result<Read, Errno> {
        if !self.device.has_header() {
            let len = read(&*self.device, room)?;
            return Ok(if len == 0 { Read::Bad } else { Read::Packet(len, VnetHeader::default()) });
        }
        let mut header = [0; HEADER_LEN];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
        let total = readv(&*self.device, &mut parts)?;
        let Some(len) = total.checked_sub(HEADER_LEN).filter(|len| *len > 0) else {
            return Ok(Read::Bad);
        };
        Ok(match VnetHeader::parse(header, len) {
            Ok(header) => Read::Packet(len, header),
            Err(_) => Read::Bad,
        })
    }
}

impl AsFd for TunReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

enum Read {
    Packet(usize, VnetHeader),
    Bad,
}
