//! What every exchange of an endpoint shares: time, randomness, configuration, output queues.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sa::{Path, Spi, TunnelId};

use crate::config::{EndpointConfig, IkeRng, PeerConfig};
use crate::counters::Counters;
use crate::diagnosis::Diagnosis;
use crate::established::Estate;
use crate::event::{DownReason, Event, Transmit, TransmitPayload};
use crate::grace::Grace;
use crate::ike_sa::IkeSa;
use crate::peers::Peers;

/// Octets of a nonce: half the largest PRF key and more (RFC 7296 2.10).
pub(crate) const NONCE: usize = 32;

/// What an IKE SA asks of the endpoint because other IKE SAs are concerned. `u64` is our SPI.
pub(crate) enum Effect {
    /// A new IKE SA exists: the product of an IKE rekey.
    Adopt(Box<IkeSa>),
    /// Child SAs and what is to be done for them move to another IKE SA.
    Inherit { to: u64, estate: Box<Estate> },
    /// `loser` is a redundant IKE SA: send its DELETE.
    Close(u64),
    /// The peer's IKE SA that lost against ours waits for the peer's DELETE, but not for long.
    Redundant(u64),
    /// The peer seems to have lost the IKE SA: a new one is negotiated beside it.
    Reestablish(TunnelId),
    /// An IKE SA is authenticated: its duplicates go.
    Authenticated { spi: u64, tunnel: TunnelId, initial_contact: bool },
    /// The outbound half of a Child SA is in use: the peer has it, so what it displaced may go.
    Switched { tunnel: TunnelId, path: Path },
    /// Outbound halves of a replaced IKE SA go, after the successor's is in use.
    Leave { tunnel: TunnelId, outbound: Vec<Spi> },
    /// An IKE SA or an attempt ended.
    Ended { tunnel: TunnelId, reason: DownReason },
    /// A Child SA is gone without one in its place.
    ChildGone { tunnel: TunnelId, reason: DownReason },
}

/// See the module.
pub(crate) struct Context {
    pub(crate) now: Instant,
    pub(crate) config: EndpointConfig,
    pub(crate) rng: Box<dyn IkeRng + Send>,
    pub(crate) peers: Peers,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<Event>,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) effects: VecDeque<Effect>,
    /// ESP SPIs in use, those in their grace time included.
    esp_spis: BTreeSet<Spi>,
    grace: Grace,
    /// IKE SAs of the tunnel whose message is being handled.
    pub(crate) siblings: usize,
    /// Replies and events that strangers may still cause in the present second.
    strangers: (Option<Instant>, u32),
}

impl Context {
    pub(crate) fn new(config: EndpointConfig, rng: Box<dyn IkeRng + Send>, now: Instant) -> Self {
        Self {
            now,
            config,
            rng,
            peers: Peers::default(),
            counters: Counters::default(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            effects: VecDeque::new(),
            esp_spis: BTreeSet::new(),
            grace: Grace::default(),
            siblings: 0,
            strangers: (None, 0),
        }
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// A random SPI for an IKE SA; never zero.
    pub(crate) fn ike_spi(&mut self) -> u64 {
        self.rng.next_u64().max(1)
    }

    /// A free ESP SPI, taken until [`Self::release_spi`].
    pub(crate) fn esp_spi(&mut self) -> Spi {
        loop {
            let spi = Spi(self.rng.next_u32());
            if spi.is_allocatable() && self.esp_spis.insert(spi) {
                return spi;
            }
        }
    }

    /// Gives back an SPI whose inbound SA was never installed.
    pub(crate) fn release_spi(&mut self, spi: Spi) {
        self.esp_spis.remove(&spi);
    }

    /// Ends an inbound SA now.
    pub(crate) fn remove_inbound(&mut self, tunnel: TunnelId, spi: Spi) {
        self.esp_spis.remove(&spi);
        self.events.push_back(Event::RemoveInbound { tunnel, spi });
    }

    /// Ends an inbound SA after the grace time, for packets under way.
    pub(crate) fn retire_inbound(&mut self, tunnel: TunnelId, spi: Spi) {
        if let Some(spi) = self.grace.make_room(tunnel) {
            self.remove_inbound(tunnel, spi);
        }
        self.grace.insert(tunnel, spi, self.now + self.config.inbound_grace);
    }

    /// When the next grace time ends.
    pub(crate) fn grace_deadline(&self) -> Option<Instant> {
        self.grace.deadline()
    }

    /// Ends what has had its grace; with `tunnel` all of that tunnel.
    pub(crate) fn end_grace(&mut self, of: Option<TunnelId>) {
        let mut over = self.grace.take_due(self.now);
        over.extend(of.into_iter().flat_map(|tunnel| self.grace.take(tunnel)));
        over.into_iter().for_each(|(tunnel, spi)| self.remove_inbound(tunnel, spi));
    }

    /// A duration of `base` and up to as much again, at random.
    pub(crate) fn jitter(&mut self, base: Duration) -> Duration {
        base + base.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }

    /// When something of lifetime `lifetime` that begins now is rekeyed: `margin` before its end,
    /// and up to `fuzz_percent` of the margin earlier, but not in the first half of its life.
    pub(crate) fn rekey_at(&mut self, lifetime: Duration, peer: &PeerConfig) -> Instant {
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let fuzz = f64::from(peer.rekey_fuzz_percent) / 100.0 * share;
        let early = peer.rekey_margin.mul_f64(1.0 + fuzz).min(lifetime / 2);
        self.now + lifetime.saturating_sub(early)
    }

    pub(crate) fn transmit(&mut self, path: Path, datagram: Vec<u8>) {
        self.counters.sent += 1;
        self.transmits.push_back(Transmit { path, payload: TransmitPayload::Ike(datagram) });
    }

    pub(crate) fn failed(
        &mut self,
        tunnel: Option<TunnelId>,
        remote: SocketAddr,
        diagnosis: Diagnosis,
    ) {
        self.events.push_back(Event::Failed { tunnel, remote, diagnosis });
    }

    /// Reports a failure that anyone can cause: so many a second and no more.
    pub(crate) fn failed_stranger(
        &mut self,
        tunnel: Option<TunnelId>,
        remote: SocketAddr,
        diagnosis: Diagnosis,
    ) {
        if self.admit_stranger() {
            self.failed(tunnel, remote, diagnosis);
        }
    }

    /// Whether something that an unauthenticated datagram causes may happen in this second.
    pub(crate) fn admit_stranger(&mut self) -> bool {
        let fresh = self.strangers.0.is_none_or(|since| {
            self.now.saturating_duration_since(since) >= Duration::from_secs(1)
        });
        if fresh {
            self.strangers = (Some(self.now), 0);
        }
        self.strangers.1 = self.strangers.1.saturating_add(1);
        self.strangers.1 <= self.config.stranger_rate
    }

    /// The ESP path that goes with an IKE path: always the NAT-T port of ours.
    pub(crate) fn esp_path(&self, path: Path) -> Path {
        if path.local.port() != self.config.ike_port {
            return path;
        }
        let mut esp = path;
        esp.local.set_port(self.config.nat_t_port);
        esp.remote.set_port(self.config.nat_t_port);
        esp
    }
}
