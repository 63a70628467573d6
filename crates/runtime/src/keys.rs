//! Keys of WireGuard: new ones, and those in files of `wg-quick`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use control::PRIVATE_KEY;
use control::config::key::{generate_preshared, generate_private, print_secret, public_key};
use control::config::wg_quick::{WgPeer, WgQuick};
use control::config::{Config, Role, WireGuardConnection};
use ipnet::IpNet;
use rand_core::OsRng;
use sa::Secret;
use zeroize::Zeroizing;

use crate::RunError;

/// A new private key.
#[must_use]
pub fn private() -> Secret {
    generate_private(&mut OsRng)
}

/// A new pre-shared key.
#[must_use]
pub fn preshared() -> Secret {
    generate_preshared(&mut OsRng)
}

/// Room for a text with a key in it, which is wiped.
#[must_use]
pub fn buffer() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(8192))
}

/// Writes a key into a new file that only its owner may read.
///
/// # Errors
/// The file exists already, or cannot be written.
pub fn write(path: &Path, key: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(print_secret(key).as_bytes())?;
    file.write_all(b"\n")
}

/// Reads a file of `wg-quick`.
///
/// # Errors
/// [`RunError::Config`]: the first thing that is wrong, in one line.
pub fn read_wg_quick(path: &Path) -> Result<WgQuick, RunError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| RunError::Config(format!("{name}: cannot be read: {error}")))?;
    WgQuick::parse(&Zeroizing::new(text), &name).map_err(|e| RunError::Config(e.to_string()))
}

/// A WireGuard connection of the configuration `file` as a file of `wg-quick`, with its keys: for
/// us, or for the peer.
///
/// # Errors
/// [`RunError::Config`]: what is wrong with the configuration, or there is no such connection.
pub fn export(
    role: Role,
    file: &Path,
    connection: &str,
    for_peer: bool,
) -> Result<Zeroizing<String>, RunError> {
    let (config, secrets) = crate::load(role, file)?;
    let Some(found) = config.wireguard.iter().find(|c| c.id == connection) else {
        let known: Vec<&str> = config.wireguard.iter().map(|c| c.id.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let text = format!("no WireGuard connection `{connection}`; there is {known}");
        return Err(RunError::Config(text));
    };
    let keys = secrets.get(&found.tunnel).map_or(&[][..], Secret::expose);
    let (private, preshared) = keys.split_at_checked(PRIVATE_KEY).unwrap_or_default();
    let private = Secret::from(private);
    let preshared_key = (!preshared.is_empty()).then(|| Secret::from(preshared));
    let quick = if for_peer {
        let public_key = public_key(&private).map_err(RunError::Config)?;
        let peer = WgPeer {
            public_key,
            preshared_key,
            allowed_ips: ours(&config, found),
            endpoint: endpoint(&config, found),
            persistent_keepalive: None,
        };
        WgQuick { mtu: found.mtu, peers: vec![peer], ..WgQuick::default() }
    } else {
        WgQuick {
            private_key: Some(private),
            addresses: found.inside_addresses.clone(),
            listen_port: Some(config.nat_t_port).filter(|port| *port > 0),
            mtu: found.mtu,
            peers: vec![WgPeer {
                public_key: found.peer_public_key,
                preshared_key,
                allowed_ips: found.routes.clone(),
                endpoint: found.endpoint,
                persistent_keepalive: found.persistent_keepalive,
            }],
            ignored: Vec::new(),
        }
    };
    Ok(quick.print())
}

/// What the peer sends to us: our networks, and our addresses inside.
fn ours(config: &Config, connection: &WireGuardConnection) -> Vec<IpNet> {
    let inside = connection.inside_addresses.iter().map(|net| IpNet::from(net.addr()));
    config.own_cidrs.iter().copied().chain(inside).collect()
}

/// Where the peer finds us, if the configuration says.
fn endpoint(config: &Config, connection: &WireGuardConnection) -> Option<SocketAddr> {
    let family = |address: &&IpAddr| {
        connection.endpoint.is_none_or(|peer| peer.is_ipv4() == address.is_ipv4())
    };
    let address = config.listen.iter().find(family)?;
    (config.nat_t_port > 0).then(|| SocketAddr::new(*address, config.nat_t_port))
}
