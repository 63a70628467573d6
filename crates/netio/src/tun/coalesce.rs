//! Grouping: which packets of a batch become one GSO write.
//!
//! The rules are those of the kernel's own GRO, because a receiver must not be able to tell a
//! merged packet from segments that its network card merged: one flow, equal headers, adjacent in
//! sequence, equal sizes with at most a shorter last one, nothing after PSH, right checksums.
//! The packets of a flow are never reordered: one that cannot join ends its flow's group.

use packet::InnerBatch;

use super::TunOffloads;
use super::flow::{Segment, Transport};

/// Segments of one write: bounded by the vector that a write can take.
pub(super) const MAX_SEGMENTS: usize = 64;
/// Octets of a super-packet: its IP length field has 16 bits.
const MAX_SUPER: usize = 65_535;
/// Groups that may still grow. A batch rarely has more flows; further ones are written as they are.
const MAX_OPEN: usize = 64;
const END: u32 = u32::MAX;

/// Packets that are written together, or one packet alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Index of the first packet.
    pub first: usize,
    last: usize,
    /// Packets in the group.
    pub count: usize,
    /// What the first packet is; `None` if it stays alone.
    pub segment: Option<Segment>,
    /// Octets of payload of all packets.
    pub payload: usize,
    /// Whether the last packet had PSH.
    pub push: bool,
    next_sequence: u32,
    checked: bool,
}

/// The groups of one batch. Its memory is kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    groups: Vec<Group>,
    /// Indexes into `groups` of those that may still grow.
    open: Vec<usize>,
    /// For each packet the next one of its group.
    next: Vec<u32>,
}

impl Coalescer {
    /// Groups the packets of `batch`. What `offloads` cannot do stays alone.
    pub fn group(&mut self, batch: &InnerBatch, offloads: TunOffloads) {
        self.groups.clear();
        self.open.clear();
        self.next.clear();
        self.next.resize(batch.packets.len(), END);
        for index in 0..batch.packets.len() {
            self.place(batch, index, offloads);
        }
    }

    /// The groups, in the order of their first packets.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The indexes of a group's packets, in order.
    pub fn members(&self, group: &Group) -> impl Iterator<Item = usize> {
        let mut at = Some(group.first);
        std::iter::from_fn(move || {
            let index = at?;
            at = self.next.get(index).filter(|next| **next != END).map(|next| *next as usize);
            Some(index)
        })
    }

    fn place(&mut self, batch: &InnerBatch, index: usize, offloads: TunOffloads) {
        let Some(packet) = batch.packets.get(index) else { return };
        let octets = batch.octets(packet);
        let plain = packet.gso.is_none() && packet.checksum.is_none();
        let Some(mut segment) = plain.then(|| Segment::parse(octets)).flatten() else {
            self.push(index, None, octets, false);
            return;
        };
        segment.mergeable &= match segment.transport {
            Transport::Tcp => offloads.tcp,
            Transport::Udp => offloads.udp,
        };
        let slot = self.open.iter().position(|g| self.is_flow_of(*g, batch, &segment, octets));
        if let Some(slot) = slot {
            let group = self.open[slot];
            match self.join(group, batch, index, &segment, octets) {
                Joined::Open => return,
                Joined::Closed => {
                    self.open.swap_remove(slot);
                    return;
                }
                Joined::No => {
                    self.open.swap_remove(slot);
                }
            }
        }
        let open = segment.mergeable && !segment.push;
        self.push(index, Some(segment), octets, open);
    }

    fn is_flow_of(
        &self,
        group: usize,
        batch: &InnerBatch,
        segment: &Segment,
        octets: &[u8],
    ) -> bool {
        let group = &self.groups[group];
        let Some(first) = &group.segment else { return false };
        first.hash == segment.hash
            && first.same_flow(octets_at(batch, group.first), segment, octets)
    }

    /// Adds the packet to its flow's group if every rule allows it.
    fn join(
        &mut self,
        group: usize,
        batch: &InnerBatch,
        index: usize,
        segment: &Segment,
        octets: &[u8],
    ) -> Joined {
        let group = &mut self.groups[group];
        let Some(first) = group.segment else { return Joined::No };
        let first_octets = octets_at(batch, group.first);
        let sum_at = |index: usize| batch.packets.get(index).and_then(|packet| packet.sum);
        let fits = segment.mergeable
            && segment.payload <= first.payload
            && group.count < MAX_SEGMENTS
            && first.header_len + group.payload + segment.payload <= MAX_SUPER
            && segment.sequence(octets) == group.next_sequence
            && first.same_headers(first_octets, segment, octets);
        if !fits || !(group.checked || first.checksums_hold(first_octets, sum_at(group.first))) {
            return Joined::No;
        }
        group.checked = true;
        if !segment.checksums_hold(octets, sum_at(index)) {
            return Joined::No;
        }
        self.next[group.last] = index as u32;
        group.last = index;
        group.count += 1;
        group.payload += segment.payload;
        group.push = segment.push;
        group.next_sequence = next_sequence(segment, octets);
        let grows = segment.payload == first.payload && !segment.push;
        if grows { Joined::Open } else { Joined::Closed }
    }

    fn push(&mut self, index: usize, segment: Option<Segment>, octets: &[u8], open: bool) {
        if open && self.open.len() < MAX_OPEN {
            self.open.push(self.groups.len());
        }
        self.groups.push(Group {
            first: index,
            last: index,
            count: 1,
            segment,
            payload: segment.map_or(0, |s| s.payload),
            push: segment.is_some_and(|s| s.push),
            next_sequence: segment.map_or(0, |s| next_sequence(&s, octets)),
            checked: false,
        });
    }
}

enum Joined {
    /// It is in, and more may follow.
    Open,
    /// It is in as the last one.
    Closed,
    /// It is not in, and the group must not grow any more.
    No,
}

fn octets_at(batch: &InnerBatch, index: usize) -> &[u8] {
    batch.packets.get(index).map(|packet| batch.octets(packet)).unwrap_or_default()
}

/// UDP has no sequence: 0 equals 0.
fn next_sequence(segment: &Segment, octets: &[u8]) -> u32 {
    match segment.transport {
        Transport::Udp => 0,
        // At most 65,535.
        Transport::Tcp => segment.sequence(octets).wrapping_add(segment.payload as u32),
    }
}
