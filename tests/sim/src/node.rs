//! One site: a daemon without threads and sockets, and a model of what its data plane holds.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::config::Config;
use control::{Action, Gateway};
use dataplane::mtu::tunnel_mtu;
use dataplane::{
    Counters, DataEvent, DropReason, IcmpSource, Inbound, InboundCommand, Outbound, OutboundCommand,
};
use ike::{EndpointConfig, Transmit};
use sa::{Path, Secret, Spi, TunnelId};

use crate::draw::Draw;
use crate::fault::Fault;

/// What a tunnel sends with.
#[derive(Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) spi: Spi,
    pub(crate) path: Path,
}

/// What one incarnation of a site did, as the model counted it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Account {
    pub(crate) offered: u64,
    pub(crate) refused: u64,
    /// Datagrams with packets, and those with probes, which no counter counts.
    pub(crate) sealed: u64,
    pub(crate) probes: u64,
    pub(crate) answers: u64,
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) ike: u64,
}

/// See the module.
pub(crate) struct Node {
    pub(crate) gateway: Gateway,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) counters: (Arc<Counters>, Arc<Counters>),
    pub(crate) config: Config,
    pub(crate) secrets: BTreeMap<TunnelId, Secret>,
    /// How far its clock is ahead of the world's.
    pub(crate) ahead: Duration,
    pub(crate) alive: bool,
    pub(crate) account: Account,
    /// Tunnels that ever had an SA.
    ids: BTreeSet<TunnelId>,
    /// Inbound SAs and their tunnels.
    pub(crate) sad: BTreeMap<Spi, TunnelId>,
    pub(crate) sending: BTreeMap<TunnelId, Sending>,
    /// The key of each outbound SA, by its digest.
    pub(crate) keys: BTreeMap<Spi, (u64, usize)>,
    pub(crate) stopped: bool,
    /// Octets that the outer path of each tunnel takes.
    link_mtu: BTreeMap<TunnelId, u16>,
    /// Probes that were made since the model looked last.
    pub(crate) probes: Vec<Vec<u8>>,
    fault: Fault,
}

/// What carrying out actions left to do.
pub(crate) enum Left {
    Send(Transmit),
    Say(String),
}

fn digest(octets: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    octets.hash(&mut hasher);
    hasher.finish()
}

/// Limits that a few dozen datagrams can reach.
pub(crate) fn endpoint_config(fault: Fault) -> EndpointConfig {
    let usual = EndpointConfig {
        half_open_limit: 24,
        cookie_threshold: 8,
        half_open_per_source: 6,
        ..EndpointConfig::default()
    };
    match fault {
        Fault::NoGrace => EndpointConfig { inbound_grace: Duration::ZERO, ..usual },
        Fault::KeepHalfOpen => {
            EndpointConfig { half_open_timeout: Duration::from_secs(1 << 32), ..usual }
        }
        _ => usual,
    }
}

impl Node {
    pub(crate) fn new(config: Config, draw: Draw, fault: Fault, now: Instant) -> Self {
        let tunnels = config.connections.iter().flat_map(|c| &c.tunnels);
        let secrets: BTreeMap<TunnelId, Secret> = tunnels
            .map(|t| (t.id, Secret::new(format!("key of {}", t.pre_shared_key_file).into())))
            .collect();
        let (input, output) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let counters = (Arc::clone(&input), Arc::clone(&output));
        let (endpoint, rng) = (endpoint_config(fault), Box::new(draw.into_rng()));
        let for_gateway = (Arc::clone(&input), Arc::clone(&output));
        let gateway =
            Gateway::new(config.clone(), secrets.clone(), endpoint, rng, for_gateway, now);
        Self {
            gateway,
            inbound: Inbound::new(input),
            outbound: Outbound::new(output, IcmpSource::default()),
            counters,
            config,
            secrets,
            ahead: Duration::ZERO,
            alive: true,
            account: Account::default(),
            ids: BTreeSet::new(),
            sad: BTreeMap::new(),
            sending: BTreeMap::new(),
            keys: BTreeMap::new(),
            stopped: false,
            link_mtu: BTreeMap::new(),
            probes: Vec::new(),
            fault,
        }
    }

    /// Carries out all actions, as the runtime would, in order; returns what goes out.
    pub(crate) fn act(&mut self) -> Vec<Left> {
        let mut left = Vec::new();
        while let Some(action) = self.gateway.poll_action() {
            match action {
                Action::Inbound(command) => self.apply_inbound(command),
                Action::Outbound(command) => self.apply_outbound(command),
                Action::Transmit(transmit) => left.push(Left::Send(transmit)),
                Action::Log(_, line) => {
                    assert!(
                        self.fault != Fault::Panic || !line.contains("rekeyed"),
                        "a panic on purpose"
                    );
                    left.push(Left::Say(line));
                }
                Action::Stopped => self.stopped = true,
                Action::Interface(_) | Action::SetTunMtu(_) | Action::BelieveIcmp(_) => {}
            }
        }
        left
    }

