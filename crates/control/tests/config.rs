//! Configurations that are right, and the exact words about those that are not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use control::config::{Config, DpdAction, Role, StartupAction};
use ike::message::Identity;

const VGW: &str = include_str!("../../../config/vgw.toml");
const AGENT: &str = include_str!("../../../config/cgw-agent.toml");

fn vgw(text: &str) -> Result<Config, String> {
    Config::parse(Role::Vgw, text, "vgw.toml").map_err(|error| error.to_string())
}

fn agent(text: &str) -> Result<Config, String> {
    Config::parse(Role::Agent, text, "cgw-agent.toml").map_err(|error| error.to_string())
}

/// The example with one change, which must be possible.
fn changed(from: &str, to: &str) -> String {
    assert!(VGW.contains(from), "the example has no `{from}`");
    VGW.replacen(from, to, 1)
}

/// The line of the example that `needle` stands on.
fn line(needle: &str) -> usize {
    VGW.lines().position(|line| line.contains(needle)).unwrap() + 1
}

#[test]
fn the_examples_are_right_and_mean_the_same_from_both_sides() {
    let (vgw, agent) = (vgw(VGW).unwrap(), agent(AGENT).unwrap());
    let (cloud, site) = (&vgw.connections[1], &agent.connections[0]);
    assert_eq!(cloud.id, site.id);
    for (ours, theirs) in cloud.tunnels.iter().zip(&site.tunnels) {
        assert_eq!(ours.inside_v4, (theirs.inside_v4.1, theirs.inside_v4.0));
        assert_eq!(ours.local, theirs.remote);
        assert_eq!(Some(&ours.local_id), theirs.remote_id.as_ref());
        assert_eq!(ours.remote_id.as_ref(), Some(&theirs.local_id));
    }
    assert_eq!(site.tunnels[0].local_id, Identity::Fqdn("branch.example".into()));
    assert_eq!(cloud.tunnels[0].options.startup_action, StartupAction::Add);
    assert_eq!(site.tunnels[0].options.dpd_timeout_action, DpdAction::Restart);
    assert_eq!(vgw.connections[0].tunnels[0].remote, Some("203.0.113.2".parse().unwrap()));
    assert_eq!(vgw.own_cidrs, agent.connections[0].routes);
    let ids: Vec<u32> = vgw.connections.iter().flat_map(|c| &c.tunnels).map(|t| t.id.0).collect();
    assert_eq!(ids, [0, 1, 2, 3]);
}

#[test]
fn the_defaults_are_those_of_aws() {
    let config = vgw(VGW).unwrap();
    let options = &config.connections[0].tunnels[0].options;
    assert_eq!(options.phase1_lifetime, Duration::from_secs(28_800));
    assert_eq!(options.phase2_lifetime.time, Duration::from_secs(3_600));
    assert_eq!(options.rekey_margin, Duration::from_secs(270));
    assert_eq!(options.rekey_fuzz_percentage, 100);
    assert_eq!(options.replay_window, 1024);
    assert_eq!(options.dpd_timeout, Duration::from_secs(30));
    assert_eq!(options.dpd_timeout_action, DpdAction::Clear);
    assert!(options.mobike, "AWS has no such option");
}

#[test]
fn what_is_out_of_range_is_named_with_its_line_and_its_range() {
    let cases = [
        (
            "phase1_lifetime_seconds = 28800",
            "phase1_lifetime_seconds = 60",
            "phase1_lifetime_seconds = 60: must be 900 to 28800 (relaxed_limits = true lifts the minimum)",
        ),
        (
            "phase2_lifetime_seconds = 3600",
            "phase2_lifetime_seconds = 7200",
            "phase2_lifetime_seconds = 7200: must be 900 to 3600",
        ),
        (
            "rekey_margin_time_seconds = 270",
            "rekey_margin_time_seconds = 1801",
            "rekey_margin_time_seconds = 1801: must be 60 to 1800",
        ),
        (
            "rekey_fuzz_percentage = 100",
            "rekey_fuzz_percentage = 101",
            "rekey_fuzz_percentage = 101: must be 0 to 100",
        ),
        (
            "replay_window_size = 1024",
            "replay_window_size = 32",
            "replay_window_size = 32: must be 64 to 8192",
        ),
        (
            "dpd_timeout_seconds = 30",
            "dpd_timeout_seconds = 5",
            "dpd_timeout_seconds = 5: must be 30 to 86400 (relaxed_limits = true lifts the minimum)",
        ),
        ("link_mtu = 1500", "link_mtu = 100", "link_mtu = 100: must be 576 to 9216"),
        ("ike_port = 500", "ike_port = \"on\"", "ike_port: a port from 1 to 65535, or \"off\""),
        (
            "name = \"vgw0\"",
            "name = \"a name that is too long\"",
            "tun.name = \"a name that is too long\": 1 to 15 letters, digits, `-`, `_` or `.`",
        ),
        (
            "phase1_integrity_algorithms = [\"SHA2-384\"]",
            "phase1_integrity_algorithms = [\"SHA1\"]",
            "phase1_integrity_algorithms: SHA1 is not secure enough to support; use one of SHA2-512, SHA2-384, SHA2-256",
        ),
        (
            "phase1_dh_group_numbers = [31, 20]",
            "phase1_dh_group_numbers = [2]",
            "phase1_dh_group_numbers: group 2 is too weak to support; use one of 14, 15, 16, 19, 20, 21, 31",
        ),
        (
            "phase2_encryption_algorithms = [\"AES256-GCM-16\"]",
            "phase2_encryption_algorithms = [\"DES\"]",
            "phase2_encryption_algorithms: `DES` is not known; use one of AES256-GCM-16, AES128-GCM-16, CHACHA20-POLY1305, AES256, AES128",
        ),
        (
            "tunnel_inside_cidr = \"169.254.12.0/30\"",
            "tunnel_inside_cidr = \"169.254.5.0/30\"",
            "tunnel_inside_cidr = \"169.254.5.0/30\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)",
        ),
        (
            "identity = \"branch.example\"",
            "identity = \"branch office\"",
            "identity: `branch office` is neither an address, a host name, a mail address nor `keyid:HEX`",
        ),
        (
            "customer_gateway = \"cgw-branch\"",
            "customer_gateway = \"cgw-brunch\"",
            "customer_gateway = \"cgw-brunch\": no [[customer_gateway]] has this id; there is cgw-branch, cgw-office",
        ),
        (
            "id = \"vpn-branch\"",
            "id = \"vpn-office\"",
            "id = \"vpn-office\": two connections have this id",
        ),
    ];
    for (from, to, message) in cases {
        let expected = format!("vgw.toml:{}: {message}", line(from));
        assert_eq!(vgw(&changed(from, to)), Err(expected));
    }
}

