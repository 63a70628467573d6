//! Echo requests from a raw socket of the lab's own, with their contents checked.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::traffic::pattern::MARKER;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, IoSliceMut, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, atomic::AtomicBool};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Octets of the socket's receive buffer.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: IpAddr,
    /// From which of the host's addresses; none: the kernel's choice.
    pub source: Option<IpAddr>,
    /// How many; none: until stopped.
    pub count: Option<u32>,
    /// Time between two requests.
    pub interval: Duration,
    /// Octets after the ICMP header, at least 16; the marker repeats in them.
    pub payload: usize,
    /// How long to wait for answers after the last request.
    pub patience: Duration,
}

impl Plan {
    /// Ten requests of 64 octets, 20 ms apart.
    pub fn new(target: IpAddr) -> Plan {
        Plan {
            target,
            source: None,
            count: Some(10),
            interval: Duration::from_millis(20),
            payload: 64,
            patience: Duration::from_secs(1),
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Requests sent, also those that the kernel refused to send.
    pub sent: u32,
    /// Requests answered, each counted once.
    pub received: u32,
    /// Answers beyond the first.
    pub duplicates: u32,
    /// Answers whose contents differ from the request.
    pub damaged: u32,
    /// Round trip times, in the order of the answers.
    pub round_trips: Vec<Duration>,
    /// The longest time without an answer between two requests that were answered: the largest
    /// distance between the sending times of neighbours in the answered sequence.
    pub longest_outage: Duration,
    /// When each request without an answer was sent, counted from the first request.
    pub lost_at: Vec<Duration>,
}

impl Answers {
    /// Requests without an answer.
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }

    /// Lost requests of 100.
    pub fn loss_percent(&self) -> f64 {
        f64::from(self.lost()) * 100.0 / f64::from(self.sent.max(1))
    }

    /// The round trip time below which this share (0.0 to 1.0) of the answers came.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last as f64 * share).round() as usize).copied()
    }
}

/// Requests that go on until stopped.
#[derive(Debug)]
pub struct Pinging {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Answers>>>,
}

impl Pinging {
    /// How many requests were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Whether all requests of the plan are done.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends no more requests, waits for the last answers and returns all.
    pub fn stop(mut self) -> Result<Answers> {
        self.stop.store(true, Relaxed);
        self.finish()
    }

