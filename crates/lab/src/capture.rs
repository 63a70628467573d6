//! A capture on a host's interfaces: what kinds of packets passed, and whether octets that only
//! belong inside a tunnel were seen in clear.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::traffic::pattern::holds_marker;
use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TransportSlice};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout},
};
use nix::sys::time::TimeVal;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// What the capture saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames that came in on an interface.
    pub frames: u64,
    /// Frames by kind: `UDP 4500`, `ARP`, `ICMPv6 neighbour discovery`, and whatever else passed.
    pub kinds: BTreeMap<String, u64>,
    /// Frames that hold the marker of the lab's traffic.
    pub marked: u64,
    /// Frames between two addresses of the exempt prefixes.
    pub exempt: u64,
    /// Of those, frames that hold the marker: they prove that the capture would see it.
    pub exempt_marked: u64,
    /// What the first marked frame was.
    pub first_marked: Option<String>,
}

/// Kinds that carry no user's traffic: they resolve addresses of the link.
const LINK: [&str; 2] = ["ARP", "ICMPv6 link"];

impl Seen {
    /// Kinds of frames other than UDP on one of the ports and address resolution.
    pub fn others(&self, ports: &[u16]) -> BTreeMap<&str, u64> {
        let allowed: Vec<String> = ports.iter().map(|port| format!("UDP {port}")).collect();
        self.kinds
            .iter()
            .map(|(kind, count)| (kind.as_str(), *count))
            .filter(|(kind, _)| {
                !LINK.contains(kind) && !allowed.iter().any(|allowed| allowed == kind)
            })
            .collect()
    }
}

impl Seen {
    /// Adds what another capture saw.
    pub fn add(&mut self, other: &Seen) {
        self.frames += other.frames;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
        self.marked += other.marked;
        self.exempt += other.exempt;
        self.exempt_marked += other.exempt_marked;
        if self.first_marked.is_none() {
            self.first_marked.clone_from(&other.first_marked);
        }
    }
}

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

impl Capture {
    /// Captures on all interfaces of a host but loopback. UDP is named by the first of `ports`
    /// that is its source or destination. Frames between two addresses of `exempt` are counted
    /// apart: the lab's own plain traffic.
    pub fn start(host: &Host, ports: &[u16], exempt: &[IpNet]) -> Result<Capture> {
        Capture::open(host, None, ports, exempt)
    }

    /// Captures on one Ethernet interface of a host.
    pub fn on(host: &Host, interface: &str, ports: &[u16]) -> Result<Capture> {
        let name = interface.to_owned();
        let index = host
            .run(move || if_nametoindex(name.as_str()))
            .map_err(LabError::errno(format!("{}: the interface {interface}", host.name())))?;
        Capture::open(host, Some(index as usize), ports, &[])
    }

