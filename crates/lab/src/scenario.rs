//! Scenarios: what a user writes in `config/lab/*.toml`.

mod check;
mod error;

pub use error::ScenarioError;

use crate::relay::Impairment;
use ipnet::IpNet;
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line for people.
    pub description: String,
    /// Where losses, delays and contents come from; the same seed gives the same ones.
    #[serde(default)]
    pub seed: u64,
    /// What lies between the sites.
    #[serde(default)]
    pub internet: Internet,
    /// The cloud side.
    pub vpc: Vpc,
    /// The customers' sites.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
    /// What is tried, and what counts as passed.
    #[serde(default)]
    pub test: Test,
}

/// The outside of all tunnels.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Internet {
    /// Address family of the outside addresses.
    pub family: Family,
    /// MTU of every link outside of the sites.
    pub mtu: Spanned<u16>,
}

impl Default for Internet {
    fn default() -> Internet {
        Internet { family: Family::Ipv4, mtu: Spanned::new(0..0, 1500) }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The cloud side: a VPC behind one VGW.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// What the sites route into their tunnels.
    pub cidrs: Vec<Spanned<IpNet>>,
    /// What stands between the VGW and the internet.
    #[serde(default)]
    pub nat: VpcNat,
    /// Whether the sites reach each other through the VGW.
    #[serde(default)]
    pub hub: bool,
    /// The hosts in the VPC.
    #[serde(rename = "host")]
    pub hosts: Vec<HostSpec>,
    /// More keys for `[vpn_gateway]` of the VGW's configuration.
    #[serde(default)]
    pub gateway: toml::Table,
}

/// NAT in front of the VGW.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VpcNat {
    /// The outside addresses are the VGW's own.
    #[default]
    None,
    /// The VGW has private addresses; UDP 500 and 4500 of two public ones are forwarded to them.
    Forward,
}

/// A customer's site behind one customer gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Names its hosts `NAME-cgw`, `NAME-nat`, `NAME-…`, and its connection `vpn-NAME`.
    pub name: Spanned<String>,
    /// How it is connected.
    #[serde(default, rename = "type")]
    pub kind: SiteKind,
    /// What the VGW routes into the tunnels of this site.
    pub cidrs: Vec<Spanned<IpNet>>,
    /// What stands between the customer gateway and the internet.
    #[serde(default)]
    pub nat: SiteNat,
    /// The hosts of the site.
    #[serde(rename = "host")]
    pub hosts: Vec<HostSpec>,
    /// The line between the site and the internet.
    #[serde(default)]
    pub line: Line,
    /// More keys for `[customer_gateway]` of the agent's configuration.
    #[serde(default)]
    pub gateway: toml::Table,
    /// More keys for `[[vpn_connection]]` or `[[wireguard_connection]]` on both sides.
    #[serde(default)]
    pub connection: toml::Table,
    /// More keys for both `[[vpn_connection.tunnel]]` on both sides: AWS's tunnel options. A
    /// WireGuard site has none.
    #[serde(default)]
    pub tunnel: toml::Table,
}

/// How a site is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// By IKEv2 and ESP, through two tunnels.
    #[default]
    Ipsec,
    /// By one WireGuard connection.
    Wireguard,
}

/// NAT in front of a customer gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteNat {
    /// The customer gateway has a public address.
    #[default]
    None,
    /// It has a private address, and its packets leave with another one and with other ports.
    Source,
}

/// A host at a site or in the VPC.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Its name, unique at its place.
    pub name: Spanned<String>,
    /// At most one address of each family, with the prefix length of the network it is in. The
    /// gateway has the first address of that network.
    pub addresses: Vec<Spanned<IpNet>>,
}

