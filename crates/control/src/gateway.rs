//! Which tunnels should exist, which one carries the traffic, and what to tell both planes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{Counters, DataEvent, DropReason, InboundCommand, OutboundCommand};
use ike::{Command, DownReason, Endpoint, EndpointConfig, Event, IkeRng};
use ipnet::IpNet;
use sa::{Path, Secret, TunnelId};

use crate::config::{Config, Tunnel};
use crate::failover::link_mtu;
use crate::lines::Lines;
use crate::status::{ConnectionStatus, Status, ike_counters};
use crate::tunnel::TunnelState;
use crate::tunnels::Tunnels;
use crate::wireguard::Peers;
use crate::{Action, Interface, Severity, TunnelVerb};

/// How often traffic counters are looked at and held-back decisions are made.
const TICK: Duration = Duration::from_secs(1);
/// How long a stop waits for the peers' answers.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The policy of one daemon. Drive it like the cores below it: `handle_*`, then drain
/// [`Self::poll_action`], then sleep until [`Self::poll_timeout`].
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) endpoint: Endpoint,
    pub(crate) tunnels: Tunnels,
    pub(crate) active: Vec<Option<TunnelId>>,
    /// Prefixes of connections that something else in the table of routes overrides.
    pub(crate) covered: BTreeSet<IpNet>,
    /// The MTU of the device that the tunnels asked for last.
    pub(crate) tunnel_mtu: Option<u16>,
    /// The number of the next tunnel that a reload adds.
    pub(crate) next_id: u32,
    pub(crate) wireguard: Peers,
    pub(crate) inbound: Arc<Counters>,
    pub(crate) outbound: Arc<Counters>,
    pub(crate) actions: VecDeque<Action>,
    lines: Lines,
    /// Until when what ICMP says of paths does not count.
    pub(crate) icmp_doubted_until: Option<Instant>,
    next_tick: Instant,
    stop_at: Option<Instant>,
    stopped: bool,
}

impl Gateway {
    /// Begins: tunnels that we initiate are initiated. `secrets` holds a key for each tunnel, and for
    /// each WireGuard connection our private key, followed by the pre-shared key if there is one;
    /// `ike_port` and `nat_t_port` are the ports as they are bound.
    #[must_use]
    pub fn new(
        config: Config,
        mut secrets: BTreeMap<TunnelId, Secret>,
        endpoint: EndpointConfig,
        rng: Box<dyn IkeRng + Send>,
        counters: (Arc<Counters>, Arc<Counters>),
        now: Instant,
    ) -> Self {
        let ids = config.connections.len() * 2 + config.wireguard.len();
        let mut gateway = Self {
            wireguard: Peers::new(endpoint.nat_t_port, now),
            endpoint: Endpoint::new(endpoint, rng, now),
            tunnels: Tunnels::default(),
            covered: BTreeSet::new(),
            tunnel_mtu: None,
            active: vec![None; config.connections.len()],
            next_id: u32::try_from(ids).unwrap_or(u32::MAX),
            inbound: counters.0,
            outbound: counters.1,
            actions: VecDeque::new(),
            lines: Lines::default(),
            icmp_doubted_until: None,
            next_tick: now + TICK,
            stop_at: None,
            stopped: false,
            config,
        };
        let tunnels: Vec<_> = gateway.config.tunnels().map(|(at, t)| (at, t.clone())).collect();
        let mut begin = Vec::new();
        for (connection, tunnel) in tunnels {
            let id = tunnel.id;
            let secret = secrets.remove(&id).unwrap_or_default();
            let state = gateway.state(tunnel, connection, secret, now);
            gateway.endpoint.add_peer(state.peer(gateway.config.link_mtu));
            gateway.actions.extend(link_mtu(id, gateway.config.link_mtu));
            begin.extend(state.begins().then_some(id));
            gateway.tunnels.insert(id, state);
        }
        for id in begin {
            gateway.endpoint.handle_command(Command::Initiate(id), now);
        }
        gateway.set_wireguard(gateway.config.wireguard.clone(), &secrets, now);
        gateway.install_routes();
        gateway.pump(now);
        gateway
    }

    pub(crate) fn state(
        &self,
        tunnel: Tunnel,
        connection: usize,
        psk: Secret,
        now: Instant,
    ) -> TunnelState {
        let counters = [self.inbound.tunnel(tunnel.id), self.outbound.tunnel(tunnel.id)];
        TunnelState::new(tunnel, connection, counters, psk, now)
    }

