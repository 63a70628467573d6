//! `vgw` on gateway B and `cgw-agent` on gateway A, with one WireGuard connection.

use super::{Gateways, LIMIT};
use crate::bench::rig::{CLIENT_NET, OUTSIDE_A, OUTSIDE_B, SERVER_NET, Site};
use crate::daemon::{Daemon, Kind};
use crate::error::Result;
use crate::settings::{FOLDER, File};
use crate::wireguard::{Owner, keys};
use toml::Table;

const SEED: u64 = 1;
const SITE: Owner = Owner::Site(0);

pub(super) fn start(site: Site<'_>) -> Result<Gateways> {
    let vgw = format!(
        "[vpn_gateway]\nid = \"vgw-bench\"\nvpc_cidrs = [\"{SERVER_NET}\"]\nlisten = [\"{OUTSIDE_B}\"]\n"
    );
    let agent = format!(
        "[customer_gateway]\nid = \"cgw-bench\"\nonprem_cidrs = [\"{CLIENT_NET}\"]\nlisten = [\"{OUTSIDE_A}\"]\n"
    );
    let sides = [
        (site.b, Kind::Vgw, vgw, ("static_routes", CLIENT_NET), (Owner::Vgw, SITE)),
        (site.a, Kind::Agent, agent, ("vpc_cidrs", SERVER_NET), (SITE, Owner::Vgw)),
    ];
    let mut daemons = Vec::new();
    for (host, kind, text, (routes, net), (own, peer)) in sides {
        let (mut connection, mut files) = keys(SEED, own, peer);
        connection.insert("id".into(), "bench".into());
        connection.insert(routes.into(), vec![net].into());
        if kind == Kind::Agent {
            connection.insert("endpoint".into(), format!("{OUTSIDE_B}:4500").into());
        }
        let whole: Table =
            [("wireguard_connection".to_owned(), vec![connection].into())].into_iter().collect();
        let path = format!("{FOLDER}/{}.toml", kind.name());
        files.push(File { path, text: format!("{text}{whole}"), secret: false });
        let mut daemon = Daemon::new(host, kind, site.binaries, &files)?;
        daemon.start()?;
        daemons.push(daemon);
    }
    for daemon in &mut daemons {
        daemon.await_status("the connection UP", LIMIT, site.stop, |status| status.all_up())?;
    }
    Ok(Gateways { processes: Vec::new(), daemons })
}
