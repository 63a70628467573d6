//! Our own I/O with nothing in between: [`crate::bench::null`] in a process of its own on each
//! gateway.

use super::{Gateways, TUNNEL_MTU, await_device, route_into};
use crate::bench::rig::{OUTSIDE_A, OUTSIDE_B, Site};
use crate::error::{LabError, Result};
use crate::process::Program;
use std::net::SocketAddr;

/// The port of its datagrams.
pub(super) const PORT: u16 = 9000;

const DEVICE: &str = "null0";

pub(super) fn start(site: Site<'_>) -> Result<Gateways> {
    let this = std::env::current_exe().map_err(LabError::io("the path of this program"))?;
    let (a, b) = (SocketAddr::new(OUTSIDE_A, PORT), SocketAddr::new(OUTSIDE_B, PORT));
    let mut processes = Vec::new();
    for (host, local, remote) in [(site.a, a, b), (site.b, b, a)] {
        let program = Program::new(&this).args([
            "null-relay",
            DEVICE,
            &local.to_string(),
            &remote.to_string(),
        ]);
        let mut process = host.spawn(program)?;
        await_device(host, DEVICE, &mut process, site.stop)?;
        // The queue is as long as that of our gateways.
        host.ip(&format!("link set {DEVICE} mtu {TUNNEL_MTU} txqueuelen 5000 up"))?;
        processes.push(process);
    }
    route_into(site, DEVICE)?;
    Ok(Gateways::of(processes))
}
