//! Frames of the null relay: what the TUN device said about a packet, and the packet.

use packet::{DatagramBatch, Gso, GsoKind, InnerBatch, InnerPacket, Run, WireBatch, checksum};
use std::net::SocketAddr;
use std::ops::Range;

/// Octets of a header: mark, kind, packet length, segment size, checksum start and offset, zeros.
const HEADER: usize = 12;
/// What a frame begins with.
const MARK: u8 = 0xf5;
/// Payload of a datagram at an MTU of 1500.
const SEGMENT: usize = 1500 - 20 - 8;
/// Payload of one send.
const MAX_RUN: usize = 65_507;
/// Segments of one send.
const MAX_SEGMENTS: usize = 64;

/// Makes frames of packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framer {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Framer {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Framer {
        Framer { local, remote }
    }

    /// Replaces the content of `wire` with the packets of a batch.
    pub(super) fn frame(&self, inner: &InnerBatch, wire: &mut WireBatch) {
        wire.clear();
        for packet in &inner.packets {
            let octets = inner.octets(packet);
            let range = wire.room(HEADER + octets.len());
            if let Some((head, body)) = wire
                .bytes
                .get_mut(range.clone())
                .and_then(|frame| frame.split_at_mut_checked(HEADER))
            {
                body.copy_from_slice(octets);
                let mut packet = packet.clone();
                // Only packets that are complete can be merged again at the other end.
                if packet.gso.is_none()
                    && packet.checksum.take().is_some_and(|at| !complete(body, at))
                {
                    continue;
                }
                head.copy_from_slice(&header(&packet));
            }
            self.append(range, wire);
        }
    }

    /// Adds a frame to the last run if that is one of equal frames and has room.
    fn append(&self, range: Range<usize>, wire: &mut WireBatch) {
        let length = range.len();
        if length > MAX_RUN {
            // A super-packet of the largest size has no room for the header. The kernel makes none:
            // it stops at a multiple of the segment size.
            wire.give_back(range.start);
            return;
        }
        if let Some(run) = wire.runs.last_mut().filter(|run| run.segment == length) {
            let more = run.range.len() + length;
            if more <= MAX_RUN && more / length <= MAX_SEGMENTS {
                run.range.end = range.end;
                return;
            }
        }
        let segment = length.min(SEGMENT);
        let (local, remote) = (self.local, self.remote);
        wire.runs.push(Run { local, remote, range, segment, tos: 0 });
    }
}

/// Puts in the transport checksum, whose field holds the sum of the pseudo-header. Whether the
/// field lies in the packet.
fn complete(packet: &mut [u8], (start, offset): (u16, u16)) -> bool {
    let Some(transport) = packet.get_mut(usize::from(start)..) else { return false };
    let sum = checksum::of(&[transport]);
    let Some(field) = transport.get_mut(usize::from(offset)..).and_then(<[u8]>::first_chunk_mut)
    else {
        return false;
    };
    // To UDP a zero says that there is no checksum; TCP takes either zero.
    *field = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
    true
}

fn header(packet: &InnerPacket) -> [u8; HEADER] {
    let length = u16::try_from(packet.range.len()).unwrap_or(u16::MAX).to_be_bytes();
    let (kind, segment) = match packet.gso {
        None => (0, 0),
        Some(Gso { kind: GsoKind::Tcp, segment }) => (1, segment),
        Some(Gso { kind: GsoKind::Udp, segment }) => (2, segment),
    };
    let (checksum, (at, offset)) = (packet.checksum.is_some(), packet.checksum.unwrap_or_default());
    let (segment, at, offset) = (segment.to_be_bytes(), at.to_be_bytes(), offset.to_be_bytes());
    [
        MARK,
        kind | u8::from(checksum) << 7,
        length[0],
        length[1],
        segment[0],
        segment[1],
        at[0],
        at[1],
        offset[0],
        offset[1],
        0,
        0,
    ]
}

