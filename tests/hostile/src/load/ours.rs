//! Our gateway with thousands of connections.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::daemon::{Daemon, Kind};
use lab::netns::Host;
use lab::process::Process;
use lab::settings::{FOLDER, File};
use serde_json::Value;

use super::{KEY, OUTSIDE, site};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running `vgw`, and how long it took to be there.
pub struct Ours {
    daemon: Daemon,
    /// `vgw check`.
    pub checked: Duration,
    /// From the start of the process to the first answer on its control socket.
    pub answering: Duration,
    /// Processor time until then.
    pub busy: Duration,
}

fn config(connections: usize) -> Vec<File> {
    let mut text = format!(
        "[vpn_gateway]\nid = \"load\"\nvpc_cidrs = [\"10.0.0.0/8\"]\nlisten = {OUTSIDE:?}\n\
         relaxed_limits = true\n"
    );
    for number in 0..connections {
        let _ = write!(
            text,
            "[[customer_gateway]]\nid = \"cgw-{number}\"\nidentity = \"{}\"\n\
             [[vpn_connection]]\nid = \"vpn-{number}\"\ncustomer_gateway = \"cgw-{number}\"\n\
             static_routes = [\"172.{}.{}.{}/29\"]\n",
            site(2 * number),
            16 + number / 8192,
            number / 32 % 256,
            number % 32 * 8,
        );
        for (tunnel, outside) in OUTSIDE.iter().enumerate() {
            let block = number * 2 + tunnel;
            let _ = write!(
                text,
                "[[vpn_connection.tunnel]]\noutside_address = \"{outside}\"\n\
                 tunnel_inside_cidr = \"100.{}.{}.{}/30\"\npre_shared_key_file = \"psk\"\n\
                 phase1_encryption_algorithms = [\"AES256-GCM-16\"]\n\
                 phase1_integrity_algorithms = [\"SHA2-256\"]\nphase1_dh_group_numbers = [31]\n\
                 phase2_encryption_algorithms = [\"AES256-GCM-16\"]\n\
                 dpd_timeout_action = \"none\"\npath_probe_timeout_seconds = 0\n",
                64 + block / 16384,
                block / 64 % 256,
                block % 64 * 4,
            );
        }
    }
    let file =
        |name: &str, text: String, secret| File { path: format!("{FOLDER}/{name}"), text, secret };
    vec![file("vgw.toml", text, false), file("psk", format!("{KEY}\n"), true)]
}

/// The folder of the binaries: the variable `VGW_BIN_DIR`, or the target folder of this program.
fn folder() -> PathBuf {
    let beside = || {
        let this = std::env::current_exe().unwrap();
        let folder = this.parent().unwrap();
        if folder.ends_with("deps") { folder.parent().unwrap() } else { folder }.to_owned()
    };
    std::env::var_os("VGW_BIN_DIR").map_or_else(beside, PathBuf::from)
}

/// Whether the daemon answers on its control socket; waits for it where there is one.
fn answers(socket: &str) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"{\"request\":\"status\"}\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"connections\""))
}

impl Ours {
    /// Starts it and waits until it answers.
    pub fn start(host: &Arc<Host>, connections: usize) -> Self {
        let mut daemon = Daemon::new(host, Kind::Vgw, &folder(), &config(connections)).unwrap();
        let begin = Instant::now();
        daemon.host().command(daemon.line(&["check"]).limit(PATIENCE)).unwrap();
        let checked = begin.elapsed();
        // This checks once more, which is not counted.
        daemon.start().unwrap();
        let begin = Instant::now();
        // Asked without `vgw status`, which would read the whole configuration each time.
        let pid = daemon.process().unwrap().pid();
        while !answers(&format!("/proc/{pid}/root/run/vgw/vgw.sock")) {
            daemon.check_running().unwrap();
            assert!(begin.elapsed() < PATIENCE, "it never answers");
            std::thread::sleep(Duration::from_millis(5));
        }
        let answering = begin.elapsed();
        let busy = daemon.process().unwrap().cpu_time().unwrap();
        Self { daemon, checked, answering, busy }
    }

    pub fn process(&mut self) -> &mut Process {
        self.daemon.check_running().unwrap();
        self.daemon.process().unwrap()
    }

    /// Reads its configuration again, and returns how long that took.
    pub fn reload(&self) -> Duration {
        let begin = Instant::now();
        self.daemon.host().command(self.daemon.line(&["reload"]).limit(PATIENCE)).unwrap();
        begin.elapsed()
    }

    /// Tunnels that are up.
    pub fn up(&self) -> usize {
        let line = self.daemon.line(&["status", "--json"]).limit(PATIENCE);
        let output = self.daemon.host().command(line).unwrap();
        let status: Value = serde_json::from_str(&output.stdout).unwrap();
        let connections = status["connections"].as_array().unwrap();
        let tunnels = connections.iter().flat_map(|c| c["tunnels"].as_array().unwrap());
        tunnels.filter(|tunnel| tunnel["state"] == "UP").count()
    }

    /// The share of a core that it takes while nothing happens for `time`.
    pub fn idle(&mut self, time: Duration) -> f64 {
        let spent = self.process().cpu_time().unwrap();
        std::thread::sleep(time);
        let busy = self.process().cpu_time().unwrap() - spent;
        busy.as_secs_f64() / time.as_secs_f64()
    }
}
