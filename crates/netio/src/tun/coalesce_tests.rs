//! The rules of coalescing, one by one, and against a reference segmentation.

use etherparse::PacketBuilder;
use packet::{InnerBatch, InnerPacket};
use proptest::prelude::*;

use super::TunOffloads;
use super::coalesce::Coalescer;
use super::flow::Segment;

const ALL: TunOffloads = TunOffloads { checksum: true, tcp: true, udp: true };

/// One TCP segment, with what the rules look at.
#[derive(Clone, Debug)]
struct Tcp {
    v6: bool,
    port: u16,
    sequence: u32,
    ack: u32,
    window: u16,
    ttl: u8,
    timestamp: u32,
    push: bool,
    fin: bool,
    payload: Vec<u8>,
}

impl Tcp {
    fn new(sequence: u32, payload: usize) -> Self {
        let payload = (0..payload).map(|i| (sequence as usize + i) as u8).collect();
        Self {
            v6: false,
            port: 1000,
            sequence,
            ack: 7,
            window: 512,
            ttl: 64,
            timestamp: 1,
            push: false,
            fin: false,
            payload,
        }
    }

    fn build(&self) -> Vec<u8> {
        let ip = if self.v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], self.ttl)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], self.ttl)
        };
        let mut tcp = ip.tcp(self.port, 80, self.sequence, self.window).ack(self.ack);
        let stamp = etherparse::TcpOptionElement::Timestamp(self.timestamp, 9);
        tcp = tcp.options(&[stamp]).unwrap();
        if self.push {
            tcp = tcp.psh();
        }
        if self.fin {
            tcp = tcp.fin();
        }
        let mut out = Vec::new();
        tcp.write(&mut out, &self.payload).unwrap();
        out
    }
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(port, 53);
    builder.write(&mut out, payload).unwrap();
    out
}

/// Packet numbers of each write.
fn writes(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    writes_with(packets, ALL)
}

fn writes_with(packets: &[Vec<u8>], offloads: TunOffloads) -> Vec<Vec<usize>> {
    let mut batch = InnerBatch::default();
    packets.iter().for_each(|packet| batch.push(packet));
    let groups = |batch: &InnerBatch| -> Vec<Vec<usize>> {
        let mut coalescer = Coalescer::default();
        coalescer.group(batch, offloads);
        coalescer.groups().iter().map(|group| coalescer.members(group).collect()).collect()
    };
    let without_sums = groups(&batch);
    // Sums that are known already say the same as those made here.
    for (packet, octets) in batch.packets.iter_mut().zip(packets) {
        let sum = packet::checksum::fold(packet::checksum::add(0, octets));
        packet.sum = Some(u16::from_ne_bytes(sum));
    }
    assert_eq!(groups(&batch), without_sums);
    without_sums
}

fn pair(change: impl Fn(&mut Tcp)) -> Vec<Vec<usize>> {
    let first = Tcp::new(0, 100);
    let mut second = Tcp::new(100, 100);
    change(&mut second);
    writes(&[first.build(), second.build()])
}

const MERGED: &[&[usize]] = &[&[0, 1]];
const APART: &[&[usize]] = &[&[0], &[1]];

#[test]
fn adjacent_segments_merge_and_others_do_not() {
    assert_eq!(pair(|_| {}), MERGED);
    assert_eq!(pair(|t| t.push = true), MERGED, "PSH on the last");
    assert_eq!(pair(|t| t.sequence = 101), APART, "a gap");
    assert_eq!(pair(|t| t.sequence = 0), APART, "a retransmission");
    assert_eq!(pair(|t| t.ack = 8), APART, "another acknowledgment");
    assert_eq!(pair(|t| t.window = 513), APART, "another window");
    assert_eq!(pair(|t| t.ttl = 63), APART, "another TTL");
    assert_eq!(pair(|t| t.timestamp = 2), APART, "another timestamp");
    assert_eq!(pair(|t| t.fin = true), APART, "FIN");
    assert_eq!(pair(|t| t.port = 1001), APART, "another flow");
    assert_eq!(pair(|t| t.v6 = true), APART, "another family");
    assert_eq!(pair(|t| t.payload.clear()), APART, "a pure acknowledgment");
    assert_eq!(pair(|t| t.payload.push(0)), APART, "a longer segment");
    assert_eq!(pair(|t| t.payload.truncate(99)), MERGED, "a shorter last segment");
}

