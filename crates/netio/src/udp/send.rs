//! Sending: each run is one message with `UDP_SEGMENT`; several runs share one `sendmmsg`.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use packet::{Run, WireBatch};

use super::control::{Control, Name};
use super::socket::{Fragments, UdpSocket};
use crate::wait;

/// Runs of one call.
const MESSAGES: usize = 16;
/// Segments of one send: `UDP_MAX_SEGMENTS` of kernels before 6.9.
const MAX_SEGMENTS: usize = 64;
/// Payload of one send: the 16-bit length of an IPv4 packet less its headers.
const MAX_PAYLOAD: usize = 65_507;
/// How long to wait for room in the socket's buffer before a run is dropped: waiting holds the
/// TUN queue back, which is what slows a TCP sender down without loss.
const PATIENCE: Duration = Duration::from_millis(20);
/// Destinations that are remembered as refusing segmentation. More than that and the oldest is
/// tried again.
const MAX_REFUSING: usize = 64;

/// What became of one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendReport {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Datagrams dropped because the socket's buffer stayed full.
    pub dropped_full: u64,
    /// Datagrams dropped because they are larger than the path MTU.
    pub dropped_too_big: u64,
    /// Datagrams dropped because there is no route, or a filter forbids them.
    pub dropped_unreachable: u64,
    /// Datagrams dropped for any other reason, or because their run makes no sense.
    pub dropped_other: u64,
    /// Runs that were refused whole and then sent datagram by datagram.
    pub fallbacks: u64,
    /// Path of the last datagram that was too big: its MTU is worth a look ([`super::path_mtu`]).
    pub too_big: Option<(SocketAddr, SocketAddr)>,
}

impl SendReport {
    fn dropped(&mut self, run: &Run, error: &io::Error, datagrams: u64) {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => self.dropped_full += datagrams,
            Some(libc::EMSGSIZE) => {
                self.dropped_too_big += datagrams;
                self.too_big = Some((run.local, run.remote));
            }
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EPERM
                | libc::EACCES
                | libc::EADDRNOTAVAIL
                | libc::ECONNREFUSED,
            ) => self.dropped_unreachable += datagrams,
            _ => self.dropped_other += datagrams,
        }
    }
}

/// Sends sealed runs on the sockets of one side.
#[derive(Debug)]
pub struct UdpSender {
    sockets: Arc<[Arc<UdpSocket>]>,
    /// Destinations whose way out refuses segmentation.
    refusing: Vec<SocketAddr>,
    segment: bool,
}

impl UdpSender {
    /// A sender over `sockets`; each run takes the first that serves its local address.
    #[must_use]
    pub fn new(sockets: Arc<[Arc<UdpSocket>]>) -> Self {
        Self { sockets, refusing: Vec::with_capacity(MAX_REFUSING), segment: true }
    }

    /// Switches segmentation by the kernel off, for networks that lose it.
    pub fn set_segmentation(&mut self, on: bool) {
        self.segment = on;
    }

    /// Whether runs leave whole where their destination takes it.
    #[must_use]
    pub fn segments(&self) -> bool {
        self.segment
    }

    /// Destinations to which runs are sent datagram by datagram, because the kernel refused them.
    #[must_use]
    pub fn refusing(&self) -> &[SocketAddr] {
        &self.refusing
    }

    /// Sends runs that ask how much their paths take: they leave whole, with DF, whatever ICMP said of
    /// the paths. Datagrams of other threads that fall into these microseconds leave so, too.
    pub fn send_probes(&mut self, wire: &WireBatch) -> SendReport {
        let set = |sockets: &[Arc<UdpSocket>], probing: bool| {
            for socket in sockets {
                let done = match probing {
                    true => socket.set_fragments(Fragments::NeverWhateverIcmp),
                    false => socket.restore_fragments(),
                };
                // Without it a probe says what the kernel believes, which is no less than before.
                let _ = done;
            }
        };
        set(&self.sockets, true);
        let report = self.send(wire);
        set(&self.sockets, false);
        report
    }

