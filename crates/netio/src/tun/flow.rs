//! What coalescing must know of one packet: its flow, and whether it may be a segment at all.

use packet::checksum;

/// Transport of a packet that can be a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A TCP or UDP packet without IP options, extension headers or fragmentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub transport: Transport,
    /// Of the flow: addresses, ports, protocol. Only compared, never an index.
    pub hash: u64,
    /// Octets of the IP header.
    pub ip_len: usize,
    /// Octets of the IP and transport headers.
    pub header_len: usize,
    /// Octets of transport payload.
    pub payload: usize,
    /// Whether it may be merged with its neighbours. Otherwise it only ends its flow's group.
    pub mergeable: bool,
    /// TCP with PSH: nothing may follow it in its group.
    pub push: bool,
}

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DF: u8 = 0x40;

impl Segment {
    /// Looks at a packet from its IP header on. `None` for everything that has no flow that we
    /// could keep in order or merge: such a packet stays alone.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (ip_len, protocol, whole) = match packet.first()? >> 4 {
            4 => {
                let ip = packet.first_chunk::<20>()?;
                let total = u16::from_be_bytes([ip[2], ip[3]]);
                let fragment = ip[6] & !DF != 0 || ip[7] != 0;
                if ip[0] != 0x45 || fragment {
                    return None;
                }
                (20, ip[9], usize::from(total) == packet.len())
            }
            6 => {
                let ip = packet.first_chunk::<40>()?;
                let payload = u16::from_be_bytes([ip[4], ip[5]]);
                (40, ip[6], usize::from(payload) + 40 == packet.len())
            }
            _ => return None,
        };
        let transport = packet.get(ip_len..)?;
        let (kind, len, flags_ok, push) = match protocol {
            6 => {
                let tcp = transport.first_chunk::<20>()?;
                let len = usize::from(tcp[12] >> 4) * 4;
                let plain = tcp[13] & !PSH == ACK && tcp[12] & 0x0f == 0;
                (Transport::Tcp, len, plain && len >= 20, tcp[13] & PSH != 0)
            }
            17 => {
                let udp = transport.first_chunk::<8>()?;
                let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
                // A UDP checksum of zero (none) cannot be told to the kernel with a merged packet.
                let summed = udp[6] != 0 || udp[7] != 0;
                (Transport::Udp, 8, len == transport.len() && summed, false)
            }
            _ => return None,
        };
        let payload = transport.len().checked_sub(len)?;
        Some(Self {
            transport: kind,
            hash: flow_hash(addresses(packet, ip_len), transport.first_chunk::<4>()?, protocol),
            ip_len,
            header_len: ip_len + len,
            payload,
            mergeable: whole && flags_ok && payload > 0,
            push,
        })
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }

    /// Whether the two packets are of one flow. The hash only saves this comparison.
    pub fn same_flow(&self, packet: &[u8], other: &Self, other_packet: &[u8]) -> bool {
        let ports = self.ip_len..self.ip_len + 4;
        self.hash == other.hash
            && self.transport == other.transport
            && self.ip_len == other.ip_len
            && addresses(packet, self.ip_len) == addresses(other_packet, self.ip_len)
            && packet.get(ports.clone()) == other_packet.get(ports)
    }

    /// Whether everything that a merged packet has only once is equal in both packets: TTL, ToS
    /// with ECN, DF, flow label, acknowledgment, window and TCP options (the timestamps too).
    /// Call it only for packets of one flow.
    pub fn same_headers(&self, packet: &[u8], other: &Self, other_packet: &[u8]) -> bool {
        if self.header_len != other.header_len {
            return false;
        }
        let equal = |from: usize, to: usize| packet.get(from..to) == other_packet.get(from..to);
        let ip = match self.ip_len {
            20 => equal(0, 2) && equal(6, 10),
            _ => equal(0, 4) && equal(6, 8),
        };
        let at = self.ip_len;
        ip && match self.transport {
            // Acknowledgment and data offset; window; urgent pointer and options. The flags are
            // ACK, with or without PSH, in every mergeable segment.
            Transport::Tcp => {
                equal(at + 8, at + 13) && equal(at + 14, at + 16) && equal(at + 18, self.header_len)
            }
            Transport::Udp => true,
        }
    }

    /// The TCP sequence number; 0 for UDP.
    pub fn sequence(&self, packet: &[u8]) -> u32 {
        match (self.transport, packet.get(self.ip_len..).and_then(|t| t.first_chunk::<8>())) {
            (Transport::Tcp, Some(tcp)) => u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            _ => 0,
        }
    }

    /// Whether the transport checksum and, for IPv4, the header checksum are right. A merged
    /// packet gets new ones, which must not make a damaged segment look whole. `sum` is that of the
    /// whole packet, if it is known already.
    pub fn checksums_hold(&self, packet: &[u8], sum: Option<u16>) -> bool {
        let Some((header, transport)) = packet.split_at_checked(self.ip_len) else { return false };
        let Ok(len) = u16::try_from(transport.len()) else { return false };
        let pseudo = checksum::pseudo_header(addresses(packet, self.ip_len), self.protocol(), len);
        let whole = |sum| checksum::fold(sum) == [0xff, 0xff];
        let header = checksum::add(0, header);
        let transport = match sum {
            // In one's complement, to add the complement is to subtract.
            Some(sum) => {
                let header = u16::from_ne_bytes(checksum::fold(header));
                pseudo + u64::from(sum) + u64::from(!header)
            }
            None => checksum::add(pseudo, transport),
        };
        whole(transport) && (self.ip_len != 20 || whole(header))
    }

    /// Turns `headers`, a copy of the first segment's headers, into those of a super-packet with
    /// `payload` octets: lengths, PSH, IPv4 checksum, and the pseudo-header's sum where the kernel
    /// completes the transport checksum.
    pub fn rewrite_headers(&self, headers: &mut [u8], payload: usize, push: bool) {
        let total = self.header_len + payload;
        let transport_len = to_u16(total - self.ip_len);
        if self.ip_len == 20 {
            put(headers, 2, to_u16(total).to_be_bytes());
            put(headers, 10, [0, 0]);
            let [high, low] =
                checksum::fold(checksum::add(0, headers.get(..20).unwrap_or_default()));
            put(headers, 10, [!high, !low]);
        } else {
            put(headers, 4, transport_len.to_be_bytes());
        }
        let pseudo = checksum::pseudo_header(
            addresses(headers, self.ip_len),
            self.protocol(),
            transport_len,
        );
        put(headers, self.ip_len + usize::from(self.checksum_offset()), checksum::fold(pseudo));
        match self.transport {
            Transport::Tcp => {
                if let (true, Some(flags)) = (push, headers.get_mut(self.ip_len + 13)) {
                    *flags |= PSH;
                }
            }
            Transport::Udp => put(headers, self.ip_len + 4, transport_len.to_be_bytes()),
        }
    }

    /// Offset of the checksum field in the transport header.
    pub fn checksum_offset(&self) -> u16 {
        match self.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }
}

/// Super-packets are built with at most 65,535 octets, so this never saturates.
fn to_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn put(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value);
    }
}

/// Source and destination address.
fn addresses(packet: &[u8], ip_len: usize) -> &[u8] {
    let from = if ip_len == 20 { 12 } else { 8 };
    packet.get(from..ip_len).unwrap_or_default()
}

/// Mixes the flow's octets. Two flows with one hash cost a comparison, nothing more.
fn flow_hash(addresses: &[u8], ports: &[u8; 4], protocol: u8) -> u64 {
    let mut hash = u64::from(u32::from_ne_bytes(*ports)) ^ u64::from(protocol) << 32;
    for word in addresses.as_chunks::<4>().0 {
        hash = (hash ^ u64::from(u32::from_ne_bytes(*word))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash
}
