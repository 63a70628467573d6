//! Processor time of the gateways: their processes, and what the kernel does for nobody's account.

use crate::error::{LabError, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::time::Duration;

/// Reads processor times. What it looks at in the kernel is decided once.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Threads of the kernel that process packets when nobody's context is at hand.
    ksoftirqd: Vec<u32>,
    /// Whether the kernel keeps the time of interrupts apart from that of the processes that they
    /// interrupt (`CONFIG_IRQ_TIME_ACCOUNTING`). Where it does not, the time of packets that are
    /// processed at the end of a gateway's system call is in the time of that gateway.
    apart: bool,
    ticks: f64,
}

impl Meter {
    /// A meter for this kernel.
    pub fn new() -> Meter {
        let numbers = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let ksoftirqd = numbers
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.starts_with("ksoftirqd/"))
            })
            .collect();
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1);
        Meter { ksoftirqd, apart: keeps_interrupts_apart(), ticks: ticks as f64 }
    }

    /// Processor time used so far by these processes and by the kernel's packet processing.
    pub fn read(&self, processes: &[u32]) -> Result<Duration> {
        let mut ticks = 0;
        for pid in processes {
            ticks += of_process(*pid).ok_or_else(|| {
                LabError::Unexpected(format!("process {pid} of a gateway is gone"))
            })?;
        }
        ticks += if self.apart {
            of_interrupts().unwrap_or(0)
        } else {
            self.ksoftirqd.iter().filter_map(|pid| of_process(*pid)).sum()
        };
        Ok(Duration::from_secs_f64(ticks as f64 / self.ticks))
    }
}

impl Default for Meter {
    fn default() -> Meter {
        Meter::new()
    }
}

/// User and system time of all threads of a process, in clock ticks: fields 14 and 15 of proc(5),
/// counted behind the name, which may hold spaces.
fn of_process(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Time in hard and soft interrupts on all processors, in clock ticks.
fn of_interrupts() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_whitespace().skip(6);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A kernel that does not show its configuration is taken for one that does not.
fn keeps_interrupts_apart() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    fs::read_to_string(format!("/boot/config-{}", release.trim()))
        .is_ok_and(|text| text.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_busy_process_is_charged_for_what_it_does() {
        let meter = Meter::new();
        let own = [std::process::id()];
        let before = meter.read(&own).unwrap_or_default();
        let start = Instant::now();
        let mut sum = 0_u64;
        while start.elapsed() < Duration::from_millis(300) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let used = meter.read(&own).unwrap_or_default().saturating_sub(before);
        // Others may have taken the processor away, but not for nearly all of the time.
        assert!(used >= Duration::from_millis(20), "{used:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(Meter::new().read(&[u32::MAX]).is_err());
    }
}
