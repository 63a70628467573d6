//! A branch behind a NAT, a VPC, and a stranger on the internet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ike::Identity;
use lab::daemon::{Daemon, Kind};
use lab::layout::Layout;
use lab::netns::Host;
use lab::scenario::Scenario;
use lab::settings;
use lab::topology::{address, end, route};
use lab::traffic::ping::{self, Pinging, Plan};
use lab::world::World;
use serde_json::Value;

use crate::client::Client;

/// The site `branch` has its real agent; the site `stranger` has none: a test takes its place.
pub const SCENARIO: &str = r#"
description = "A branch behind a source NAT, a VPC, and a site whose gateway is played by a test"
seed = 7

[vpc]
cidrs = ["10.0.0.0/16"]
gateway = { relaxed_limits = true }

[[vpc.host]]
name = "app"
addresses = ["10.0.1.10/24"]

[[site]]
name = "branch"
cidrs = ["192.168.0.0/16"]
nat = "source"
gateway = { relaxed_limits = true }

[[site.host]]
name = "desk"
addresses = ["192.168.1.10/24"]

[site.tunnel]
path_probe_timeout_seconds = 2
path_mtu_raise_seconds = 5
dpd_timeout_seconds = 9

[[site]]
name = "stranger"
cidrs = ["172.20.0.0/16"]

[[site.host]]
name = "host"
addresses = ["172.20.1.10/24"]
"#;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Vgw,
    Agent,
}

/// The network, with both daemons running. Dropping it ends everything.
pub struct Net {
    pub vgw: Daemon,
    pub agent: Daemon,
    /// A host on the internet that can send from any address of 11.0.0.0/8.
    pub attacker: Arc<Host>,
    pub world: World,
    pub layout: Layout,
    pub scenario: Scenario,
}

/// The folder of the binaries: the variable `VGW_BIN_DIR`, or the target folder of this program.
fn binaries() -> PathBuf {
    let beside = || {
        let this = std::env::current_exe().unwrap();
        let folder = this.parent().unwrap();
        if folder.ends_with("deps") { folder.parent().unwrap() } else { folder }.to_owned()
    };
    std::env::var_os("VGW_BIN_DIR").map_or_else(beside, PathBuf::from)
}

impl Net {
    /// Builds it, and waits until both tunnels of the branch are up and carry data.
    pub fn up(scenario: &str) -> Self {
        let mut net = Self::build(scenario);
        net.vgw.start().unwrap();
        net.agent.start().unwrap();
        net.await_up();
        net
    }

    /// Builds it; nothing runs yet.
    pub fn build(scenario: &str) -> Self {
        let scenario = Scenario::parse(scenario, "hostile.toml").unwrap();
        let layout = Layout::new(&scenario);
        let mut world = World::build(&scenario, &layout).unwrap();
        let attacker = world.network.add_host("attacker").unwrap();
        world
            .network
            .connect(end(&attacker, "wan"), end(&world.internet, "to-attacker"), 1500)
            .unwrap();
        address(end(&attacker, "wan"), "192.0.2.2/24").unwrap();
        address(end(&world.internet, "to-attacker"), "192.0.2.1/24").unwrap();
        route(&attacker, "default", "192.0.2.1".parse().unwrap()).unwrap();
        route(&world.internet, "11.0.0.0/8", "192.0.2.2".parse().unwrap()).unwrap();
        let folder = binaries();
        let vgw = &world.vpc.gateway;
        let vgw = Daemon::new(vgw, Kind::Vgw, &folder, &settings::vgw(&scenario, &layout)).unwrap();
        let files = settings::agent(&scenario, &layout, 0);
        let agent = Daemon::new(&world.sites[0].gateway, Kind::Agent, &folder, &files).unwrap();
        Self { vgw, agent, attacker, world, layout, scenario }
    }

    pub fn daemon(&mut self, side: Side) -> &mut Daemon {
        match side {
            Side::Vgw => &mut self.vgw,
            Side::Agent => &mut self.agent,
        }
    }

    /// Both tunnels up and carrying data, seen from both sides, and the first one active.
    pub fn await_up(&mut self) {
        for side in [Side::Vgw, Side::Agent] {
            self.await_tunnels(side, "both tunnels carry data", |tunnels| {
                let good = |t: &Value| t["state"] == "UP" && t["path"] == "carries data";
                tunnels.iter().all(good) && tunnels[0]["active"] == true
            });
        }
    }