/// The packet that the frame at the start of `octets` holds, its range counted from the header,
/// and whether all of it is there.
fn parse(octets: &[u8]) -> Option<InnerPacket> {
    let &[MARK, kind, l0, l1, s0, s1, a0, a1, o0, o1, 0, 0] = octets.first_chunk::<HEADER>()?
    else {
        return None;
    };
    let segment = u16::from_be_bytes([s0, s1]);
    let gso = match kind & 0x7f {
        0 => None,
        1 => Some(Gso { kind: GsoKind::Tcp, segment }),
        2 => Some(Gso { kind: GsoKind::Udp, segment }),
        _ => return None,
    };
    let checksum =
        (kind & 0x80 != 0).then_some((u16::from_be_bytes([a0, a1]), u16::from_be_bytes([o0, o1])));
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    Some(InnerPacket { range: HEADER..HEADER + length, gso, checksum, sum: None })
}

/// Makes packets of frames again.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// The beginning of a frame whose end has not come yet: a network card does not always merge
    /// all segments of a send again.
    partial: InnerBatch,
    /// Octets of it that have come, header included.
    have: usize,
}

impl Deframer {
    /// Hands the packets of received messages to `write`, in order and without copying those that
    /// came whole.
    pub(super) fn deframe(
        &mut self,
        datagrams: &mut DatagramBatch,
        inner: &mut InnerBatch,
        mut write: impl FnMut(&InnerBatch),
    ) {
        inner.packets.clear();
        // The packets stay where the kernel put them.
        std::mem::swap(&mut inner.bytes, &mut datagrams.bytes);
        for datagram in &datagrams.datagrams {
            let mut at = datagram.range.start;
            if !self.partial.packets.is_empty() {
                at += self.continue_with(inner.bytes.get(datagram.range.clone()));
                if self.is_whole() {
                    write(inner);
                    inner.packets.clear();
                    write(&self.partial);
                    self.partial.clear();
                }
            }
            while let Some(packet) = inner.bytes.get(at..datagram.range.end).and_then(parse) {
                let end = at + packet.range.end;
                if end > datagram.range.end {
                    self.begin(packet, inner.bytes.get(at..datagram.range.end));
                    break;
                }
                let InnerPacket { range, gso, checksum, sum } = packet;
                inner.packets.push(InnerPacket {
                    range: at + range.start..end,
                    gso,
                    checksum,
                    sum,
                });
                at = end;
            }
        }
        write(inner);
        std::mem::swap(&mut inner.bytes, &mut datagrams.bytes);
    }

    fn begin(&mut self, packet: InnerPacket, octets: Option<&[u8]>) {
        self.partial.clear();
        self.have = 0;
        self.append(octets.unwrap_or_default());
        self.partial.packets.push(packet);
    }

    fn append(&mut self, octets: &[u8]) {
        let range = self.partial.room(octets.len());
        if let Some(room) = self.partial.bytes.get_mut(range) {
            room.copy_from_slice(octets);
        }
        self.have += octets.len();
    }

    fn missing(&self) -> usize {
        let end = self.partial.packets.first().map_or(0, |packet| packet.range.end);
        end.saturating_sub(self.have)
    }

    fn is_whole(&self) -> bool {
        !self.partial.packets.is_empty() && self.missing() == 0
    }

    /// Appends what a message holds of the partial frame, and returns how much that was. A frame
    /// that ends in a message which begins another one has lost its end.
    fn continue_with(&mut self, octets: Option<&[u8]>) -> usize {
        let octets = octets.unwrap_or_default();
        if parse(octets).is_some() {
            self.partial.clear();
            return 0;
        }
        let take = self.missing().min(octets.len());
        self.append(&octets[..take]);
        take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize, gso: Option<Gso>) -> (Vec<u8>, InnerPacket) {
        let octets = (0..length).map(|n| (n % 251) as u8).collect();
        (octets, InnerPacket { range: 0..length, gso, checksum: gso.map(|_| (20, 16)), sum: None })
    }

