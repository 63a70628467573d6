//! The UDP sockets of a daemon, and IKE messages on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use control::config::{Config, Role};
use ike::{Transmit, TransmitPayload};
use netio::udp::{AsyncReceiver, BindError, UdpOptions, UdpSocket, source_for};
use packet::DatagramBatch;
use sa::Path;
use tracing::warn;

use crate::RunError;
use crate::worker::SlowDatagram;

/// RFC 3948 2.2: what stands before an IKE message where ESP is spoken too.
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// RFC 3948 2.3.
const NAT_KEEPALIVE: [u8; 1] = [0xff];
/// Octets of the buffers of a socket that carries no packets.
const SMALL_BUFFER: usize = 1 << 20;
/// Octets of the buffers where a worker is never away for long: what waits there, waits before every
/// packet that comes later. The kernel doubles it, and counts its own records in it.
const SHORT_BUFFER: usize = 256 << 10;

/// All sockets: those with the non-ESP marker, and those without.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) nat_t: Arc<[Arc<UdpSocket>]>,
    pub(crate) ike: Vec<Arc<UdpSocket>>,
}

impl Sockets {
    /// Binds every address of the configuration, or all addresses of both families; `realtime`: the
    /// packet threads are.
    pub(crate) fn bind(config: &Config, realtime: bool) -> Result<Self, BindError> {
        let mut nat_t = UdpOptions { gro: config.offloads.udp_gro, ..UdpOptions::default() };
        if realtime {
            nat_t.buffer = SHORT_BUFFER;
        }
        let ike = UdpOptions { gro: false, dont_fragment: false, buffer: SMALL_BUFFER };
        Ok(Self {
            nat_t: bind_all(&config.listen, config.nat_t_port, nat_t)?.into(),
            ike: config
                .ike_port
                .map_or(Ok(Vec::new()), |port| bind_all(&config.listen, port, ike))?,
        })
    }

    /// The port with marker, as bound.
    pub(crate) fn nat_t_port(&self) -> u16 {
        self.nat_t.first().map_or(0, |socket| socket.local().port())
    }

    /// Whether what ICMP says of paths counts for ESP.
    pub(crate) fn believe_icmp(&self, believe: bool) {
        for socket in self.nat_t.iter() {
            if let Err(error) = socket.believe_icmp(believe) {
                warn!(socket = %socket.local(), %error, "what ICMP says of paths counts as before");
            }
        }
    }

    /// Sends what the IKE plane wants sent.
    pub(crate) fn transmit(&self, transmit: &Transmit) -> io::Result<()> {
        let Path { local, remote } = transmit.path;
        let serving = |socket: &&Arc<UdpSocket>| socket.serves(local);
        let (socket, marked) = match self.nat_t.iter().find(serving) {
            Some(socket) => (socket, true),
            None => match self.ike.iter().find(serving) {
                Some(socket) => (socket, false),
                None => return Err(io::Error::other("none of our sockets has this address")),
            },
        };
        match &transmit.payload {
            TransmitPayload::NatKeepalive => socket.send(local, remote, &[&NAT_KEEPALIVE]),
            TransmitPayload::Ike(message) if marked => {
                socket.send(local, remote, &[&NON_ESP_MARKER, message])
            }
            TransmitPayload::Ike(message) => socket.send(local, remote, &[message]),
        }
    }
}

fn bind_all(
    listen: &[IpAddr],
    port: u16,
    options: UdpOptions,
) -> Result<Vec<Arc<UdpSocket>>, BindError> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let mut sockets: Vec<Arc<UdpSocket>> = Vec::new();
    for address in if listen.is_empty() { &any[..] } else { listen } {
        // A port that the system chose for the first address serves the others, too.
        let port = sockets.first().map_or(port, |first| first.local().port());
        match UdpSocket::bind(SocketAddr::new(*address, port), options) {
            Ok(socket) => sockets.push(Arc::new(socket)),
            // Listening everywhere on a host without IPv6 means IPv4.
            Err(BindError::Io { cause, .. })
                if listen.is_empty()
                    && address.is_ipv6()
                    && cause.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(BindError::NoSuchAddress { .. }) if listen.is_empty() && address.is_ipv6() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Names our outside address where the configuration leaves it open but the system knows it: an
/// initiator must know it to tell whether there is a NAT (RFC 7296 2.23).
pub(crate) fn name_local_addresses(config: &mut Config) {
    let listen = config.listen.clone();
    for connection in &mut config.wireguard {
        // Sockets for all addresses take the one that the system has at the time.
        let remote = connection.endpoint.filter(|_| !listen.is_empty());
        connection.local = remote.and_then(|remote| source_towards(remote, &listen));
    }
    if config.role != Role::Agent {
        return;
    }
    for tunnel in config.connections.iter_mut().flat_map(|c| &mut c.tunnels) {
        let (None, Some(remote)) = (tunnel.local, tunnel.remote) else { continue };
        tunnel.local = source_towards(SocketAddr::new(remote, tunnel.remote_port), &listen);
    }
}

/// The address from which we send to `remote`: the one that the system would take, if we listen on
/// it.
fn source_towards(remote: SocketAddr, listen: &[IpAddr]) -> Option<IpAddr> {
    let same_family = |address: &&IpAddr| address.is_ipv4() == remote.is_ipv4();
    match source_for(remote).ok() {
        Some(source) if listen.is_empty() || listen.contains(&source) => Some(source),
        _ => listen.iter().find(same_family).copied(),
    }
}

/// One socket without marker, read by the control thread: every datagram is an IKE message.
pub(crate) struct IkeReceiver {
    receiver: AsyncReceiver,
    batch: DatagramBatch,
}

impl IkeReceiver {
    pub(crate) fn new(socket: &Arc<UdpSocket>) -> Result<Self, RunError> {
        let receiver =
            AsyncReceiver::new(socket).map_err(RunError::system("watch a UDP socket"))?;
        Ok(Self { receiver, batch: DatagramBatch::default() })
    }

    /// Waits for messages. `None` when the socket is broken.
    pub(crate) async fn receive(&mut self) -> Option<impl Iterator<Item = SlowDatagram>> {
        self.receiver.receive(&mut self.batch).await.ok()?;
        Some(self.batch.datagrams.iter().map(|datagram| {
            let octets = self.batch.bytes.get(datagram.range.clone()).unwrap_or_default();
            let path = Path { local: datagram.local, remote: datagram.remote };
            SlowDatagram { path, message: octets.to_vec() }
        }))
    }
}
