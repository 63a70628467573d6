//! ESP as it passes the router of the internet.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::netns::Host;
use socket2::{Domain, Protocol, Socket, Type};

/// One datagram: from, to, payload.
pub type Datagram = (SocketAddrV4, SocketAddrV4, Vec<u8>);

/// Waits for `count` ESP datagrams to `to` that pass `router`, each once.
pub fn capture_esp(router: &Arc<Host>, to: Ipv4Addr, count: usize) -> Vec<Datagram> {
    // ETH_P_ALL, in network order; cooked packets begin with the IP header.
    let all = i32::from(0x0003_u16.to_be());
    let open = move || Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(all)));
    let mut socket = router.run(open).expect("a packet socket needs root");
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (mut seen, mut buffer) = (Vec::<Datagram>::new(), vec![0; 4096]);
    let begin = Instant::now();
    while seen.len() < count {
        assert!(begin.elapsed() < Duration::from_secs(30), "no ESP on the wire");
        let Ok(length) = socket.read(&mut buffer) else { continue };
        // The router sees each of them twice: as it comes and as it leaves.
        if let Some(esp) = parse(&buffer[..length]).filter(|esp| *esp.1.ip() == to)
            && !seen.contains(&esp)
        {
            seen.push(esp);
        }
    }
    seen
}

/// ESP in UDP on port 4500: neither a keepalive nor behind a non-ESP marker.
fn parse(packet: &[u8]) -> Option<Datagram> {
    if packet.len() < 40 || packet[0] != 0x45 || packet[9] != 17 {
        return None;
    }
    let address =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let payload = &packet[28..usize::from(port(2)).min(packet.len())];
    let esp = port(22) == 4500 && payload.len() > 16 && payload[..4] != [0; 4];
    let from = SocketAddrV4::new(address(12), port(20));
    let to = SocketAddrV4::new(address(16), port(22));
    esp.then(|| (from, to, payload.to_vec()))
}
