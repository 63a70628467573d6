//! Which tunnel of a connection carries its traffic, and the routes that follow.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use dataplane::{InboundCommand, OutboundCommand, Route, RouteTarget};
use ipnet::IpNet;
use sa::TunnelId;

use crate::config::Connection;
use crate::gateway::Gateway;
use crate::tunnel::TunnelState;
use crate::tunnels::Tunnels;
use crate::{Action, Severity};

impl Gateway {
    /// Chooses each connection's active tunnel: the first that is up and carries data. An active one
    /// that works is left only for one that has worked for a while.
    pub(crate) fn choose(&mut self, now: Instant) {
        (0..self.active.len()).for_each(|connection| self.choose_in(connection, now));
    }

    /// The same for the connection of one tunnel, about which something changed.
    pub(crate) fn choose_for(&mut self, tunnel: TunnelId, now: Instant) {
        if let Some(connection) = self.tunnels.get(tunnel).map(|t| t.connection) {
            self.choose_in(connection, now);
        }
    }

    fn choose_in(&mut self, at: usize, now: Instant) {
        let known = self.config.connections.get(at).zip(self.active.get_mut(at));
        let Some((connection, active)) = known else { return };
        let best = better(connection, *active, &self.tunnels, now);
        if best == *active {
            return;
        }
        *active = best;
        let text = match best.and_then(|id| self.tunnels.get(id)) {
            Some(tunnel) => format!("{}: traffic goes through it", tunnel.config.name),
            None => format!("{}: no tunnel is up", connection.id),
        };
        self.actions.push_back(Action::Log(Severity::Info, text));
        let target = best.map_or(RouteTarget::Drop, RouteTarget::Tunnel);
        let routes = connection.routes.iter().filter(|prefix| !self.covered.contains(prefix));
        let routes = routes.map(|prefix| Route { prefix: *prefix, target }).collect();
        self.actions.push_back(Action::Outbound(OutboundCommand::ChangeRoutes(routes)));
    }

    /// The whole tables of both directions, after the configuration changed. Of equal prefixes the
    /// last one counts.
    pub(crate) fn install_routes(&mut self) {
        let mut routes = Vec::new();
        // Each prefix with the connection whose traffic it stands for, if it is of one.
        let mut owners: BTreeMap<IpNet, Option<usize>> = BTreeMap::new();
        for (at, (connection, active)) in
            self.config.connections.iter().zip(&self.active).enumerate()
        {
            let target = active.map_or(RouteTarget::Drop, RouteTarget::Tunnel);
            routes.extend(connection.routes.iter().map(|p| Route { prefix: *p, target }));
            owners.extend(connection.routes.iter().map(|prefix| (*prefix, Some(at))));
            let inside = inside_routes(connection);
            owners.extend(inside.clone().map(|route| (route.prefix, None)));
            routes.extend(inside);
        }
        owners.extend(self.peer_routes().map(|route| (route.prefix, None)));
        routes.extend(self.peer_routes());
        let connections = self.config.connections.iter().enumerate();
        let prefixes = connections.flat_map(|(at, c)| c.routes.iter().map(move |p| (at, p)));
        let covered = prefixes.filter(|(at, prefix)| owners.get(prefix) != Some(&Some(*at)));
        self.covered = covered.map(|(_, prefix)| *prefix).collect();
        self.actions.push_back(Action::Outbound(OutboundCommand::SetRoutes(routes)));
        self.actions.push_back(Action::Inbound(InboundCommand::SetSources(self.sources())));
        self.set_mtu();
    }

    /// The device's MTU is that of the largest tunnel, standby tunnels included.
    pub(crate) fn set_mtu(&mut self) {
        self.tunnel_mtu = self.tunnels.largest_mtu();
        if let Some(largest) = self.peer_mtus().chain(self.tunnel_mtu).max() {
            self.actions.push_back(Action::SetTunMtu(largest));
        }
    }

    /// The same if the largest IPsec tunnel is another one.
    pub(crate) fn tunnels_mtu_changed(&mut self) {
        if self.tunnels.largest_mtu() != self.tunnel_mtu {
            self.set_mtu();
        }
    }
}

/// The tunnel of `connection` that its traffic should go through.
fn better(
    connection: &Connection,
    active: Option<TunnelId>,
    tunnels: &Tunnels,
    now: Instant,
) -> Option<TunnelId> {
    let up = || {
        let known = connection.tunnels.iter().filter_map(|t| tunnels.get(t.id));
        known.filter(|tunnel| tunnel.is_up())
    };
    let demerit = |tunnel: &TunnelState| {
        let sibling = up().any(|t| t.config.id != tunnel.config.id && t.answers());
        tunnel.demerit(sibling, now)
    };
    // Of equals the first.
    let best = up().min_by_key(|tunnel| demerit(tunnel))?;
    let current = up().find(|tunnel| Some(tunnel.config.id) == active);
    match current {
        // Back to an earlier tunnel only when it has worked for a while: no flapping.
        Some(current) if demerit(current) <= demerit(best) && !best.is_steady(now) => active,
        _ => Some(best.config.id),
    }
}

/// The peer's inside addresses go through their own tunnel, whichever is active.
pub(crate) fn inside_routes(connection: &Connection) -> impl Iterator<Item = Route> + Clone {
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
