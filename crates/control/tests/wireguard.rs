//! WireGuard connections: their configuration and its faults, two gateways that talk by them, what
//! users see and do, and files of `wg-quick`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::config::key::{PublicKey, parse_secret, public_key};
use control::config::wg_quick::WgQuick;
use control::config::{Config, Role};
use control::{Action, Gateway, TunnelStatus, TunnelVerb};
use dataplane::{Counters, IcmpSource, Inbound, InboundCommand, Outbound};
use ike::EndpointConfig;
use packet::{DatagramBatch, InnerBatch, WireBatch};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sa::{Secret, TunnelId};

const VGW: &str = r#"[vpn_gateway]
id = "vgw-1"
vpc_cidrs = ["10.0.0.0/16"]

[[wireguard_connection]]
id = "wg-branch"
private_key_file = "wg.key"
peer_public_key = "SITE"
static_routes = ["192.168.0.0/16"]
"#;

const AGENT: &str = r#"[customer_gateway]
id = "cgw-1"
onprem_cidrs = ["192.168.0.0/16"]

[[wireguard_connection]]
id = "wg-vpc"
private_key_file = "wg.key"
peer_public_key = "VGW"
preshared_key_file = "wg.psk"
endpoint = "198.51.100.1:4500"
persistent_keepalive = 25
inside_addresses = ["172.16.0.2/30"]
mtu = 1400
rekey_after_seconds = 30
vpc_cidrs = ["10.0.0.0/16", "fd00::/48"]
"#;

fn private(role: Role) -> Secret {
    Secret::new(vec![if role == Role::Vgw { 1 } else { 2 }; 32])
}

fn with_keys(text: &str) -> String {
    let [vgw, site] = [Role::Vgw, Role::Agent].map(|role| public_key(&private(role)).unwrap());
    text.replace("SITE", &site.to_string()).replace("VGW", &vgw.to_string())
}

fn parse(role: Role, text: &str) -> Result<Config, String> {
    Config::parse(role, &with_keys(text), "f.toml").map_err(|error| error.to_string())
}

#[test]
fn every_key_of_a_connection_means_what_it_says() {
    let config = parse(Role::Agent, AGENT).unwrap();
    let connection = &config.wireguard[0];
    assert_eq!(connection.peer_public_key, public_key(&private(Role::Vgw)).unwrap());
    assert_eq!(connection.endpoint, Some("198.51.100.1:4500".parse().unwrap()));
    assert_eq!(connection.persistent_keepalive, Some(25));
    assert_eq!(connection.mtu, Some(1400));
    assert_eq!(connection.rekey_after, Duration::from_secs(30));
    assert_eq!(connection.preshared_key_file.as_deref(), Some("wg.psk"));
    assert_eq!(connection.routes.len(), 2);
    let interface = Gateway::interface(&config);
    assert_eq!(interface.addresses, [("172.16.0.2".parse().unwrap(), 30)]);
    assert_eq!(interface.routes, connection.routes);
    let vgw = parse(Role::Vgw, VGW).unwrap();
    let connection = &vgw.wireguard[0];
    assert_eq!((connection.endpoint, connection.persistent_keepalive), (None, None));
    assert_eq!(connection.rekey_after, Duration::from_secs(120));
}

#[test]
fn the_examples_are_right() {
    let vgw = include_str!("../../../config/wireguard/vgw.toml");
    let agent = include_str!("../../../config/wireguard/cgw-agent.toml");
    let parse = |role, text| Config::parse(role, text, "example").map_err(|e| e.to_string());
    let (vgw, agent) = (parse(Role::Vgw, vgw).unwrap(), parse(Role::Agent, agent).unwrap());
    assert_eq!(vgw.wireguard[0].routes, agent.own_cidrs);
    assert_eq!(agent.wireguard[0].routes, vgw.own_cidrs);
}

