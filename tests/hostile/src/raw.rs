//! UDP datagrams from any source address, over a raw socket.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use lab::netns::Host;
use socket2::{Domain, Protocol, Socket, Type};

/// A raw socket in a host, which writes IPv4 headers itself.
pub struct RawSender(Socket);

impl RawSender {
    pub fn new(host: &Arc<Host>) -> Self {
        // IPPROTO_RAW: the header is ours.
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        let socket = host.run(open).expect("a raw socket needs root");
        socket.set_send_buffer_size(4 << 20).unwrap();
        Self(socket)
    }

    /// Sends one UDP datagram without checksum. What the kernel does not take is lost.
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let packet = packet(from, to, payload);
        let _ = self.0.send_to(&packet, &SocketAddr::from((*to.ip(), 0)).into());
    }
}

impl RawSender {
    /// Sends one ICMP error about a UDP datagram that its receiver is said to have sent `from` one
    /// address `to` another; `rest` is the second word of the error (RFC 792).
    pub fn send_icmp_error(
        &self,
        router: Ipv4Addr,
        (kind, code, rest): (u8, u8, u32),
        (from, to): (SocketAddrV4, SocketAddrV4),
    ) {
        let quoted = packet(from, to, &[0x71; 8]);
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest.to_be_bytes());
        message.extend(quoted);
        let sum = !message.chunks(2).fold(0_u32, |sum, pair| {
            let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]));
            (sum & 0xffff) + (sum >> 16)
        });
        message[2..4].copy_from_slice(&(sum as u16).to_be_bytes());
        let mut out = packet(SocketAddrV4::new(router, 0), from, &message);
        // The protocol is ICMP, and there is no UDP header.
        out[9] = 1;
        out.drain(20..28);
        let length = u16::try_from(out.len()).unwrap().to_be_bytes();
        out[2..4].copy_from_slice(&length);
        let _ = self.0.send_to(&out, &SocketAddr::from((*from.ip(), 0)).into());
    }
}

fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let word = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let mut out = vec![0x45, 0];
    out.extend(word(28 + payload.len()));
    // The kernel fills in identification and header checksum.
    out.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    out.extend(Ipv4Addr::octets(from.ip()));
    out.extend(Ipv4Addr::octets(to.ip()));
    out.extend(from.port().to_be_bytes());
    out.extend(to.port().to_be_bytes());
    out.extend(word(8 + payload.len()));
    out.extend([0, 0]);
    out.extend(payload);
    out
}
