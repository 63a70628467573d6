//! What a data thread asks of the scheduler.

use std::io;

/// The kernel's `struct sched_attr` in its first version (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<SchedAttr>() as u32;
/// The shortest slice that the kernel grants, in nanoseconds.
const SHORTEST: u64 = 100_000;

/// Asks for the shortest slice of a fair-class thread, for the calling thread: it is run sooner
/// after each wake, and yields sooner, with the same share of the processor. Kernels before 6.12
/// take the request and ignore it; no privilege is needed.
///
/// # Errors
/// The kernel knows no such request, or a policy other than the default was set from outside: it
/// stays as it is.
pub fn shorten_slice() -> io::Result<()> {
    let mut attr = SchedAttr::default();
    // SAFETY: the pointer describes `attr`, which lives over the call; the kernel writes at most
    // SIZE octets, and every bit pattern is a value of its integers.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    if attr.policy != libc::SCHED_OTHER as u32 {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    attr.size = SIZE;
    attr.runtime = SHORTEST;
    // SAFETY: the pointer describes `attr`, which lives over the call and which the kernel only
    // reads; its size stands in its first field.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