#[test]
fn every_fault_names_its_line_its_key_and_what_would_be_right() {
    let twice = VGW.split_once("\n\n").unwrap().1;
    let second = twice.replace("wg-branch", "wg-2").replace("192.168.0.0/16", "192.168.9.0/24");
    #[rustfmt::skip]
    let cases = [
        (Role::Vgw, VGW.replace("SITE", "AAAA"), "8: peer_public_key = \"AAAA\": a WireGuard key is 32 octets in base64: 44 characters, the last one `=`"),
        (Role::Vgw, VGW.replace("static_routes", "routes"), "9: unknown field `routes`, expected one of `id`, `private_key_file`, `peer_public_key`, `preshared_key_file`, `persistent_keepalive`, `inside_addresses`, `mtu`, `rekey_after_seconds`, `endpoint`, `static_routes`"),
        (Role::Vgw, VGW.replace("private_key_file = \"wg.key\"\n", ""), "5: missing field `private_key_file` in [[wireguard_connection]]"),
        (Role::Vgw, VGW.replace("192.168.0.0/16", "192.168.0.0"), "9: static_routes = \"192.168.0.0\": must be a prefix, such as 10.0.0.0/16"),
        (Role::Vgw, format!("{VGW}\n{twice}"), "12: id = \"wg-branch\": two connections have this id"),
        (Role::Vgw, format!("{VGW}\n{}", twice.replace("wg-branch", "wg-2")), "12: wg-2: 192.168.0.0/16 is routed to connection wg-branch already"),
        (Role::Vgw, format!("{VGW}\n{second}"), "12: wg-2: peer_public_key is that of connection wg-branch already, with the same private_key_file"),
        (Role::Agent, AGENT.replace("endpoint = \"198.51.100.1:4500\"\n", ""), "5: missing field `endpoint` in [[wireguard_connection]]"),
        (Role::Agent, AGENT.replace("198.51.100.1:4500", "198.51.100.1"), "10: endpoint = \"198.51.100.1\": must be an address and a port, such as 198.51.100.10:4500 or [2001:db8::1]:4500"),
        (Role::Agent, AGENT.replace("198.51.100.1:4500", "vgw.example:4500"), "10: endpoint = \"vgw.example:4500\": must be an address and a port, such as 198.51.100.10:4500 or [2001:db8::1]:4500"),
        (Role::Agent, AGENT.replace("= 25", "= 0"), "11: persistent_keepalive = 0: must be 1 to 65535; leave it out for none"),
        (Role::Agent, AGENT.replace("= 25", "= 70000"), "11: persistent_keepalive = 70000: must be a number from 0 to 65535"),
        (Role::Agent, AGENT.replace("= 1400", "= 500"), "13: mtu = 500: must be 576 to 9156"),
        (Role::Agent, AGENT.replace("= 30", "= 121"), "14: rekey_after_seconds = 121: must be 5 to 120"),
    ];
    for (role, text, expected) in cases {
        assert_eq!(parse(role, &text).unwrap_err(), format!("f.toml:{expected}"));
    }
}

/// One side: policy and both halves of the data plane.
struct Node {
    gateway: Gateway,
    inbound: Inbound,
    outbound: Outbound,
    at: SocketAddr,
    log: Vec<String>,
    opened: usize,
}

impl Node {
    fn new(role: Role, at: &str) -> Self {
        let text = if role == Role::Vgw { VGW } else { AGENT };
        let config = parse(role, &text.replace("preshared_key_file = \"wg.psk\"\n", "")).unwrap();
        let (input, output) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
        let counters = (Arc::clone(&input), Arc::clone(&output));
        let endpoint = EndpointConfig { nat_t_port: 4500, ..EndpointConfig::default() };
        let secrets = secrets(role, &config);
        Self {
            gateway: Gateway::new(config, secrets, endpoint, rng, counters, Instant::now()),
            inbound: Inbound::new(input),
            outbound: Outbound::new(output, IcmpSource::default()),
            at: at.parse().unwrap(),
            log: Vec::new(),
            opened: 0,
        }
    }

    /// Carries out all actions, and returns what is to be sent.
    fn act(&mut self) -> Vec<Vec<u8>> {
        while let Some(action) = self.gateway.poll_action() {
            match action {
                Action::Inbound(command) => self.inbound.apply(command),
                Action::Outbound(command) => self.outbound.apply(command),
                Action::Log(_, line) => self.log.push(line),
                _ => {}
            }
        }
        cut(self.inbound.replies())
    }

    fn take(&mut self, datagrams: &[Vec<u8>], from: SocketAddr) -> Vec<Vec<u8>> {
        let mut batch = DatagramBatch::default();
        datagrams.iter().for_each(|datagram| batch.push(self.at, from, 0, datagram));
        let mut inner = InnerBatch::default();
        self.inbound.open(&batch, Instant::now(), &mut inner, &mut DatagramBatch::default());
        self.opened += inner.packets.len();
        cut(self.inbound.replies())
    }

    fn status(&self) -> TunnelStatus {
        let status = self.gateway.status(Instant::now());
        assert_eq!(status.connections[0].kind, "wireguard");
        status.connections[0].tunnels[0].clone()
    }
}