    /// Sends all runs, in order. Waits a little for room; never fails as a whole: what the kernel
    /// does not take is dropped and counted.
    pub fn send(&mut self, wire: &WireBatch) -> SendReport {
        let mut report = SendReport::default();
        let mut runs = wire.runs.as_slice();
        while let Some(first) = runs.first() {
            let Some(socket) = self.socket(first).cloned() else {
                report.dropped_other += datagrams(first);
                runs = &runs[1..];
                continue;
            };
            // As many of the next runs as leave whole by the same socket.
            let together = runs
                .iter()
                .take(MESSAGES)
                .take_while(|run| self.is_whole(run, wire) && socket.serves(run.local))
                .count();
            if together == 0 {
                self.send_in_parts(&socket, wire, first, &mut report);
                runs = &runs[1..];
                continue;
            }
            let (now, _) = runs.split_at(together);
            match send_together(&socket, wire, now) {
                Ok(sent) => {
                    report.datagrams += now.iter().take(sent).map(datagrams).sum::<u64>();
                    runs = &runs[sent.max(1).min(runs.len())..];
                }
                Err(error) => {
                    if self.recover(&socket, wire, first, &error, &mut report) {
                        runs = &runs[1..];
                    }
                }
            }
        }
        report
    }

    fn socket(&self, run: &Run) -> Option<&Arc<UdpSocket>> {
        self.sockets.iter().find(|socket| socket.serves(run.local))
    }

    /// Whether the run can be one message: in bounds, and segmented at most as far as the kernel
    /// and its destination take it.
    fn is_whole(&self, run: &Run, wire: &WireBatch) -> bool {
        let len = run.range.len();
        let single = len == run.segment;
        wire.bytes.get(run.range.clone()).is_some()
            && run.segment > 0
            && len <= MAX_PAYLOAD
            && len.div_ceil(run.segment) <= MAX_SEGMENTS
            && (single || (self.segment && !self.refusing.contains(&run.remote)))
    }

    /// What to do about the error of the first run. Whether the run is dealt with; otherwise it is
    /// to be sent again.
    fn recover(
        &mut self,
        socket: &Arc<UdpSocket>,
        wire: &WireBatch,
        run: &Run,
        error: &io::Error,
        report: &mut SendReport,
    ) -> bool {
        match error.raw_os_error() {
            Some(libc::EINTR) => false,
            Some(libc::EAGAIN) if wait::writable(socket.as_fd(), PATIENCE).unwrap_or(false) => {
                false
            }
            // EIO: the device cannot sum checksums. EINVAL, EMSGSIZE: it cannot segment, or a
            // segment is larger than the path MTU. Single datagrams tell which.
            Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE) if run.range.len() > run.segment => {
                report.fallbacks += 1;
                let before = (report.datagrams, report.dropped_too_big);
                self.send_in_parts(socket, wire, run, report);
                if report.datagrams > before.0 && report.dropped_too_big == before.1 {
                    self.remember(run.remote);
                }
                true
            }
            _ => {
                report.dropped(run, error, datagrams(run));
                true
            }
        }
    }

    fn remember(&mut self, remote: SocketAddr) {
        if self.refusing.contains(&remote) {
            return;
        }
        if self.refusing.len() == MAX_REFUSING {
            self.refusing.remove(0);
        }
        tracing::info!(%remote, "the way to this peer refuses UDP segmentation: given up for it");
        self.refusing.push(remote);
    }

    /// Sends a run in smaller pieces: at the kernel's limits if the destination takes segments,
    /// else datagram by datagram.
    fn send_in_parts(
        &self,
        socket: &UdpSocket,
        wire: &WireBatch,
        run: &Run,
        report: &mut SendReport,
    ) {
        let Some(octets) = wire.bytes.get(run.range.clone()).filter(|_| run.segment > 0) else {
            report.dropped_other += datagrams(run);
            return;
        };
        for datagram in octets.chunks(run.segment) {
            match send_patiently(socket, run, datagram) {
                Ok(()) => report.datagrams += 1,
                Err(error) => report.dropped(run, &error, 1),
            }
        }
    }
}