#[test]
fn what_no_line_can_know_alone_is_named_by_its_connection() {
    let at = line("id = \"vpn-branch\"");
    let cases = [
        (
            "static_routes = [\"192.168.16.0/20\"]",
            "static_routes = [\"192.168.0.0/20\"]",
            "vpn-branch: 192.168.0.0/20 is routed to connection vpn-office already",
        ),
        (
            "169.254.12.0/30",
            "169.254.10.0/30",
            "vpn-branch: tunnel_inside_cidr of tunnel 1 is that of another tunnel",
        ),
        (
            "169.254.13.0/30",
            "169.254.12.0/30",
            "vpn-branch: tunnel_inside_cidr of tunnel 2 is that of another tunnel",
        ),
    ];
    for (from, to, message) in cases {
        assert_eq!(vgw(&changed(from, to)), Err(format!("vgw.toml:{at}: {message}")));
    }
    let one = VGW.rfind("[[vpn_connection.tunnel]]").unwrap();
    let message =
        "vpn-branch: a connection has exactly two [[vpn_connection.tunnel]], and this has 1";
    assert_eq!(vgw(&VGW[..one]), Err(format!("vgw.toml:{at}: {message}")));
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    let error = vgw(&changed("link_mtu = 1500", "link_mut = 1500")).unwrap_err();
    let start = format!("vgw.toml:{}: unknown field `link_mut`, expected one of", line("link_mtu"));
    assert!(error.starts_with(&start) && error.contains("`link_mtu`"), "{error}");
}

#[test]
fn relaxed_limits_lift_minima_and_no_other_limit() {
    let relaxed = changed("relaxed_limits = false", "relaxed_limits = true");
    let short = relaxed
        .replace("phase1_lifetime_seconds = 28800", "phase1_lifetime_seconds = 20")
        .replace("phase2_lifetime_seconds = 3600", "phase2_lifetime_seconds = 20")
        .replace("rekey_margin_time_seconds = 270", "rekey_margin_time_seconds = 5")
        .replace("dpd_timeout_seconds = 30", "dpd_timeout_seconds = 3");
    let config = vgw(&short).unwrap();
    let options = &config.connections[1].tunnels[0].options;
    assert_eq!(options.phase2_lifetime.time, Duration::from_secs(20));
    assert_eq!(options.dpd_timeout, Duration::from_secs(3));
    for zero in ["phase1_lifetime_seconds = 20", "dpd_timeout_seconds = 3"] {
        let key = zero.split(' ').next().unwrap();
        assert!(vgw(&short.replace(zero, &format!("{key} = 0"))).is_err());
    }
}

#[test]
fn relaxed_limits_allow_inside_blocks_of_private_ranges() {
    let relaxed = changed("relaxed_limits = false", "relaxed_limits = true");
    for (block, allowed) in [
        ("10.9.9.0/30", true),
        ("100.127.255.252/30", true),
        ("172.31.0.4/30", true),
        ("192.168.77.8/30", true),
        ("169.254.5.0/30", false),
        ("169.254.169.252/30", false),
        ("10.9.9.1/30", false),
        ("10.9.9.0/29", false),
        ("100.128.0.0/30", false),
        ("198.51.100.0/30", false),
        ("0.0.0.0/30", false),
    ] {
        let config = vgw(&relaxed.replace("169.254.12.0/30", block));
        assert_eq!(config.is_ok(), allowed, "{block}: {config:?}");
    }
}

#[test]
fn without_an_ipv6_network_ipv6_is_not_negotiated() {
    let config = vgw(VGW).unwrap();
    assert_eq!(config.connections[0].tunnels[0].local_selectors.0.len(), 1);
    let both = changed(
        "remote_ipv4_network_cidr = \"0.0.0.0/0\"",
        "local_ipv6_network_cidr = \"fd01::/48\"\nremote_ipv4_network_cidr = \"10.0.0.0/16\"",
    );
    let tunnel = &vgw(&both).unwrap().connections[1].tunnels[0];
    assert_eq!(tunnel.local_selectors.to_string(), "10.0.0.0/16, ::/0");
    assert_eq!(tunnel.remote_selectors.to_string(), "0.0.0.0/0, fd01::/48");
}

#[test]
fn an_agent_without_identity_and_without_listen_is_refused() {
    let bare: String =
        AGENT.lines().filter(|l| !l.starts_with("identity")).map(|l| format!("{l}\n")).collect();
    let error = agent(&bare).unwrap_err();
    assert!(error.ends_with(
        "vpn-branch/tunnel 1: `identity` of [customer_gateway] is missing, and without `listen` there is no address to take instead"
    ), "{error}");
}