    fn apply_inbound(&mut self, command: InboundCommand) {
        match &command {
            InboundCommand::Install(sa) => {
                self.ids.insert(sa.tunnel);
                self.sad.insert(sa.spi, sa.tunnel);
            }
            InboundCommand::Remove { .. } if self.fault == Fault::KeepInbound => return,
            InboundCommand::Remove { spi, .. } => {
                self.sad.remove(spi);
            }
            _ => {}
        }
        self.inbound.apply(command);
    }

    fn apply_outbound(&mut self, command: OutboundCommand) {
        match &command {
            OutboundCommand::Install(sa) => {
                self.sending.insert(sa.tunnel, Sending { spi: sa.spi, path: sa.path });
                self.keys.insert(sa.spi, (digest(sa.encryption.expose()), sa.suite.iv_len()));
            }
            OutboundCommand::Remove { tunnel, spi }
                if self.sending.get(tunnel).is_some_and(|s| s.spi == *spi) =>
            {
                self.sending.remove(tunnel);
            }
            OutboundCommand::SetPath { tunnel, path } => {
                if let Some(sending) = self.sending.get_mut(tunnel) {
                    sending.path = *path;
                }
            }
            OutboundCommand::SetLinkMtu { tunnel, mtu } => {
                self.link_mtu.insert(*tunnel, *mtu);
            }
            OutboundCommand::Probe { packet, .. } => self.probes.push(packet.clone()),
            _ => {}
        }
        self.outbound.apply(command);
    }

    /// Tells the policy what both halves noticed.
    pub(crate) fn pass_events(&mut self, now: Instant) {
        while let Some(event) = self.inbound.poll_event() {
            self.account.answers += u64::from(matches!(event, DataEvent::ProbeAnswered { .. }));
            self.gateway.handle_data_event(event, now);
        }
        while let Some(event) = self.outbound.poll_event() {
            self.gateway.handle_data_event(event, now);
        }
    }

    /// The longest packet that every tunnel takes.
    pub(crate) fn smallest_mtu(&self) -> usize {
        let endpoint = self.gateway.endpoint();
        let of = |id: &TunnelId| {
            let suite = endpoint.child_info(*id)?.suite.suite;
            let link = self.link_mtu.get(id).copied().unwrap_or(self.config.link_mtu);
            Some(usize::from(tunnel_mtu(link, false, suite)))
        };
        self.sending.keys().filter_map(of).min().unwrap_or(1_280)
    }

    /// Its own time.
    pub(crate) fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// When it wants to be called, in the world's time.
    pub(crate) fn due(&self) -> Option<Instant> {
        let at = self.gateway.poll_timeout();
        self.alive.then(|| at.checked_sub(self.ahead).unwrap_or(at))
    }

    /// Drops of either half.
    pub(crate) fn drops(&self, inbound: bool) -> u64 {
        let counters = if inbound { &self.counters.0 } else { &self.counters.1 };
        DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum()
    }

    /// Which reasons the drops of either half have.
    pub(crate) fn drop_text(&self, inbound: bool) -> String {
        let counters = if inbound { &self.counters.0 } else { &self.counters.1 };
        let text: Vec<String> = DropReason::ALL
            .iter()
            .filter(|reason| counters.dropped(**reason) > 0)
            .map(|reason| format!("{} {}", reason.name(), counters.dropped(*reason)))
            .collect();
        text.join(", ")
    }

    /// What is wrong with its counters, if anything is.
    pub(crate) fn audit(&self) -> Option<String> {
        let a = self.account;
        let (mut came, mut went) = (0, 0);
        for id in &self.ids {
            came += self.counters.0.tunnel(*id).packets();
            went += self.counters.1.tunnel(*id).packets();
        }
        let internal = self.counters.0.dropped(DropReason::Internal)
            + self.counters.1.dropped(DropReason::Internal);
        let (dropped_in, dropped_out) = (self.drops(true), self.drops(false));
        let keepalives = self.counters.0.keepalives();
        let checks = [
            ("packets sent = datagrams sealed", went, a.sealed),
            ("drops of the sending half = packets refused", dropped_out, a.refused),
            ("packets received = packets that came out", came, a.delivered),
            (
                "datagrams = packets + answers to probes + drops + keepalives + IKE",
                a.received,
                a.delivered + a.answers + dropped_in + keepalives + a.ike,
            ),
            ("faults of our own = 0", internal, 0),
        ];
        let wrong = checks.iter().find(|(_, counted, expected)| counted != expected);
        wrong.map(|(what, counted, expected)| {
            format!(
                "{what}: {counted} and {expected} (in: {}; out: {})",
                self.drop_text(true),
                self.drop_text(false)
            )
        })
    }
}
