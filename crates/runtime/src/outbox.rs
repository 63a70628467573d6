//! IKE messages on their way out, and which of them wait until a peer has what was sent before them.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane::OutboundCommand;
use ike::Transmit;
use sa::{Spi, TunnelId};

/// How long messages wait that leave together with a change of the SA that carries a tunnel. They may
/// make the peer forget the old one, and a peer that opens ESP in user space does that before it comes to
/// the packets that arrived just before: a few milliseconds on a busy machine.
const DRAIN: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Default)]
pub(crate) struct Outbox {
    /// What each tunnel sends with.
    sending: BTreeMap<TunnelId, Spi>,
    changed: bool,
    /// Until when messages to a peer wait.
    until: BTreeMap<SocketAddr, Instant>,
    /// By time, and those of one time in their order.
    held: VecDeque<(Instant, Transmit)>,
}

impl Outbox {
    /// Takes note of what the sending half of the data plane is told.
    pub(crate) fn note(&mut self, command: &OutboundCommand) {
        let before = match command {
            OutboundCommand::Install(sa) => self.sending.insert(sa.tunnel, sa.spi),
            OutboundCommand::Remove { tunnel, spi } if self.sending.get(tunnel) == Some(spi) => {
                self.sending.remove(tunnel)
            }
            _ => None,
        };
        self.changed |= before.is_some();
    }

    /// Takes the messages that follow what was noted. Returns those that leave at once; no message
    /// overtakes another one to the same peer.
    pub(crate) fn take(&mut self, messages: Vec<Transmit>, now: Instant) -> Vec<Transmit> {
        let wait = std::mem::take(&mut self.changed);
        let mut leave = Vec::with_capacity(messages.len());
        for message in messages {
            let until = self.until.entry(message.path.remote);
            let at = match until {
                Entry::Vacant(_) if !wait => {
                    leave.push(message);
                    continue;
                }
                // Who sends us more meanwhile does not prolong it.
                Entry::Occupied(at) if !wait => *at.get(),
                entry => *entry.insert_entry(now + DRAIN).get(),
            };
            let place = self.held.partition_point(|(other, _)| *other <= at);
            self.held.insert(place, (at, message));
        }
        leave
    }

    /// When the next message leaves.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.held.front().map(|(at, _)| *at)
    }

    /// The messages whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Transmit> {
        let count = self.held.iter().take_while(|(at, _)| *at <= now).count();
        if count > 0 {
            self.until.retain(|_, at| *at > now);
        }
        self.held.drain(..count).map(|(_, message)| message).collect()
    }

    /// All that wait, at the end.
    pub(crate) fn rest(&mut self) -> Vec<Transmit> {
        self.until.clear();
        std::mem::take(&mut self.held).into_iter().map(|(_, message)| message).collect()
    }
}

#[cfg(test)]
mod tests {
    use ike::TransmitPayload;
    use sa::{Bits, EspSuite, Lifetime, OutboundSa, Path, Secret, SelectorSet};

    use super::*;

    fn path(peer: u16) -> Path {
        Path { local: "192.0.2.1:4500".parse().unwrap(), remote: ([198, 51, 100, 1], peer).into() }
    }

    fn install(tunnel: u32, spi: u32) -> OutboundCommand {
        OutboundCommand::Install(Box::new(OutboundSa {
            tunnel: TunnelId(tunnel),
            spi: Spi(spi),
            suite: EspSuite::AesGcm16(Bits::B128),
            esn: false,
            encryption: Secret::default(),
            integrity: Secret::default(),
            local_selectors: SelectorSet::default(),
            remote_selectors: SelectorSet::default(),
            path: path(1),
            lifetime: Lifetime { time: Duration::from_secs(1), bytes: None, packets: None },
        }))
    }

    fn remove(tunnel: u32, spi: u32) -> OutboundCommand {
        OutboundCommand::Remove { tunnel: TunnelId(tunnel), spi: Spi(spi) }
    }

    fn message(peer: u16, octet: u8) -> Transmit {
        Transmit { path: path(peer), payload: TransmitPayload::Ike(vec![octet]) }
    }

    #[test]
    fn what_goes_with_another_sa_waits_and_what_comes_behind_it_too() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut outbox = Outbox::default();
        let passes =
            |outbox: &mut Outbox, ms| outbox.take(vec![message(1, 0)], at(ms)) == [message(1, 0)];
        // A first SA replaces nothing, and the end of one that was replaced before changes nothing.
        outbox.note(&install(1, 10));
        outbox.note(&install(2, 20));
        assert!(passes(&mut outbox, 0));
        outbox.note(&remove(1, 9));
        assert!(passes(&mut outbox, 0));

        outbox.note(&install(1, 11));
        assert_eq!(outbox.take(vec![message(1, 1), message(2, 2)], at(0)), []);
        assert_eq!(outbox.take(vec![message(1, 3), message(3, 4)], at(5)), [message(3, 4)]);
        assert_eq!((outbox.deadline(), outbox.due(at(19))), (Some(at(20)), vec![]));
        outbox.note(&install(2, 21));
        assert_eq!(outbox.take(vec![message(4, 5)], at(10)), []);
        assert_eq!(outbox.take(vec![message(1, 6)], at(11)), []);
        assert_eq!(
            outbox.due(at(20)),
            [(1, 1), (2, 2), (1, 3), (1, 6)].map(|(p, o)| message(p, o))
        );
        assert!(passes(&mut outbox, 20), "what came behind prolongs nothing");
        assert_eq!(outbox.due(at(30)), [message(4, 5)]);
        assert!(passes(&mut outbox, 60));

        // The tunnel sends nothing from now on.
        outbox.note(&remove(1, 11));
        assert_eq!(outbox.take(vec![message(1, 6)], at(70)), []);
        assert_eq!(outbox.rest(), [message(1, 6)]);
        assert_eq!(outbox.deadline(), None);
        outbox.note(&install(1, 12));
        assert!(passes(&mut outbox, 80));
    }
}