    /// The addresses and routes of the TUN device.
    #[must_use]
    pub fn interface(config: &Config) -> Interface {
        let mut interface = Interface::default();
        for connection in &config.connections {
            for tunnel in &connection.tunnels {
                interface.addresses.push((tunnel.inside_v4.0.into(), 30));
                interface.addresses.extend(tunnel.inside_v6.map(|(own, _)| (own.into(), 126)));
            }
            interface.routes.extend(&connection.routes);
        }
        for connection in &config.wireguard {
            let inside = connection.inside_addresses.iter();
            interface.addresses.extend(inside.map(|net| (net.addr(), net.prefix_len())));
            interface.routes.extend(&connection.routes);
        }
        interface
    }

    /// Takes an IKE message without its marker.
    pub fn handle_ike(&mut self, path: Path, message: &[u8], now: Instant) {
        self.endpoint.handle_datagram(path, message, now);
        self.pump(now);
    }

    /// Takes what the data plane noticed.
    pub fn handle_data_event(&mut self, event: DataEvent, now: Instant) {
        let command = match event {
            DataEvent::FirstPacket { tunnel, spi } => Command::InboundSeen { tunnel, spi },
            DataEvent::PathObserved { tunnel, path, .. } => Command::PathObserved { tunnel, path },
            DataEvent::SoftLimit { tunnel, .. } => Command::RekeyChild(tunnel),
            DataEvent::ProbeAnswered { tunnel, sequence } => {
                self.probe_answered(tunnel, sequence, now);
                Command::TrafficSeen { tunnel }
            }
            DataEvent::UnknownSpi { spi, path, octets } => {
                Command::UnknownEsp { spi, path, octets }
            }
        };
        self.endpoint.handle_command(command, now);
        self.pump(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        let tick = now >= self.next_tick;
        if tick {
            self.next_tick = now + TICK;
            for (id, count) in self.lines.tick() {
                self.log(id, Severity::Warning, &format!("{count} more lines were left out"));
            }
            self.observe_traffic(now);
            self.believe_icmp(now);
        }
        self.tick_wireguard(now);
        let due = self.tunnels.due(now);
        let mut retries = due.clone();
        retries.retain(|id| {
            let tunnel = self.tunnels.get_mut(*id);
            tunnel.is_some_and(|t| t.retry_at.take_if(|at| *at <= now).is_some())
        });
        self.probe_paths(&due, now);
        if self.stop_at.is_none() {
            retries.into_iter().for_each(|id| {
                self.endpoint.handle_command(Command::Initiate(id), now);
            });
        }
        if tick {
            self.choose(now);
        } else {
            due.into_iter().for_each(|id| self.choose_for(id, now));
        }
        self.pump(now);
    }

    /// Carries out a user's wish for one tunnel.
    ///
    /// # Errors
    /// There is no such tunnel; the text says which there are.
    pub fn handle_tunnel(
        &mut self,
        connection: &str,
        number: u8,
        verb: TunnelVerb,
        now: Instant,
    ) -> Result<(), String> {
        if let Some(result) = self.handle_peer(connection, number, verb, now) {
            return result;
        }
        let id = self.find(connection, number)?;
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            let command = match verb {
                TunnelVerb::Down | TunnelVerb::Up => {
                    let down = verb == TunnelVerb::Down;
                    tunnel.set_admin_down(down);
                    // An attempt of the peer from now on is refused, or welcome again.
                    let peer = Box::new(tunnel.peer(self.config.link_mtu));
                    self.endpoint.handle_command(Command::ReplacePeer(peer), now);
                    if down { Command::Delete(id) } else { Command::Initiate(id) }
                }
                TunnelVerb::RekeyChild => Command::RekeyChild(id),
                TunnelVerb::RekeyIke => Command::RekeyIke(id),
            };
            let waits = matches!(verb, TunnelVerb::Up) && tunnel.config.remote.is_none();
            if waits {
                tunnel.why = "waiting for the peer to begin".into();
            } else {
                self.endpoint.handle_command(command, now);
            }
        }
        self.pump(now);
        Ok(())
    }

    fn find(&self, connection: &str, number: u8) -> Result<TunnelId, String> {
        let Some(found) = self.config.connections.iter().find(|c| c.id == connection) else {
            let ipsec = self.config.connections.iter().map(|c| c.id.as_str());
            let wireguard = self.config.wireguard.iter().map(|c| c.id.as_str());
            let known: Vec<&str> = ipsec.chain(wireguard).collect();
            return Err(format!("no connection `{connection}`; there is {}", known.join(", ")));
        };
        let index = usize::from(number).checked_sub(1);
        let tunnel = index.and_then(|index| found.tunnels.get(index));
        tunnel.map(|t| t.id).ok_or_else(|| format!("no tunnel {number}; a connection has 1 and 2"))
    }

