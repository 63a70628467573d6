//! UDP datagrams of given sizes, echoed and compared: what finds a path MTU black hole.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::traffic::pattern::Pattern;
use crate::traffic::tcp::Pair;
use nix::sys::socket::{getsockopt, sockopt::IpMtu};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a datagram is sent: the first may only teach the sender the path MTU.
const TRIES: u32 = 5;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    /// Sizes that were echoed with the right contents.
    pub passed: Vec<usize>,
    /// Sizes that never came back.
    pub lost: Vec<usize>,
    /// Datagrams that came back with other contents.
    pub damaged: u32,
    /// The path MTU that the sender's kernel has learned (IPv4 only).
    pub path_mtu: Option<u16>,
}

/// A server that sends back what it gets. Dropping it ends it.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts in a host.
    pub fn start(host: &Host, address: IpAddr) -> Result<EchoServer> {
        let what = || LabError::io(format!("{}: a UDP socket on {address}", host.name()));
        let socket = host.run(move || UdpSocket::bind((address, 0))).map_err(what())?;
        let bound = socket.local_addr().map_err(what())?;
        socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(what())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread("udp-echo", move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    // An answer that is too big for the path is lost, and asked for again.
                    let _ = socket.send_to(&buffer[..length], peer);
                }
            }
        })?;
        Ok(EchoServer { address: bound, stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread already showed on standard error.
            let _ = thread.join();
        }
    }
}

/// Sends datagrams with these numbers of payload octets one after the other, and waits for each.
pub fn echo_sizes(pair: Pair<'_>, sizes: &[usize], seed: u64) -> Result<Echoes> {
    let server = EchoServer::start(pair.server, pair.address)?;
    let (target, source, sizes) = (server.address, pair.source, sizes.to_vec());
    let what = || LabError::io(format!("{}: UDP to {target}", pair.client.name()));
    let client = pair
        .client
        .run(move || -> std::io::Result<UdpSocket> {
            let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
            socket.connect(target)?;
            Ok(socket)
        })
        .map_err(what())?;
    let mut echoes = Echoes::default();
    let pattern = Pattern::new(seed);
    for size in sizes {
        let mut datagram = vec![0; size];
        pattern.fill(size as u64 * 512, &mut datagram);
        if echo(&client, &datagram, &mut echoes).map_err(what())? {
            echoes.passed.push(size);
        } else {
            echoes.lost.push(size);
        }
    }
    if target.is_ipv4() {
        echoes.path_mtu = getsockopt(&client, IpMtu).ok().and_then(|mtu| u16::try_from(mtu).ok());
    }
    Ok(echoes)
}

fn echo(client: &UdpSocket, datagram: &[u8], echoes: &mut Echoes) -> std::io::Result<bool> {
    let mut buffer = vec![0; 65_536];
    for _ in 0..TRIES {
        // EMSGSIZE and the ICMP errors of earlier tries are reported here: try again.
        let _ = client.send(datagram);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            client.set_read_timeout(Some(left))?;
            match client.recv(&mut buffer) {
                Ok(length) if buffer[..length] == *datagram => return Ok(true),
                // The late echo of another size is not an answer, and not damage either.
                Ok(length) if length != datagram.len() => {}
                Ok(_) => echoes.damaged += 1,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
    }
    Ok(false)
}