/// Datagrams in a run; one at least, so that a senseless run counts too.
fn datagrams(run: &Run) -> u64 {
    run.range.len().div_ceil(run.segment.max(1)).max(1) as u64
}

fn control_of(socket: &UdpSocket, run: &Run) -> Control {
    let mut control = Control::default();
    if let Some(source) = socket.source(run.local.ip()) {
        control.push_source(source);
    }
    if run.tos != 0 {
        control.push_tos(run.remote.is_ipv6(), run.tos);
    }
    control
}

fn send_patiently(socket: &UdpSocket, run: &Run, datagram: &[u8]) -> io::Result<()> {
    let (name, control) = (Name::from(run.remote), control_of(socket, run));
    let slices = [IoSlice::new(datagram)];
    match send_message(socket.as_fd(), &name, &slices, &control) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            if wait::writable(socket.as_fd(), PATIENCE)? {
                return send_message(socket.as_fd(), &name, &slices, &control);
            }
            Err(e)
        }
        other => other,
    }
}

/// One `sendmmsg`. How many runs the kernel took; an error is the first run's.
fn send_together(socket: &UdpSocket, wire: &WireBatch, runs: &[Run]) -> io::Result<usize> {
    let mut names = [Name::empty(); MESSAGES];
    let mut controls = [Control::default(); MESSAGES];
    let mut slices = [IoSlice::new(&[]); MESSAGES];
    // SAFETY: `mmsghdr` is a C structure of integers and pointers, for which all zeros is a value.
    let mut messages: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
    let count = runs.len().min(MESSAGES);
    for (i, run) in runs.iter().take(count).enumerate() {
        let octets = wire.bytes.get(run.range.clone()).unwrap_or_default();
        names[i] = Name::from(run.remote);
        controls[i] = control_of(socket, run);
        // A segment size that is not smaller than the payload is refused by some kernels.
        if let (true, Ok(segment)) = (octets.len() > run.segment, u16::try_from(run.segment)) {
            controls[i].push_segment(segment);
        }
        slices[i] = IoSlice::new(octets);
        fill_header(&mut messages[i].msg_hdr, &names[i], &slices[i..=i], &controls[i]);
    }
    // SAFETY: the first `count` headers point to a name, a slice and control messages that this
    // function owns or borrows over the call, with their lengths; the kernel only reads them. The
    // count is at most MESSAGES.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as _,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// One `sendmsg` of one datagram.
pub(super) fn send_message(
    fd: BorrowedFd<'_>,
    name: &Name,
    slices: &[IoSlice<'_>],
    control: &Control,
) -> io::Result<()> {
    // SAFETY: `msghdr` is a C structure of integers and pointers, for which all zeros is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    fill_header(&mut header, name, slices, control);
    loop {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the header points to the three arguments, which live over the call, with their
        // lengths; the kernel only reads them.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Points a header of a send at its parts. The C type wants mutable pointers; a send never writes.
fn fill_header(header: &mut libc::msghdr, name: &Name, slices: &[IoSlice<'_>], control: &Control) {
    header.msg_name = name.as_ptr().cast_mut();
    header.msg_namelen = name.len;
    // `IoSlice` is guaranteed to have the layout of `iovec` on Unix.
    header.msg_iov = slices.as_ptr().cast::<libc::iovec>().cast_mut();
    header.msg_iovlen = slices.len() as _;
    if control.len() > 0 {
        header.msg_control = control.as_ptr().cast_mut();
        header.msg_controllen = control.len() as _;
    }
}