    /// Deletes all SAs at the peers; [`Action::Stopped`] follows when they answered, or after two
    /// seconds. A DELETE that is lost is sent again meanwhile.
    pub fn handle_stop(&mut self, now: Instant) {
        self.stop_at = Some(now + STOP_WAIT);
        self.endpoint.handle_stop(now);
        self.pump(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let ike = self.endpoint.poll_timeout().map(|(at, _)| at);
        let stop = self.stop_at.filter(|_| !self.stopped);
        let wireguard = self.wireguard.poll_timeout().filter(|_| !self.stopped);
        let all = self.tunnels.deadline().into_iter().chain(ike).chain(stop).chain(wireguard);
        all.fold(self.next_tick, Instant::min)
    }

    /// The IKE plane, to look at.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The number that a connection's tunnel 1 or 2 has in both planes.
    #[must_use]
    pub fn tunnel_id(&self, connection: &str, number: u8) -> Option<TunnelId> {
        self.find(connection, number).ok()
    }

    /// A tunnel that we are to begin, is not there, and that nobody does anything about. There never is
    /// one between two calls.
    #[must_use]
    pub fn forgotten(&self) -> Option<&str> {
        let forgotten = |(id, tunnel): &(TunnelId, &TunnelState)| {
            tunnel.begins()
                && !tunnel.admin_down
                && tunnel.retry_at.is_none()
                && !self.endpoint.pursues(*id)
        };
        let mut tunnels = self.tunnels.iter().filter(|_| self.stop_at.is_none());
        tunnels.find(forgotten).map(|(_, tunnel)| tunnel.config.name.as_str())
    }

    /// The status document.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let connections = self.config.connections.iter().zip(&self.active);
        let connections = connections
            .map(|(connection, active)| ConnectionStatus {
                id: connection.id.clone(),
                kind: "ipsec".into(),
                tunnels: connection
                    .tunnels
                    .iter()
                    .filter_map(|t| Some((self.tunnels.get(t.id)?, *active == Some(t.id))))
                    .map(|(tunnel, active)| tunnel.status(active, self.config.link_mtu, now))
                    .collect(),
            })
            .chain(self.peer_statuses(now))
            .collect();
        let drops = DropReason::ALL.iter().map(|reason| {
            let count = self.inbound.dropped(*reason) + self.outbound.dropped(*reason);
            (reason.name().to_owned(), count)
        });
        Status {
            daemon: self.config.role.name().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            id: self.config.id.clone(),
            connections,
            drops: drops.filter(|(_, count)| *count > 0).collect(),
            ike: ike_counters(self.endpoint.counters()),
            engine: BTreeMap::new(),
        }
    }

