//! WireGuard connections: their tables, checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::WireGuardPeerConfig;
use ipnet::IpNet;
use sa::TunnelId;
use serde::Deserialize;

use super::error::Source;
use super::key::PublicKey;
use super::raw::S;
use super::{ConfigError, plain};

/// A connection with one WireGuard peer.
#[derive(Clone, PartialEq, Debug)]
pub struct WireGuardConnection {
    /// Its number in both planes.
    pub tunnel: TunnelId,
    /// Its name.
    pub id: String,
    /// The file of our private key, relative to the configuration's folder.
    pub private_key_file: String,
    /// The peer's public key.
    pub peer_public_key: PublicKey,
    /// The file of the pre-shared key, if there is one.
    pub preshared_key_file: Option<String>,
    /// Where the peer is, if that is known; otherwise it begins.
    pub endpoint: Option<SocketAddr>,
    /// Our outside address, if it is fixed.
    pub local: Option<IpAddr>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
    /// Our addresses on the TUN device.
    pub inside_addresses: Vec<IpNet>,
    /// The networks on the peer's side: what is sent to it, and what it may speak for.
    pub routes: Vec<IpNet>,
    /// Bounds the inner MTU.
    pub mtu: Option<u16>,
    /// Age at which a session that we began is replaced.
    pub rekey_after: Duration,
}

macro_rules! table {
    ($name:ident { $($field:ident: $kind:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            id: S<String>,
            private_key_file: String,
            peer_public_key: S<String>,
            preshared_key_file: Option<String>,
            persistent_keepalive: Option<S<u16>>,
            #[serde(default)]
            inside_addresses: Vec<IpNet>,
            mtu: Option<S<u16>>,
            rekey_after_seconds: Option<S<u64>>,
            $($field: $kind,)*
        }
    };
}

table!(VgwTable { endpoint: Option<S<String>>, static_routes: Vec<S<IpNet>>, });
table!(AgentTable { endpoint: S<String>, vpc_cidrs: Vec<S<IpNet>>, });

macro_rules! checked {
    ($source:expr, $table:expr, $endpoint:expr, $routes:expr) => {
        Checked {
            source: $source,
            peer_public_key: $table.peer_public_key,
            keepalive: $table.persistent_keepalive,
            mtu: $table.mtu,
            rekey_after: $table.rekey_after_seconds,
            endpoint: $endpoint,
        }
        .connection($table.private_key_file, $table.preshared_key_file, $table.inside_addresses)
        .map(|connection| {
            let routes = plain($routes);
            ($table.id, WireGuardConnection { routes, ..connection })
        })
    };
}

/// The values of a table that have limits.
struct Checked<'a> {
    source: &'a Source<'a>,
    peer_public_key: S<String>,
    keepalive: Option<S<u16>>,
    mtu: Option<S<u16>>,
    rekey_after: Option<S<u64>>,
    endpoint: Option<S<String>>,
}

pub(super) fn vgw(
    source: &Source<'_>,
    table: VgwTable,
) -> Result<(S<String>, WireGuardConnection), ConfigError> {
    checked!(source, table, table.endpoint, table.static_routes)
}

pub(super) fn agent(
    source: &Source<'_>,
    table: AgentTable,
) -> Result<(S<String>, WireGuardConnection), ConfigError> {
    checked!(source, table, Some(table.endpoint), table.vpc_cidrs)
}

impl Checked<'_> {
    fn connection(
        self,
        private_key_file: String,
        preshared_key_file: Option<String>,
        inside_addresses: Vec<IpNet>,
    ) -> Result<WireGuardConnection, ConfigError> {
        let refuse = |span, text: String| Err(self.source.error(&span, text));
        let peer_public_key = match self.peer_public_key.get_ref().parse() {
            Ok(key) => key,
            Err(why) => {
                let text =
                    format!("peer_public_key = \"{}\": {why}", self.peer_public_key.get_ref());
                return refuse(self.peer_public_key.span(), text);
            }
        };
        if let Some(seconds) = self.keepalive.as_ref().filter(|s| *s.get_ref() == 0) {
            let text = "persistent_keepalive = 0: must be 1 to 65535; leave it out for none";
            return refuse(seconds.span(), text.into());
        }
        if let Some(mtu) = self.mtu.as_ref().filter(|mtu| !(576..=9156).contains(mtu.get_ref())) {
            return refuse(mtu.span(), format!("mtu = {}: must be 576 to 9156", mtu.get_ref()));
        }
        let limit = WireGuardPeerConfig::REKEY_AFTER.as_secs();
        let rekey = self.rekey_after.as_ref();
        if let Some(age) = rekey.filter(|age| !(5..=limit).contains(age.get_ref())) {
            let text = format!("rekey_after_seconds = {}: must be 5 to {limit}", age.get_ref());
            return refuse(age.span(), text);
        }
        let endpoint = match &self.endpoint {
            None => None,
            Some(text) => match text.get_ref().parse::<SocketAddr>() {
                Ok(address) if address.port() > 0 => Some(address),
                _ => {
                    let text_ = format!(
                        "endpoint = \"{}\": must be an address and a port, such as 198.51.100.10:4500 or [2001:db8::1]:4500",
                        text.get_ref()
                    );
                    return refuse(text.span(), text_);
                }
            },
        };
        Ok(WireGuardConnection {
            tunnel: TunnelId(0),
            id: String::new(),
            private_key_file,
            peer_public_key,
            preshared_key_file,
            endpoint,
            local: None,
            persistent_keepalive: self.keepalive.map(S::into_inner),
            inside_addresses,
            routes: Vec::new(),
            mtu: self.mtu.map(S::into_inner),
            rekey_after: Duration::from_secs(rekey.map_or(limit, |age| *age.get_ref())),
        })
    }
}

/// Gives each its name and its number from `first` on, and checks what none can know alone: names,
/// prefixes and peers are unique. `taken` are the names and prefixes of the IPsec connections.
pub(super) fn finish(
    source: &Source<'_>,
    connections: Vec<(S<String>, WireGuardConnection)>,
    taken: &[(&str, &[IpNet])],
    first: u32,
) -> Result<Vec<WireGuardConnection>, ConfigError> {
    let mut out: Vec<WireGuardConnection> = Vec::new();
    for ((id, mut connection), tunnel) in connections.into_iter().zip(first..) {
        let (name, span) = (id.get_ref().clone(), id.span());
        let refuse = |text: String| Err(source.error(&span, text));
        let others = || {
            let ours = out.iter().map(|c| (c.id.as_str(), c.routes.as_slice()));
            taken.iter().copied().chain(ours)
        };
        if others().any(|(other, _)| other == name) {
            return refuse(format!("id = \"{name}\": two connections have this id"));
        }
        for (other, routes) in others() {
            if let Some(prefix) = connection.routes.iter().find(|p| routes.contains(p)) {
                return refuse(format!("{name}: {prefix} is routed to connection {other} already"));
            }
        }
        let same = |c: &&WireGuardConnection| {
            c.peer_public_key == connection.peer_public_key
                && c.private_key_file == connection.private_key_file
        };
        if let Some(other) = out.iter().find(same) {
            return refuse(format!(
                "{name}: peer_public_key is that of connection {} already, with the same private_key_file",
                other.id
            ));
        }
        connection.id = name;
        connection.tunnel = TunnelId(tunnel);
        out.push(connection);
    }
    Ok(out)
}
