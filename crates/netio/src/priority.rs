//! Real-time priority of a thread.

use std::io;
use std::thread;

/// Low among the real-time priorities, 1 to 99: before everything of normal scheduling, and after
/// what a system's owner put there on purpose.
const PRIORITY: libc::c_int = 10;

/// Lets the calling thread run before all threads of normal scheduling as soon as it has something
/// to do (SCHED_FIFO, `sched(7)`). Threads that it starts do not inherit that.
///
/// # Errors
/// EPERM: the process has neither CAP_SYS_NICE nor an RLIMIT_RTPRIO of at least 10.
pub fn become_realtime() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and the parameters are read during the call only.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether [`become_realtime`] is permitted, tried on a thread that ends at once.
///
/// # Errors
/// Why it is not.
pub fn try_realtime() -> io::Result<()> {
    let ended = thread::Builder::new().spawn(become_realtime)?.join();
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread that tries it panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheduling policy of the calling thread.
    fn policy() -> libc::c_int {
        // SAFETY: it takes no pointer.
        unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
    }

    #[test]
    fn a_thread_becomes_realtime_and_no_other_does() {
        try_realtime().expect("this test needs root or an RLIMIT_RTPRIO of 10");
        assert_eq!(policy(), libc::SCHED_OTHER);
        let inside = thread::spawn(|| {
            become_realtime().unwrap();
            (policy(), thread::spawn(policy).join().unwrap())
        });
        assert_eq!(inside.join().unwrap(), (libc::SCHED_FIFO, libc::SCHED_OTHER));
    }
}
