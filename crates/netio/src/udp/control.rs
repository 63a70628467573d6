//! Socket addresses and control messages as the kernel lays them out, in safe code: the layouts
//! are ABI, and octets in an array cannot be read out of bounds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for all control messages of one datagram: packet information (40 octets for IPv6), traffic
/// class (24), segment size (24), and what other options of the socket may add.
pub(super) const CONTROL_LEN: usize = 128;
/// `struct cmsghdr`: a `size_t` and two ints.
const HEADER: usize = size_of::<usize>() + 8;
const ALIGN: usize = size_of::<usize>();

const fn aligned(len: usize) -> usize {
    (len + ALIGN - 1) & !(ALIGN - 1)
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Name {
    bytes: [u8; 28],
    /// Octets that count.
    pub len: libc::socklen_t,
}

impl Name {
    /// Room for what a receive call writes.
    pub const ROOM: libc::socklen_t = 28;

    /// No address yet.
    pub const fn empty() -> Self {
        Self { bytes: [0; 28], len: 0 }
    }

    /// Where the address stands, for a call that only reads.
    pub fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    /// Where the address stands.
    pub fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// The address, if it is one of IPv4 or IPv6.
    pub fn address(&self) -> Option<SocketAddr> {
        let b = &self.bytes;
        let port = u16::from_be_bytes([b[2], b[3]]);
        match i32::from(u16::from_ne_bytes([b[0], b[1]])) {
            libc::AF_INET => {
                Some(SocketAddr::new(Ipv4Addr::new(b[4], b[5], b[6], b[7]).into(), port))
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = *b[8..].first_chunk()?;
                let scope: [u8; 4] = *b[24..].first_chunk()?;
                let scope = u32::from_ne_bytes(scope);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; 28];
        let (family, len) = match address {
            SocketAddr::V4(_) => (libc::AF_INET as libc::sa_family_t, 16),
            SocketAddr::V6(_) => (libc::AF_INET6 as libc::sa_family_t, 28),
        };
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => bytes[4..8].copy_from_slice(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        Self { bytes, len }
    }
}

/// The control messages of one datagram: written before a send, or read after a receive.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self { bytes: [0; CONTROL_LEN], len: 0 }
    }
}

/// What the control messages of a received datagram say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Received {
    /// The local address that it was sent to.
    pub local: Option<IpAddr>,
    /// Traffic class.
    pub tos: u8,
    /// Size of the coalesced datagrams.
    pub segment: Option<usize>,
}

impl Control {
    /// Octets that are used.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the messages stand.
    pub fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// Where the messages stand, for a call that only reads.
    pub fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let Some(room) = self.bytes.get_mut(self.len..self.len + aligned(HEADER + data.len()))
        else {
            debug_assert!(false, "more control messages than were planned for");
            return;
        };
        room[..ALIGN].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        room[ALIGN + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.len += room.len();
    }

    /// Send from this address (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub fn push_source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(ip) => {
                // struct in_pktinfo: interface, source, header destination.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(ip) => {
                // struct in6_pktinfo: source, interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Send with this traffic class.
    pub fn push_tos(&mut self, v6: bool, tos: u8) {
        let value = libc::c_int::from(tos).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
        }
    }

    /// Cut the payload into datagrams of this size (`UDP_SEGMENT`).
    pub fn push_segment(&mut self, segment: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }

    /// Reads the first `len` octets, as a receive call has left them. Stops at what makes no sense.
    pub fn read(&self, len: usize) -> Received {
        let mut received = Received::default();
        let mut rest = self.bytes.get(..len).unwrap_or(&self.bytes);
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let mut size = [0; ALIGN];
            size.copy_from_slice(&header[..ALIGN]);
            let size = usize::from_ne_bytes(size);
            let int = |at: usize| {
                let mut value = [0; 4];
                value.copy_from_slice(&header[at..at + 4]);
                i32::from_ne_bytes(value)
            };
            let Some(data) = rest.get(HEADER..size) else { break };
            received.take(int(ALIGN), int(ALIGN + 4), data);
            rest = rest.get(aligned(size)..).unwrap_or_default();
        }
        received
    }
}

impl Received {
    fn take(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let int = || data.first_chunk::<4>().map(|v| i32::from_ne_bytes(*v));
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ipi_addr: the destination in the header.
                if let Some([a, b, c, d]) = data.get(8..12) {
                    self.local = Some(Ipv4Addr::new(*a, *b, *c, *d).into());
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(ip) = data.first_chunk::<16>() {
                    self.local = Some(Ipv6Addr::from(*ip).into());
                }
            }
            // One octet for IPv4, an int for IPv6.
            (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.tos = int().and_then(|v| u8::try_from(v).ok()).unwrap_or(0);
            }
            // An int, not the 16 bits of UDP_SEGMENT.
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = int().and_then(|v| usize::try_from(v).ok());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_layout() {
        for text in ["192.0.2.1:4500", "[2001:db8::7]:500", "[fe80::1%3]:4500"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::from(address).address(), Some(address), "{text}");
        }
        assert_eq!(Name::empty().address(), None);
    }

    #[test]
    fn our_layout_is_the_one_of_the_c_macros() {
        let mut control = Control::default();
        control.push_source("2001:db8::1".parse().unwrap());
        control.push_tos(true, 0xb8);
        control.push_segment(1400);
        // SAFETY: these compute sizes from their arguments and nothing else.
        let expected =
            unsafe { libc::CMSG_SPACE(20) + libc::CMSG_SPACE(4) + libc::CMSG_SPACE(2) } as usize;
        assert_eq!(control.len(), expected);
        let received = control.read(control.len());
        assert_eq!(received.local, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(received.tos, 0xb8);
    }

    #[test]
    fn truncated_and_senseless_messages_end_the_reading() {
        let mut control = Control::default();
        control.push_source("192.0.2.1".parse().unwrap());
        for len in 0..control.len() {
            control.read(len);
        }
        control.bytes[..ALIGN].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(control.read(CONTROL_LEN), Received::default());
        control.bytes[..ALIGN].copy_from_slice(&0usize.to_ne_bytes());
        assert_eq!(control.read(CONTROL_LEN), Received::default());
        control.bytes[..ALIGN].copy_from_slice(&(HEADER + 1).to_ne_bytes());
        assert_eq!(control.read(CONTROL_LEN), Received::default());
    }
}
