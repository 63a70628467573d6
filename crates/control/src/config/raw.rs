//! The two kinds of file as TOML has them, before anything is checked.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Spanned;

use super::wireguard;

pub(super) type S<T> = Spanned<T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VgwFile {
    pub(super) vpn_gateway: VpnGateway,
    #[serde(default)]
    pub(super) customer_gateway: Vec<CustomerGateway>,
    #[serde(default)]
    pub(super) vpn_connection: Vec<VgwConnection>,
    #[serde(default)]
    pub(super) wireguard_connection: Vec<wireguard::VgwTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    pub(super) customer_gateway: Agent,
    #[serde(default)]
    pub(super) vpn_connection: Vec<AgentConnection>,
    #[serde(default)]
    pub(super) wireguard_connection: Vec<wireguard::AgentTable>,
}

/// What both daemons say of themselves. (Flattening would cost the line numbers of errors.)
macro_rules! daemon {
    ($name:ident { $($field:ident: $kind:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            pub(super) id: String,
            pub(super) listen: Option<Vec<IpAddr>>,
            pub(super) ike_port: Option<S<Port>>,
            pub(super) nat_t_port: Option<u16>,
            pub(super) control_socket: Option<String>,
            pub(super) link_mtu: Option<S<u16>>,
            #[serde(default)]
            pub(super) relaxed_limits: bool,
            #[serde(default)]
            pub(super) low_latency: bool,
            #[serde(default)]
            pub(super) tun: Tun,
            #[serde(default)]
            pub(super) offloads: super::Offloads,
            $(pub(super) $field: $kind,)*
        }
    };
}

daemon!(VpnGateway { vpc_cidrs: Vec<S<IpNet>>, });
daemon!(Agent { onprem_cidrs: Vec<S<IpNet>>, identity: Option<S<String>>, });

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Port {
    Number(u16),
    Word(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tun {
    pub(super) name: Option<S<String>>,
    pub(super) mode: Option<super::TunMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CustomerGateway {
    pub(super) id: S<String>,
    pub(super) ip_address: Option<IpAddr>,
    pub(super) identity: Option<S<String>>,
}

macro_rules! connection {
    ($name:ident { $($field:ident: $kind:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            pub(super) id: S<String>,
            pub(super) local_ipv4_network_cidr: Option<Ipv4Net>,
            pub(super) remote_ipv4_network_cidr: Option<Ipv4Net>,
            pub(super) local_ipv6_network_cidr: Option<Ipv6Net>,
            pub(super) remote_ipv6_network_cidr: Option<Ipv6Net>,
            pub(super) mobike: Option<bool>,
            #[serde(default)]
            pub(super) tunnel: Vec<Tunnel>,
            $(pub(super) $field: $kind,)*
        }
    };
}

connection!(VgwConnection { customer_gateway: S<String>, static_routes: Vec<S<IpNet>>, });
connection!(AgentConnection { vpc_cidrs: Vec<S<IpNet>>, });

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tunnel {
    pub(super) outside_address: S<IpAddr>,
    pub(super) tunnel_inside_cidr: S<Ipv4Net>,
    pub(super) tunnel_inside_ipv6_cidr: Option<S<Ipv6Net>>,
    pub(super) pre_shared_key_file: String,
    pub(super) identity: Option<S<String>>,
    pub(super) remote_identity: Option<S<String>>,
    pub(super) remote_port: Option<u16>,
    pub(super) phase1_encryption_algorithms: Option<Vec<S<String>>>,
    pub(super) phase2_encryption_algorithms: Option<Vec<S<String>>>,
    pub(super) phase1_integrity_algorithms: Option<Vec<S<String>>>,
    pub(super) phase2_integrity_algorithms: Option<Vec<S<String>>>,
    pub(super) phase1_dh_group_numbers: Option<Vec<S<u16>>>,
    pub(super) phase2_dh_group_numbers: Option<Vec<S<u16>>>,
    pub(super) phase2_pfs: Option<bool>,
    pub(super) esn: Option<bool>,
    pub(super) phase1_lifetime_seconds: Option<S<u64>>,
    pub(super) phase2_lifetime_seconds: Option<S<u64>>,
    pub(super) phase2_lifetime_bytes: Option<u64>,
    pub(super) phase2_lifetime_packets: Option<u64>,
    pub(super) rekey_margin_time_seconds: Option<S<u64>>,
    pub(super) rekey_fuzz_percentage: Option<S<u64>>,
    pub(super) replay_window_size: Option<S<u64>>,
    pub(super) dpd_timeout_seconds: Option<S<u64>>,
    pub(super) dpd_timeout_action: Option<super::DpdAction>,
    pub(super) path_probe_timeout_seconds: Option<S<u64>>,
    pub(super) path_mtu_raise_seconds: Option<S<u64>>,
    pub(super) startup_action: Option<super::StartupAction>,
}
