//! The file format of `wg-quick`: reading one, and writing one.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use sa::Secret;
use zeroize::Zeroizing;

use super::key::{PublicKey, parse_secret, print_secret};
use super::{ConfigError, Role};

/// A file of `wg-quick`. `Debug` shows no secret.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WgQuick {
    /// Our private key; `None` where only its owner knows it.
    pub private_key: Option<Secret>,
    /// The addresses of the interface.
    pub addresses: Vec<IpNet>,
    /// Our UDP port.
    pub listen_port: Option<u16>,
    /// The MTU of the interface.
    pub mtu: Option<u16>,
    /// All peers.
    pub peers: Vec<WgPeer>,
    /// Line and key of what has no counterpart here.
    pub ignored: Vec<(usize, String)>,
}

/// A `[Peer]` of a file of `wg-quick`.
#[derive(Clone, PartialEq, Debug)]
pub struct WgPeer {
    /// Its public key.
    pub public_key: PublicKey,
    /// The pre-shared key, if there is one.
    pub preshared_key: Option<Secret>,
    /// What is sent to it, and what it may speak for.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is, if that is known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
}

/// Keys of `[Interface]` that concern the host and not the tunnel.
const HOST_KEYS: [&str; 8] =
    ["dns", "table", "preup", "postup", "predown", "postdown", "saveconfig", "fwmark"];

/// A peer while its lines are read.
struct Draft {
    line: usize,
    public_key: Option<PublicKey>,
    peer: WgPeer,
}

impl WgQuick {
    /// Reads a file. `file` names it in errors.
    ///
    /// # Errors
    /// The first line that is wrong, with its key and what would be right. Keys are not repeated.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let mut out = Self::default();
        let mut drafts: Vec<Draft> = Vec::new();
        let mut in_interface = false;
        for (line, number) in text.lines().zip(1..) {
            let error = |message: String| ConfigError::at_line(file, number, message);
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.to_ascii_lowercase().as_str() {
                "" => continue,
                "[interface]" if drafts.is_empty() && !in_interface => {
                    in_interface = true;
                    continue;
                }
                "[peer]" => {
                    in_interface = false;
                    drafts.push(Draft::new(number));
                    continue;
                }
                _ => {}
            }
            let Some((key, value)) = line.split_once('=') else {
                let text = "must be [Interface] once and first, [Peer], or KEY = VALUE";
                return Err(error(text.into()));
            };
            let (key, value) = (key.trim(), value.trim());
            let taken = match drafts.last_mut() {
                Some(draft) => draft.take(key, value),
                None if in_interface => out.take(number, key, value),
                None => Err("stands before [Interface]".into()),
            };
            taken.map_err(|why| error(format!("{key}: {why}")))?;
        }
        if out.private_key.is_none() {
            let text = "PrivateKey is missing in [Interface]".into();
            return Err(ConfigError::at_line(file, 1, text));
        }
        for Draft { line, public_key, peer } in drafts {
            let missing =
                || ConfigError::at_line(file, line, "PublicKey is missing in this [Peer]".into());
            out.peers.push(WgPeer { public_key: public_key.ok_or_else(missing)?, ..peer });
        }
        Ok(out)
    }

    fn take(&mut self, line: usize, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "privatekey" => self.private_key = Some(parse_secret(value)?),
            "address" => self.addresses.extend(networks(value)?),
            "listenport" => self.listen_port = Some(number(value, "a port from 1 to 65535")?),
            "mtu" => self.mtu = Some(number(value, "a number of octets")?),
            other if HOST_KEYS.contains(&other) => self.ignored.push((line, key.to_owned())),
            _ => return Err("is no key of [Interface]".into()),
        }
        Ok(())
    }

    /// The text of the file. The caller must not log it.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        // Large enough from the start: a growing string leaves copies behind.
        let mut out = Zeroizing::new(String::with_capacity(4096 + self.peers.len() * 4096));
        out.push_str("[Interface]\n");
        match &self.private_key {
            Some(key) => line(&mut out, "PrivateKey", &print_secret(key)),
            None => out.push_str("# PrivateKey = the private key of this side (wg genkey)\n"),
        }
        list(&mut out, "Address", &self.addresses);
        optional(&mut out, "ListenPort", self.listen_port);
        optional(&mut out, "MTU", self.mtu);
        for peer in &self.peers {
            out.push_str("\n[Peer]\n");
            line(&mut out, "PublicKey", &peer.public_key.to_string());
            if let Some(key) = &peer.preshared_key {
                line(&mut out, "PresharedKey", &print_secret(key));
            }
            list(&mut out, "AllowedIPs", &peer.allowed_ips);
            optional(&mut out, "Endpoint", peer.endpoint);
            optional(&mut out, "PersistentKeepalive", peer.persistent_keepalive);
        }
        out
    }

    /// The same as tables of our configuration: one connection for each peer, `id` if there is one
    /// and `id-1`, `id-2` and so on if there are more. Key files are `ID.key` and
    /// `CONNECTION.psk`. Returns the text and the files with their keys.
    #[must_use]
    pub fn connections(&self, role: Role, id: &str) -> (String, Vec<(String, Secret)>) {
        let (mut out, mut files) = (String::new(), Vec::new());
        let private = format!("{id}.key");
        files.extend(self.private_key.clone().map(|key| (private.clone(), key)));
        for (peer, number) in self.peers.iter().zip(1..) {
            let name = if self.peers.len() == 1 { id.into() } else { format!("{id}-{number}") };
            let _ = write!(
                out,
                "[[wireguard_connection]]\nid = \"{name}\"\nprivate_key_file = \"{private}\"\npeer_public_key = \"{}\"\n",
                peer.public_key
            );
            if let Some(key) = &peer.preshared_key {
                let _ = writeln!(out, "preshared_key_file = \"{name}.psk\"");
                files.push((format!("{name}.psk"), key.clone()));
            }
            match (peer.endpoint, role) {
                (Some(endpoint), _) => drop(writeln!(out, "endpoint = \"{endpoint}\"")),
                (None, Role::Agent) => {
                    out.push_str("# endpoint = \"ADDRESS:PORT\"  # is needed here\n")
                }
                (None, Role::Vgw) => {}
            }
            if let Some(seconds) = peer.persistent_keepalive {
                let _ = writeln!(out, "persistent_keepalive = {seconds}");
            }
            let routes = match role {
                Role::Vgw => "static_routes",
                Role::Agent => "vpc_cidrs",
            };
            let _ = writeln!(out, "{routes} = [{}]", quoted(&peer.allowed_ips));
            // The addresses and the MTU are the interface's, and stand once.
            if number == 1 && !self.addresses.is_empty() {
                let _ = writeln!(out, "inside_addresses = [{}]", quoted(&self.addresses));
            }
            if let Some(mtu) = self.mtu {
                let _ = writeln!(out, "mtu = {mtu}");
            }
            out.push('\n');
        }
        (out, files)
    }
}

