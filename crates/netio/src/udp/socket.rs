//! Opening a socket with everything that the packet path needs, and sending one message on it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::control::{Control, Name};
use super::holder::holder;
use super::send::send_message;

/// Parts of one message: marker, header, body, and one to spare.
const MAX_PARTS: usize = 4;

/// Octets of a datagram that every path takes: IPv6's least MTU without headers.
const FITS: usize = 1232;

/// How a socket is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpOptions {
    /// Ask the kernel to coalesce received datagrams (`UDP_GRO`).
    pub gro: bool,
    /// Set DF on what is sent and learn the path MTU, rather than let routers fragment.
    pub dont_fragment: bool,
    /// Octets of each socket buffer. Line rate times the longest time that a worker is away:
    /// 10 Gbit/s times 6 ms is 8 MB.
    pub buffer: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { gro: true, dont_fragment: true, buffer: 8 << 20 }
    }
}

/// Why a socket could not be opened, in words that say what to do.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("UDP port {} on {} is already in use{}", .address.port(), .address.ip(), held_by(.holder.as_deref()))]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
        /// The process that has it, as far as this one may see.
        holder: Option<String>,
    },
    /// The address is not an address of this host.
    #[error("address {} is not configured on this host: add it to an interface, or change `listen`", .address.ip())]
    NoSuchAddress {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// A port below 1024 without the capability.
    #[error("no permission to use UDP port {}: CAP_NET_BIND_SERVICE is needed (or ike_port = \"off\")", .address.port())]
    Permission {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot open UDP {address}: {cause}")]
    Io {
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn held_by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

impl BindError {
    fn from_io(address: SocketAddr, cause: io::Error) -> Self {
        match cause.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse {
                address,
                holder: holder(address.port()).map(|holder| holder.to_string()),
            },
            Some(libc::EADDRNOTAVAIL) => Self::NoSuchAddress { address },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { address },
            _ => Self::Io { address, cause },
        }
    }
}

/// A bound, non-blocking UDP socket. All methods take `&self`: threads share it.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    gro: bool,
    dont_fragment: bool,
    doubts_icmp: AtomicBool,
}

/// What happens to datagrams that are larger than their path takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fragments {
    /// They leave in fragments.
    Sent,
    /// The kernel refuses them, as far as it knows the path.
    Never,
    /// They leave with DF, whatever the kernel knows.
    NeverWhateverIcmp,
}

