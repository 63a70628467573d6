//! Every kind of fault in a configuration, with the exact words and the line.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use control::config::{Config, Role};

const VGW: &str = include_str!("../../../config/vgw.toml");

/// What is changed in the example, into what, the line that is named, and what is said.
type Case = (&'static str, &'static str, usize, &'static str);

#[test]
fn every_kind_of_fault_is_named_with_its_line_its_key_and_what_would_be_right() {
    #[rustfmt::skip]
    let cases: &[Case] = &[
        // A key that is missing, in each kind of table.
        ("id = \"vgw-1\"\n", "", 3, "missing field `id` in [vpn_gateway]"),
        ("vpc_cidrs = [\"10.0.0.0/16\"]\n", "", 3, "missing field `vpc_cidrs` in [vpn_gateway]"),
        ("id = \"cgw-office\"\n", "", 20, "missing field `id` in [[customer_gateway]]"),
        ("customer_gateway = \"cgw-office\"\n", "", 29, "missing field `customer_gateway` in [[vpn_connection]]"),
        ("static_routes = [\"192.168.0.0/20\"]\n", "", 29, "missing field `static_routes` in [[vpn_connection]]"),
        ("outside_address = \"198.51.100.10\"\n", "", 34, "missing field `outside_address` in [[vpn_connection.tunnel]]"),
        ("tunnel_inside_cidr = \"169.254.10.0/30\"\n", "", 34, "missing field `tunnel_inside_cidr` in [[vpn_connection.tunnel]]"),
        ("pre_shared_key_file = \"psk-office-1\"\n", "", 34, "missing field `pre_shared_key_file` in [[vpn_connection.tunnel]]"),
        // A wrong type.
        ("id = \"vgw-1\"", "id = 1", 4, "id = 1: must be a string"),
        ("link_mtu = 1500", "link_mtu = \"large\"", 10, "link_mtu = \"large\": must be a number from 0 to 65535"),
        ("low_latency = false", "low_latency = 1", 11, "low_latency = 1: must be true or false"),
        ("relaxed_limits = false", "relaxed_limits = 0", 13, "relaxed_limits = 0: must be true or false"),
        ("nat_t_port = 4500", "nat_t_port = 70000", 8, "nat_t_port = 70000: must be a number from 0 to 65535"),
        ("mode = \"auto\"", "mode = \"fast\"", 17, "mode = \"fast\": must be one of `auto`, `offload`, `plain`"),
        ("phase2_pfs = true", "phase2_pfs = \"yes\"", 62, "phase2_pfs = \"yes\": must be true or false"),
        ("mobike = true", "mobike = \"yes\"", 50, "mobike = \"yes\": must be true or false"),
        ("esn = true", "esn = 1", 64, "esn = 1: must be true or false"),
        ("phase1_dh_group_numbers = [31, 20]", "phase1_dh_group_numbers = 31", 58, "phase1_dh_group_numbers = 31: must be a list in [ ]"),
        ("dpd_timeout_action = \"clear\"", "dpd_timeout_action = \"stop\"", 69, "dpd_timeout_action = \"stop\": must be one of `clear`, `none`, `restart`"),
        ("startup_action = \"add\"", "startup_action = \"begin\"", 70, "startup_action = \"begin\": must be `add` or `start`"),
        // What is no address, no prefix, no TOML.
        ("ip_address = \"203.0.113.2\"", "ip_address = \"203.0.113\"", 22, "ip_address = \"203.0.113\": must be an IP address"),
        ("outside_address = \"198.51.100.10\"", "outside_address = \"vgw.example\"", 35, "outside_address = \"vgw.example\": must be an IP address"),
        ("vpc_cidrs = [\"10.0.0.0/16\"]", "vpc_cidrs = [\"10.0.0.0/33\"]", 5, "vpc_cidrs = \"10.0.0.0/33\": must be a prefix, such as 10.0.0.0/16"),
        ("static_routes = [\"192.168.0.0/20\"]", "static_routes = [\"192.168.0.0\"]", 32, "static_routes = \"192.168.0.0\": must be a prefix, such as 10.0.0.0/16"),
        ("tunnel_inside_cidr = \"169.254.10.0/30\"", "tunnel_inside_cidr = \"169.254.10.0\"", 36, "tunnel_inside_cidr = \"169.254.10.0\": must be a /30, such as 169.254.10.0/30"),
        ("local_ipv4_network_cidr = \"0.0.0.0/0\"", "local_ipv4_network_cidr = \"::/0\"", 48, "local_ipv4_network_cidr = \"::/0\": must be an IPv4 prefix, such as 10.0.0.0/16"),
        ("[vpn_gateway.tun]", "[vpn_gateway.tun", 15, "unclosed table, expected `]`"),
        ("relaxed_limits = false", "link_mtu = 1400", 13, "link_mtu: this key stands twice"),
        // Unknown keys and tables.
        ("mode = \"auto\"", "modes = \"auto\"", 17, "unknown field `modes`, expected `name` or `mode`"),
        ("identity = \"branch.example\"", "ident = \"branch.example\"", 27, "unknown field `ident`, expected one of `id`, `ip_address`, `identity`"),
        ("static_routes = [\"192.168.0.0/20\"]", "routes = [\"192.168.0.0/20\"]", 32, "unknown field `routes`, expected one of `id`, `local_ipv4_network_cidr`, `remote_ipv4_network_cidr`, `local_ipv6_network_cidr`, `remote_ipv6_network_cidr`, `mobike`, `tunnel`, `customer_gateway`, `static_routes`"),
        // Ranges from above and from below.
        ("phase1_lifetime_seconds = 28800", "phase1_lifetime_seconds = 28801", 59, "phase1_lifetime_seconds = 28801: must be 900 to 28800"),
        ("phase1_lifetime_seconds = 28800", "phase1_lifetime_seconds = -1", 59, "phase1_lifetime_seconds = -1: must be a number, 0 or more"),
        ("phase1_lifetime_seconds = 28800", "phase1_lifetime_seconds = 1800", 63, "phase2_lifetime_seconds = 3600: must be less than phase1_lifetime_seconds, which is 1800"),
        ("phase2_lifetime_seconds = 3600", "phase2_lifetime_seconds = 60", 63, "phase2_lifetime_seconds = 60: must be 900 to 3600 (relaxed_limits = true lifts the minimum)"),
        ("phase2_lifetime_seconds = 3600", "phase2_lifetime_seconds = 3601", 63, "phase2_lifetime_seconds = 3601: must be 900 to 3600"),
        ("rekey_margin_time_seconds = 270", "rekey_margin_time_seconds = 30", 65, "rekey_margin_time_seconds = 30: must be 60 to 1800 (relaxed_limits = true lifts the minimum)"),
        ("rekey_fuzz_percentage = 100", "rekey_fuzz_percentage = 300", 66, "rekey_fuzz_percentage = 300: must be 0 to 100"),
        ("replay_window_size = 1024", "replay_window_size = 8193", 67, "replay_window_size = 8193: must be 64 to 8192"),
        ("dpd_timeout_seconds = 30", "dpd_timeout_seconds = 86401", 68, "dpd_timeout_seconds = 86401: must be 30 to 86400"),
        ("dpd_timeout_seconds = 30", "dpd_timeout_seconds = 0", 68, "dpd_timeout_seconds = 0: must be 30 to 86400"),
        ("path_probe_timeout_seconds = 10", "path_probe_timeout_seconds = 86401", 71, "path_probe_timeout_seconds = 86401: must be 0 to 86400"),
        ("path_mtu_raise_seconds = 600", "path_mtu_raise_seconds = 5", 72, "path_mtu_raise_seconds = 5: must be 60 to 86400 (relaxed_limits = true lifts the minimum)"),
        ("link_mtu = 1500", "link_mtu = 9217", 10, "link_mtu = 9217: must be 576 to 9216"),
        ("ike_port = 500", "ike_port = 0", 7, "ike_port: a port from 1 to 65535, or \"off\""),
        ("name = \"vgw0\"", "name = \"\"", 16, "tun.name = \"\": 1 to 15 letters, digits, `-`, `_` or `.`"),
        // Names of algorithms.
        ("phase2_dh_group_numbers = [31, 20]", "phase2_dh_group_numbers = [5]", 61, "phase2_dh_group_numbers: group 5 is too weak to support; use one of 14, 15, 16, 19, 20, 21, 31"),
        ("phase2_dh_group_numbers = [31, 20]", "phase2_dh_group_numbers = [25]", 61, "phase2_dh_group_numbers: group 25 is not supported; use one of 14, 15, 16, 19, 20, 21, 31"),
        ("phase1_encryption_algorithms = [\"AES256-GCM-16\", ", "phase1_encryption_algorithms = [\"3DES\", ", 56, "phase1_encryption_algorithms: `3DES` is not known; use one of AES256-GCM-16, AES128-GCM-16, CHACHA20-POLY1305, AES256, AES128"),
        // Inside addresses.
        ("169.254.12.0/30", "169.254.12.1/30", 54, "tunnel_inside_cidr = \"169.254.12.1/30\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)"),
        ("169.254.12.0/30", "169.254.12.0/29", 54, "tunnel_inside_cidr = \"169.254.12.0/29\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)"),
        ("169.254.12.0/30", "10.9.9.0/30", 54, "tunnel_inside_cidr = \"10.9.9.0/30\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)"),
        ("169.254.12.0/30", "169.254.169.252/30", 54, "tunnel_inside_cidr = \"169.254.169.252/30\": must be a /30 in 169.254.0.0/16 other than 169.254.0.0 to 169.254.5.0 and 169.254.169.252 (relaxed_limits = true allows private ranges, too)"),
        // Things that exist twice.
        ("id = \"cgw-branch\"", "id = \"cgw-office\"", 26, "id = \"cgw-office\": two customer gateways have this id"),
    ];
    for (from, to, line, message) in cases {
        assert!(VGW.contains(from), "the example has no `{from}`");
        let error = Config::parse(Role::Vgw, &VGW.replacen(from, to, 1), "vgw.toml").unwrap_err();
        assert_eq!(error.to_string(), format!("vgw.toml:{line}: {message}"), "{from} -> {to}");
    }
}

#[test]
fn a_file_that_is_no_configuration_is_refused() {
    let refused = |role, text: &str| Config::parse(role, text, "f.toml").unwrap_err().to_string();
    assert_eq!(refused(Role::Vgw, ""), "f.toml:1: missing field `vpn_gateway` in the file");
    assert_eq!(refused(Role::Agent, ""), "f.toml:1: missing field `customer_gateway` in the file");
    let agents = include_str!("../../../config/cgw-agent.toml");
    let error = refused(Role::Vgw, agents);
    assert!(error.starts_with("f.toml:3: "), "{error}");
}

#[test]
fn the_control_socket_of_a_file_that_is_being_mended_is_known() {
    let socket = |role, text: &str| control::config::control_socket(role, text);
    assert_eq!(socket(Role::Vgw, VGW), "/run/vgw/vgw.sock");
    assert_eq!(
        socket(Role::Agent, "[customer_gateway]\nid = 7\n"),
        "/run/cgw-agent/cgw-agent.sock"
    );
    assert_eq!(socket(Role::Vgw, "this is no TOML"), "/run/vgw/vgw.sock");
    let wrong = "[vpn_gateway]\ncontrol_socket = \"/tmp/s\"\nvpc_cidrs = [\"10.0.0.0/99\"]\n";
    assert_eq!(socket(Role::Vgw, wrong), "/tmp/s");
}
