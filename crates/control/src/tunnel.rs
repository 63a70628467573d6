//! One tunnel at run time: what the configuration asks of it and how it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{TunnelCounters, mtu};
use ike::{ChildInfo, Dpd, IkeInfo, PeerConfig};
use sa::Secret;

use crate::config::{self, DpdAction, StartupAction};
use crate::probe::{PathState, Prober};
use crate::status::TunnelStatus;

/// Waits between attempts to bring a tunnel up: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Why a tunnel is down that a user took down before it was ever up.
const TAKEN_DOWN: &str = "taken down by us";
/// How long a tunnel must have worked before traffic moves back to it. Doubled for each time that
/// it failed within [`MEMORY`] of the time before, up to 64 times.
const HOLD_DOWN: Duration = Duration::from_secs(3);
const MEMORY: Duration = Duration::from_secs(600);

pub(crate) struct TunnelState {
    pub(crate) config: config::Tunnel,
    /// The place of its connection in the configuration.
    pub(crate) connection: usize,
    /// What came in and what went out.
    pub(crate) counters: [Arc<TunnelCounters>; 2],
    pub(crate) psk: Secret,
    pub(crate) ike: Option<IkeInfo>,
    pub(crate) child: Option<ChildInfo>,
    pub(crate) admin_down: bool,
    pub(crate) why: String,
    pub(crate) since: Instant,
    last_rekey: Option<Instant>,
    /// When it last failed, and how often within [`MEMORY`].
    fell: Option<(Instant, u32)>,
    /// Whether the path carries data; exists while the tunnel is up.
    pub(crate) prober: Option<Prober>,
    pub(crate) retry_at: Option<Instant>,
    attempts: u32,
    /// Packets in and out when the control plane looked last.
    pub(crate) packets: [u64; 2],
}

