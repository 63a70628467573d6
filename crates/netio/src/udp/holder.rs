//! Who has a UDP port: a hint for the message that says it is taken.

use std::fmt;
use std::fs;

/// The process that holds a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Finds the process with a socket on UDP `port` in the network namespace of the calling thread. `None` if this process
/// may not see it, or if it is the kernel's own.
#[must_use]
pub fn holder(port: u16) -> Option<Holder> {
    let inode = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .find_map(|table| inode_of(&fs::read_to_string(table).ok()?, port))?;
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for entry in processes {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = |path: std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|target| target.to_str() == Some(&link))
        };
        if descriptors.flatten().any(|fd| holds(fd.path())) {
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            return Some(Holder { name: name.trim().to_owned(), pid });
        }
    }
    None
}

/// The inode column of the line whose local address ends in `port` (proc_net_udp of the kernel).
fn inode_of(table: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        if !local.ends_with(&suffix) {
            return None;
        }
        columns.nth(7)?.parse().ok().filter(|inode| *inode != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_port_of_ours_names_us() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = holder(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.name.is_empty());
    }

    #[test]
    fn the_kernels_table_is_read_by_column() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  410: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26716 2 0000000000000000 0\n";
        assert_eq!(inode_of(table, 0x1194), Some(26_716));
        assert_eq!(inode_of(table, 500), None);
    }
}
