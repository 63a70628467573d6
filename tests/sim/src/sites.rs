//! The configuration of the sites of a schedule.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use control::config::{Config, Role};

use crate::draw::Draw;

/// What is drawn for a whole schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Customer gateways.
    pub agents: usize,
    /// Which of them stand behind a NAT.
    pub nat: Vec<bool>,
    /// Whether the VGW begins, too, where it knows the address.
    pub both_begin: bool,
    /// Lifetimes of IKE SA and Child SA, and the margin, in seconds.
    pub lifetimes: (u64, u64, u64),
    /// Fresh key exchange for Child SAs.
    pub pfs: bool,
    /// Cipher of both planes.
    pub cipher: &'static str,
    /// Silence after which a peer is dead, in seconds.
    pub dpd: u64,
    /// Whether links lose nothing.
    pub lossless: bool,
    /// Silence of the data path after which it is held dead, in seconds.
    pub probe: u64,
    /// Whether a link says what it takes when a datagram is too large for it.
    pub icmp: bool,
    /// Whether the VGW and the customer gateways do MOBIKE.
    pub mobike: [bool; 2],
}

const CIPHERS: [&str; 4] = ["AES128-GCM-16", "AES256-GCM-16", "CHACHA20-POLY1305", "AES128"];
/// IKE lifetime, Child lifetime, margin: from AWS's defaults to rekeys every few seconds.
const LIFETIMES: [(u64, u64, u64); 6] = [
    (28_800, 3_600, 270),
    (28_800, 3_600, 270),
    (900, 300, 60),
    (120, 60, 15),
    (60, 40, 10),
    (40, 40, 10),
];

impl Settings {
    pub(crate) fn draw(draw: &mut Draw, paths: &mut Draw) -> Self {
        let agents = if draw.chance(250) { 2 } else { 1 };
        Self {
            agents,
            nat: (0..agents).map(|_| draw.coin()).collect(),
            both_begin: draw.chance(300),
            lifetimes: draw.pick(&LIFETIMES),
            pfs: draw.coin(),
            cipher: draw.pick(&CIPHERS),
            dpd: draw.pick(&[9, 9, 30]),
            lossless: draw.chance(600),
            probe: paths.pick(&[10, 30, 60, 120]),
            icmp: paths.coin(),
            mobike: [paths.chance(850), paths.chance(850)],
        }
    }

    /// The inside /30 of a tunnel (numbers from 0) of a customer gateway (from 1).
    fn inside(agent: usize, tunnel: u8) -> [u8; 4] {
        [169, 254, 10 + 10 * agent as u8 + tunnel, 0]
    }

    /// The inside address of a tunnel, the VGW's or the customer gateway's.
    pub(crate) fn inside_address(agent: usize, tunnel: u8, of_vgw: bool) -> Ipv4Addr {
        let [a, b, c, _] = Self::inside(agent, tunnel);
        Ipv4Addr::new(a, b, c, if of_vgw { 1 } else { 2 })
    }

    /// Whether a customer gateway may get another address of its own: nobody has it written down.
    pub(crate) fn may_move(&self, agent: usize) -> bool {
        !self.nat[agent - 1] && !self.both_begin
    }

    /// The address that a customer gateway has on its own network in the beginning.
    pub(crate) fn agent_address(&self, agent: usize) -> IpAddr {
        if self.nat[agent - 1] {
            [192, 168, 200, 1 + agent as u8].into()
        } else {
            [203, 0, 113, 1 + agent as u8].into()
        }
    }

    /// The address of the NAT before a customer gateway.
    pub(crate) fn outside_address(&self, agent: usize) -> Option<IpAddr> {
        self.nat[agent - 1].then(|| [203, 0, 113, 130 + agent as u8].into())
    }

    fn tunnels(&self, agent: usize, begin: bool) -> String {
        let (ike, child, margin) = self.lifetimes;
        let mut out = String::new();
        for tunnel in 0..2 {
            let inside = Ipv4Addr::from(Self::inside(agent, tunnel));
            let _ = write!(
                out,
                "[[vpn_connection.tunnel]]\n\
                 outside_address = \"198.51.100.{}\"\n\
                 tunnel_inside_cidr = \"{inside}/30\"\n\
                 pre_shared_key_file = \"psk-{agent}-{tunnel}\"\n\
                 phase1_dh_group_numbers = [31]\nphase2_dh_group_numbers = [31]\n\
                 phase2_pfs = {}\n\
                 phase1_encryption_algorithms = [\"{cipher}\"]\n\
                 phase2_encryption_algorithms = [\"{cipher}\"]\n\
                 phase1_lifetime_seconds = {ike}\nphase2_lifetime_seconds = {child}\n\
                 rekey_margin_time_seconds = {margin}\n\
                 dpd_timeout_seconds = {}\n\
                 path_probe_timeout_seconds = {}\n\
                 {}",
                10 + tunnel,
                self.pfs,
                self.dpd,
                self.probe,
                if begin {
                    "startup_action = \"start\"\ndpd_timeout_action = \"restart\"\n"
                } else {
                    ""
                },
                cipher = self.cipher,
            );
        }
        out
    }

    fn vgw_text(&self) -> String {
        let mut out = String::from(
            "[vpn_gateway]\nid = \"vgw\"\nvpc_cidrs = [\"10.0.0.0/16\"]\nrelaxed_limits = true\n",
        );
        for agent in 1..=self.agents {
            let fixed = !self.nat[agent - 1] && self.both_begin;
            let address = if fixed {
                format!("ip_address = \"{}\"\n", self.agent_address(agent))
            } else {
                String::new()
            };
            let _ = write!(
                out,
                "[[customer_gateway]]\nid = \"cgw-{agent}\"\nidentity = \"branch-{agent}.example\"\n{address}"
            );
            let _ = write!(
                out,
                "[[vpn_connection]]\nid = \"vpn-{agent}\"\ncustomer_gateway = \"cgw-{agent}\"\n\
                 static_routes = [\"192.168.{agent}.0/24\"]\nmobike = {}\n{}",
                self.mobike[0],
                self.tunnels(agent, fixed)
            );
        }
        out
    }

    fn agent_text(&self, agent: usize) -> String {
        format!(
            "[customer_gateway]\nid = \"cgw-{agent}\"\nidentity = \"branch-{agent}.example\"\n\
             listen = [\"{}\"]\nonprem_cidrs = [\"192.168.{agent}.0/24\"]\nrelaxed_limits = true\n\
             [[vpn_connection]]\nid = \"vpn-{agent}\"\nvpc_cidrs = [\"10.0.0.0/16\"]\nmobike = {}\n{}",
            self.agent_address(agent),
            self.mobike[1],
            self.tunnels(agent, true)
        )
    }

    /// The configuration of host 0, the VGW, or of a customer gateway.
    ///
    /// # Errors
    /// Our own text is wrong.
    pub(crate) fn config(&self, host: usize) -> Result<Config, String> {
        let (role, text) = match host {
            0 => (Role::Vgw, self.vgw_text()),
            agent => (Role::Agent, self.agent_text(agent)),
        };
        Config::parse(role, &text, "sim.toml").map_err(|error| error.to_string())
    }
}
