//! Creation of the device, and the probe of its offloads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use super::{Device, Tun, TunError, TunMode, TunOffloads};

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

const TCP_OFFLOADS: u32 =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

pub(super) fn open(name: &str, mode: TunMode) -> Result<Tun, TunError> {
    check_name(name)?;
    match mode {
        TunMode::Plain => open_plain(name),
        TunMode::Offload => open_vnet(name).map_err(|error| match error {
            VnetError::Create(cause) => TunError::from_io(name, cause),
            VnetError::Offload(cause) => TunError::NoOffload { name: name.to_owned(), cause },
        }),
        TunMode::Auto => match open_vnet(name) {
            Ok(tun) => Ok(tun),
            Err(VnetError::Create(cause)) if cause.raw_os_error() != Some(libc::EINVAL) => {
                Err(TunError::from_io(name, cause))
            }
            // A kernel without IFF_VNET_HDR, or without a single offload: the device made for the
            // probe is gone with its descriptor, so the plain one can take the name.
            Err(_) => open_plain(name),
        },
    }
}

/// `tun-tap` cuts longer names silently, and the kernel would then take routes for another device.
fn check_name(name: &str) -> Result<(), TunError> {
    let valid = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    if valid { Ok(()) } else { Err(TunError::Name { name: name.to_owned() }) }
}

fn open_plain(name: &str) -> Result<Tun, TunError> {
    let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun)
        .map_err(|cause| TunError::from_io(name, cause))?;
    iface.set_non_blocking().map_err(|cause| TunError::from_io(name, cause))?;
    // The mask belongs to the device and survives on a persistent one: without this reset we could
    // read super-packets with no header that says so.
    // SAFETY: the descriptor is open; the argument of TUNSETOFFLOAD is an integer, not a pointer.
    unsafe { tun_set_offload(iface.as_raw_fd(), 0) }
        .map_err(|errno| TunError::from_io(name, errno.into()))?;
    let name = iface.name().to_owned();
    let device = Arc::new(Device::Plain(iface));
    Ok(Tun { name, offloads: TunOffloads::default(), device })
}

enum VnetError {
    Create(io::Error),
    Offload(io::Error),
}

fn open_vnet(name: &str) -> Result<Tun, VnetError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(VnetError::Create)?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    attach(&file, name, flags).map_err(VnetError::Create)?;
    let offloads = probe_offloads(&file).map_err(VnetError::Offload)?;
    Ok(Tun { name: name.to_owned(), offloads, device: Arc::new(Device::Vnet(file)) })
}

fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: `ifreq` is a C structure of integers and octets, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    // The flags of TUNSETIFF fit 15 bits (if_tun.h).
    #[expect(clippy::cast_possible_truncation, reason = "IFF_VNET_HDR is 0x4000, the largest")]
    let short = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = short;
    // SAFETY: the descriptor is open, and `request` is a whole `ifreq` that lives over the call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// USO, else TSO, else nothing (Linux before 6.2 refuses the USO bits with EINVAL).
fn probe_offloads(file: &File) -> io::Result<TunOffloads> {
    let set = |bits: u32| {
        // SAFETY: the descriptor is open; the argument of TUNSETOFFLOAD is an integer.
        unsafe { tun_set_offload(file.as_raw_fd(), bits.cast_signed()) }
    };
    if set(TCP_OFFLOADS | UDP_OFFLOADS).is_ok() {
        return Ok(TunOffloads { checksum: true, tcp: true, udp: true });
    }
    set(TCP_OFFLOADS)?;
    Ok(TunOffloads { checksum: true, tcp: true, udp: false })
}
