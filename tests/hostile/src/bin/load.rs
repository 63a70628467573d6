//! What many tunnels cost one `vgw`: `cargo run --release -p hostile --bin load [TUNNELS [CONNECTIONS]]`.
//!
//! It prints the time to load CONNECTIONS, then has peers bring up TUNNELS with pre-shared keys,
//! x25519 and AES-256-GCM, and prints handshakes a second of wall time and of `vgw`'s own processor
//! time (what one core does), memory for each tunnel, and what holding them costs. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hostile::client::Client;
use ike::Identity;
use lab::daemon::{Daemon, Kind};
use lab::netns::Host;
use lab::settings::{FOLDER, File};
use lab::topology::{Network, address, end};
use serde_json::Value;

/// The first /30 block of 169.254.0.0/16 behind those that AWS keeps for itself, and how many follow
/// without the one of the metadata service: two for each connection.
const FIRST: usize = 5 * 64 + 1;
const BLOCKS: usize = 16_384 - FIRST - 1;
const METADATA: usize = (169 * 256 + 252) / 4;
const KEY: &str = "a.key_for_all.of.them";
const THREADS: usize = 2;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let tunnels = numbers.next().unwrap_or(2000);
    let connections = numbers.next().unwrap_or(8000);
    let mut network = Network::new();
    let (gateway, peers) = (network.add_host("vgw").unwrap(), network.add_host("peers").unwrap());
    network.connect(end(&gateway, "wan"), end(&peers, "wan"), 1500).unwrap();
    for own in ["198.51.100.10/24", "198.51.100.11/24"] {
        address(end(&gateway, "wan"), own).unwrap();
    }
    address(end(&peers, "wan"), "198.51.100.2/24").unwrap();
    load_time(&gateway, connections);
    handshakes(&gateway, &peers, tunnels);
}

fn config(connections: usize) -> Vec<File> {
    assert!(connections * 2 <= BLOCKS, "there are {BLOCKS} inside /30 blocks");
    let mut text = String::from(
        "[vpn_gateway]\nid = \"load\"\nvpc_cidrs = [\"10.0.0.0/8\"]\nlisten = [\"198.51.100.10\", \"198.51.100.11\"]\n",
    );
    for number in 0..connections {
        let _ = write!(
            text,
            "[[customer_gateway]]\nid = \"cgw-{number}\"\nidentity = \"site-{number}.example\"\n\
             [[vpn_connection]]\nid = \"vpn-{number}\"\ncustomer_gateway = \"cgw-{number}\"\n\
             static_routes = [\"172.{}.{}.{}/30\"]\n",
            16 + number / 4096,
            number / 16 % 256,
            number % 16 * 16,
        );
        for tunnel in 0..2 {
            let block = FIRST + number * 2 + tunnel;
            let block = if block >= METADATA { block + 1 } else { block };
            let _ = write!(
                text,
                "[[vpn_connection.tunnel]]\noutside_address = \"198.51.100.{}\"\n\
                 tunnel_inside_cidr = \"169.254.{}.{}/30\"\npre_shared_key_file = \"psk\"\n\
                 dpd_timeout_action = \"none\"\npath_probe_timeout_seconds = 0\n",
                10 + tunnel,
                block / 64,
                block % 64 * 4,
            );
        }
    }
    let file =
        |name: &str, text: String, secret| File { path: format!("{FOLDER}/{name}"), text, secret };
    vec![file("vgw.toml", text, false), file("psk", format!("{KEY}\n"), true)]
}

/// Starts the daemon and waits until it answers.
fn start(gateway: &Arc<Host>, connections: usize) -> Daemon {
    let folder: PathBuf = std::env::current_exe().unwrap().parent().unwrap().into();
    let mut daemon = Daemon::new(gateway, Kind::Vgw, &folder, &config(connections)).unwrap();
    let begin = Instant::now();
    let check = daemon.line(&["check"]).limit(Duration::from_secs(120));
    gateway.command(check).unwrap();
    println!("{connections} connections: checked in {:.2} s", begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    daemon.start().unwrap();
    while daemon.status().is_err() {
        daemon.check_running().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(180), "it never answers");
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "{connections} connections: checked, started and answering in {took:.2} s, {} KiB resident",
        resident(&mut daemon)
    );
    daemon
}

fn resident(daemon: &mut Daemon) -> u64 {
    let pid = daemon.process().unwrap().pid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn load_time(gateway: &Arc<Host>, connections: usize) {
    let mut daemon = start(gateway, connections);
    daemon.process().unwrap().kill();
}

fn up(daemon: &Daemon) -> usize {
    let output = daemon
        .host()
        .command(daemon.line(&["status", "--json"]).limit(Duration::from_secs(30)))
        .unwrap();
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    let connections = status["connections"].as_array().unwrap();
    let tunnels = connections.iter().flat_map(|c| c["tunnels"].as_array().unwrap());
    tunnels.filter(|tunnel| tunnel["state"] == "UP").count()
}

fn handshakes(gateway: &Arc<Host>, peers: &Arc<Host>, tunnels: usize) {
    let mut daemon = start(gateway, tunnels.div_ceil(2));
    let (memory, spent) = (resident(&mut daemon), daemon.process().unwrap().cpu_time().unwrap());
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (next, host) = (Arc::clone(&next), Arc::clone(peers));
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= tunnels {
                        return;
                    }
                    connect(&host, number);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let took = begin.elapsed();
    let busy = daemon.process().unwrap().cpu_time().unwrap() - spent;
    let count = up(&daemon);
    let grown = resident(&mut daemon).saturating_sub(memory);
    assert_eq!(count, tunnels, "tunnels UP");
    println!(
        "{tunnels} tunnels up in {:.2} s: {:.0} handshakes a second; {:.2} s of vgw's processor time: {:.0} handshakes a second on one core",
        took.as_secs_f64(),
        tunnels as f64 / took.as_secs_f64(),
        busy.as_secs_f64(),
        tunnels as f64 / busy.as_secs_f64(),
    );
    println!("memory: {:.1} KiB a tunnel", grown as f64 / tunnels as f64);
    let spent = daemon.process().unwrap().cpu_time().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let idle = daemon.process().unwrap().cpu_time().unwrap() - spent;
    println!("idle: {:.1} % of a core", idle.as_secs_f64() * 10.0);
}

/// One peer brings its tunnel up, and says nothing more.
fn connect(host: &Arc<Host>, number: usize) {
    let remote = SocketAddr::from(([198, 51, 100, 10 + (number % 2) as u8], 4500));
    let local = "198.51.100.2:0".parse().unwrap();
    let mut client = Client::new(host, local, remote, KEY);
    let own: Identity = format!("site-{}.example", number / 2).parse().unwrap();
    assert!(client.init(), "IKE_SA_INIT of {number}");
    assert!(client.auth(&own, &Identity::from(remote.ip())), "IKE_AUTH of {number}");
}
