//! Thousands of peers against one gateway: what a handshake costs it, what a tunnel holds, what
//! holding tunnels costs, and how long thousands of connections take to load. The peers are
//! [`Client`]s; the gateway is ours ([`ours`]) or strongSwan's ([`charon`]).

pub mod charon;
pub mod ours;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ike::Identity;
use lab::netns::Host;
use lab::process::Process;
use lab::topology::{Network, address, end, route};
use sa::SelectorSet;

use crate::client::{Client, behind_nat};

/// The one key of all peers.
pub const KEY: &str = "a.key_for_all.of.them";
/// The gateway's outside addresses: each peer has a tunnel to each.
pub const OUTSIDE: [&str; 2] = ["198.51.100.10", "198.51.100.11"];
/// What both gateways choose.
pub const SUITE: &str = "PSK, CURVE_25519, AES_GCM_16-256, PRF_HMAC_SHA2_256";
const THREADS: usize = 2;
/// Handshakes of one thread at the same time: all threads together stay below the number of
/// half-open IKE SAs from which on our gateway asks for COOKIEs.
const AT_ONCE: usize = 24;

/// A gateway's host and one from which all peers speak, each from its own address.
pub struct Field {
    pub gateway: Arc<Host>,
    pub peers: Arc<Host>,
    _network: Network,
}

impl Field {
    pub fn new() -> Self {
        let mut network = Network::new();
        let gateway = network.add_host("gateway").unwrap();
        let peers = network.add_host("peers").unwrap();
        network.connect(end(&gateway, "wan"), end(&peers, "wan"), 1500).unwrap();
        for own in OUTSIDE {
            address(end(&gateway, "wan"), format!("{own}/24")).unwrap();
        }
        address(end(&peers, "wan"), "198.51.100.2/24").unwrap();
        route(&gateway, "11.0.0.0/8", "198.51.100.2".parse().unwrap()).unwrap();
        peers.ip("route add local 11.0.0.0/8 dev lo").unwrap();
        Self { gateway, peers, _network: network }
    }

    /// Brings the tunnels `first..first + count` up, and says nothing more. Returns how long it
    /// took.
    pub fn connect(&self, first: usize, count: usize) -> Duration {
        let next = Arc::new(AtomicUsize::new(first));
        let begin = Instant::now();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (next, host) = (Arc::clone(&next), Arc::clone(&self.peers));
                std::thread::spawn(move || {
                    loop {
                        let from = next.fetch_add(AT_ONCE, Relaxed);
                        let to = (from + AT_ONCE).min(first + count);
                        if from >= to {
                            return;
                        }
                        connect(&host, from..to);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begin.elapsed()
    }
}

impl Default for Field {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of the site of tunnel `number`.
pub fn site(number: usize) -> String {
    format!("site-{}.example", number / 2)
}

/// The network behind tunnel `number`.
pub fn network(number: usize) -> String {
    format!("172.{}.{}.{}/30", 16 + number / 16384, number / 64 % 256, number % 64 * 4)
}

fn connect(host: &Arc<Host>, numbers: std::ops::Range<usize>) {
    let mut peers: Vec<(usize, Client)> = numbers
        .map(|number| {
            let remote: SocketAddr = format!("{}:4500", OUTSIDE[number % 2]).parse().unwrap();
            let last = number as u32 + 1;
            let local = SocketAddr::from(((0x0b00_0000_u32 + last).to_be_bytes(), 4500));
            let mut client = Client::new(host, local, remote, KEY);
            // A gateway that is at its limit may take its time.
            (client.waits, client.again) = (100, 5);
            (number, client)
        })
        .collect();
    let begun: Vec<_> = peers.iter_mut().map(|(_, peer)| peer.begin(behind_nat())).collect();
    for ((number, peer), begun) in peers.iter_mut().zip(begun) {
        assert!(peer.finish(begun), "IKE_SA_INIT of {number}");
    }
    let asked: Vec<_> = peers
        .iter_mut()
        .map(|(number, peer)| {
            let own: Identity = site(*number).parse().unwrap();
            let theirs: Identity = OUTSIDE[*number % 2].parse().unwrap();
            let nets = [network(*number), "10.0.0.0/8".into()];
            let nets = nets.map(|net| SelectorSet::nets(&[net.parse().unwrap()]));
            peer.begin_auth(&own, &theirs, nets)
        })
        .collect();
    for ((number, peer), asked) in peers.iter_mut().zip(asked) {
        assert!(peer.finish_auth(&asked), "IKE_AUTH of {number}");
    }
}

/// KiB of a process that are in memory.
pub fn resident(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What bringing tunnels up cost a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub tunnels: usize,
    /// From the first message to the last.
    pub took: Duration,
    /// Processor time, of the kernel on its behalf included.
    pub busy: Duration,
    /// KiB.
    pub grown: u64,
}

impl Cost {
    /// Handshakes for each second of processor time.
    pub fn rate(&self) -> f64 {
        self.tunnels as f64 / self.busy.as_secs_f64()
    }

    /// KiB.
    pub fn per_tunnel(&self) -> f64 {
        self.grown as f64 / self.tunnels as f64
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} tunnels up in {:.2} s with {:.2} s of processor time: {:.0} handshakes a second on one core; {:.1} KiB a tunnel",
            self.tunnels,
            self.took.as_secs_f64(),
            self.busy.as_secs_f64(),
            self.rate(),
            self.per_tunnel(),
        )
    }
}

/// Brings `count` tunnels up, and measures what that costs `process`.
pub fn measure(field: &Field, first: usize, count: usize, process: &Process) -> Cost {
    let (memory, spent) = (resident(process), process.cpu_time().unwrap());
    let took = field.connect(first, count);
    // What the last handshake leaves to be done.
    std::thread::sleep(Duration::from_millis(300));
    let busy = process.cpu_time().unwrap() - spent;
    let grown = resident(process).saturating_sub(memory);
    Cost { tunnels: count, took, busy, grown }
}
