//! A new configuration under running tunnels: what did not change is not touched.

use std::collections::BTreeMap;
use std::time::Instant;

use ike::Command;
use sa::{Secret, TunnelId};

use crate::config::{Config, Tunnel};
use crate::failover::link_mtu;
use crate::gateway::Gateway;
use crate::{Action, Severity};

impl Gateway {
    /// Puts `config` in the place of the present configuration. Tunnels are known by the name of
    /// their connection and their number; one whose settings and key are the same keeps its SAs,
    /// its counters and its place. Returns what changed, in one line.
    ///
    /// # Errors
    /// A change that only a restart can make; nothing has changed then.
    pub fn handle_reload(
        &mut self,
        mut config: Config,
        secrets: BTreeMap<TunnelId, Secret>,
        now: Instant,
    ) -> Result<String, String> {
        self.refuse_what_needs_a_restart(&config)?;
        let secrets = self.renumber(&mut config, secrets);
        let wireguard = config.wireguard.clone();
        let old_active: BTreeMap<String, Option<TunnelId>> = self
            .config
            .connections
            .iter()
            .zip(&self.active)
            .map(|(connection, active)| (connection.id.clone(), *active))
            .collect();
        let link_mtu_moved = config.link_mtu != self.config.link_mtu;
        let wanted: BTreeMap<TunnelId, (usize, Tunnel)> =
            config.tunnels().map(|(at, tunnel)| (tunnel.id, (at, tunnel.clone()))).collect();
        let removed = self.remove_unwanted(&wanted, now);
        self.active =
            config.connections.iter().map(|c| old_active.get(&c.id).copied().flatten()).collect();
        self.config = config;
        let (mut added, mut changed, mut kept) = (0, 0, 0);
        for (id, (at, _)) in &wanted {
            if let Some(state) = self.tunnels.get_mut(*id) {
                state.connection = *at;
            }
        }
        for (id, (at, tunnel)) in wanted {
            let secret = secrets.get(&id).cloned().unwrap_or_default();
            let known = self.tunnels.contains(id);
            if !known || link_mtu_moved {
                self.actions.extend(link_mtu(id, self.config.link_mtu));
                self.restart_probing(id, now);
            }
            if !known {
                added += 1;
                self.add(tunnel, at, secret, now);
            } else if self.replace(id, tunnel, secret, now) {
                changed += 1;
            } else {
                if link_mtu_moved && let Some(state) = self.tunnels.get(id) {
                    let peer = Box::new(state.peer(self.config.link_mtu));
                    self.endpoint.handle_command(Command::ReplacePeer(peer), now);
                }
                kept += 1;
            }
        }
        let [new, other, gone, same] = self.set_wireguard(wireguard, &secrets, now);
        (added, changed, kept) = (added + new, changed + other, kept + same);
        let removed = removed + gone;
        self.choose(now);
        self.install_routes();
        self.actions.push_back(Action::Interface(Self::interface(&self.config)));
        self.pump(now);
        let text = format!(
            "configuration reloaded: tunnels: {added} added, {changed} changed, {removed} removed, {kept} untouched"
        );
        self.actions.push_back(Action::Log(Severity::Info, text.clone()));
        Ok(text)
    }

    fn refuse_what_needs_a_restart(&self, new: &Config) -> Result<(), String> {
        let old = &self.config;
        let fixed = [
            ("listen", old.listen == new.listen),
            ("ike_port", old.ike_port == new.ike_port),
            ("nat_t_port", old.nat_t_port == new.nat_t_port),
            ("control_socket", old.control_socket == new.control_socket),
            ("tun.name", old.tun_name == new.tun_name),
            ("tun.mode", old.tun_mode == new.tun_mode),
            ("offloads", old.offloads == new.offloads),
            ("low_latency", old.low_latency == new.low_latency),
        ];
        match fixed.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key} changed: this needs a restart; nothing changed")),
        }
    }

    /// Gives tunnels that exist the numbers that they have, and new ones numbers that no tunnel
    /// had: packets under way must not meet another tunnel's state.
    fn renumber(
        &mut self,
        config: &mut Config,
        mut secrets: BTreeMap<TunnelId, Secret>,
    ) -> BTreeMap<TunnelId, Secret> {
        let known: BTreeMap<String, TunnelId> =
            self.tunnels.iter().map(|(id, t)| (t.config.name.clone(), id)).collect();
        let mut out = BTreeMap::new();
        for tunnel in config.connections.iter_mut().flat_map(|c| &mut c.tunnels) {
            let secret = secrets.remove(&tunnel.id).unwrap_or_default();
            tunnel.id = known.get(&tunnel.name).copied().unwrap_or_else(|| {
                let fresh = self.next_id;
                self.next_id = self.next_id.saturating_add(1);
                TunnelId(fresh)
            });
            out.insert(tunnel.id, secret);
        }
        let known: BTreeMap<&str, TunnelId> =
            self.wireguard.states.iter().map(|(id, s)| (s.config.id.as_str(), *id)).collect();
        for connection in &mut config.wireguard {
            let secret = secrets.remove(&connection.tunnel).unwrap_or_default();
            connection.tunnel = known.get(connection.id.as_str()).copied().unwrap_or_else(|| {
                let fresh = self.next_id;
                self.next_id = self.next_id.saturating_add(1);
                TunnelId(fresh)
            });
            out.insert(connection.tunnel, secret);
        }
        out
    }

    fn remove_unwanted(
        &mut self,
        wanted: &BTreeMap<TunnelId, (usize, Tunnel)>,
        now: Instant,
    ) -> usize {
        let gone = self.tunnels.iter().map(|(id, _)| id).filter(|id| !wanted.contains_key(id));
        let gone: Vec<TunnelId> = gone.collect();
        for id in &gone {
            self.endpoint.remove_peer(*id, now);
            self.pump(now);
            self.tunnels.remove(*id);
        }
        gone.len()
    }

    fn add(&mut self, tunnel: Tunnel, connection: usize, secret: Secret, now: Instant) {
        let id = tunnel.id;
        let state = self.state(tunnel, connection, secret, now);
        self.endpoint.add_peer(state.peer(self.config.link_mtu));
        let begins = state.begins();
        self.tunnels.insert(id, state);
        if begins {
            self.endpoint.handle_command(Command::Initiate(id), now);
        }
    }

    /// Returns whether there was something to replace. A tunnel that stands gets its new options
    /// make-before-break; one that does not is tried at once.
    fn replace(&mut self, id: TunnelId, tunnel: Tunnel, secret: Secret, now: Instant) -> bool {
        let Some(state) = self.tunnels.get_mut(id) else { return false };
        if state.config == tunnel && state.psk == secret {
            return false;
        }
        state.config = tunnel;
        state.psk = secret;
        self.restart_probing(id, now);
        let Some(state) = self.tunnels.get(id) else { return false };
        let (stands, down) = (state.ike.is_some(), state.admin_down);
        let peer = state.peer(self.config.link_mtu);
        let may_begin = state.config.remote.is_some();
        let begins = state.begins();
        self.endpoint.handle_command(Command::ReplacePeer(Box::new(peer)), now);
        if !down && stands && may_begin {
            self.endpoint.handle_command(Command::Reestablish(id), now);
        } else if !down && begins {
            self.endpoint.handle_command(Command::Initiate(id), now);
        }
        true
    }
}
