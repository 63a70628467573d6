//! The user-space WireGuards, which differ in their command lines only: all are configured by `wg`.

use super::{Gateways, TUNNEL_MTU, await_device, route_into, still_runs, until};
use crate::bench::rig::{OUTSIDE_A, OUTSIDE_B, Site};
use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::process::Program;
use std::path::Path;

/// The port on both sides.
pub(super) const PORT: u16 = 51820;

const DEVICE: &str = "wg0";
const SOCKET: &str = "/run/wireguard/wg0.sock";
const KEY: &str = "/run/lab/wireguard.key";

pub(super) fn start(program: &Path, words: &[&str], site: Site<'_>) -> Result<Gateways> {
    let mut processes = Vec::new();
    let mut keys = Vec::new();
    for host in [site.a, site.b] {
        let program = Program::new(program)
            .args(words.iter().copied())
            .arg(DEVICE)
            // Two spellings of the same wish; each program knows one of them.
            .env("WG_PROCESS_FOREGROUND", "1")
            .env("LOG_LEVEL", "error");
        let mut process = host.spawn(program)?;
        await_device(host, DEVICE, &mut process, site.stop)?;
        until("control socket", site.stop, || {
            still_runs(&mut process)?;
            let missing = || LabError::Unexpected(format!("nobody listens at {SOCKET}"));
            Ok(host.listens(SOCKET)?.then_some(()).ok_or_else(missing))
        })?;
        keys.push(key(host)?);
        processes.push(process);
    }
    for (host, public, other) in [(site.a, &keys[1], OUTSIDE_B), (site.b, &keys[0], OUTSIDE_A)] {
        host.command(Program::new("wg").args([
            "set",
            DEVICE,
            "private-key",
            KEY,
            "listen-port",
            &PORT.to_string(),
            "peer",
            public,
            "endpoint",
            &format!("{other}:{PORT}"),
            "allowed-ips",
            "0.0.0.0/0",
        ]))?;
        host.ip(&format!("link set {DEVICE} mtu {TUNNEL_MTU} up"))?;
    }
    route_into(site, DEVICE)?;
    Ok(Gateways::of(processes))
}

/// Makes a private key where the host keeps it, and returns the public one.
fn key(host: &Host) -> Result<String> {
    let private = host.command(Program::new("wg").arg("genkey"))?.stdout;
    host.write(KEY, &private, 0o600)?;
    let public = host.command(Program::new("wg").arg("pubkey").stdin(private))?;
    Ok(public.stdout.trim().to_owned())
}
