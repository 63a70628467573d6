//! WireGuard connections at run time: their peers in both planes, how they stand, and what a user
//! asks of them. Sessions run by themselves; the control plane makes peers and keeps their time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{
    InboundCommand, OutboundCommand, Route, RouteTarget, SourceRoute, WireGuard, WireGuardPeer,
    WireGuardPeerConfig, WireGuardStatus,
};
use sa::{Path, Secret, TunnelId};

use crate::config::WireGuardConnection;
use crate::failover::{inside_routes, link_mtu};
use crate::gateway::Gateway;
use crate::status::{ConnectionStatus, TunnelStatus};
use crate::{Action, Severity, TunnelVerb};

/// How often the sessions look at their timers.
const TICK: Duration = Duration::from_millis(250);
/// Octets of a private key. In the map of secrets a pre-shared key may follow it.
pub const PRIVATE_KEY: usize = 32;
/// How long a smaller path MTU that the system learned counts (RFC 1191 6.3).
const PATH_MTU_AGE: Duration = Duration::from_secs(600);
/// The most addresses of which that is remembered from one tick to the next.
const LEARNED: usize = 1024;
const ADMIN_DOWN: &str = "taken down by us";

/// All WireGuard connections of a daemon.
pub(crate) struct Peers {
    pub(crate) states: BTreeMap<TunnelId, PeerState>,
    /// The port of our socket.
    port: u16,
    next_tick: Instant,
    /// What the ways to some addresses take, learned since the last tick.
    learned_mtus: BTreeMap<SocketAddr, u16>,
}

pub(crate) struct PeerState {
    pub(crate) config: WireGuardConnection,
    keys: Secret,
    /// `None` while a user wants it down.
    peer: Option<Arc<WireGuardPeer>>,
    up: bool,
    since: Instant,
    /// What the way to this address takes, and when that was learned.
    path_mtu: Option<(SocketAddr, u16, Instant)>,
}

impl Peers {
    pub(crate) fn new(port: u16, now: Instant) -> Self {
        Self { states: BTreeMap::new(), port, next_tick: now, learned_mtus: BTreeMap::new() }
    }

    /// When the sessions want to look at their timers.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.states.is_empty()).then_some(self.next_tick)
    }

    fn find(&self, connection: &str) -> Option<TunnelId> {
        self.states.values().find(|s| s.config.id == connection).map(|s| s.config.tunnel)
    }

    fn make(&self, config: &WireGuardConnection, keys: &Secret) -> Option<Arc<WireGuardPeer>> {
        let (private, preshared) = keys.expose().split_at_checked(PRIVATE_KEY)?;
        let path = config.endpoint.map(|remote| {
            let any = match remote {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            Path { local: SocketAddr::new(config.local.unwrap_or(any), self.port), remote }
        });
        let peer = WireGuardPeer::new(&WireGuardPeerConfig {
            id: config.tunnel,
            private_key: Secret::from(private),
            public_key: config.peer_public_key.0,
            preshared_key: (!preshared.is_empty()).then(|| Secret::from(preshared)),
            path,
            keepalive: config.persistent_keepalive,
            mtu: config.mtu,
            rekey_after: config.rekey_after,
        })?;
        Some(Arc::new(peer))
    }
}

impl PeerState {
    fn status(&self, now: Instant) -> Option<WireGuardStatus> {
        self.peer.as_ref().map(|peer| peer.status(now))
    }

    /// Forgets a path MTU that is old, or of another path than the peer has now.
    fn forget_path_mtu(&mut self, path: Option<Path>, now: Instant) -> bool {
        let remote = path.map(|path| path.remote);
        let counts = |(of, _, learned): &mut (SocketAddr, u16, Instant)| {
            Some(*of) == remote && now.saturating_duration_since(*learned) < PATH_MTU_AGE
        };
        let known = self.path_mtu.is_some();
        self.path_mtu = self.path_mtu.take().and_then(|mut it| counts(&mut it).then_some(it));
        known && self.path_mtu.is_none()
    }

    /// Why it is down, in one line.
    fn why(&self, status: Option<&WireGuardStatus>) -> String {
        let Some(status) = status else { return ADMIN_DOWN.into() };
        let seconds = |time: Duration| time.as_secs();
        match (status.up, status.last_handshake, status.unanswered) {
            (true, ..) => String::new(),
            (_, _, Some(silence)) => {
                format!("the peer has not answered for {} s", seconds(silence))
            }
            (_, Some(age), None) => format!(
                "the last handshake was {} s ago, and nothing was sent since: the next packet begins one",
                seconds(age)
            ),
            (_, None, None) if status.path.is_none() => "waiting for the peer to begin".into(),
            (_, None, None) => {
                "no handshake yet: is the peer there, and are both public keys and the pre-shared key right?".into()
            }
        }
    }
}

