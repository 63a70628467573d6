//! OpenVPN point to point over UDP, each side knowing the other's certificate by its fingerprint.

use super::{Gateways, LIMIT, TUNNEL_MTU, await_device, route_into, still_runs, until};
use crate::bench::rig::{OUTSIDE_A, OUTSIDE_B, Site};
use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::process::Program;
use std::path::Path;
use std::time::Duration;

/// The port on both sides.
pub(super) const PORT: u16 = 1194;

const DEVICE: &str = "ovpn0";
const FOLDER: &str = "/run/lab";

pub(super) fn start(openvpn: &Path, site: Site<'_>) -> Result<Gateways> {
    let mut processes = Vec::new();
    let prints = [certificate(site.a, "a")?, certificate(site.b, "b")?];
    for (host, local, remote, role, inside) in [
        (site.b, OUTSIDE_B, OUTSIDE_A, "--tls-server", ["10.73.0.2", "10.73.0.1"]),
        (site.a, OUTSIDE_A, OUTSIDE_B, "--tls-client", ["10.73.0.1", "10.73.0.2"]),
    ] {
        let print = if role == "--tls-server" { &prints[0] } else { &prints[1] };
        let port = PORT.to_string();
        let mut program = Program::new(openvpn)
            .args(["--dev", DEVICE, "--dev-type", "tun", "--proto", "udp", "--disable-dco"])
            .args(["--local", &local.to_string(), "--lport", &port])
            .args(["--remote", &remote.to_string(), &port])
            .args(["--ifconfig", inside[0], inside[1], "--tun-mtu", &TUNNEL_MTU.to_string()])
            .args(["--mssfix", "0", "--data-ciphers", "AES-256-GCM", "--verb", "3", role])
            .args(["--cert", &path("crt"), "--key", &path("key"), "--peer-fingerprint", print]);
        if role == "--tls-server" {
            // Elliptic curves need no parameters.
            program = program.args(["--dh", "none"]);
        }
        processes.push(host.spawn(program)?);
    }
    for (host, process) in [site.b, site.a].into_iter().zip(&mut processes) {
        await_device(host, DEVICE, process, site.stop)?;
        until("tunnel of OpenVPN", site.stop, || {
            still_runs(process)?;
            if process.log().contains("Initialization Sequence Completed") {
                return Ok(Ok(()));
            }
            let last = process.log().last(3).join("; ");
            Ok(Err(LabError::Unexpected(last)))
        })?;
    }
    route_into(site, DEVICE)?;
    Ok(Gateways::of(processes))
}

fn path(ending: &str) -> String {
    format!("{FOLDER}/openvpn.{ending}")
}

/// Makes a certificate and its key, and returns the fingerprint.
fn certificate(host: &Host, name: &str) -> Result<String> {
    host.write(path("key"), "", 0o600)?;
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let (key, certificate, subject) = (path("key"), path("crt"), format!("/CN={name}"));
    let rest = ["-nodes", "-days", "2", "-keyout", &key, "-out", &certificate, "-subj", &subject];
    host.command(Program::new("openssl").args(make).args(rest).limit(LIMIT))?;
    let show = ["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"];
    let said = host.command(Program::new("openssl").args(show).limit(Duration::from_secs(10)))?;
    let print = said.stdout.trim().rsplit('=').next().unwrap_or_default().to_owned();
    Ok(print)
}