    /// Frames packets, cuts each run into messages of at most `merged` segments, and deframes.
    fn through(packets: &[(Vec<u8>, InnerPacket)], merged: usize) -> Vec<(Vec<u8>, Option<Gso>)> {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut inner = InnerBatch::default();
        for (octets, packet) in packets {
            inner.push(octets);
            if let Some(last) = inner.packets.last_mut() {
                (last.gso, last.checksum) = (packet.gso, packet.checksum);
            }
        }
        let mut wire = WireBatch::default();
        Framer::new(here, here).frame(&inner, &mut wire);
        let mut datagrams = DatagramBatch::default();
        for run in &wire.runs {
            assert!(run.range.len().div_ceil(run.segment) <= MAX_SEGMENTS, "{run:?}");
            for message in wire.bytes[run.range.clone()].chunks(run.segment * merged) {
                datagrams.push(here, here, 0, message);
            }
        }
        let mut out = Vec::new();
        Deframer::default().deframe(&mut datagrams, &mut InnerBatch::default(), |batch| {
            out.extend(
                batch.packets.iter().map(|packet| (batch.octets(packet).to_vec(), packet.gso)),
            );
        });
        out
    }

    #[test]
    fn packets_come_out_as_they_went_in_however_the_network_merges() {
        let tcp = Some(Gso { kind: GsoKind::Tcp, segment: 1380 });
        let packets = [
            packet(52, None),
            packet(52, None),
            packet(62_000, tcp),
            packet(1420, None),
            packet(SEGMENT - HEADER, None),
            packet(3 * SEGMENT - HEADER, tcp),
            packet(40, None),
        ];
        let expected: Vec<_> =
            packets.iter().map(|(octets, packet)| (octets.clone(), packet.gso)).collect();
        for merged in [64, 45, 7, 1] {
            assert_eq!(through(&packets, merged), expected, "{merged} segments at once");
        }
    }

    #[test]
    fn a_checksum_that_was_left_to_us_is_completed() {
        // A UDP header with the sum of some pseudo-header where its checksum will be.
        let mut octets = vec![0x45; 20];
        octets.extend([0, 7, 0, 9, 0, 12, 0x12, 0x34, 0xab, 0xcd, 0xef, 0x01]);
        let packet =
            InnerPacket { range: 0..octets.len(), gso: None, checksum: Some((20, 6)), sum: None };
        let out = through(&[(octets.clone(), packet)], 64);
        let [(out, None)] = out.as_slice() else { panic!("{out:?}") };
        // With its checksum in, the sum of pseudo-header and datagram is zero (RFC 1071).
        assert_eq!(checksum::of(&[&[0x12, 0x34], &out[20..]]), 0);
        assert_eq!(out[..26], octets[..26]);
    }

    #[test]
    fn equal_packets_leave_together() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut inner = InnerBatch::default();
        (0..100).for_each(|_| inner.push(&[0x45; 64]));
        let mut wire = WireBatch::default();
        Framer::new(here, here).frame(&inner, &mut wire);
        let sizes: Vec<usize> = wire.runs.iter().map(|run| run.range.len() / run.segment).collect();
        assert_eq!(sizes, [64, 36]);
    }

    #[test]
    fn a_frame_that_lost_its_end_does_not_take_the_next_one_with_it() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut inner = InnerBatch::default();
        inner.push(&[0x45; 5000]);
        inner.push(&[0x46; 300]);
        let mut wire = WireBatch::default();
        Framer::new(here, here).frame(&inner, &mut wire);
        let mut datagrams = DatagramBatch::default();
        datagrams.push(here, here, 0, &wire.bytes[..SEGMENT]);
        datagrams.push(here, here, 0, &wire.bytes[wire.runs[1].range.clone()]);
        let mut out = Vec::new();
        Deframer::default().deframe(&mut datagrams, &mut InnerBatch::default(), |batch| {
            out.extend(batch.packets.iter().map(|packet| batch.octets(packet).to_vec()));
        });
        assert_eq!(out, [vec![0x46; 300]]);
    }
}
