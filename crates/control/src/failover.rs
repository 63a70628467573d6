//! Which tunnel of a connection carries its traffic, and the routes that follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use dataplane::{InboundCommand, OutboundCommand, Route, RouteTarget};
use ipnet::IpNet;
use sa::TunnelId;

use crate::config::Connection;
use crate::gateway::Gateway;
use crate::tunnel::TunnelState;
use crate::{Action, Severity};

impl Gateway {
    /// Chooses each connection's active tunnel: the first that is up and carries data. An active one
    /// that works is left only for one that has worked for a while.
    pub(crate) fn choose(&mut self, now: Instant) {
        let mut moved = false;
        for (connection, active) in self.config.connections.iter().zip(&mut self.active) {
            let best = better(connection, *active, &self.tunnels, now);
            if best != *active {
                let text = match best.as_ref().and_then(|id| self.tunnels.get(id)) {
                    Some(tunnel) => format!("{}: traffic goes through it", tunnel.config.name),
                    None => format!("{}: no tunnel is up", connection.id),
                };
                self.actions.push_back(Action::Log(Severity::Info, text));
                *active = best;
                moved = true;
            }
        }
        if moved {
            self.install_routes();
        }
    }

    pub(crate) fn install_routes(&mut self) {
        let mut routes = Vec::new();
        for (connection, active) in self.config.connections.iter().zip(&self.active) {
            let target = active.map_or(RouteTarget::Drop, RouteTarget::Tunnel);
            routes.extend(connection.routes.iter().map(|p| Route { prefix: *p, target }));
            routes.extend(inside_routes(connection));
        }
        routes.extend(self.peer_routes());
        self.actions.push_back(Action::Outbound(OutboundCommand::SetRoutes(routes)));
        self.actions.push_back(Action::Inbound(InboundCommand::SetSources(self.sources())));
        let ipsec = self.tunnels.values().filter_map(|tunnel| self.mtu(tunnel));
        let mtus: BTreeSet<u16> = ipsec.chain(self.peer_mtus()).collect();
        if let Some(largest) = mtus.last() {
            self.actions.push_back(Action::SetTunMtu(*largest));
        }
    }
}

/// The tunnel of `connection` that its traffic should go through.
fn better(
    connection: &Connection,
    active: Option<TunnelId>,
    tunnels: &BTreeMap<TunnelId, TunnelState>,
    now: Instant,
) -> Option<TunnelId> {
    let up: Vec<&TunnelState> = connection
        .tunnels
        .iter()
        .filter_map(|t| tunnels.get(&t.id))
        .filter(|tunnel| tunnel.is_up())
        .collect();
    let demerit = |tunnel: &TunnelState| {
        let sibling = up.iter().any(|t| t.config.id != tunnel.config.id && t.answers());
        tunnel.demerit(sibling, now)
    };
    // Of equals the first.
    let best = up.iter().min_by_key(|tunnel| demerit(tunnel))?;
    let current = up.iter().find(|tunnel| Some(tunnel.config.id) == active);
    match current {
        // Back to an earlier tunnel only when it has worked for a while: no flapping.
        Some(current) if demerit(current) <= demerit(best) && !best.is_steady(now) => active,
        _ => Some(best.config.id),
    }
}

/// The peer's inside addresses go through their own tunnel, whichever is active.
pub(crate) fn inside_routes(connection: &Connection) -> impl Iterator<Item = Route> {
    connection.tunnels.iter().flat_map(|tunnel| {
        let target = RouteTarget::Tunnel(tunnel.id);
        let v4 = IpNet::from(IpAddr::from(tunnel.inside_v4.1));
        let v6 = tunnel.inside_v6.map(|(_, peer)| IpNet::from(IpAddr::from(peer)));
        std::iter::once(v4).chain(v6).map(move |prefix| Route { prefix, target })
    })
}

pub(crate) fn link_mtu(tunnel: TunnelId, mtu: u16) -> [Action; 2] {
    [
        Action::Inbound(InboundCommand::SetLinkMtu { tunnel, mtu }),
        Action::Outbound(OutboundCommand::SetLinkMtu { tunnel, mtu }),
    ]
}