impl UdpSocket {
    /// Binds `address`. An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `::` stand side by
    /// side. Without packet information and traffic class nothing would work behind an unspecified
    /// address, so these are demanded; coalescing and large buffers are taken if there are any.
    ///
    /// # Errors
    /// [`BindError`] names the port and who has it, or what is missing.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> Result<Self, BindError> {
        let fault = |cause| BindError::from_io(address, cause);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
            .map_err(fault)?;
        socket.set_nonblocking(true).map_err(fault)?;
        if address.is_ipv6() {
            socket.set_only_v6(true).map_err(fault)?;
        }
        socket.bind(&address.into()).map_err(fault)?;
        let local = socket.local_addr().map_err(fault)?.as_socket().unwrap_or(address);
        let fd = socket.as_raw_fd();
        ask_for_ancillary(fd, address.is_ipv6()).map_err(fault)?;
        let fragments = if options.dont_fragment { Fragments::Never } else { Fragments::Sent };
        set_fragments(fd, address.is_ipv6(), fragments).map_err(fault)?;
        let gro = options.gro && set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        enlarge_buffers(fd, options.buffer);
        let (dont_fragment, doubts_icmp) = (options.dont_fragment, AtomicBool::new(false));
        Ok(Self { fd: socket.into(), local, gro, dont_fragment, doubts_icmp })
    }

    /// The address and port that it is bound to, with the port that the kernel chose for 0.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether received datagrams come coalesced.
    #[must_use]
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// Whether a datagram that is to leave from `local` can leave by this socket.
    #[must_use]
    pub fn serves(&self, local: SocketAddr) -> bool {
        self.local.port() == local.port()
            && self.local.is_ipv4() == local.is_ipv4()
            && (self.local.ip() == local.ip() || self.local.ip().is_unspecified())
    }

    /// The source address that must be named to send from `local`: none if the socket has it anyway.
    pub(super) fn source(&self, local: IpAddr) -> Option<IpAddr> {
        (self.local.ip().is_unspecified() && !local.is_unspecified()).then_some(local)
    }

    /// Sends one message, for the control plane: `parts` (at most four) are one datagram. A message that is larger
    /// than the path MTU is sent again with fragmentation allowed, because an IKE message may have
    /// no smaller form.
    ///
    /// # Errors
    /// What the kernel said; `WouldBlock` if there is no room.
    pub fn send(&self, local: SocketAddr, remote: SocketAddr, parts: &[&[u8]]) -> io::Result<()> {
        let octets: usize = parts.iter().map(|part| part.len()).sum();
        // Where ICMP is not believed, the kernel does not say what is too large for the path.
        let may_be_too_large = self.doubts_icmp() && octets > FITS;
        if !may_be_too_large {
            match self.send_once(local, remote, parts) {
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {}
                other => return other,
            }
        }
        // The option belongs to the socket. A datagram of another thread that falls into these
        // microseconds leaves without DF, which does no harm.
        self.set_fragments(Fragments::Sent)?;
        let again = self.send_once(local, remote, parts);
        self.restore_fragments()?;
        again
    }

    /// Whether datagrams that are larger than what ICMP said of their path are refused
    /// (`IP_PMTUDISC_DO`), as they are at first, or leave all the same (`IP_PMTUDISC_PROBE`).
    ///
    /// # Errors
    /// The system refuses the option.
    pub fn believe_icmp(&self, believe: bool) -> io::Result<()> {
        self.doubts_icmp.store(!believe, Ordering::Relaxed);
        self.restore_fragments()
    }

    fn doubts_icmp(&self) -> bool {
        self.doubts_icmp.load(Ordering::Relaxed)
    }

    pub(super) fn set_fragments(&self, fragments: Fragments) -> io::Result<()> {
        set_fragments(self.as_raw_fd(), self.local.is_ipv6(), fragments)
    }

    /// As it is between two special sends.
    pub(super) fn restore_fragments(&self) -> io::Result<()> {
        self.set_fragments(match (self.dont_fragment, self.doubts_icmp()) {
            (false, _) => Fragments::Sent,
            (true, false) => Fragments::Never,
            (true, true) => Fragments::NeverWhateverIcmp,
        })
    }

    fn send_once(&self, local: SocketAddr, remote: SocketAddr, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); MAX_PARTS];
        let Some(slices) = slices.get_mut(..parts.len()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let mut control = Control::default();
        if let Some(source) = self.source(local.ip()) {
            control.push_source(source);
        }
        send_message(self.as_fd(), &Name::from(remote), slices, &control)
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The path MTU from `local` to `remote`, in octets of the outer IP packet, as the kernel knows it
/// now: the MTU of the interface, or less after an ICMP "fragmentation needed" that it believed.
///
/// # Errors
/// There is no route, or no such local address.
pub fn path_mtu(local: IpAddr, remote: SocketAddr) -> io::Result<u32> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    if !local.is_unspecified() {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    // Connecting a UDP socket sends nothing; it fixes the route that IP_MTU asks about.
    socket.connect(&remote.into())?;
    let (level, name) = match remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    Ok(int_option(socket.as_raw_fd(), level, name)?.cast_unsigned())
}

/// The address that this host would send from to reach `remote`.
///
/// # Errors
/// There is no route.
pub fn source_for(remote: SocketAddr) -> io::Result<IpAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&remote.into())?;
    let local = socket.local_addr()?.as_socket().map(|local| local.ip());
    local.filter(|ip| !ip.is_unspecified()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn ask_for_ancillary(fd: RawFd, v6: bool) -> io::Result<()> {
    if v6 {
        set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    } else {
        set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set_int(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    }
}

fn set_fragments(fd: RawFd, v6: bool, fragments: Fragments) -> io::Result<()> {
    use Fragments::{Never, NeverWhateverIcmp, Sent};
    let (level, name, value) = match (v6, fragments) {
        (false, Never) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (false, NeverWhateverIcmp) => {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        (false, Sent) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, Never) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        (true, NeverWhateverIcmp) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
        (true, Sent) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    };
    set_int(fd, level, name, value)
}

fn enlarge_buffers(fd: RawFd, octets: usize) {
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    for (force, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set_int(fd, libc::SOL_SOCKET, force, octets).is_err() {
            let _ = set_int(fd, libc::SOL_SOCKET, plain, octets);
        }
    }
}

fn set_int(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which lives over the call; the kernel
    // checks the descriptor and the option.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn int_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers describe `value` and its length, which live over the call; the kernel
    // writes at most `len` octets.
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