fn secrets(role: Role, config: &Config) -> BTreeMap<TunnelId, Secret> {
    config.wireguard.iter().map(|c| (c.tunnel, private(role))).collect()
}

fn cut(wire: &mut WireBatch) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for run in &wire.runs {
        out.extend(wire.bytes[run.range.clone()].chunks(run.segment).map(<[u8]>::to_vec));
    }
    wire.clear();
    out
}

struct Pair {
    vgw: Node,
    agent: Node,
}

impl Pair {
    fn new() -> Self {
        let (vgw, agent) = ("198.51.100.1:4500", "203.0.113.2:4500");
        Self { vgw: Node::new(Role::Vgw, vgw), agent: Node::new(Role::Agent, agent) }
    }

    /// Lets both do what is due until nobody has anything to say.
    fn settle(&mut self) {
        for node in [&mut self.vgw, &mut self.agent] {
            let due = node.gateway.poll_timeout();
            node.gateway.handle_timeout(due.max(Instant::now()));
        }
        let (mut to_agent, mut to_vgw) = (self.vgw.act(), self.agent.act());
        while !to_agent.is_empty() || !to_vgw.is_empty() {
            let from_agent = self.agent.take(&to_agent, self.vgw.at);
            to_agent = self.vgw.take(&to_vgw, self.agent.at);
            to_vgw = from_agent;
        }
        for node in [&mut self.vgw, &mut self.agent] {
            let due = node.gateway.poll_timeout();
            node.gateway.handle_timeout(due.max(Instant::now()));
        }
        self.vgw.act();
        self.agent.act();
    }

    /// One packet from the site to the VPC.
    fn passes(&mut self) -> bool {
        let mut packet =
            vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 168, 1, 1, 10, 0, 1, 1];
        packet.extend_from_slice(&[0, 9, 0, 9, 0, 8, 0, 0]);
        let mut inner = InnerBatch::default();
        inner.push(&packet);
        let mut wire = WireBatch::default();
        let now = Instant::now();
        self.agent.outbound.seal(&inner, now, &mut wire, &mut InnerBatch::default());
        let before = self.vgw.opened;
        self.vgw.take(&cut(&mut wire), self.agent.at);
        self.vgw.opened > before
    }
}

#[test]
fn the_agent_begins_and_both_say_up_with_what_a_user_wants_to_know() {
    let mut pair = Pair::new();
    assert_eq!(pair.vgw.status().why, "waiting for the peer to begin");
    assert!(pair.agent.status().why.starts_with("no handshake yet: "));
    pair.settle();
    assert!(pair.passes());
    let (vgw, agent) = (pair.vgw.status(), pair.agent.status());
    assert_eq!((vgw.state.as_str(), agent.state.as_str()), ("UP", "UP"));
    assert_eq!((vgw.mtu, agent.mtu), (Some(1440), Some(1400)));
    assert_eq!(vgw.peer.as_deref(), Some("203.0.113.2:4500"));
    assert_eq!(
        agent.peer_identity.as_deref(),
        Some(public_key(&private(Role::Vgw)).unwrap().to_string().as_str())
    );
    assert_eq!(vgw.last_handshake_seconds, Some(0));
    assert_eq!((vgw.packets_in, vgw.bytes_in, agent.packets_out), (1, 28, 1));
    assert!(pair.vgw.log.contains(&"wg-branch: UP: WireGuard with 203.0.113.2:4500".to_owned()));
    let table = pair.vgw.gateway.status(Instant::now()).table();
    let line = "wg-branch wireguard: UP for 0 s, 203.0.113.2:4500, MTU 1440, handshake 0 s ago, in 1 packets 28 B, out 0 packets 0 B";
    assert!(table.contains(line), "{table}");
}

#[test]
fn a_smaller_path_mtu_is_that_of_the_peer_at_the_address() {
    let mut pair = Pair::new();
    pair.settle();
    let mtu_of = |pair: &mut Pair, remote: &str, mtu: u16| {
        let path = sa::Path { local: pair.vgw.at, remote: remote.parse().unwrap() };
        pair.vgw.gateway.handle_path_mtu(path, mtu, Instant::now());
        // Found with the next look at all sessions.
        for _ in 0..2 {
            let due = pair.vgw.gateway.poll_timeout();
            pair.vgw.gateway.handle_timeout(due.max(Instant::now()));
        }
        pair.vgw.act();
        pair.vgw.status().mtu
    };
    assert_eq!(mtu_of(&mut pair, "203.0.113.2:4500", 1500), Some(1440));
    assert_eq!(mtu_of(&mut pair, "203.0.113.9:4500", 1300), Some(1440), "of nobody here");
    assert_eq!(mtu_of(&mut pair, "203.0.113.2:4500", 1400), Some(1340));
    let line = "wg-branch: the outer path takes 1400 octets".to_owned();
    assert_eq!(pair.vgw.log.iter().filter(|l| **l == line).count(), 1);
}

