//! Who is measured, and where each one is found.

use crate::process::find_program;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A contender, by its name on the command line and in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Contender {
    /// Routing without a tunnel: the limit of the machine
    #[value(name = "plain")]
    Plain,
    /// Our I/O with nothing between TUN and UDP: the limit of our packet path
    #[value(name = "null")]
    Null,
    /// vgw and cgw-agent with AES-256-GCM
    #[value(name = "vgw-aes256gcm")]
    VgwAes,
    /// vgw and cgw-agent with AES-256-GCM and `low_latency`
    #[value(name = "vgw-low-latency")]
    VgwLowLatency,
    /// vgw and cgw-agent with ChaCha20-Poly1305
    #[value(name = "vgw-chacha20poly1305")]
    VgwChacha,
    /// vgw and cgw-agent with WireGuard
    #[value(name = "vgw-wireguard")]
    VgwWireguard,
    /// wireguard-go
    #[value(name = "wireguard-go")]
    WireguardGo,
    /// GotaTun
    #[value(name = "gotatun")]
    Gotatun,
    /// BoringTun
    #[value(name = "boringtun-cli")]
    Boringtun,
    /// strongSwan with ESP in user space, AES-256-GCM
    #[value(name = "charon-libipsec")]
    Charon,
    /// OpenVPN in user space, AES-256-GCM
    #[value(name = "openvpn")]
    Openvpn,
}

/// Paths that the user gave, by contender.
pub type Paths = BTreeMap<Contender, PathBuf>;

impl Contender {
    /// The peers' programs, and how to get each.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        const WG: (&str, &str) = ("wg", "apt-get install wireguard-tools");
        match self {
            Contender::Plain
            | Contender::Null
            | Contender::VgwAes
            | Contender::VgwLowLatency
            | Contender::VgwChacha
            | Contender::VgwWireguard => &[],
            Contender::WireguardGo => {
                &[("wireguard-go", "apt-get install wireguard-go wireguard-tools"), WG]
            }
            Contender::Gotatun => &[("gotatun", "cargo install gotatun-cli"), WG],
            Contender::Boringtun => &[("boringtun-cli", "cargo install boringtun-cli"), WG],
            Contender::Charon => &[
                (
                    "charon",
                    "apt-get install strongswan-charon libstrongswan-extra-plugins libcharon-extra-plugins",
                ),
                ("swanctl", "apt-get install strongswan-swanctl"),
            ],
            Contender::Openvpn => {
                &[("openvpn", "apt-get install openvpn"), ("openssl", "apt-get install openssl")]
            }
        }
    }

    /// Whether `--peer` may name a program for it.
    pub fn takes_path(self) -> bool {
        !self.programs().is_empty()
    }

    /// Its program, if it is one that others wrote; or the command that would bring what is missing.
    pub fn find(self, paths: &Paths) -> Result<Option<PathBuf>, String> {
        let Some(((name, install), helpers)) = self.programs().split_first() else {
            return Ok(None);
        };
        let named = paths.get(&self).map_or(Path::new(name), PathBuf::as_path);
        let program = find_program(named).map_err(|_| (*install).to_owned())?;
        for (helper, install) in helpers {
            find_program(Path::new(helper)).map_err(|_| (*install).to_owned())?;
        }
        Ok(Some(program))
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Reads `NAME=PATH` of `--peer`.
pub fn parse_peer(text: &str) -> Result<(Contender, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    let contender = Contender::from_str(name, false)?;
    if !contender.takes_path() {
        return Err(format!("{name} is no peer that a path could name"));
    }
    let path = PathBuf::from(path);
    if !path.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    Ok((contender, path))
}