    /// Turns everything that the endpoint has to say into actions, in order.
    pub(crate) fn pump(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(event) = self.endpoint.poll_event() {
                idle = false;
                self.take_event(event, now);
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                idle = false;
                self.actions.push_back(Action::Transmit(transmit));
            }
            if idle {
                break;
            }
        }
        self.tunnels.settle(self.config.link_mtu);
        self.tunnels_mtu_changed();
        let over = |at| now >= at || !self.endpoint.is_deleting();
        if !self.stopped && self.stop_at.is_some_and(over) {
            self.stopped = true;
            self.actions.push_back(Action::Stopped);
        }
    }

    fn take_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::InstallInbound(sa) => {
                self.actions.push_back(Action::Inbound(InboundCommand::Install(Box::new(sa))));
            }
            Event::InstallOutbound(sa) => {
                self.actions.push_back(Action::Outbound(OutboundCommand::Install(Box::new(sa))));
            }
            Event::RemoveInbound { tunnel, spi } => {
                self.actions.push_back(Action::Inbound(InboundCommand::Remove { tunnel, spi }));
            }
            Event::RemoveOutbound { tunnel, spi } => {
                self.actions.push_back(Action::Outbound(OutboundCommand::Remove { tunnel, spi }));
            }
            Event::PathChanged { tunnel, path } => {
                let ike = self.tunnels.get_mut(tunnel).and_then(|t| t.ike.as_mut());
                let before = ike.map(|ike| std::mem::replace(&mut ike.path, path).remote);
                self.path_changed(tunnel, now);
                self.actions.push_back(Action::Outbound(OutboundCommand::SetPath { tunnel, path }));
                // Or it is we who moved.
                if before != Some(path.remote) {
                    let text = format!("the peer is at {} now", path.remote);
                    self.log(tunnel, Severity::Info, &text);
                }
            }
            Event::IkeRekeyed { tunnel, info } => {
                self.log(tunnel, Severity::Info, &format!("IKE SA rekeyed, {}", info.suite));
                if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                    tunnel.ike = Some(info);
                    tunnel.rekeyed(now);
                }
            }
            Event::ChildRekeyed { tunnel: id, info } => {
                let text = format!(
                    "Child SA rekeyed: {}, SPIs {} in {} out",
                    info.suite, info.inbound, info.outbound
                );
                self.log(id, Severity::Info, &text);
                if let Some(tunnel) = self.tunnels.get_mut(id) {
                    tunnel.child = Some(info);
                    tunnel.go_up(now);
                    tunnel.rekeyed(now);
                }
                self.choose_for(id, now);
            }
            Event::IkeUp { tunnel, info } => {
                let text =
                    format!("IKE SA with {} ({}), {}", info.remote_id, info.path, info.suite);
                self.log(tunnel, Severity::Info, &text);
                if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                    tunnel.ike = Some(info);
                }
            }
            Event::ChildUp { tunnel, info } => {
                let text = format!(
                    "UP: {}, SPIs {} in {} out, {} === {}",
                    info.suite.suite,
                    info.inbound,
                    info.outbound,
                    info.local_selectors,
                    info.remote_selectors
                );
                self.log(tunnel, Severity::Info, &text);
                if let Some(state) = self.tunnels.get_mut(tunnel) {
                    state.child = Some(info);
                    state.go_up(now);
                }
                self.begin_probing(tunnel, now);
                self.choose_for(tunnel, now);
            }
            Event::ChildDown { tunnel, reason } => self.down(tunnel, &reason, false, now),
            Event::IkeDown { tunnel, reason } => self.down(tunnel, &reason, true, now),
            Event::Failed { tunnel, remote, diagnosis } => {
                let text = diagnosis.to_string();
                if let Some(state) = tunnel.and_then(|id| self.tunnels.get_mut(id))
                    && !state.is_up()
                    && !state.admin_down
                {
                    state.why.clone_from(&text);
                }
                match tunnel {
                    Some(id) => self.log(id, Severity::Warning, &text),
                    None => {
                        let line = format!("{remote}: {text}");
                        self.actions.push_back(Action::Log(Severity::Warning, line));
                    }
                }
            }
        }
    }

    fn down(&mut self, id: TunnelId, reason: &DownReason, whole: bool, now: Instant) {
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        let failed = *reason == DownReason::Failed;
        // The diagnosis of a failed attempt says more than "failed".
        let why = if failed { tunnel.why.clone() } else { reason.to_string() };
        let was_up = tunnel.is_up();
        // Without a Child SA the tunnel carries nothing, whether the IKE SA is left or not: the side
        // that begins makes a new one, and nobody else would.
        let ike = tunnel.ike.take().filter(|_| !whole);
        tunnel.go_down(why, now);
        tunnel.ike = ike;
        if whole || tunnel.retry_at.is_none() {
            tunnel.plan_retry(matches!(reason, DownReason::PeerDead { .. }), now);
        }
        if was_up {
            self.log(id, Severity::Warning, &format!("DOWN: {reason}"));
        }
        self.choose_for(id, now);
    }

    /// Tells the IKE plane about traffic, which counts as a sign of life.
    fn observe_traffic(&mut self, now: Instant) {
        let seen = |tunnel: &TunnelState| tunnel.counters.each_ref().map(|c| c.packets());
        let moved = self.tunnels.iter().filter(|(_, t)| seen(t) != t.packets);
        let moved: Vec<TunnelId> = moved.map(|(id, _)| id).collect();
        for tunnel in moved {
            let Some(state) = self.tunnels.get_mut(tunnel) else { continue };
            let new = seen(state);
            let [received, sent] = std::mem::replace(&mut state.packets, new);
            if new[0] > received {
                self.endpoint.handle_command(Command::TrafficSeen { tunnel }, now);
            }
            if new[1] > sent {
                self.endpoint.handle_command(Command::TrafficSent { tunnel }, now);
            }
        }
    }

    pub(crate) fn log(&mut self, tunnel: TunnelId, severity: Severity, text: &str) {
        if !self.lines.admit(tunnel) {
            return;
        }
        let name = self.tunnels.get(tunnel).map_or("?", |t| t.config.name.as_str());
        self.actions.push_back(Action::Log(severity, format!("{name}: {text}")));
    }
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
pub(crate) mod tests;
