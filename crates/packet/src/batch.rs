//! The three batches of the packet path: inner packets, sealed runs, and received datagrams.

use std::net::SocketAddr;
use std::ops::Range;

/// The longest inner packet, a TSO super-packet included, in octets.
pub const MAX_INNER: usize = 65_535;
/// The longest UDP payload of one send or receive, GSO and GRO included, in octets.
pub const MAX_DATAGRAM: usize = 65_535;

/// What a super-packet is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP segments (TSO).
    Tcp,
    /// UDP datagrams of one flow (USO).
    Udp,
}

/// How to cut a super-packet into packets: `virtio_net_hdr` without the parts that a checked parse
/// of the headers gives anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// Transport of the segments.
    pub kind: GsoKind,
    /// Octets of transport payload in each segment but the last.
    pub segment: u16,
}

/// One inner packet in an [`InnerBatch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InnerPacket {
    /// Where its octets are, from the IP header on.
    pub range: Range<usize>,
    /// Set for a super-packet.
    pub gso: Option<Gso>,
    /// The transport checksum is only the pseudo-header's sum and must be completed: the offset of
    /// the transport header and, from there, of the checksum field. Always set with `gso`.
    pub checksum: Option<(u16, u16)>,
    /// The one's-complement sum of all octets, folded, in the host's byte order, where opening the
    /// packet gave it: what checksums are verified with.
    pub sum: Option<u16>,
}

/// Inner IP packets: read from the TUN device, or opened and to be written to it.
#[derive(Debug, Default)]
pub struct InnerBatch {
    /// The octets of all packets. What lies past the last one is left from an earlier use.
    pub bytes: Vec<u8>,
    /// The packets, in order.
    pub packets: Vec<InnerPacket>,
    taken: usize,
}

impl InnerBatch {
    /// An empty batch with room for `octets` and `packets`.
    #[must_use]
    pub fn with_capacity(octets: usize, packets: usize) -> Self {
        Self { bytes: Vec::with_capacity(octets), packets: Vec::with_capacity(packets), taken: 0 }
    }

    /// Forgets all packets and keeps the memory, octets included: nothing is zeroed twice.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.taken = 0;
    }

    /// Room for `len` octets behind those taken so far. It holds whatever an earlier use left.
    pub fn room(&mut self, len: usize) -> Range<usize> {
        take(&mut self.bytes, &mut self.taken, len)
    }

    /// Appends a plain packet.
    pub fn push(&mut self, packet: &[u8]) {
        let range = self.room(packet.len());
        if let Some(room) = self.bytes.get_mut(range.clone()) {
            room.copy_from_slice(packet);
        }
        self.packets.push(InnerPacket { range, gso: None, checksum: None, sum: None });
    }

    /// The octets of `packet`; empty if its range is not of this batch.
    #[must_use]
    pub fn octets(&self, packet: &InnerPacket) -> &[u8] {
        self.bytes.get(packet.range.clone()).unwrap_or_default()
    }
}

/// One or more sealed datagrams of equal size (the last may be shorter) to one destination:
/// exactly one `sendmsg` with `UDP_SEGMENT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Our socket address: which socket sends, and the source address to send from.
    pub local: SocketAddr,
    /// The destination.
    pub remote: SocketAddr,
    /// Where the datagrams are, back to back.
    pub range: Range<usize>,
    /// Size of each datagram but the last, in octets; equal to the range's length for one datagram.
    pub segment: usize,
    /// Outer traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
}

/// Sealed datagrams on their way to the UDP socket.
#[derive(Debug, Default)]
pub struct WireBatch {
    /// The octets of all datagrams. What lies past the last one is left from an earlier use.
    pub bytes: Vec<u8>,
    /// The runs, in order of sending.
    pub runs: Vec<Run>,
    taken: usize,
}

impl WireBatch {
    /// An empty batch with room for `octets` and `runs`.
    #[must_use]
    pub fn with_capacity(octets: usize, runs: usize) -> Self {
        Self { bytes: Vec::with_capacity(octets), runs: Vec::with_capacity(runs), taken: 0 }
    }

    /// Forgets all runs and keeps the memory, octets included: nothing is zeroed twice.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.taken = 0;
    }

    /// Room for `len` octets behind those taken so far. It holds whatever an earlier use left.
    pub fn room(&mut self, len: usize) -> Range<usize> {
        take(&mut self.bytes, &mut self.taken, len)
    }

    /// Octets taken so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Gives back everything taken after the first `octets`.
    pub fn give_back(&mut self, octets: usize) {
        self.taken = self.taken.min(octets);
    }
}

/// What one receive call gave: one datagram, or several of equal size coalesced by `UDP_GRO`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The local address that it was sent to, and our port.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Where its octets are.
    pub range: Range<usize>,
    /// Size of each coalesced datagram but the last; equal to the range's length for one datagram.
    pub segment: usize,
    /// Outer traffic class: DSCP and ECN.
    pub tos: u8,
}

/// Received datagrams.
#[derive(Debug, Default)]
pub struct DatagramBatch {
    /// The octets of all datagrams. Opening may happen in place.
    pub bytes: Vec<u8>,
    /// The datagrams, in order of arrival.
    pub datagrams: Vec<Datagram>,
}

impl DatagramBatch {
    /// An empty batch with room for `octets` and `datagrams`.
    #[must_use]
    pub fn with_capacity(octets: usize, datagrams: usize) -> Self {
        Self { bytes: Vec::with_capacity(octets), datagrams: Vec::with_capacity(datagrams) }
    }

    /// Forgets all datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// Appends one datagram.
    pub fn push(&mut self, local: SocketAddr, remote: SocketAddr, tos: u8, payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let range = start..self.bytes.len();
        self.datagrams.push(Datagram { local, remote, segment: range.len(), range, tos });
    }
}

fn take(bytes: &mut Vec<u8>, taken: &mut usize, len: usize) -> Range<usize> {
    let range = *taken..*taken + len;
    if bytes.len() < range.end {
        bytes.resize(range.end, 0);
    }
    *taken = range.end;
    range
}