#[test]
fn a_user_takes_a_connection_down_and_up_and_rekeys_it() {
    let mut pair = Pair::new();
    pair.settle();
    let now = Instant::now();
    let gateway = &mut pair.vgw.gateway;
    gateway.handle_tunnel("wg-branch", 1, TunnelVerb::Down, now).unwrap();
    pair.settle();
    assert_eq!(
        (pair.vgw.status().state.as_str(), pair.vgw.status().why.as_str()),
        ("DOWN", "taken down by us")
    );
    assert!(!pair.passes());
    pair.vgw.gateway.handle_tunnel("wg-branch", 1, TunnelVerb::Up, now).unwrap();
    pair.agent.gateway.handle_tunnel("wg-vpc", 1, TunnelVerb::RekeyChild, now).unwrap();
    pair.settle();
    assert!(pair.passes());
    assert_eq!(pair.vgw.status().state, "UP");
    let gateway = &mut pair.vgw.gateway;
    let error = gateway.handle_tunnel("wg-branch", 2, TunnelVerb::Up, now).unwrap_err();
    assert_eq!(error, "no tunnel 2; a WireGuard connection has only 1");
    let error = gateway.handle_tunnel("wg-x", 1, TunnelVerb::Up, now).unwrap_err();
    assert_eq!(error, "no connection `wg-x`; there is wg-branch");
}

#[test]
fn a_reload_keeps_sessions_that_did_not_change_and_replaces_those_that_did() {
    let mut pair = Pair::new();
    pair.settle();
    let more = VGW.to_owned()
        + &VGW
            .split_once("\n\n")
            .unwrap()
            .1
            .replace("wg-branch", "wg-2")
            .replace("192.168.0.0/16", "192.168.9.0/24")
            .replace("SITE", &PublicKey([9; 32]).to_string());
    let config = parse(Role::Vgw, &more).unwrap();
    let now = Instant::now();
    let text = pair.vgw.gateway.handle_reload(config.clone(), secrets(Role::Vgw, &config), now);
    assert_eq!(
        text.unwrap(),
        "configuration reloaded: tunnels: 1 added, 0 changed, 0 removed, 1 untouched"
    );
    pair.settle();
    assert_eq!(pair.vgw.status().state, "UP");
    // The new one has the longer prefix: the old one may not speak for it.
    assert!(pair.passes());
    let config = parse(Role::Vgw, &VGW.replace("wg.key\"", "wg.key\"\nmtu = 1300")).unwrap();
    let text = pair.vgw.gateway.handle_reload(config.clone(), secrets(Role::Vgw, &config), now);
    assert_eq!(
        text.unwrap(),
        "configuration reloaded: tunnels: 0 added, 1 changed, 1 removed, 0 untouched"
    );
    pair.vgw.act();
    assert_eq!(pair.vgw.status().state, "DOWN");
}

/// Every prefix has one owner: IPsec's two tunnels, a WireGuard peer, or we ourselves.
#[test]
fn one_table_says_who_may_use_which_source() {
    let both = VGW.to_owned()
        + r#"
[[customer_gateway]]
id = "cgw-1"
identity = "branch.example"
[[vpn_connection]]
id = "vpn-branch"
customer_gateway = "cgw-1"
static_routes = ["192.168.7.0/24"]
[[vpn_connection.tunnel]]
outside_address = "198.51.100.10"
tunnel_inside_cidr = "169.254.10.0/30"
pre_shared_key_file = "psk"
[[vpn_connection.tunnel]]
outside_address = "198.51.100.11"
tunnel_inside_cidr = "169.254.11.0/30"
pre_shared_key_file = "psk"
"#;
    let config = parse(Role::Vgw, &both).unwrap();
    let secrets = secrets(Role::Vgw, &config);
    let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
    let counters = (Arc::default(), Arc::default());
    let endpoint = EndpointConfig::default();
    let mut gateway = Gateway::new(config, secrets, endpoint, rng, counters, Instant::now());
    let mut table = Vec::new();
    while let Some(action) = gateway.poll_action() {
        if let Action::Inbound(InboundCommand::SetSources(sources)) = action {
            table = sources.iter().map(|s| (s.prefix.to_string(), s.owner)).collect();
        }
    }
    table.sort();
    let owner = |ids: [u32; 2]| Some(ids.map(TunnelId));
    let expected = [
        ("10.0.0.0/16", None),
        ("169.254.10.2/32", owner([0, 0])),
        ("169.254.11.2/32", owner([1, 1])),
        ("192.168.0.0/16", owner([2, 2])),
        ("192.168.7.0/24", owner([0, 1])),
    ];
    assert_eq!(table, expected.map(|(prefix, owner)| (prefix.to_owned(), owner)));
}