impl Gateway {
    /// Replaces all WireGuard connections by `wanted`; those that stay the same keep their
    /// sessions. Returns how many were added, changed, removed and kept.
    pub(crate) fn set_wireguard(
        &mut self,
        wanted: Vec<WireGuardConnection>,
        secrets: &BTreeMap<TunnelId, Secret>,
        now: Instant,
    ) -> [usize; 4] {
        let mut old = std::mem::take(&mut self.wireguard.states);
        let [mut added, mut changed, mut kept] = [0; 3];
        for config in wanted {
            let id = config.tunnel;
            let keys = secrets.get(&id).cloned().unwrap_or_default();
            let state = match old.remove(&id) {
                Some(state) if state.config == config && state.keys == keys => {
                    kept += 1;
                    state
                }
                former => {
                    *if former.is_some() { &mut changed } else { &mut added } += 1;
                    let down = former.is_some_and(|former| former.peer.is_none());
                    let peer = if down { None } else { self.wireguard.make(&config, &keys) };
                    PeerState { config, keys, peer, up: false, since: now, path_mtu: None }
                }
            };
            let link = state.path_mtu.map_or(self.config.link_mtu, |(_, mtu, _)| mtu);
            self.actions.extend(link_mtu(id, link.min(self.config.link_mtu)));
            self.wireguard.states.insert(id, state);
        }
        let removed = old.len();
        if added + changed + removed > 0 {
            self.install_peers();
        }
        [added, changed, removed, kept]
    }

    fn install_peers(&mut self) {
        let peers = self.wireguard.states.values().filter_map(|state| state.peer.clone());
        let table = Arc::new(WireGuard::new(peers));
        self.actions.push_back(Action::Inbound(InboundCommand::SetWireGuard(Arc::clone(&table))));
        self.actions.push_back(Action::Outbound(OutboundCommand::SetWireGuard(table)));
    }

    /// Lets the sessions look at their timers, and notices who came and who went.
    pub(crate) fn tick_wireguard(&mut self, now: Instant) {
        if self.wireguard.states.is_empty() || now < self.wireguard.next_tick {
            return;
        }
        self.wireguard.next_tick = now + TICK;
        self.actions.push_back(Action::Inbound(InboundCommand::WireGuardTimers(now)));
        let mut lines = Vec::new();
        let learned = std::mem::take(&mut self.wireguard.learned_mtus);
        for (id, state) in &mut self.wireguard.states {
            let status = state.status(now);
            let remote = status.and_then(|status| status.path).map(|path| path.remote);
            if let Some((remote, mtu)) = remote.and_then(|at| learned.get_key_value(&at)) {
                state.path_mtu = Some((*remote, *mtu, now));
                self.actions.extend(link_mtu(*id, *mtu));
                let line = format!("the outer path takes {mtu} octets");
                lines.push((Severity::Info, format!("{}: {line}", state.config.id)));
            }
            if state.forget_path_mtu(status.and_then(|status| status.path), now) {
                self.actions.extend(link_mtu(*id, self.config.link_mtu));
            }
            let up = status.is_some_and(|status| status.up);
            if up == state.up {
                continue;
            }
            (state.up, state.since) = (up, now);
            let line = match status.and_then(|status| status.path).filter(|_| up) {
                Some(path) => (Severity::Info, format!("UP: WireGuard with {}", path.remote)),
                None => (Severity::Warning, format!("DOWN: {}", state.why(status.as_ref()))),
            };
            lines.push((line.0, format!("{}: {}", state.config.id, line.1)));
        }
        if !lines.is_empty() {
            // The MTU of the device depends on where the peers are.
            self.set_mtu();
        }
        self.actions.extend(lines.into_iter().map(|(severity, line)| Action::Log(severity, line)));
    }

    /// Carries out a user's wish for a WireGuard connection; `None` if there is none of that name.
    pub(crate) fn handle_peer(
        &mut self,
        connection: &str,
        number: u8,
        verb: TunnelVerb,
        now: Instant,
    ) -> Option<Result<(), String>> {
        let id = self.wireguard.find(connection)?;
        if number != 1 {
            return Some(Err(format!("no tunnel {number}; a WireGuard connection has only 1")));
        }
        let down = match verb {
            TunnelVerb::RekeyChild | TunnelVerb::RekeyIke => {
                self.actions.push_back(Action::Inbound(InboundCommand::WireGuardRekey(id)));
                return Some(Ok(()));
            }
            TunnelVerb::Down => true,
            TunnelVerb::Up => false,
        };
        let state = self.wireguard.states.get(&id)?;
        if state.peer.is_none() == down {
            return Some(Ok(()));
        }
        let peer = if down { None } else { self.wireguard.make(&state.config, &state.keys) };
        self.wireguard.states.get_mut(&id)?.peer = peer;
        self.install_peers();
        self.install_routes();
        self.wireguard.next_tick = now;
        self.tick_wireguard(now);
        Some(Ok(()))
    }