impl TunnelState {
    pub(crate) fn new(
        config: config::Tunnel,
        connection: usize,
        counters: [Arc<TunnelCounters>; 2],
        psk: Secret,
        now: Instant,
    ) -> Self {
        let why = match config.options.startup_action {
            StartupAction::Add => "waiting for the peer to begin",
            StartupAction::Start => "not tried yet",
        };
        Self {
            config,
            connection,
            counters,
            psk,
            ike: None,
            child: None,
            admin_down: false,
            why: why.into(),
            since: now,
            last_rekey: None,
            fell: None,
            prober: None,
            retry_at: None,
            attempts: 0,
            packets: [0; 2],
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// When it wants to be looked at: for the next attempt, or for its probes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let probes = self.prober.as_ref().and_then(Prober::deadline);
        self.retry_at.into_iter().chain(probes).min()
    }

    /// Octets that an inner packet may have while it is up; `link_mtu` is the configured MTU of the
    /// outer path.
    pub(crate) fn mtu(&self, link_mtu: u16) -> Option<u16> {
        let (ike, child) = (self.ike.as_ref()?, self.child.as_ref()?);
        let link_mtu = self.prober.as_ref().map_or(link_mtu, Prober::link_mtu);
        Some(mtu::tunnel_mtu(link_mtu, ike.path.remote.is_ipv6(), child.suite.suite))
    }

    /// Whether the connection's traffic may move to this tunnel from another one that works.
    pub(crate) fn is_steady(&self, now: Instant) -> bool {
        let up = now.saturating_duration_since(self.since);
        let good = self.prober.as_ref().and_then(|prober| prober.good_for(now)).unwrap_or(up);
        let falls = self.fell.map_or(1, |(_, falls)| falls);
        let hold_down = HOLD_DOWN.saturating_mul(1 << (falls.max(1) - 1).min(6));
        self.is_up() && up.min(good) >= hold_down
    }

    /// The tunnel failed: it must work for longer before it is trusted again.
    pub(crate) fn fell(&mut self, now: Instant) {
        let falls = match self.fell {
            Some((at, falls)) if now.saturating_duration_since(at) < MEMORY => falls + 1,
            _ => 1,
        };
        self.fell = Some((now, falls));
    }

    /// How little the path deserves traffic, the tunnel being up: 0 if nothing speaks against it.
    /// `sibling` says whether the connection's other tunnel answers probes.
    pub(crate) fn demerit(&self, sibling: bool, now: Instant) -> u8 {
        let Some(prober) = &self.prober else { return 0 };
        match prober.state() {
            PathState::Carries => 0,
            PathState::Unknown => u8::from(sibling && prober.never_answered(now)),
            PathState::Silent => 1,
        }
    }

    /// Whether the peer answers probes through this tunnel.
    pub(crate) fn answers(&self) -> bool {
        self.prober.as_ref().is_some_and(|prober| prober.state() == PathState::Carries)
    }

    /// Whether we are the side that begins.
    pub(crate) fn begins(&self) -> bool {
        self.config.options.startup_action == StartupAction::Start && self.config.remote.is_some()
    }

    pub(crate) fn go_up(&mut self, now: Instant) {
        if !self.why.is_empty() {
            self.since = now;
        }
        self.why.clear();
        self.attempts = 0;
        self.retry_at = None;
    }

    /// A user's word, which stands until the next one.
    pub(crate) fn set_admin_down(&mut self, down: bool) {
        self.admin_down = down;
        self.retry_at = None;
        if down && !self.is_up() {
            self.why = TAKEN_DOWN.into();
        }
    }

    /// Takes what a rekey negotiated; the tunnel stays as it was.
    pub(crate) fn rekeyed(&mut self, now: Instant) {
        self.last_rekey = Some(now);
    }

    pub(crate) fn go_down(&mut self, why: String, now: Instant) {
        if self.child.take().is_some() {
            self.since = now;
            if !self.admin_down {
                self.fell(now);
            }
        }
        self.ike = None;
        self.prober = None;
        self.last_rekey = None;
        self.why = why;
    }

    /// Decides when the tunnel is tried again, if ever.
    pub(crate) fn plan_retry(&mut self, dead: bool, now: Instant) {
        let restart = dead && self.config.options.dpd_timeout_action == DpdAction::Restart;
        let wanted = self.begins() || (restart && self.config.remote.is_some());
        if self.admin_down || !wanted {
            self.retry_at = None;
            return;
        }
        let wait = FIRST_RETRY.saturating_mul(1 << self.attempts.min(6)).min(LAST_RETRY);
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Some(now + wait);
    }

    /// What the IKE plane must know of this tunnel on a link that takes datagrams of `link_mtu`.
    pub(crate) fn peer(&self, link_mtu: u16) -> PeerConfig {
        let (c, options) = (&self.config, &self.config.options);
        let mut peer =
            PeerConfig::new(c.id, c.local_id.clone(), c.remote_id.clone(), self.psk.clone());
        peer.name.clone_from(&c.name);
        peer.admin_down = self.admin_down;
        // IKE messages are cut by IKE (RFC 7383): NATs and firewalls drop fragments of IP.
        peer.fragment_size = peer.fragment_size.min(link_mtu);
        peer.local = c.local;
        peer.remote = c.remote;
        peer.remote_port = c.remote_port;
        peer.ike = options.ike.clone();
        peer.esp = options.esp.clone();
        peer.local_selectors = c.local_selectors.clone();
        peer.remote_selectors = c.remote_selectors.clone();
        peer.ike_lifetime = options.phase1_lifetime;
        peer.child_lifetime = options.phase2_lifetime;
        peer.rekey_margin = options.rekey_margin;
        peer.rekey_fuzz_percent = options.rekey_fuzz_percentage;
        peer.replay_window = options.replay_window;
        peer.mobike = options.mobike;
        let never = Duration::from_secs(10 * 365 * 86_400);
        let timeout = match options.dpd_timeout_action {
            DpdAction::None => never,
            DpdAction::Clear | DpdAction::Restart => options.dpd_timeout,
        };
        peer.dpd = Dpd { idle: timeout / 3, timeout };
        peer
    }

    pub(crate) fn status(&self, active: bool, link_mtu: u16, now: Instant) -> TunnelStatus {
        let [input, output] = &self.counters;
        let age = |at: Instant| now.saturating_duration_since(at).as_secs();
        let mut status = TunnelStatus {
            state: if self.is_up() { "UP" } else { "DOWN" }.into(),
            why: self.why.clone(),
            since_seconds: age(self.since),
            since_age: now.saturating_duration_since(self.since),
            active,
            packets_in: input.packets(),
            bytes_in: input.bytes(),
            packets_out: output.packets(),
            bytes_out: output.bytes(),
            mtu: self.mtu(link_mtu),
            ..TunnelStatus::default()
        };
        if let Some(ike) = &self.ike {
            status.local = Some(ike.path.local.to_string());
            status.peer = Some(ike.path.remote.to_string());
            status.peer_identity = Some(ike.remote_id.to_string());
            status.ike_suite = Some(ike.suite.to_string());
            let nat = match (ike.nat.local, ike.nat.remote) {
                (true, true) => "both",
                (true, false) => "local",
                (false, true) => "remote",
                (false, false) => "none",
            };
            status.nat = Some(nat.into());
        }
        if let Some(child) = &self.child {
            let esn = if child.suite.esn { "/ESN" } else { "" };
            status.esp_suite = Some(format!("{}{esn}", child.suite.suite));
            status.pfs_group = child.suite.group.map(|group| group.to_string());
            status.spi_in = Some(child.inbound.to_string());
            status.spi_out = Some(child.outbound.to_string());
            status.local_selectors = Some(child.local_selectors.to_string());
            status.remote_selectors = Some(child.remote_selectors.to_string());
            status.child_age_seconds = Some(age(child.established));
            status.last_rekey_seconds = self.last_rekey.map(age);
        }
        if let Some(prober) = &self.prober {
            let text = match (prober.state(), prober.silent_since()) {
                (PathState::Carries, _) => "carries data".into(),
                (PathState::Silent, Some(since)) => format!("silent for {} s", age(since)),
                _ if self.config.options.path_probe_timeout.is_none() => "not probed".into(),
                _ => "the peer's inside address never answered".into(),
            };
            status.path = Some(text);
            status.path_rtt_us = prober.rtt().and_then(|rtt| u64::try_from(rtt.as_micros()).ok());
            status.link_mtu = Some(prober.link_mtu());
        }
        status
    }
}