#[test]
fn ecn_and_dont_fragment_must_be_equal() {
    let second = Tcp::new(100, 100).build();
    for (at, value) in [(1, 3), (6, 0)] {
        let mut other = second.clone();
        other[at] = value;
        // The header checksum follows.
        other[10..12].fill(0);
        let sum = packet::checksum::fold(packet::checksum::add(0, &other[..20]));
        other[10..12].copy_from_slice(&[!sum[0], !sum[1]]);
        assert_eq!(writes(&[Tcp::new(0, 100).build(), other]), APART, "octet {at}");
    }
}

#[test]
fn nothing_follows_a_push_or_a_shorter_segment() {
    let mut push = Tcp::new(0, 100);
    push.push = true;
    assert_eq!(writes(&[push.build(), Tcp::new(100, 100).build()]), APART);
    let short = [Tcp::new(0, 100), Tcp::new(100, 50), Tcp::new(150, 50)].map(|t| t.build());
    assert_eq!(writes(&short), [vec![0, 1], vec![2]]);
}

#[test]
fn a_packet_that_cannot_join_ends_its_flow_and_not_the_others() {
    let other = |sequence| Tcp { port: 2, ..Tcp::new(sequence, 100) }.build();
    let fin = Tcp { fin: true, ..Tcp::new(200, 0) };
    let packets = [
        Tcp::new(0, 100).build(),
        other(0),
        fin.build(),
        Tcp::new(100, 100).build(),
        other(100),
        Tcp::new(200, 100).build(),
    ];
    assert_eq!(writes(&packets), [vec![0], vec![1, 4], vec![2], vec![3, 5]]);
}

#[test]
fn a_damaged_segment_is_not_made_whole() {
    let mut bad = Tcp::new(100, 100).build();
    *bad.last_mut().unwrap() ^= 1;
    let good = [Tcp::new(0, 100).build(), bad.clone(), Tcp::new(200, 100).build()];
    assert_eq!(writes(&good), [vec![0], vec![1], vec![2]]);
    let mut first = Tcp::new(0, 100).build();
    *first.last_mut().unwrap() ^= 1;
    assert_eq!(writes(&[first, Tcp::new(100, 100).build()]), APART);
    let mut header = Tcp::new(100, 100).build();
    header[11] ^= 1;
    assert_eq!(writes(&[Tcp::new(0, 100).build(), header]), APART);
}

#[test]
fn equal_udp_datagrams_merge_until_a_shorter_one() {
    let long = |n: u8| udp(9, &[n; 64]);
    let packets = [long(1), long(2), udp(9, &[3; 10]), long(4), udp(8, &[5; 64]), long(6)];
    assert_eq!(writes(&packets), [vec![0, 1, 2], vec![3, 5], vec![4]]);
    let mut unsummed = long(2);
    unsummed[26..28].fill(0);
    assert_eq!(writes(&[long(1), unsummed]), APART, "UDP without a checksum");
}

#[test]
fn fragments_options_and_other_protocols_stay_alone() {
    let mut fragment = Tcp::new(100, 100).build();
    fragment[7] = 8;
    assert_eq!(writes(&[Tcp::new(0, 100).build(), fragment]), APART);
    let mut icmp = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.icmpv4_echo_request(1, 1).write(&mut icmp, &[0; 30]).unwrap();
    assert_eq!(writes(&[icmp.clone(), icmp]), APART);
}

#[test]
fn only_the_offloads_that_exist_are_used() {
    let tcp = [Tcp::new(0, 100).build(), Tcp::new(100, 100).build()];
    let udp = [udp(9, &[1; 64]), udp(9, &[2; 64])];
    let no_udp = TunOffloads { udp: false, ..ALL };
    assert_eq!(writes_with(&tcp, no_udp), MERGED);
    assert_eq!(writes_with(&udp, no_udp), APART);
    let no_tcp = TunOffloads { tcp: false, ..ALL };
    assert_eq!(writes_with(&tcp, no_tcp), APART);
    assert_eq!(writes_with(&udp, no_tcp), MERGED);
}

