//! What "at rest" is: one IKE SA and one pair of Child SAs for each tunnel, the same at both ends,
//! and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::net::vgw_address;
use crate::violation::Kind;
use crate::world::World;

/// How long it may take until everything is at rest again, whatever happened before: a peer that
/// waits longest between two attempts waits a minute, and an exchange is given up after as long.
const LIMIT: Duration = Duration::from_secs(300);
/// Between packets of a site meanwhile.
const GAP: Duration = Duration::from_millis(500);
/// How long it is watched then; a rekey of its own may fall into it.
const LAST: Duration = Duration::from_secs(20);

impl World {
    /// Whether one customer gateway's connection is at rest; what is not, if it is not.
    pub(crate) fn connection_at_rest(&self, agent: usize) -> Result<(), String> {
        (0..2).try_for_each(|tunnel| {
            self.tunnel_at_rest(agent, tunnel)
                .map_err(|text| format!("vpn-{agent}/tunnel {}: {text}", tunnel + 1))
        })
    }

    fn tunnel_at_rest(&self, agent: usize, tunnel: u8) -> Result<(), String> {
        let sides = [&self.nodes[0], &self.nodes[agent]];
        let id = |side: usize| {
            let connection = Self::connection(agent);
            sides[side].gateway.tunnel_id(&connection, tunnel + 1).ok_or("not configured")
        };
        let ids = [id(0)?, id(1)?];
        let ike = |side: usize| {
            let info = sides[side].gateway.endpoint().ike_info(ids[side]);
            info.map(|i| (i.initiator_spi, i.responder_spi)).ok_or(format!("no IKE SA at {side}"))
        };
        let child = |side: usize| {
            let info = sides[side].gateway.endpoint().child_info(ids[side]);
            info.map(|c| (c.inbound, c.outbound)).ok_or(format!("no Child SA at {side}"))
        };
        let (ikes, children) = ([ike(0)?, ike(1)?], [child(0)?, child(1)?]);
        if ikes[0] != ikes[1] {
            return Err(format!("two IKE SAs: {:x?} and {:x?}", ikes[0], ikes[1]));
        }
        let swapped = (children[1].1, children[1].0);
        if children[0] != swapped {
            return Err(format!("two pairs of Child SAs: {:?} and {swapped:?}", children[0]));
        }
        for side in 0..2 {
            let node = sides[side];
            let all = node.gateway.endpoint().ike_sas_of(ids[side]);
            if all != 1 {
                return Err(format!("side {side} has {all} IKE SAs"));
            }
            let inbound: Vec<_> =
                node.sad.iter().filter(|(_, of)| **of == ids[side]).map(|(spi, _)| *spi).collect();
            if inbound != [children[side].0] {
                return Err(format!("side {side} receives with {inbound:?}"));
            }
            let sending = node.sending.get(&ids[side]).copied();
            let sending = sending.ok_or(format!("side {side} does not send"))?;
            if sending.spi != children[side].1 {
                return Err(format!("side {side} sends with {}", sending.spi));
            }
            let reaches = match side {
                0 => self.net.reaches(agent, vgw_address(tunnel), sending.path.remote),
                _ => sending.path.remote.ip() == vgw_address(tunnel),
            };
            if !reaches {
                return Err(format!("side {side} sends to {}", sending.path.remote));
            }
        }
        Ok(())
    }

    /// Which tunnels are not at rest now, with the reason. Each is looked at for itself: with
    /// lifetimes of seconds there may be no moment at which none is being rekeyed.
    fn restless(&self) -> BTreeMap<(usize, u8), String> {
        let all = (1..=self.settings.agents).flat_map(|agent| [(agent, 0), (agent, 1)]);
        all.filter_map(|(agent, tunnel)| {
            let text = self.tunnel_at_rest(agent, tunnel).err()?;
            Some(((agent, tunnel), format!("vpn-{agent}/tunnel {}: {text}", tunnel + 1)))
        })
        .collect()
    }

    /// Lets time pass until every tunnel was at rest once, and strangers left nothing behind.
    fn wait_for_rest(&mut self) -> Result<(), String> {
        let begin = self.now;
        let mut open = self.restless();
        while !open.is_empty() || self.nodes.iter().any(|n| n.gateway.endpoint().half_open() > 0) {
            if self.now.duration_since(begin) > LIMIT {
                return Err(open.into_values().next().unwrap_or("half-open IKE SAs".into()));
            }
            self.run(Duration::from_secs(1), GAP);
            if !self.model.violations.is_empty() {
                break;
            }
            let now = self.restless();
            open.retain(|tunnel, text| {
                now.get(tunnel).is_some_and(|why| {
                    text.clone_from(why);
                    true
                })
            });
        }
        Ok(())
    }

    /// From here on packets of connections that are at rest must arrive, if the links lose none.
    pub(crate) fn claim_what_is_calm(&mut self) {
        let wait = Duration::from_secs(self.settings.dpd + 2);
        if self.net.quality.loss > 0 || self.net.cut.is_some() {
            return;
        }
        for agent in 1..=self.settings.agents {
            for direction in 0..2 {
                let long = self.model.disturbed_for(agent, direction).is_some_and(|t| t >= wait);
                if long && self.connection_at_rest(agent).is_ok() {
                    self.model.calm(agent, direction);
                }
            }
        }
    }

    /// Nothing is done any more and the links are good: everything must come to rest, stay so,
    /// and lose no packet from then on. Returns how long it took.
    pub(crate) fn come_to_rest(&mut self) -> Option<Duration> {
        let begin = self.now;
        if let Err(text) = self.wait_for_rest() {
            self.model.object(Kind::NotAtRest, text);
            return None;
        }
        let took = self.now.duration_since(begin);
        self.run(Duration::from_secs(self.settings.dpd + 3), GAP);
        self.claim_what_is_calm();
        self.run(LAST, GAP);
        if let Err(text) = self.wait_for_rest() {
            self.model.object(Kind::NotAtRest, format!("not for long: {text}"));
        }
        Some(took)
    }
}
