//! strongSwan's charon on both gateways, with ESP in user space (the plugin kernel-libipsec).

use super::{Gateways, route_into, still_runs, until};
use crate::bench::rig::{CLIENT_NET, OUTSIDE_A, OUTSIDE_B, SERVER_NET, Site};
use crate::error::Result;
use crate::process::Program;
use std::path::Path;
use std::time::Duration;

const FOLDER: &str = "/run/lab";
/// The device that libipsec makes.
const DEVICE: &str = "ipsec0";

/// The key protects nothing but the benchmark's own traffic.
const SECRETS: &str = "secrets {\n  ike-1 {\n    id-1 = a.example\n    id-2 = b.example\n    \
                       secret = \"key of the benchmark\"\n  }\n}\n";

pub(super) fn start(charon: &Path, site: Site<'_>) -> Result<Gateways> {
    let settings = format!(
        "charon {{\n  load_modular = no\n  load = random nonce aes sha1 sha2 hmac kdf gcm openssl \
         curve25519 kernel-libipsec kernel-netlink socket-default vici updown\n  \
         install_routes = no\n  plugins {{\n    vici {{\n      socket = {vici}\n    }}\n    \
         kernel-netlink {{\n      fwmark = !0x42\n    }}\n    socket-default {{\n      \
         fwmark = 0x42\n    }}\n  }}\n}}\n",
        vici = vici()
    );
    let mut processes = Vec::new();
    for (host, local, remote) in [
        (site.b, ("b", OUTSIDE_B, SERVER_NET), ("a", OUTSIDE_A, CLIENT_NET)),
        (site.a, ("a", OUTSIDE_A, CLIENT_NET), ("b", OUTSIDE_B, SERVER_NET)),
    ] {
        host.write(format!("{FOLDER}/strongswan.conf"), &settings, 0o600)?;
        // Without `encap` libipsec would have nothing to carry its ESP in.
        let connection = format!(
            "connections {{\n  bench {{\n    version = 2\n    encap = yes\n    mobike = no\n    \
             local_addrs = {}\n    remote_addrs = {}\n    local_port = 4500\n    remote_port = 4500\n    \
             proposals = aes256gcm16-prfsha384-x25519\n    \
             local {{\n      auth = psk\n      id = {}.example\n    }}\n    \
             remote {{\n      auth = psk\n      id = {}.example\n    }}\n    \
             children {{\n      bench {{\n        local_ts = {}\n        remote_ts = {}\n        \
             esp_proposals = aes256gcm16-x25519\n      }}\n    }}\n  }}\n}}\n{SECRETS}",
            local.1, remote.1, local.0, remote.0, local.2, remote.2,
        );
        host.write(format!("{FOLDER}/swanctl.conf"), &connection, 0o600)?;
        let program = Program::new(charon)
            .env("STRONGSWAN_CONF", format!("{FOLDER}/strongswan.conf"))
            .env("LEAK_DETECTIVE_DISABLE", "1");
        let mut process = host.spawn(program)?;
        let file = format!("{FOLDER}/swanctl.conf");
        until("control socket of charon", site.stop, || {
            still_runs(&mut process)?;
            Ok(host.command(swanctl(&["--load-all", "--file", &file])))
        })?;
        processes.push(process);
    }
    site.a.command(swanctl(&["--initiate", "--child", "bench", "--timeout", "15"]))?;
    for host in [site.a, site.b] {
        host.ip(&format!("link set {DEVICE} up"))?;
    }
    route_into(site, DEVICE)?;
    Ok(Gateways::of(processes))
}

fn vici() -> String {
    format!("unix://{FOLDER}/vici")
}

fn swanctl(words: &[&str]) -> Program {
    let program = Program::new("swanctl").args(words.iter().copied()).args(["--uri", &vici()]);
    program.limit(Duration::from_secs(20))
}
