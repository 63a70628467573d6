//! TCP between two hosts: transfers whose contents are checked, and throughput.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::stop::Stop;
use crate::traffic::pattern::Pattern;
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a stream may stand still before it counts as a black hole.
const STALLED: Duration = Duration::from_secs(10);

/// Octets handed to the kernel at once.
pub(super) const CHUNK: usize = 128 * 1024;

/// Who connects to whom. The client sends.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Connects and sends.
    pub client: &'a Host,
    /// The address that the client binds; none: the kernel's choice.
    pub source: Option<IpAddr>,
    /// Accepts and receives.
    pub server: &'a Host,
    /// The address of the server.
    pub address: IpAddr,
}

/// What a transfer did.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// Octets that arrived.
    pub octets: u64,
    /// From the first octet sent to the last one received.
    pub time: Duration,
    /// The client's maximum segment size after the handshake.
    pub mss: u32,
}

impl Transfer {
    /// Bits a second.
    pub fn rate(&self) -> f64 {
        self.octets as f64 * 8.0 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Sends `octets` of a pattern from the client to the server, and back again when `echo` is set.
/// The receiver compares every octet; a difference or a stream that stands still is an error.
pub fn transfer(pair: Pair<'_>, octets: u64, seed: u64, stop: &Stop) -> Result<Transfer> {
    let (listener, target) = listen(pair)?;
    let receiver = pair.server.thread("tcp-server", move || {
        let mut stream = accept(&listener)?;
        receive_pattern(&mut stream, &Pattern::new(seed), octets)?;
        // The answer tells the sender that everything arrived as it was sent.
        stream.write_all(b"k").map_err(LabError::io("answering over TCP"))
    })?;
    let source = pair.source;
    let sender = pair.client.thread("tcp-client", move || {
        let mut stream = connect(source, target)?;
        let mss = segment_size(&stream);
        let start = Instant::now();
        send_pattern(&mut stream, &Pattern::new(seed), octets)?;
        stream
            .read_exact(&mut [0])
            .map_err(|error| standing_still(&error, octets, "the answer"))?;
        Ok(Transfer { octets, time: start.elapsed(), mss })
    })?;
    let sent: Result<Transfer> = stop.join(sender)?;
    // The receiver's report names the octet that differs; the sender only sees a closed stream.
    stop.join(receiver)??;
    sent
}

/// Sends as fast as it goes over `flows` connections for `duration`, and counts what arrived.
pub fn throughput(
    pair: Pair<'_>,
    flows: usize,
    duration: Duration,
    stop: &Stop,
) -> Result<Transfer> {
    let (listener, target) = listen(pair)?;
    let receiver = pair.server.thread("tcp-server", move || -> Result<(u64, Duration)> {
        let streams = (0..flows).map(|_| accept(&listener)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let threads: Vec<_> =
            streams.into_iter().map(|stream| std::thread::spawn(move || count(stream))).collect();
        let octets = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
        Ok((octets, start.elapsed()))
    })?;
    let source = pair.source;
    let sender = pair.client.thread("tcp-client", move || -> Result<u32> {
        let streams = (0..flows).map(|_| connect(source, target)).collect::<Result<Vec<_>>>()?;
        let mss = streams.first().map_or(0, segment_size);
        let deadline = Instant::now() + duration;
        let threads: Vec<_> = streams
            .into_iter()
            .map(|stream| std::thread::spawn(move || flood(stream, deadline)))
            .collect();
        threads.into_iter().for_each(|thread| {
            // What arrived is counted at the other end, whatever became of the sender.
            let _ = thread.join();
        });
        Ok(mss)
    })?;
    let mss = stop.join(sender)??;
    let (octets, time) = stop.join(receiver)??;
    Ok(Transfer { octets, time, mss })
}

pub(super) fn listen(pair: Pair<'_>) -> Result<(TcpListener, SocketAddr)> {
    let address = pair.address;
    let what = || LabError::io(format!("{}: listening on {address}", pair.server.name()));
    let listener = pair.server.run(move || TcpListener::bind((address, 0))).map_err(what())?;
    let target = listener.local_addr().map_err(what())?;
    Ok((listener, target))
}

pub(super) fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let what = || LabError::io("accepting a TCP connection");
    listener.set_nonblocking(true).map_err(what())?;
    let deadline = Instant::now() + STALLED;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(what())?;
                return patient(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_micros(500));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(LabError::Unexpected(format!(
                    "no TCP connection came within {} s",
                    STALLED.as_secs()
                )));
            }
            Err(error) => return Err(what()(error)),
        }
    }
}

pub(super) fn connect(source: Option<IpAddr>, target: SocketAddr) -> Result<TcpStream> {
    let what = || LabError::io(format!("connecting to {target} by TCP"));
    let domain = socket2::Domain::for_address(target);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(what())?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(what())?;
    }
    socket.connect_timeout(&target.into(), STALLED).map_err(what())?;
    patient(socket.into())
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    let what = || LabError::io("timeouts on a TCP stream");
    stream.set_read_timeout(Some(STALLED)).map_err(what())?;
    stream.set_write_timeout(Some(STALLED)).map_err(what())?;
    Ok(stream)
}

fn segment_size(stream: &TcpStream) -> u32 {
    getsockopt(stream, TcpMaxSeg).unwrap_or(0)
}

fn send_pattern(stream: &mut TcpStream, pattern: &Pattern, octets: u64) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut sent = 0;
    while sent < octets {
        let length = (octets - sent).min(CHUNK as u64) as usize;
        pattern.fill(sent, &mut buffer[..length]);
        stream
            .write_all(&buffer[..length])
            .map_err(|error| standing_still(&error, sent, "sending"))?;
        sent += length as u64;
    }
    Ok(())
}

fn receive_pattern(stream: &mut TcpStream, pattern: &Pattern, octets: u64) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    while received < octets {
        let length = match stream.read(&mut buffer) {
            Ok(0) => {
                return Err(LabError::Unexpected(format!(
                    "the TCP stream ended after {received} octets"
                )));
            }
            Ok(length) => length,
            Err(error) => return Err(standing_still(&error, received, "receiving")),
        };
        pattern.check(received, &buffer[..length]).map_err(|difference| {
            LabError::Unexpected(format!(
                "octet {} of a TCP stream arrived with another value",
                difference.at
            ))
        })?;
        received += length as u64;
    }
    Ok(())
}

fn standing_still(error: &std::io::Error, octets: u64, doing: &str) -> LabError {
    let stalled = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    LabError::Unexpected(if stalled {
        format!(
            "a TCP stream stood still for {} s after {octets} octets ({doing})",
            STALLED.as_secs()
        )
    } else {
        format!("a TCP stream broke after {octets} octets ({doing}): {error}")
    })
}

fn flood(mut stream: TcpStream, deadline: Instant) {
    let buffer = vec![0x5a; CHUNK];
    while Instant::now() < deadline && stream.write_all(&buffer).is_ok() {}
}

fn count(mut stream: TcpStream) -> u64 {
    let mut buffer = vec![0; 2 * CHUNK];
    let mut octets = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        octets += length as u64;
    }
    octets
}