    /// The `status --json` of a side.
    pub fn status(&mut self, side: Side) -> Value {
        let daemon = self.daemon(side);
        daemon.check_running().unwrap();
        let output = daemon.host().command(daemon.line(&["status", "--json"])).unwrap();
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// The tunnels of the branch in it.
    pub fn tunnels(&mut self, side: Side) -> Vec<Value> {
        self.status(side)["connections"][0]["tunnels"].as_array().unwrap().clone()
    }

    pub fn await_tunnels(&mut self, side: Side, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        let begin = Instant::now();
        loop {
            let last = match self.daemon(side).status() {
                Ok(_) => self.tunnels(side),
                Err(_) => Vec::new(),
            };
            if !last.is_empty() && wanted(&last) {
                return;
            }
            if begin.elapsed() > PATIENCE {
                let lines = self.daemon(side).last_lines(40).join("\n");
                panic!("{side:?}: never: {what}: {last:#?}\n{lines}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Packets that a side dropped for a reason.
    pub fn dropped(&mut self, side: Side, reason: &str) -> u64 {
        self.status(side)["drops"][reason].as_u64().unwrap_or(0)
    }

    /// A counter of a side's IKE plane.
    pub fn ike(&mut self, side: Side, counter: &str) -> u64 {
        self.status(side)["ike"][counter].as_u64().unwrap_or(0)
    }

    /// A ping from the branch's desk to the VPC's application, through the active tunnel.
    pub fn ping(&self, interval: Duration) -> Pinging {
        let desk = &self.world.sites[0].hosts[0];
        let app = self.world.vpc.hosts[0].addresses[0];
        let plan =
            Plan { source: Some(desk.addresses[0]), count: None, interval, ..Plan::new(app) };
        let ping = ping::start(&desk.host, plan).unwrap();
        let begin = Instant::now();
        while ping.answered() < 3 {
            assert!(begin.elapsed() < PATIENCE, "the ping is never answered");
            std::thread::sleep(Duration::from_millis(5));
        }
        ping
    }

    /// A peer at the site that has no agent, for tunnel 1 or 2 of its connection, with who it is and
    /// whom it expects.
    pub fn stranger(&self, tunnel: usize) -> (Client, Identity, Identity) {
        let site = &self.layout.sites[1];
        let files = settings::agent(&self.scenario, &self.layout, 1);
        let name = format!("psk-2-{}", tunnel + 1);
        let psk = files.iter().find(|file| file.path.ends_with(&name)).unwrap();
        let remote = SocketAddr::new(self.layout.outside[tunnel], 4500);
        // Any port: it looks like a NAT between the two.
        let local = SocketAddr::new(site.cgw, 0);
        let client = Client::new(&self.world.sites[1].gateway, local, remote, psk.text.trim());
        (client, Identity::from(site.public), Identity::from(self.layout.outside[tunnel]))
    }

    /// Does something to the VGW and waits until one of its counters, of dropped packets or of the
    /// IKE plane, has grown by `least`.
    pub fn counted(&mut self, counter: &str, least: u64, act: impl FnOnce(&mut Self)) {
        let count = |net: &mut Self| net.dropped(Side::Vgw, counter) + net.ike(Side::Vgw, counter);
        let before = count(self);
        act(self);
        let begin = Instant::now();
        loop {
            let grown = count(self) - before;
            if grown >= least {
                return;
            }
            let status = self.status(Side::Vgw);
            assert!(
                begin.elapsed() < PATIENCE,
                "{counter} grew by {grown}, not by {least}: {} {}",
                status["drops"],
                status["ike"]
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The outside addresses of the VGW.
    pub fn outside(&self, tunnel: usize) -> Ipv4Addr {
        match self.layout.outside[tunnel] {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => panic!("the scenario is IPv4"),
        }
    }

    /// The most memory that a daemon ever had resident, in KiB.
    pub fn most_memory(&mut self, side: Side) -> u64 {
        self.memory(side, "VmHWM:")
    }

    /// What it has resident now, in KiB.
    pub fn memory_now(&mut self, side: Side) -> u64 {
        self.memory(side, "VmRSS:")
    }

    fn memory(&mut self, side: Side, field: &str) -> u64 {
        let pid = self.daemon(side).process().unwrap().pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether a line of a side's log has this text.
    pub fn logged(&mut self, side: Side, text: &str) -> bool {
        self.daemon(side).process().is_some_and(|process| process.log().contains(text))
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Prints a measured time and holds it against its bound.
pub fn at_most(what: &str, took: Duration, bound: Duration) {
    println!("{what}: {:.0} ms", took.as_secs_f64() * 1e3);
    assert!(took <= bound, "{what}: {took:?} is more than {bound:?}");
}