impl Draft {
    fn new(line: usize) -> Self {
        let peer = WgPeer {
            public_key: PublicKey([0; 32]),
            preshared_key: None,
            allowed_ips: Vec::new(),
            endpoint: None,
            persistent_keepalive: None,
        };
        Self { line, public_key: None, peer }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "publickey" => self.public_key = Some(value.parse()?),
            "presharedkey" => self.peer.preshared_key = Some(parse_secret(value)?),
            "allowedips" => {
                self.peer.allowed_ips.extend(networks(value)?.iter().map(IpNet::trunc));
            }
            "endpoint" => {
                let right = "must be an address and a port, such as 198.51.100.10:51820; a host name is not looked up";
                self.peer.endpoint = Some(value.parse().map_err(|_| format!("{value}: {right}"))?);
            }
            "persistentkeepalive" => {
                let seconds = if value == "off" { 0 } else { number(value, "seconds, or `off`")? };
                self.peer.persistent_keepalive = Some(seconds).filter(|seconds| *seconds > 0);
            }
            _ => return Err("is no key of [Peer]".into()),
        }
        Ok(())
    }
}

fn number(value: &str, what: &str) -> Result<u16, String> {
    u16::from_str(value).map_err(|_| format!("{value}: must be {what}"))
}

/// Prefixes with commas between them; an address alone is the prefix of only itself.
fn networks(value: &str) -> Result<Vec<IpNet>, String> {
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let address = || item.parse::<IpAddr>().map(IpNet::from).ok();
            item.parse().ok().or_else(address).ok_or_else(|| {
                format!("{item}: must be an address or a prefix, such as 10.0.0.0/16")
            })
        })
        .collect()
}

fn quoted(networks: &[IpNet]) -> String {
    let all: Vec<String> = networks.iter().map(|net| format!("\"{net}\"")).collect();
    all.join(", ")
}

fn line(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push_str(" = ");
    out.push_str(value);
    out.push('\n');
}

fn list(out: &mut String, key: &str, values: &[IpNet]) {
    if !values.is_empty() {
        let all: Vec<String> = values.iter().map(ToString::to_string).collect();
        line(out, key, &all.join(", "));
    }
}

fn optional(out: &mut String, key: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        line(out, key, &value.to_string());
    }
}
