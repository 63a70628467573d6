//! Carrying out the operations of a plan.

use std::time::Duration;

use control::TunnelVerb;
use control::config::Config;

use crate::plan::{Change, Op, Step};
use crate::violation::Kind;
use crate::world::{World, place};

impl World {
    /// Does one step, and lets its time pass.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), String> {
        self.claim_what_is_calm();
        self.say(0, || format!("== {:?}", step.op));
        self.operate(&step.op, step.gap)?;
        self.run(step.pause, step.gap);
        self.audit();
        Ok(())
    }

    fn operate(&mut self, op: &Op, gap: Duration) -> Result<(), String> {
        match *op {
            Op::Rekey { host, agent, tunnel, ike } => {
                self.verb(host, agent, tunnel, rekey(ike));
            }
            Op::CrossRekey { agent, tunnel, ike, skew } => {
                self.verb(0, agent, tunnel, rekey(ike[0]));
                self.run(skew, gap);
                self.verb(agent, agent, tunnel, rekey(ike[1]));
            }
            Op::Down { host, agent, tunnel } => {
                self.disturb(agent);
                self.verb(host, agent, tunnel, TunnelVerb::Down);
            }
            Op::Up { host, agent, tunnel } => self.verb(host, agent, tunnel, TunnelVerb::Up),
            Op::Reload { host, change } => self.change(host, change),
            Op::Withdraw { agent, time } => self.withdraw(agent, time, gap),
            Op::Restart { host, time, graceful } => self.restart(host, time, graceful, gap)?,
            Op::Rebind { agent, address } => {
                if self.net.is_translated(agent) {
                    // Until the customer gateway says something, nobody knows where it is.
                    self.model.disturb(agent, 0);
                    if self.dpd_timeout(agent) > self.dpd_timeout(0) {
                        // It asks so seldom that the VGW may give it up before that.
                        self.model.disturb(agent, 1);
                    }
                    self.net.rebind(agent, address);
                } else if self.settings.may_move(agent) {
                    self.model.disturb(agent, 0);
                    self.renumber(agent);
                }
            }
            Op::PathMtu(mtu) => self.net.mtu = mtu,
            Op::Links(quality) => {
                if quality.loss > 0 {
                    self.disturb(0);
                }
                self.net.quality = quality;
            }
            Op::Cut { cut, time } => {
                self.disturb(0);
                self.net.cut = Some(cut);
                self.run(time, gap.max(Duration::from_millis(100)));
                self.net.cut = None;
                self.disturb(0);
            }
            Op::ClockJump { host, time } => {
                self.disturb(host);
                self.nodes[host].ahead += time;
            }
            Op::Idle(time) => self.run(time, time / 20),
            Op::Knock { host, knock, count } => self.knock(host, knock, count),
        }
        Ok(())
    }

    /// A customer gateway has another outside address, and the old one no more.
    fn renumber(&mut self, agent: usize) {
        let address = self.net.renumber(agent);
        self.say(agent, || format!("is at {address} now"));
        let node = &mut self.nodes[agent];
        place(&mut node.config, address);
        let clock = node.clock(self.now);
        let moved = node.gateway.outside_paths().map(|(id, ..)| (id, address)).collect();
        node.gateway.handle_outside_addresses(&moved, clock);
        self.settle(agent);
    }

    fn verb(&mut self, host: usize, agent: usize, tunnel: u8, verb: TunnelVerb) {
        let clock = self.nodes[host].clock(self.now);
        let connection = Self::connection(agent);
        let done = self.nodes[host].gateway.handle_tunnel(&connection, tunnel + 1, verb, clock);
        if let Err(text) = done {
            self.model.object(Kind::Refused, format!("{verb:?}: {text}"));
        }
        self.settle(host);
    }

    fn change(&mut self, host: usize, change: Change) {
        let mut config = self.nodes[host].config.clone();
        for tunnel in config.connections.iter_mut().flat_map(|c| &mut c.tunnels) {
            let options = &mut tunnel.options;
            match change {
                Change::Nothing => {}
                Change::Dpd(seconds) => options.dpd_timeout = Duration::from_secs(seconds),
                Change::Lifetime(seconds) => {
                    options.phase2_lifetime.time = Duration::from_secs(seconds);
                    options.rekey_margin =
                        options.rekey_margin.min(Duration::from_secs(seconds / 4));
                }
                Change::Window(packets) => options.replay_window = packets,
            }
        }
        self.reload(host, config.clone());
        self.nodes[host].config = config;
    }

    /// After what silence a site takes its peers for dead.
    fn dpd_timeout(&self, host: usize) -> Duration {
        let tunnels = self.nodes[host].config.connections.iter().flat_map(|c| &c.tunnels);
        tunnels.map(|tunnel| tunnel.options.dpd_timeout).max().unwrap_or_default()
    }

    fn reload(&mut self, host: usize, config: Config) {
        let node = &mut self.nodes[host];
        let clock = node.clock(self.now);
        let secrets = node.secrets.clone();
        if let Err(text) = node.gateway.handle_reload(config, secrets, clock) {
            self.model.object(Kind::Refused, format!("reload: {text}"));
        }
        self.settle(host);
    }

    fn withdraw(&mut self, agent: usize, time: Duration, gap: Duration) {
        self.disturb(agent);
        let whole = self.nodes[0].config.clone();
        let mut without = whole.clone();
        without.connections.retain(|c| c.id != Self::connection(agent));
        self.reload(0, without);
        self.run(time, gap);
        self.reload(0, whole);
        self.disturb(agent);
    }

    fn restart(
        &mut self,
        host: usize,
        time: Duration,
        graceful: bool,
        gap: Duration,
    ) -> Result<(), String> {
        self.disturb(host);
        if graceful {
            let clock = self.nodes[host].clock(self.now);
            self.nodes[host].gateway.handle_stop(clock);
            self.settle(host);
            self.run(Duration::from_secs(3), gap);
            if !self.nodes[host].stopped {
                self.model.object(Kind::Refused, format!("site {host} does not stop"));
            }
        }
        self.nodes[host].alive = false;
        self.run(time, gap);
        let account = self.nodes[host].account;
        self.esp_sealed += account.sealed + account.probes;
        if let Some(text) = self.nodes[host].audit() {
            self.model.object(Kind::Counters, format!("site {host}: {text}"));
        }
        let fresh = self.fresh(host)?;
        self.nodes[host] = fresh;
        self.settle(host);
        self.disturb(host);
        Ok(())
    }

    /// Whatever users took down may come up again.
    pub(crate) fn everything_up(&mut self) {
        for agent in 1..=self.settings.agents {
            for tunnel in 0..2 {
                self.verb(0, agent, tunnel, TunnelVerb::Up);
                self.verb(agent, agent, tunnel, TunnelVerb::Up);
            }
        }
    }
}

fn rekey(ike: bool) -> TunnelVerb {
    if ike { TunnelVerb::RekeyIke } else { TunnelVerb::RekeyChild }
}