    /// The routes of all WireGuard connections.
    pub(crate) fn peer_routes(&self) -> impl Iterator<Item = Route> {
        self.wireguard.states.iter().flat_map(|(id, state)| {
            let target = match state.peer {
                Some(_) => RouteTarget::WireGuard(*id),
                None => RouteTarget::Drop,
            };
            state.config.routes.iter().map(move |prefix| Route { prefix: *prefix, target })
        })
    }

    /// Who may use which inner source addresses, of all connections.
    pub(crate) fn sources(&self) -> Vec<SourceRoute> {
        // A network of ours that is everything says nothing about strangers.
        let own = self.config.own_cidrs.iter().filter(|net| net.prefix_len() > 0);
        let mut sources: Vec<SourceRoute> =
            own.map(|prefix| SourceRoute { prefix: *prefix, owner: None }).collect();
        for connection in &self.config.connections {
            let [first, second] = &connection.tunnels;
            let both = Some([first.id, second.id]);
            let routes = connection.routes.iter();
            sources.extend(routes.map(|prefix| SourceRoute { prefix: *prefix, owner: both }));
            sources.extend(inside_routes(connection).filter_map(|route| {
                let RouteTarget::Tunnel(id) = route.target else { return None };
                Some(SourceRoute { prefix: route.prefix, owner: Some([id; 2]) })
            }));
        }
        for (id, state) in &self.wireguard.states {
            let routes = state.config.routes.iter();
            sources.extend(routes.map(|p| SourceRoute { prefix: *p, owner: Some([*id; 2]) }));
        }
        sources
    }

    /// The system learned that the way to `remote` takes datagrams of `mtu` octets only. Whose way it
    /// is, the next look at all sessions finds: anybody can make the system learn such a thing.
    pub(crate) fn learn_peer_mtu(&mut self, remote: SocketAddr, mtu: u16) {
        let known = &mut self.wireguard.learned_mtus;
        if mtu < self.config.link_mtu && (known.len() < LEARNED || known.contains_key(&remote)) {
            known.insert(remote, mtu);
        }
    }

    /// The inner MTU of every WireGuard connection of which it is known.
    pub(crate) fn peer_mtus(&self) -> impl Iterator<Item = u16> {
        self.wireguard.states.values().filter_map(|state| self.peer_mtu(state))
    }

    fn peer_mtu(&self, state: &PeerState) -> Option<u16> {
        let peer = state.peer.as_ref()?;
        let path = peer.path()?;
        let link = state.path_mtu.map_or(self.config.link_mtu, |(_, mtu, _)| mtu);
        Some(peer.inner_mtu(link, path.remote.is_ipv6()))
    }

    /// How the WireGuard connections stand.
    pub(crate) fn peer_statuses(&self, now: Instant) -> impl Iterator<Item = ConnectionStatus> {
        self.wireguard.states.iter().map(move |(id, state)| {
            let status = state.status(now);
            let up = status.is_some_and(|status| status.up);
            let path = status.and_then(|status| status.path);
            let (input, output) = (self.inbound.tunnel(*id), self.outbound.tunnel(*id));
            let tunnel = TunnelStatus {
                state: if up { "UP" } else { "DOWN" }.into(),
                why: state.why(status.as_ref()),
                since_seconds: now.saturating_duration_since(state.since).as_secs(),
                since_age: now.saturating_duration_since(state.since),
                active: up,
                local: path.map(|path| path.local.to_string()),
                peer: path.map(|path| path.remote.to_string()),
                peer_identity: Some(state.config.peer_public_key.to_string()),
                last_handshake_seconds: status.and_then(|s| s.last_handshake).map(|t| t.as_secs()),
                mtu: self.peer_mtu(state).filter(|_| up),
                packets_in: input.packets(),
                bytes_in: input.bytes(),
                packets_out: output.packets(),
                bytes_out: output.bytes(),
                ..TunnelStatus::default()
            };
            let kind = "wireguard".into();
            ConnectionStatus { id: state.config.id.clone(), kind, tunnels: vec![tunnel] }
        })
    }
}