#[test]
fn a_group_never_outgrows_an_ip_packet() {
    let packets: Vec<_> = (0..60).map(|i| Tcp::new(i * 1400, 1400).build()).collect();
    let groups = writes(&packets);
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].len(), (65_535 - 52) / 1400);
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..8)) {
        writes(&packets);
    }

    /// What the kernel makes of our super-packets must be what came in, flow by flow.
    #[test]
    fn segments_of_the_merged_packets_are_the_packets_that_came(
        choices in prop::collection::vec((0u16..3, any::<bool>(), 0usize..4, 0u8..12), 1..60)
    ) {
        let mut next = [0u32; 6];
        let mut input = Vec::new();
        for (port, v6, size, special) in choices {
            let flow = usize::from(port) * 2 + usize::from(v6);
            let len = [0, 30, 100, 100][size];
            let mut tcp = Tcp { port, v6, ..Tcp::new(next[flow], len) };
            match special {
                0 => tcp.push = true,
                1 => tcp.fin = true,
                2 => tcp.ack += 1,
                3 => tcp.sequence = tcp.sequence.wrapping_sub(30),
                _ => {}
            }
            next[flow] = tcp.sequence.wrapping_add(len as u32);
            input.push(tcp.build());
        }
        let mut batch = InnerBatch::default();
        input.iter().for_each(|packet| batch.push(packet));
        let mut coalescer = Coalescer::default();
        coalescer.group(&batch, ALL);
        let mut output = Vec::new();
        for group in coalescer.groups() {
            let members: Vec<&InnerPacket> =
                coalescer.members(group).map(|i| &batch.packets[i]).collect();
            match group.segment {
                Some(segment) if group.count > 1 => {
                    let mut whole = batch.octets(members[0])[..segment.header_len].to_vec();
                    segment.rewrite_headers(&mut whole, group.payload, group.push);
                    for member in &members {
                        whole.extend_from_slice(&batch.octets(member)[segment.header_len..]);
                    }
                    prop_assert_eq!(whole.len(), segment.header_len + group.payload);
                    output.extend(segmented(&whole, &segment));
                }
                _ => output.push(batch.octets(members[0]).to_vec()),
            }
        }
        for flow in 0..6u16 {
            let of = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                packets.iter().filter(|p| flow_of(p) == flow).map(|p| without_id(p)).collect()
            };
            prop_assert_eq!(of(&input), of(&output));
        }
    }
}

fn flow_of(packet: &[u8]) -> u16 {
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    u16::from_be_bytes([packet[at], packet[at + 1]]) * 2 + u16::from(at == 40)
}

/// The IPv4 identification counts up in segments; nothing else may differ.
fn without_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// TCP segmentation as the kernel does it: PSH on the last only, checksums from the start.
fn segmented(whole: &[u8], segment: &Segment) -> Vec<Vec<u8>> {
    let (headers, payload) = whole.split_at(segment.header_len);
    let at = segment.ip_len;
    let count = payload.chunks(segment.payload).count();
    let mut out = Vec::new();
    for (i, chunk) in payload.chunks(segment.payload).enumerate() {
        let mut packet = headers.to_vec();
        packet.extend_from_slice(chunk);
        let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
        let sequence = sequence.wrapping_add((i * segment.payload) as u32);
        packet[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        if i + 1 < count {
            packet[at + 13] &= !8;
        }
        let (ip, total) = (packet[0] >> 4, packet.len() as u16);
        if ip == 4 {
            packet[2..4].copy_from_slice(&total.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&(total - 40).to_be_bytes());
        }
        packet[at + 16..at + 18].fill(0);
        let unsummed = packet.clone();
        let sliced = etherparse::SlicedPacket::from_ip(&unsummed).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
        let header = tcp.to_header();
        let sum = match sliced.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => {
                header.calc_checksum_ipv4(&ip.header().to_header(), chunk).unwrap()
            }
            Some(etherparse::NetSlice::Ipv6(ip)) => {
                header.calc_checksum_ipv6(&ip.header().to_header(), chunk).unwrap()
            }
            _ => panic!(),
        };
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        out.push(packet);
    }
    out
}
