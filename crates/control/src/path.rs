//! What probes and ICMP say about the paths of tunnels, and what follows from it.

use std::time::{Duration, Instant};

use dataplane::{OutboundCommand, mtu, probe};
use ike::Command;
use sa::{Path, TunnelId};

use crate::failover::link_mtu;
use crate::gateway::Gateway;
use crate::probe::{Change, Probe, Prober, SMALL, Size};
use crate::{Action, Severity};

/// How long ICMP is not believed after probes contradicted it: as long as Linux believes it.
const DOUBT: Duration = Duration::from_secs(600);

impl Gateway {
    /// A tunnel came up, or got another Child SA.
    pub(crate) fn begin_probing(&mut self, id: TunnelId, now: Instant) {
        let ceiling = self.config.link_mtu;
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        let Some(child) = tunnel.child.as_ref().filter(|_| tunnel.prober.is_none()) else { return };
        let (own, peer) = tunnel.config.inside_v4;
        // Selectors for ports let no ICMP through.
        let inside = child.local_selectors.matches(own.into(), 1, Some(0x0800))
            && child.remote_selectors.matches(peer.into(), 1, Some(0x0800));
        let options = &tunnel.config.options;
        let timeout = options.path_probe_timeout.filter(|_| inside);
        tunnel.prober = Some(Prober::new(timeout, options.path_mtu_raise, ceiling, now));
    }

    /// Does what the paths' probes want done.
    pub(crate) fn probe_paths(&mut self, due: &[TunnelId], now: Instant) {
        for id in due.iter().copied() {
            let Some(prober) = self.prober(id) else { continue };
            if prober.deadline().is_none_or(|at| at > now) {
                continue;
            }
            let (probes, change, silent) = prober.handle_timeout(now);
            self.send_probes(id, probes);
            self.apply_change(id, change, now);
            if silent && let Some(tunnel) = self.tunnels.get_mut(id) {
                tunnel.fell(now);
                let waited = tunnel.config.options.path_probe_timeout.unwrap_or_default();
                let text = format!(
                    "the path carries no data: the peer's inside address has not answered for {} s",
                    waited.as_secs()
                );
                self.log(id, Severity::Warning, &text);
                let command = Command::PathSilent { tunnel: id, silent: true };
                self.endpoint.handle_command(command, now);
            }
        }
    }

    /// An answer came out of a tunnel.
    pub(crate) fn probe_answered(&mut self, id: TunnelId, sequence: u16, now: Instant) {
        let Some(prober) = self.prober(id) else { return };
        let mut probes = Vec::new();
        let change = prober.handle_answer(sequence, now, &mut probes);
        self.send_probes(id, probes);
        self.apply_change(id, change, now);
        if change.back {
            let command = Command::PathSilent { tunnel: id, silent: false };
            self.endpoint.handle_command(command, now);
            self.log(id, Severity::Info, "the path carries data");
            self.choose_for(id, now);
        }
    }

    /// The system learned, by ICMP, that the outer path takes datagrams of `mtu` octets only.
    pub fn handle_path_mtu(&mut self, path: Path, mtu: u16, now: Instant) {
        for id in self.tunnels.at(path.remote.ip()) {
            if self.prober(id).is_some_and(|prober| prober.learn_mtu(mtu, now)) {
                self.link_mtu_changed(id);
            }
        }
        self.learn_peer_mtu(path.remote, mtu);
        self.pump(now);
    }

    /// A tunnel's outer path is another one: its MTU is unknown again.
    pub(crate) fn path_changed(&mut self, id: TunnelId, now: Instant) {
        let Some(prober) = self.prober(id) else { return };
        let before = prober.link_mtu();
        prober.path_changed(now);
        if prober.link_mtu() != before {
            self.link_mtu_changed(id);
        }
    }

    /// The configuration changed under a tunnel that is up.
    pub(crate) fn restart_probing(&mut self, id: TunnelId, now: Instant) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|t| t.prober.is_some()) else { return };
        tunnel.prober = None;
        self.actions.extend(link_mtu(id, self.config.link_mtu));
        self.begin_probing(id, now);
    }

    fn prober(&mut self, id: TunnelId) -> Option<&mut Prober> {
        self.tunnels.get_mut(id)?.prober.as_mut()
    }

    fn apply_change(&mut self, id: TunnelId, change: Change, now: Instant) {
        if let Some(told) = change.contradicted {
            self.doubt_icmp(id, told, now);
        }
        if change.link_mtu.is_some() {
            self.link_mtu_changed(id);
        }
    }

    /// The path of a tunnel takes more than ICMP said: it was forged, or is true no more. The system
    /// would hold on to it for ten minutes; for as long probes alone say what paths take.
    fn doubt_icmp(&mut self, id: TunnelId, told: u16, now: Instant) {
        if self.icmp_doubted_until.replace(now + DOUBT).is_none() {
            self.actions.push_back(Action::BelieveIcmp(false));
        }
        let text = format!("ICMP said that the outer path takes {told} octets, and it takes more");
        self.log(id, Severity::Warning, &text);
    }

    /// ICMP has another chance.
    pub(crate) fn believe_icmp(&mut self, now: Instant) {
        if self.icmp_doubted_until.take_if(|until| *until <= now).is_some() {
            self.actions.push_back(Action::BelieveIcmp(true));
        }
    }

    fn link_mtu_changed(&mut self, id: TunnelId) {
        let Some(prober) = self.prober(id) else { return };
        let link = prober.link_mtu();
        self.actions.extend(link_mtu(id, link));
        let tunnel = self.tunnels.get(id);
        let inner = tunnel.and_then(|t| t.mtu(self.config.link_mtu)).unwrap_or_default();
        let text = format!("the outer path takes {link} octets: tunnel MTU {inner}");
        self.log(id, Severity::Info, &text);
    }

    fn send_probes(&mut self, id: TunnelId, probes: Vec<Probe>) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let (Some(ike), Some(child)) = (&tunnel.ike, &tunnel.child) else { return };
        let (own, peer) = tunnel.config.inside_v4;
        let (ipv6, suite) = (ike.path.remote.is_ipv6(), child.suite.suite);
        for probe in probes {
            let (size, asks) = match probe.size {
                Size::Small => (SMALL, false),
                Size::Filling(link) => (mtu::tunnel_mtu(link, ipv6, suite), false),
                Size::Asking(link) => (mtu::tunnel_mtu(link, ipv6, suite), true),
            };
            let packet = probe::echo_request(own, peer, probe.sequence, size);
            let command = OutboundCommand::Probe { tunnel: id, packet, asks };
            self.actions.push_back(Action::Outbound(command));
        }
    }
}