    fn open(host: &Host, only: Option<usize>, ports: &[u16], exempt: &[IpNet]) -> Result<Capture> {
        let descriptor = host.run(open)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ports, exempt) = (stop.clone(), ports.to_vec(), exempt.to_vec());
        let thread = host.thread("capture", move || {
            let mut watcher = Watcher { only, ports, exempt, seen: Seen::default() };
            watcher.run(&descriptor, &stopped)?;
            Ok(watcher.seen)
        })?;
        Ok(Capture { stop, thread: Some(thread) })
    }

    /// Ends the capture; frames that arrived before are still counted.
    pub fn stop(mut self) -> Result<Seen> {
        self.stop.store(true, Relaxed);
        let thread = self
            .thread
            .take()
            .ok_or_else(|| LabError::Unexpected("a capture ended twice".into()))?;
        thread.join().map_err(|_| LabError::Unexpected("the capture thread panicked".into()))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// `PACKET_OUTGOING` of packet(7): a frame that this host sent or forwarded. It was captured when
/// it came in, unless the host made it itself.
const OUTGOING: u8 = 4;

fn open() -> Result<OwnedFd> {
    let what = || LabError::errno("a packet socket");
    let descriptor =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .map_err(what())?;
    // Room for bursts. The first needs real root, the second is limited by net.core.rmem_max.
    let room = 64 << 20;
    if setsockopt(&descriptor, RcvBufForce, &room).is_err() {
        setsockopt(&descriptor, RcvBuf, &room).map_err(what())?;
    }
    setsockopt(&descriptor, ReceiveTimeout, &TimeVal::new(0, 20_000)).map_err(what())?;
    Ok(descriptor)
}

struct Watcher {
    /// The index of the only interface to look at.
    only: Option<usize>,
    ports: Vec<u16>,
    exempt: Vec<IpNet>,
    seen: Seen,
}

impl Watcher {
    fn run(&mut self, descriptor: &OwnedFd, stop: &AtomicBool) -> Result<()> {
        // A veth pair hands super-packets of 64 KiB through uncut.
        let mut buffer = vec![0; 70_000];
        loop {
            match recvfrom::<LinkAddr>(descriptor.as_raw_fd(), &mut buffer) {
                Ok((_, Some(from))) if self.only.is_some_and(|only| only != from.ifindex()) => {}
                Ok((length, from)) => {
                    let outgoing = from.is_some_and(|from| from.pkttype() == OUTGOING);
                    self.take(&buffer[..length], outgoing);
                }
                Err(Errno::EAGAIN | Errno::EINTR) if stop.load(Relaxed) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(LabError::errno("reading a packet socket")(errno)),
            }
        }
    }

    fn take(&mut self, frame: &[u8], outgoing: bool) {
        // Loopback frames have no addresses of a link.
        if frame.get(..12).is_none_or(|addresses| addresses.iter().all(|octet| *octet == 0)) {
            return;
        }
        let (kind, addresses) = self.classify(frame);
        let marked = holds_marker(frame);
        let inside = |address: &IpAddr| self.exempt.iter().any(|net| net.contains(address));
        let exempt =
            addresses.is_some_and(|(source, destination)| inside(&source) && inside(&destination));
        if exempt {
            self.seen.exempt += u64::from(!outgoing);
            self.seen.exempt_marked += u64::from(marked && !outgoing);
            return;
        }
        if marked {
            self.seen.marked += 1;
            let path = addresses
                .map(|(source, destination)| format!(" {source} -> {destination}"))
                .unwrap_or_default();
            self.seen.first_marked.get_or_insert(format!("{kind}{path}"));
        }
        if !outgoing {
            self.seen.frames += 1;
            *self.seen.kinds.entry(kind).or_default() += 1;
        }
    }

    /// What a frame is, and its addresses when it is IP.
    fn classify(&self, frame: &[u8]) -> (String, Option<(IpAddr, IpAddr)>) {
        // IPv6 sends multicast listener reports with an extension header; the parser follows it.
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
            return (unparsed(frame), None);
        };
        let (addresses, protocol, fragment) = match &packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let addresses = (header.source_addr().into(), header.destination_addr().into());
                (addresses, ip.payload().ip_number, ip.is_payload_fragmented())
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let addresses = (header.source_addr().into(), header.destination_addr().into());
                (addresses, ip.payload().ip_number, ip.is_payload_fragmented())
            }
            Some(NetSlice::Arp(_)) => return ("ARP".into(), None),
            _ => return (unparsed(frame), None),
        };
        let kind = match &packet.transport {
            _ if fragment => format!("IP fragment of protocol {}", protocol.0),
            Some(TransportSlice::Udp(udp)) => {
                let (source, destination) = (udp.source_port(), udp.destination_port());
                match self.ports.iter().find(|port| [source, destination].contains(port)) {
                    Some(port) => format!("UDP {port}"),
                    None => format!("UDP {source} -> {destination}"),
                }
            }
            Some(TransportSlice::Tcp(tcp)) => format!("TCP port {}", tcp.destination_port()),
            Some(TransportSlice::Icmpv6(icmp)) if matches!(icmp.type_u8(), 130..=137 | 143) => {
                "ICMPv6 link".into()
            }
            Some(TransportSlice::Icmpv6(icmp)) => format!("ICMPv6 type {}", icmp.type_u8()),
            Some(TransportSlice::Icmpv4(icmp)) => format!("ICMP type {}", icmp.type_u8()),
            Some(TransportSlice::Igmp(_)) => "IGMP".into(),
            None if protocol == IpNumber(50) => "ESP without UDP".into(),
            None => format!("IP protocol {}", protocol.0),
        };
        (kind, Some(addresses))
    }
}

fn unparsed(frame: &[u8]) -> String {
    let kind = frame.get(12..14).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
    match EtherType(kind) {
        EtherType::IPV4 => "IPv4 that does not parse".into(),
        EtherType::IPV6 => "IPv6 that does not parse".into(),
        other => format!("EtherType {:#06x}", other.0),
    }
}
