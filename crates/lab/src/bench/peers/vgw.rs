//! `vgw` on gateway B and `cgw-agent` on gateway A, with one connection and one ESP suite.

use super::{Gateways, LIMIT};
use crate::bench::rig::{CLIENT_NET, OUTSIDE_A, OUTSIDE_B, OUTSIDE_B2, SERVER_NET, Site};
use crate::daemon::{Daemon, Kind};
use crate::error::Result;
use crate::settings::{FOLDER, File};

const CONNECTION: &str = "bench";

pub(super) fn start(suite: &str, low_latency: bool, site: Site<'_>) -> Result<Gateways> {
    let tunnels: String = [(1, OUTSIDE_B), (2, OUTSIDE_B2)]
        .map(|(number, outside)| {
            format!(
                "[[vpn_connection.tunnel]]\noutside_address = \"{outside}\"\n\
                 tunnel_inside_cidr = \"169.254.{number}0.0/30\"\n\
                 pre_shared_key_file = \"psk-{number}\"\n\
                 phase2_encryption_algorithms = [\"{suite}\"]\n"
            )
        })
        .concat();
    let vgw = format!(
        "[vpn_gateway]\nid = \"vgw-bench\"\nvpc_cidrs = [\"{SERVER_NET}\"]\n\
         listen = [\"{OUTSIDE_B}\", \"{OUTSIDE_B2}\"]\nlow_latency = {low_latency}\n\
         [[customer_gateway]]\nid = \"cgw-bench\"\nip_address = \"{OUTSIDE_A}\"\n\
         [[vpn_connection]]\nid = \"{CONNECTION}\"\ncustomer_gateway = \"cgw-bench\"\n\
         static_routes = [\"{CLIENT_NET}\"]\n{tunnels}"
    );
    let agent = format!(
        "[customer_gateway]\nid = \"cgw-bench\"\nonprem_cidrs = [\"{CLIENT_NET}\"]\n\
         listen = [\"{OUTSIDE_A}\"]\nlow_latency = {low_latency}\n\
         [[vpn_connection]]\nid = \"{CONNECTION}\"\nvpc_cidrs = [\"{SERVER_NET}\"]\n{tunnels}"
    );
    let mut daemons = Vec::new();
    for (host, kind, text) in [(site.b, Kind::Vgw, vgw), (site.a, Kind::Agent, agent)] {
        let mut files = vec![file(&format!("{}.toml", kind.name()), text, false)];
        for number in [1, 2] {
            // It protects nothing but the benchmark's own traffic.
            let key = format!("bench.key_of_tunnel_{number}\n");
            files.push(file(&format!("psk-{number}"), key, true));
        }
        let mut daemon = Daemon::new(host, kind, site.binaries, &files)?;
        if low_latency {
            daemon = daemon.with_realtime();
        }
        daemon.start()?;
        daemons.push(daemon);
    }
    for daemon in &mut daemons {
        daemon.await_status("both tunnels UP", LIMIT, site.stop, |status| {
            status.all_up() && status.active(CONNECTION).is_some()
        })?;
    }
    Ok(Gateways { processes: Vec::new(), daemons })
}

fn file(name: &str, text: String, secret: bool) -> File {
    File { path: format!("{FOLDER}/{name}"), text, secret }
}
