//! Writing: packets to the kernel, merged into super-packets where that changes nothing.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::writev;
use packet::{Gso, GsoKind, InnerBatch, InnerPacket};

use super::coalesce::{Coalescer, Group, MAX_SEGMENTS};
use super::flow::{Segment, Transport};
use super::vnet::VnetHeader;
use super::{Device, TunOffloads};

/// Refused super-packets of one kind after which we stop making them: a few, because some kernels
/// refuse only certain shapes (Linux 6.6.44 and its time refused those with a shorter tail).
const GIVE_UP_AFTER: u32 = 8;
/// The longest headers: IPv6 and TCP with all options.
const MAX_HEADERS: usize = 40 + 60;

/// What became of one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteReport {
    /// Packets that the kernel took.
    pub packets: u64,
    /// System calls that they took.
    pub writes: u64,
    /// Packets dropped because the kernel had no room.
    pub dropped_full: u64,
    /// Packets dropped because the kernel refused them.
    pub dropped_refused: u64,
    /// Packets dropped because the device is down or gone.
    pub dropped_down: u64,
    /// Super-packets that were refused and then written packet by packet.
    pub fallbacks: u64,
}

impl WriteReport {
    fn dropped(&mut self, errno: Errno, packets: u64) {
        match errno {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => self.dropped_full += packets,
            Errno::EIO | Errno::EBADFD => self.dropped_down += packets,
            _ => self.dropped_refused += packets,
        }
    }
}

/// The half of a TUN device that writes.
#[derive(Debug)]
pub struct TunWriter {
    device: Arc<Device>,
    offloads: TunOffloads,
    refused: [u32; 2],
    coalescer: Coalescer,
}

impl TunWriter {
    pub(super) fn new(device: Arc<Device>, offloads: TunOffloads) -> Self {
        Self { device, offloads, refused: [0; 2], coalescer: Coalescer::default() }
    }

    /// The offloads that this writer still uses: those of the device, minus what was given up.
    #[must_use]
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Switches merging off (`false`) for one transport, as the configuration may want for
    /// networks behind the tunnel that lose merged packets.
    pub fn limit(&mut self, tcp: bool, udp: bool) {
        self.offloads.tcp &= tcp;
        self.offloads.udp &= udp;
    }

    /// Writes all packets of `batch`, in order within each flow. Never blocks and never fails as a
    /// whole: a packet that the kernel does not take is dropped and counted.
    pub fn write(&mut self, batch: &InnerBatch) -> WriteReport {
        let mut report = WriteReport::default();
        if !(self.offloads.tcp || self.offloads.udp) || batch.packets.len() < 2 {
            for packet in &batch.packets {
                self.write_single(batch, packet, &mut report);
            }
            return report;
        }
        let mut coalescer = std::mem::take(&mut self.coalescer);
        coalescer.group(batch, self.offloads);
        for group in coalescer.groups() {
            match group.segment {
                Some(segment) if group.count > 1 => {
                    self.write_group(batch, &coalescer, group, &segment, &mut report);
                }
                _ => {
                    if let Some(packet) = batch.packets.get(group.first) {
                        self.write_single(batch, packet, &mut report);
                    }
                }
            }
        }
        self.coalescer = coalescer;
        report
    }

    fn write_single(&self, batch: &InnerBatch, packet: &InnerPacket, report: &mut WriteReport) {
        let octets = batch.octets(packet);
        let result = if self.device.has_header() {
            let header = VnetHeader {
                gso: packet.gso,
                ipv6: octets.first().is_some_and(|first| first >> 4 == 6),
                header_len: packet.checksum.map_or(0, |(start, _)| start),
                checksum: packet.checksum,
            }
            .emit();
            self.write_parts(&[IoSlice::new(&header), IoSlice::new(octets)], report)
        } else if packet.gso.is_some() || packet.checksum.is_some() {
            // Only a device with the header can be told to finish a packet.
            Err(Errno::EINVAL)
        } else {
            self.write_parts(&[IoSlice::new(octets)], report)
        };
        match result {
            Ok(()) => report.packets += 1,
            Err(errno) => report.dropped(errno, 1),
        }
    }

    fn write_group(
        &mut self,
        batch: &InnerBatch,
        coalescer: &Coalescer,
        group: &Group,
        segment: &Segment,
        report: &mut WriteReport,
    ) {
        let errno = match self.write_super(batch, coalescer, group, segment, report) {
            Ok(()) => {
                report.packets += group.count as u64;
                return;
            }
            Err(errno) => errno,
        };
        if errno != Errno::EINVAL {
            report.dropped(errno, group.count as u64);
            return;
        }
        report.fallbacks += 1;
        self.refuse(segment.transport);
        for packet in coalescer.members(group).filter_map(|i| batch.packets.get(i)) {
            self.write_single(batch, packet, report);
        }
    }

    /// One `writev` of header, rewritten packet headers, and each segment's payload where it is.
    fn write_super(
        &self,
        batch: &InnerBatch,
        coalescer: &Coalescer,
        group: &Group,
        segment: &Segment,
        report: &mut WriteReport,
    ) -> Result<(), Errno> {
        let mut headers = [0; MAX_HEADERS];
        let first = batch.packets.get(group.first).map(|p| batch.octets(p)).unwrap_or_default();
        let (Some(to), Some(from)) =
            (headers.get_mut(..segment.header_len), first.get(..segment.header_len))
        else {
            return Err(Errno::EINVAL);
        };
        to.copy_from_slice(from);
        segment.rewrite_headers(to, group.payload, group.push);
        let vnet = super_header(segment).emit();

        let mut parts = [IoSlice::new(&[]); MAX_SEGMENTS + 2];
        parts[0] = IoSlice::new(&vnet);
        parts[1] = IoSlice::new(&headers[..segment.header_len]);
        let mut used = 2;
        for (part, index) in parts[2..].iter_mut().zip(coalescer.members(group)) {
            let octets = batch.packets.get(index).map(|p| batch.octets(p)).unwrap_or_default();
            *part = IoSlice::new(octets.get(segment.header_len..).unwrap_or_default());
            used += 1;
        }
        self.write_parts(&parts[..used], report)
    }

    fn write_parts(&self, parts: &[IoSlice<'_>], report: &mut WriteReport) -> Result<(), Errno> {
        loop {
            report.writes += 1;
            match writev(&*self.device, parts) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn refuse(&mut self, transport: Transport) {
        let (count, offload) = match transport {
            Transport::Tcp => (&mut self.refused[0], &mut self.offloads.tcp),
            Transport::Udp => (&mut self.refused[1], &mut self.offloads.udp),
        };
        *count += 1;
        if *count >= GIVE_UP_AFTER && *offload {
            *offload = false;
            tracing::warn!(?transport, "the TUN device refuses merged packets: given up");
        }
    }
}

fn super_header(segment: &Segment) -> VnetHeader {
    let narrow = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
    let kind = match segment.transport {
        Transport::Tcp => GsoKind::Tcp,
        Transport::Udp => GsoKind::Udp,
    };
    VnetHeader {
        gso: Some(Gso { kind, segment: narrow(segment.payload) }),
        ipv6: segment.ip_len == 40,
        header_len: narrow(segment.header_len),
        checksum: Some((narrow(segment.ip_len), segment.checksum_offset())),
    }
}

impl AsFd for TunWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