    /// Waits until all requests of the plan are done.
    pub fn finish(&mut self) -> Result<Answers> {
        let thread =
            self.thread.take().ok_or_else(|| LabError::Unexpected("pinging ended twice".into()))?;
        thread.join().map_err(|_| LabError::Unexpected("the pinging thread panicked".into()))?
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Starts to ping from a host.
pub fn start(host: &Host, plan: Plan) -> Result<Pinging> {
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count) = (stop.clone(), answered.clone());
    let thread = host.thread("ping", move || Pinger::open(plan)?.run(&stopped, &count))?;
    Ok(Pinging { stop, answered, thread: Some(thread) })
}

/// Pings from a host and waits for the end.
pub fn run(host: &Host, plan: Plan) -> Result<Answers> {
    start(host, plan)?.finish()
}

/// Each pinger of this process has an identifier of its own, so that it ignores the others' answers.
static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(1);

struct Request {
    at: Instant,
    clock: SystemTime,
    answered: bool,
}

struct Pinger {
    plan: Plan,
    socket: Socket,
    identifier: u16,
    /// When each request was sent, also by the clock of the kernel's timestamps, and whether it was
    /// answered.
    requests: Vec<Request>,
    answers: Answers,
}

impl Pinger {
    fn open(plan: Plan) -> Result<Pinger> {
        let (domain, protocol) = match plan.target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let what = || LabError::io(format!("a raw socket to ping {}", plan.target));
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(what())?;
        if let Some(source) = plan.source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0))).map_err(what())?;
        }
        // Answers that queue up while this thread waits for a processor are not lost ones. Without
        // the right to it the usual size has to do.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
        setsockopt(&socket, ReceiveTimestampns, &true)
            .map_err(io::Error::from)
            .map_err(LabError::io("timestamps of a raw socket"))?;
        socket.connect(&SockAddr::from(SocketAddr::new(plan.target, 0))).map_err(what())?;
        let identifier = NEXT_IDENTIFIER.fetch_add(1, Relaxed);
        Ok(Pinger { plan, socket, identifier, requests: Vec::new(), answers: Answers::default() })
    }

    fn run(mut self, stop: &AtomicBool, answered: &AtomicU64) -> Result<Answers> {
        let mut next = Instant::now();
        let mut patience_ends = None;
        loop {
            let now = Instant::now();
            let done = stop.load(Relaxed)
                || self.plan.count.is_some_and(|count| self.answers.sent >= count);
            if done {
                let ends = *patience_ends.get_or_insert(now + self.plan.patience);
                let all = self.requests.iter().all(|request| request.answered);
                if now >= ends || all {
                    break;
                }
                self.receive_until(ends.min(now + Duration::from_millis(20)))?;
            } else if now >= next {
                self.send();
                // A late wake-up does not cause a burst.
                next = (next + self.plan.interval).max(now);
            } else {
                // Wake up now and then to notice a stop.
                self.receive_until(next.min(now + Duration::from_millis(50)))?;
            }
            answered.store(self.answers.received.into(), Relaxed);
        }
        let (answered, lost): (Vec<Request>, Vec<Request>) =
            self.requests.drain(..).partition(|request| request.answered);
        let times: Vec<Instant> = answered.iter().map(|request| request.at).collect();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        self.answers.longest_outage = gaps.max().unwrap_or_default();
        let first = answered.iter().chain(&lost).map(|request| request.at).min();
        self.answers.lost_at =
            lost.iter().filter_map(|request| Some(request.at - first?)).collect();
        Ok(self.answers)
    }

    fn send(&mut self) {
        let sequence = self.requests.len() as u16;
        let kind = if self.plan.target.is_ipv4() { 8 } else { 128 };
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend(contents(self.plan.payload));
        if self.plan.target.is_ipv4() {
            // ICMPv6's checksum is the kernel's business (RFC 3542 3.1).
            let checksum = checksum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        self.answers.sent += 1;
        let (at, clock) = (Instant::now(), SystemTime::now());
        self.requests.push(Request { at, clock, answered: false });
        // A refusal (no route, too big for the path) is a lost request: the next may pass.
        let _ = (&self.socket).write(&message);
    }

    /// Takes one answer, or returns at the deadline.
    fn receive_until(&mut self, deadline: Instant) -> Result<()> {
        let wait =
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        self.socket
            .set_read_timeout(Some(wait))
            .map_err(LabError::io("a timeout on a raw socket"))?;
        let mut buffer = vec![0; 65_536];
        match receive(&self.socket, &mut buffer) {
            Ok((length, arrived)) => self.take(&buffer[..length], arrived),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // ICMP errors for earlier requests are reported here; they answer nothing.
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
        Ok(())
    }

    fn take(&mut self, packet: &[u8], arrived: SystemTime) {
        // Raw IPv4 sockets hand over the IP header, IPv6 ones do not.
        let skip = if self.plan.target.is_ipv4() {
            usize::from(packet.first().unwrap_or(&0) & 15) * 4
        } else {
            0
        };
        let kind = if self.plan.target.is_ipv4() { 0 } else { 129 };
        let Some(message) = packet.get(skip..).filter(|message| message.len() >= 8) else { return };
        if message[0] != kind || message[4..6] != self.identifier.to_be_bytes() {
            return;
        }
        let sequence = u16::from_be_bytes([message[6], message[7]]);
        // The sequence number wraps; the answer belongs to the latest request that has it.
        let newest = self.requests.len().wrapping_sub(1);
        let back = (newest as u16).wrapping_sub(sequence);
        let Some(request) =
            newest.checked_sub(usize::from(back)).and_then(|index| self.requests.get_mut(index))
        else {
            return;
        };
        if message[8..] != contents(self.plan.payload) {
            self.answers.damaged += 1;
        } else if request.answered {
            self.answers.duplicates += 1;
        } else {
            request.answered = true;
            self.answers.received += 1;
            let round_trip = arrived.duration_since(request.clock).unwrap_or_default();
            self.answers.round_trips.push(round_trip);
        }
    }
}

/// One message, and when the kernel had it: how long this thread then waits for a processor is no
/// part of a round trip.
fn receive(socket: &Socket, buffer: &mut [u8]) -> std::result::Result<(usize, SystemTime), Errno> {
    let mut room = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let arrived = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => {
            Some(SystemTime::UNIX_EPOCH + Duration::from(at))
        }
        _ => None,
    });
    Ok((message.bytes, arrived.unwrap_or_else(SystemTime::now)))
}

fn contents(length: usize) -> Vec<u8> {
    MARKER.iter().copied().cycle().take(length).collect()
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