/// What a line does to frames, each way. The lab does it itself; see [`crate::relay`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// MTU of this line alone; the internet's otherwise.
    pub mtu: Option<Spanned<u16>>,
    /// Frames of 100 that vanish.
    pub loss_percent: Percent,
    /// Frames of 100 that come twice.
    pub duplicate_percent: Percent,
    /// Frames of 100 that later ones overtake.
    pub reorder_percent: Percent,
    /// Milliseconds under way.
    pub delay_ms: u32,
    /// Up to how many more, at random.
    pub jitter_ms: u32,
    /// Megabits a second; none: no limit.
    pub rate_mbit: Option<u32>,
}

impl Line {
    /// The same in the relay's words.
    pub fn impairment(&self) -> Impairment {
        Impairment {
            loss_percent: self.loss_percent.0,
            duplicate_percent: self.duplicate_percent.0,
            reorder_percent: self.reorder_percent.0,
            delay: Duration::from_millis(self.delay_ms.into()),
            jitter: Duration::from_millis(self.jitter_ms.into()),
            rate: self.rate_mbit.map(|rate| u64::from(rate) * 1_000_000),
            ..Impairment::default()
        }
    }
}

/// A share of 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Percent(pub f64);

impl TryFrom<f64> for Percent {
    type Error = String;

    fn try_from(value: f64) -> Result<Percent, String> {
        if (0.0..=100.0).contains(&value) {
            Ok(Percent(value))
        } else {
            Err(format!("{value} is not a percentage: write a number from 0 to 100"))
        }
    }
}

/// One thing that the lab tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Echo requests between the hosts of each site and of the VPC, both ways.
    Ping,
    /// TCP transfers both ways, every octet compared.
    Integrity,
    /// Datagrams of many sizes around the MTU.
    Mtu,
    /// TCP as fast as it goes, next to plain routing.
    Throughput,
    /// The active tunnel is switched off while a ping runs, and on again.
    Failover,
    /// Each side is stopped, and the other notices at once.
    Stop,
}

/// What is tried, and what counts as passed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Test {
    /// The steps, in this order. Bringing the tunnels up comes first, the verdict about the
    /// capture last, whatever is listed.
    pub steps: Vec<Step>,
    /// How long both tunnels of all sites may take to come up.
    pub up_within_s: u32,
    /// Echo requests in each direction and family.
    pub ping_count: u32,
    /// How many of 100 of them may be lost.
    pub ping_loss_percent: Percent,
    /// Size of each transfer whose contents are compared.
    pub transfer_mib: u32,
    /// How long each measurement of throughput takes.
    pub throughput_s: f64,
    /// Fewer megabits a second through the tunnel are a failure.
    pub throughput_min_mbit: f64,
    /// How long no ping may pass when the active tunnel is switched off.
    pub outage_within_ms: u32,
    /// How long the other side may take to notice a clean stop.
    pub stop_within_s: u32,
}

impl Default for Test {
    fn default() -> Test {
        Test {
            steps: vec![
                Step::Ping,
                Step::Integrity,
                Step::Mtu,
                Step::Throughput,
                Step::Failover,
                Step::Stop,
            ],
            up_within_s: 15,
            ping_count: 50,
            ping_loss_percent: Percent(0.0),
            transfer_mib: 32,
            throughput_s: 2.0,
            throughput_min_mbit: 10.0,
            outage_within_ms: 2000,
            stop_within_s: 3,
        }
    }
}

impl Scenario {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::unreadable(path, &error))?;
        Scenario::parse(&text, &path.display().to_string())
    }

    /// Parses and checks; `file` is for messages.
    pub fn parse(text: &str, file: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text)
            .map_err(|error| ScenarioError::at(file, text, error.span(), error.message()))?;
        check::check(&scenario)
            .map_err(|(span, message)| ScenarioError::at(file, text, Some(span), &message))?;
        Ok(scenario)
    }

    /// The smallest MTU on the way between a site and the VGW.
    pub fn path_mtu(&self, site: &Site) -> u16 {
        let internet = *self.internet.mtu.get_ref();
        site.line.mtu.as_ref().map_or(internet, |mtu| internet.min(*mtu.get_ref()))
    }
}

#[cfg(test)]
mod tests;
