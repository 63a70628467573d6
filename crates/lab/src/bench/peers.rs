//! Bringing a contender up between the gateways.

mod null;
mod openvpn;
mod strongswan;
mod vgw;
mod vgw_wireguard;
mod wireguard;

use crate::bench::contender::Contender;
use crate::bench::rig::{CLIENT_NET, OUTSIDE_A, OUTSIDE_B, SERVER_NET, Site};
use crate::daemon::Daemon;
use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::process::{Process, Program};
use crate::stop::Stop;
use crate::topology::route;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a contender may take to bring its tunnel up.
const LIMIT: Duration = Duration::from_secs(20);

/// MTU of the tunnel device of everybody who does not choose it: WireGuard's usual one.
const TUNNEL_MTU: u16 = 1420;

/// What runs on both gateways.
#[derive(Debug, Default)]
pub struct Gateways {
    processes: Vec<Process>,
    daemons: Vec<Daemon>,
}

impl Gateways {
    fn of(processes: Vec<Process>) -> Gateways {
        Gateways { processes, daemons: Vec::new() }
    }

    /// The processes on both gateways.
    pub fn pids(&mut self) -> Vec<u32> {
        let daemons = self.daemons.iter_mut().filter_map(|daemon| Some(daemon.process()?.pid()));
        self.processes.iter().map(Process::pid).chain(daemons).collect()
    }

    /// An error when one has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        for process in &mut self.processes {
            still_runs(process)?;
        }
        self.daemons.iter_mut().try_for_each(Daemon::check_running)
    }

    /// An error when our daemons' own counters do not show `octets` of traffic.
    pub fn check_counters(&self, octets: u64) -> Result<()> {
        for daemon in &self.daemons {
            let status = daemon.status()?;
            let packets: u64 = status.tunnels.iter().map(|t| t.packets_in + t.packets_out).sum();
            // No packet has more than 1500 octets of payload.
            if packets < octets / 1500 {
                return Err(LabError::Unexpected(format!(
                    "{}: {packets} packets in its tunnels are not the {octets} octets that were sent",
                    daemon.kind().name()
                )));
            }
        }
        Ok(())
    }
}

impl Contender {
    /// The UDP ports of its tunnel.
    pub fn ports(self) -> &'static [u16] {
        match self {
            Contender::Plain => &[],
            Contender::Null => &[null::PORT],
            Contender::VgwAes
            | Contender::VgwLowLatency
            | Contender::VgwChacha
            | Contender::Charon => &[4500, 500],
            Contender::VgwWireguard => &[4500],
            Contender::WireguardGo | Contender::Gotatun | Contender::Boringtun => {
                &[wireguard::PORT]
            }
            Contender::Openvpn => &[openvpn::PORT],
        }
    }
}

/// Starts a contender and returns when its tunnel is up and routed. `program` is that of a peer.
pub fn start(contender: Contender, program: Option<&Path>, site: Site<'_>) -> Result<Gateways> {
    let named =
        || program.ok_or_else(|| LabError::Unexpected(format!("{contender} has no program")));
    match contender {
        Contender::Plain => {
            route(site.a, SERVER_NET, OUTSIDE_B)?;
            route(site.b, CLIENT_NET, OUTSIDE_A)?;
            Ok(Gateways::default())
        }
        Contender::Null => null::start(site),
        Contender::VgwAes => vgw::start("AES256-GCM-16", false, site),
        Contender::VgwLowLatency => vgw::start("AES256-GCM-16", true, site),
        Contender::VgwChacha => vgw::start("CHACHA20-POLY1305", false, site),
        Contender::VgwWireguard => vgw_wireguard::start(site),
        Contender::WireguardGo => wireguard::start(named()?, &["-f"], site),
        Contender::Gotatun | Contender::Boringtun => {
            wireguard::start(named()?, &["-f", "--disable-drop-privileges"], site)
        }
        Contender::Charon => strongswan::start(named()?, site),
        Contender::Openvpn => openvpn::start(named()?, site),
    }
}

/// Routes the networks behind the other gateway into a tunnel device on each side.
fn route_into(site: Site<'_>, device: &str) -> Result<()> {
    site.a.ip(&format!("route replace {SERVER_NET} dev {device}"))?;
    site.b.ip(&format!("route replace {CLIENT_NET} dev {device}"))
}

/// Tries until it works; the error is that of the last try. An outer error of an attempt is final.
fn until<T>(what: &str, stop: &Stop, mut attempt: impl FnMut() -> Result<Result<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt()? {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > LIMIT => {
                let seconds = LIMIT.as_secs();
                return Err(LabError::Unexpected(format!("no {what} within {seconds} s: {error}")));
            }
            Err(_) => stop.sleep(Duration::from_millis(30))?,
        }
    }
}

/// The final error of a program that has ended when it should not have.
fn still_runs(process: &mut Process) -> Result<()> {
    match process.wait(Duration::ZERO) {
        Ok(status) => {
            let last = process.log().last(5).join("; ");
            Err(LabError::Unexpected(format!("the program ended by itself ({status}): {last}")))
        }
        Err(_) => Ok(()),
    }
}

/// Waits for a device that a program makes.
fn await_device(host: &Host, device: &str, process: &mut Process, stop: &Stop) -> Result<()> {
    until(&format!("device {device}"), stop, || {
        still_runs(process)?;
        Ok(host.command(Program::new("ip").args(["link", "show", "dev", device])).map(drop))
    })
}
