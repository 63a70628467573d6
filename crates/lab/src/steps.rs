//! The steps of a run, one file each. A step adds rows to the report; an error ends the run.

mod connect;
mod failover;
mod integrity;
mod mtu;
mod ping;
mod stop;
mod throughput;
mod wan;

pub use connect::connect;
pub use wan::Wan;

use crate::daemon::Daemon;
use crate::error::{LabError, Result};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::{Scenario, SiteKind, Step};
use crate::settings::connection_name;
use crate::stop::Stop;
use crate::traffic::tcp::Pair;
use crate::world::{Endpoint, World};
use std::net::IpAddr;

/// Everything that a step needs.
#[derive(Debug)]
pub struct Run<'a> {
    /// What to do.
    pub scenario: &'a Scenario,
    /// Which address everything has.
    pub layout: &'a Layout,
    /// The hosts.
    pub world: &'a World,
    /// The VGW.
    pub vgw: Daemon,
    /// The customer gateways, in the scenario's order.
    pub agents: Vec<Daemon>,
    /// What passes between the sites.
    pub wan: Wan,
    /// Where rows go.
    pub report: &'a mut Report,
    /// Where the user sees what happens.
    pub progress: &'a Progress,
    /// Whether the user wants it to end.
    pub stop: &'a Stop,
}

/// A direction of traffic between a site's first host and the VPC's first host.
#[derive(Clone, Debug)]
pub struct Way {
    /// `branch-desk -> vpc-app`, with the family where there are two.
    pub name: String,
    /// Sends.
    pub from: Endpoint,
    /// Receives.
    pub to: Endpoint,
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address.
    pub target: IpAddr,
}

impl Way {
    /// For TCP and UDP.
    pub fn pair(&self) -> Pair<'_> {
        Pair {
            client: &self.from.host,
            source: Some(self.source),
            server: &self.to.host,
            address: self.target,
        }
    }

    /// The same two hosts by plain routing.
    pub fn plain(&self) -> Way {
        Way { source: self.from.plain, target: self.to.plain, ..self.clone() }
    }
}

impl Run<'_> {
    /// Runs one step.
    pub fn step(&mut self, step: Step) -> Result<()> {
        self.stop.check()?;
        match step {
            Step::Ping => ping::ping(self),
            Step::Integrity => integrity::integrity(self),
            Step::Mtu => mtu::mtu(self),
            Step::Throughput => throughput::throughput(self),
            Step::Failover => failover::failover(self),
            Step::Stop => stop::stop(self),
        }
    }

    /// Both ways in each shared family between the first host of each site and of the VPC, and with
    /// a hub between those of all sites.
    pub fn ways(&self) -> Vec<Way> {
        let Some(app) = self.world.vpc.hosts.first() else { return Vec::new() };
        let firsts = self.world.sites.iter().filter_map(|site| site.hosts.first());
        firsts.flat_map(|desk| both_ways(desk, app)).chain(self.ways_through_hub()).collect()
    }

    /// Both ways between the first hosts of each two sites, if the VGW is their hub.
    pub fn ways_through_hub(&self) -> Vec<Way> {
        let sites = if self.scenario.vpc.hub { self.world.sites.as_slice() } else { &[] };
        let firsts: Vec<&Endpoint> = sites.iter().filter_map(|site| site.hosts.first()).collect();
        let pairs = firsts.iter().enumerate();
        pairs
            .flat_map(|(index, left)| firsts[index + 1..].iter().map(move |right| (left, right)))
            .flat_map(|(left, right)| both_ways(left, right))
            .collect()
    }

    /// Whether a site has two tunnels, which tell each other when they go down.
    pub fn has_tunnels(&self, site: usize) -> bool {
        self.scenario.sites.get(site).is_some_and(|site| site.kind == SiteKind::Ipsec)
    }

    /// The connection of a site.
    pub fn connection(&self, site: usize) -> String {
        self.scenario.sites.get(site).map(connection_name).unwrap_or_default()
    }

    /// The agent of a site.
    pub fn agent(&mut self, site: usize) -> Result<&mut Daemon> {
        self.agents
            .get_mut(site)
            .ok_or_else(|| LabError::Unexpected(format!("site {site} has no agent")))
    }
}

/// Both ways between two hosts in each family that both have.
pub fn both_ways(left: &Endpoint, right: &Endpoint) -> Vec<Way> {
    let mut ways = Vec::new();
    let several = left.addresses.len() > 1 && right.addresses.len() > 1;
    for (from, to) in [(left, right), (right, left)] {
        for source in &from.addresses {
            let Some(target) = to.address_like(*source) else { continue };
            let family = match (several, source.is_ipv4()) {
                (false, _) => "",
                (true, true) => " (IPv4)",
                (true, false) => " (IPv6)",
            };
            ways.push(Way {
                name: format!("{} -> {}{family}", from.host.name(), to.host.name()),
                from: from.clone(),
                to: to.clone(),
                source: *source,
                target,
            });
        }
    }
    ways
}