const WG0: &str = "# a comment
[Interface]
PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
Address = 10.7.0.2/24, fd07::2/64
ListenPort = 51820
MTU = 1400
DNS = 10.7.0.1

[Peer]
publickey=hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
AllowedIPs = 10.0.0.0/16,  192.0.2.7
AllowedIPs = fd00::/48
Endpoint = [2001:db8::1]:51820 # of the head office
PersistentKeepalive = 25
";

#[test]
fn a_file_of_wg_quick_becomes_a_connection_and_comes_back() {
    let quick = WgQuick::parse(WG0, "wg0.conf").unwrap();
    assert_eq!(quick.ignored, [(7, "DNS".to_owned())]);
    let debug = format!("{quick:?}");
    assert!(!debug.contains("dwdt"), "{debug}");
    let again = WgQuick::parse(&quick.print(), "again").unwrap();
    assert_eq!(again, WgQuick { ignored: vec![], ..quick.clone() });
    let (tables, files) = quick.connections(Role::Agent, "office");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["office.key", "office.psk"]);
    let text = format!("[customer_gateway]\nid = \"cgw\"\nonprem_cidrs = []\n\n{tables}");
    let config = parse(Role::Agent, &text).unwrap();
    let connection = &config.wireguard[0];
    assert_eq!(connection.id, "office");
    assert_eq!(connection.endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));
    let routes: Vec<String> = connection.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.0.0.0/16", "192.0.2.7/32", "fd00::/48"]);
    assert_eq!(connection.inside_addresses, quick.addresses);
    assert_eq!((connection.mtu, connection.persistent_keepalive), (Some(1400), Some(25)));
    let key = parse_secret("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
    assert!(files.iter().all(|(_, of)| *of == key));
    assert!(!tables.contains("dwdt"));
}

#[test]
fn what_is_no_file_of_wg_quick_is_refused_by_line_and_key() {
    #[rustfmt::skip]
    let cases = [
        ("PrivateKey = dwdt", "PrivateKey = dwd", "3: PrivateKey: a WireGuard key is 32 octets in base64: 44 characters, the last one `=`"),
        ("MTU = 1400", "MTU = large", "6: MTU: large: must be a number of octets"),
        ("ListenPort = 51820", "ListenPort = 70000", "5: ListenPort: 70000: must be a port from 1 to 65535"),
        ("fd07::2/64", "fd07::2/129", "4: Address: fd07::2/129: must be an address or a prefix, such as 10.0.0.0/16"),
        ("DNS = ", "DNZ = ", "7: DNZ: is no key of [Interface]"),
        ("DNS = 10.7.0.1", "what is this", "7: must be [Interface] once and first, [Peer], or KEY = VALUE"),
        ("# a comment", "MTU = 1400", "1: MTU: stands before [Interface]"),
        ("[Peer]", "[Interface]", "9: must be [Interface] once and first, [Peer], or KEY = VALUE"),
        ("[2001:db8::1]:51820", "office.example:51820", "14: Endpoint: office.example:51820: must be an address and a port, such as 198.51.100.10:51820; a host name is not looked up"),
        ("PersistentKeepalive = 25", "PersistentKeepalive = often", "15: PersistentKeepalive: often: must be seconds, or `off`"),
        ("publickey=", "DNS=", "10: DNS: is no key of [Peer]"),
        ("publickey=hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "", "9: PublicKey is missing in this [Peer]"),
        ("PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "", "1: PrivateKey is missing in [Interface]"),
    ];
    for (from, to, expected) in cases {
        assert!(WG0.contains(from), "{from}");
        let error = WgQuick::parse(&WG0.replacen(from, to, 1), "wg0.conf").unwrap_err();
        assert_eq!(error.to_string(), format!("wg0.conf:{expected}"));
    }
}
