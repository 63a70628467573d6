//! Our own outside address is another one: a customer gateway whose WAN line changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ike::Command;
use sa::TunnelId;

use crate::Severity;
use crate::gateway::Gateway;

impl Gateway {
    /// Where each tunnel's peer is, and the outside address that we have towards it: for who looks
    /// whether the system would use another one now.
    pub fn outside_paths(&self) -> impl Iterator<Item = (TunnelId, IpAddr, SocketAddr)> + '_ {
        self.tunnels.iter().filter_map(|(id, tunnel)| {
            let (local, remote) = (tunnel.config.local?, tunnel.config.remote?);
            Some((id, local, SocketAddr::new(remote, tunnel.config.remote_port)))
        })
    }

    /// The system has other outside addresses towards the peers of these tunnels. Nothing reaches
    /// us at the old ones, so a tunnel with MOBIKE (RFC 4555) moves to its new one with its SAs, if we
    /// are the side that says where it is. Any other is negotiated anew from there, beside the old
    /// SAs.
    pub fn handle_outside_addresses(
        &mut self,
        addresses: &BTreeMap<TunnelId, IpAddr>,
        now: Instant,
    ) {
        for (id, address) in addresses {
            let Some(state) = self.tunnels.get_mut(*id) else { continue };
            let Some(old) = state.config.local.replace(*address).filter(|old| old != address)
            else {
                continue;
            };
            let (stands, down, begins) = (state.ike.is_some(), state.admin_down, state.begins());
            let moves = state.ike.as_ref().is_some_and(|ike| {
                ike.mobike && ike.began && ike.path.local.is_ipv4() == address.is_ipv4()
            });
            let peer = Box::new(state.peer(self.config.link_mtu));
            let connection = self.config.connections.get_mut(state.connection);
            for tunnel in connection.into_iter().flat_map(|c| &mut c.tunnels) {
                if tunnel.id == *id {
                    tunnel.local = Some(*address);
                }
            }
            self.log(*id, Severity::Info, &format!("our outside address is {address}, was {old}"));
            self.endpoint.handle_command(Command::ReplacePeer(peer), now);
            if down {
                continue;
            }
            if stands {
                let (tunnel, local) = (*id, *address);
                self.endpoint.handle_command(Command::LocalAddressChanged { tunnel, local }, now);
                if !moves {
                    // The peer may follow all the same; in any case the old SAs' DELETE reaches it.
                    self.endpoint.handle_command(Command::Reestablish(*id), now);
                }
            } else if begins {
                // An attempt from the old address would go on for a while.
                self.endpoint.handle_command(Command::Delete(*id), now);
                self.endpoint.handle_command(Command::Initiate(*id), now);
            }
        }
        self.pump(now);
    }
}
