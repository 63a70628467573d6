//! What an endpoint finds its IKE SAs by, besides our SPI: a message or a timer that concerns one of
//! thousands must not cost a look at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sa::{Spi, TunnelId};

use crate::event::Timer;
use crate::ike_sa::{IkeSa, Phase};

/// See the module. IKE SAs are named by our SPI.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<u64, Entry>,
    by_tunnel: BTreeMap<TunnelId, BTreeSet<u64>>,
    by_outbound: BTreeSet<(Spi, u64)>,
    deadlines: BTreeSet<(Instant, Timer, u64)>,
    spent: BTreeSet<(Instant, u64)>,
}

/// What is known of one IKE SA.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    tunnel: Option<TunnelId>,
    deadline: Option<(Instant, Timer)>,
    /// The peer's SPIs of its Child SAs.
    outbound: Vec<Spi>,
    /// When it ends, if all that it does is to answer its last request again.
    spent: Option<Instant>,
}

impl Entry {
    fn of(sa: &IkeSa) -> Self {
        let children = sa.up().into_iter().flat_map(|up| &up.children);
        Self {
            tunnel: sa.tunnel(),
            deadline: sa.deadline(),
            outbound: children.map(|child| child.outbound).collect(),
            spent: match &sa.phase {
                Phase::Spent(spent) => Some(spent.expires_at),
                _ => None,
            },
        }
    }
}

impl Index {
    /// Takes note of how the IKE SA stands now.
    pub(crate) fn update(&mut self, spi: u64, sa: &IkeSa) {
        let new = Entry::of(sa);
        if self.entries.get(&spi) == Some(&new) {
            return;
        }
        self.remove(spi);
        if let Some(tunnel) = new.tunnel {
            self.by_tunnel.entry(tunnel).or_default().insert(spi);
        }
        self.deadlines.extend(new.deadline.map(|(at, timer)| (at, timer, spi)));
        self.by_outbound.extend(new.outbound.iter().map(|outbound| (*outbound, spi)));
        self.spent.extend(new.spent.map(|at| (at, spi)));
        self.entries.insert(spi, new);
    }

    /// The IKE SA is gone.
    pub(crate) fn remove(&mut self, spi: u64) {
        let Some(old) = self.entries.remove(&spi) else { return };
        if let Some((at, timer)) = old.deadline {
            self.deadlines.remove(&(at, timer, spi));
        }
        if let Some(tunnel) = old.tunnel
            && let Some(set) = self.by_tunnel.get_mut(&tunnel)
        {
            set.remove(&spi);
            if set.is_empty() {
                self.by_tunnel.remove(&tunnel);
            }
        }
        for outbound in old.outbound {
            self.by_outbound.remove(&(outbound, spi));
        }
        if let Some(at) = old.spent {
            self.spent.remove(&(at, spi));
        }
    }

    /// The tunnel's IKE SAs, in the order of our SPIs.
    pub(crate) fn of(&self, tunnel: TunnelId) -> impl Iterator<Item = u64> {
        self.by_tunnel.get(&tunnel).into_iter().flatten().copied()
    }

    /// The tunnels that have an IKE SA.
    pub(crate) fn tunnels(&self) -> Vec<TunnelId> {
        self.by_tunnel.keys().copied().collect()
    }

    /// How many IKE SAs the tunnel has.
    pub(crate) fn count(&self, tunnel: TunnelId) -> usize {
        self.by_tunnel.get(&tunnel).map_or(0, BTreeSet::len)
    }

    /// How many IKE SAs the tunnel has of which this is one.
    pub(crate) fn siblings(&self, spi: u64) -> usize {
        let tunnel = self.entries.get(&spi).and_then(|entry| entry.tunnel);
        tunnel.map_or(0, |tunnel| self.count(tunnel))
    }

    /// Those with a Child SA that sends with this SPI of the peer's.
    pub(crate) fn sending(&self, outbound: Spi) -> impl Iterator<Item = u64> {
        self.by_outbound.range((outbound, 0)..=(outbound, u64::MAX)).map(|(_, spi)| *spi)
    }

    /// What is due first.
    pub(crate) fn deadline(&self) -> Option<(Instant, Timer)> {
        self.deadlines.first().map(|(at, timer, _)| (*at, *timer))
    }

    /// Those with something that is due, earliest first.
    pub(crate) fn due(&self, now: Instant) -> Vec<u64> {
        let due = self.deadlines.iter().take_while(|(at, ..)| *at <= now);
        due.map(|(.., spi)| *spi).collect()
    }

    /// Of more than `most` that only answer their last request again, the one that ends first.
    pub(crate) fn too_many_spent(&self, most: usize) -> Option<u64> {
        let first = self.spent.first().map(|(_, spi)| *spi);
        first.filter(|_| self.spent.len() > most)
    }
}
