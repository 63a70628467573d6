//! Inbound SAs that still receive after their DELETE, for packets under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use sa::{Spi, TunnelId};

/// Inbound SAs of one tunnel that may be in their grace time at once: a peer that rekeys without
/// end fills no table.
const PER_TUNNEL: usize = 8;

/// By the end of their time, and by tunnel.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    by_end: BTreeSet<(Instant, TunnelId, Spi)>,
    by_tunnel: BTreeMap<TunnelId, BTreeSet<(Instant, Spi)>>,
}

impl Grace {
    pub(crate) fn insert(&mut self, tunnel: TunnelId, spi: Spi, end: Instant) {
        self.by_end.insert((end, tunnel, spi));
        self.by_tunnel.entry(tunnel).or_default().insert((end, spi));
    }

    /// Takes out the oldest of a tunnel that has as many as it may have.
    pub(crate) fn make_room(&mut self, tunnel: TunnelId) -> Option<Spi> {
        let of_tunnel = self.by_tunnel.get_mut(&tunnel)?;
        if of_tunnel.len() < PER_TUNNEL {
            return None;
        }
        let (end, spi) = of_tunnel.pop_first()?;
        self.by_end.remove(&(end, tunnel, spi));
        Some(spi)
    }

    /// When the next one's time ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_end.first().map(|(end, ..)| *end)
    }

    /// Takes out those whose time is over, oldest first.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(TunnelId, Spi)> {
        let mut due = Vec::new();
        while let Some((end, tunnel, spi)) = self.by_end.first().copied()
            && end <= now
        {
            self.by_end.pop_first();
            if let Some(of_tunnel) = self.by_tunnel.get_mut(&tunnel) {
                of_tunnel.remove(&(end, spi));
                if of_tunnel.is_empty() {
                    self.by_tunnel.remove(&tunnel);
                }
            }
            due.push((tunnel, spi));
        }
        due
    }

    /// Takes out all of a tunnel, oldest first.
    pub(crate) fn take(&mut self, tunnel: TunnelId) -> Vec<(TunnelId, Spi)> {
        let of_tunnel = self.by_tunnel.remove(&tunnel).unwrap_or_default();
        for (end, spi) in &of_tunnel {
            self.by_end.remove(&(*end, tunnel, *spi));
        }
        of_tunnel.into_iter().map(|(_, spi)| (tunnel, spi)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tunnel_keeps_its_last_and_each_ends_once() {
        let now = Instant::now();
        let mut grace = Grace::default();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (one, two) = (TunnelId(1), TunnelId(2));
        for number in 0..10_u32 {
            let over = number.checked_sub(8).map(Spi);
            assert_eq!(grace.make_room(one), over, "the oldest one gives way");
            grace.insert(one, Spi(number), at(number.into()));
        }
        grace.insert(two, Spi(100), at(4));
        assert_eq!(grace.deadline(), Some(at(2)));
        let due = grace.take_due(at(4));
        assert_eq!(due, [(one, Spi(2)), (one, Spi(3)), (one, Spi(4)), (two, Spi(100))]);
        assert_eq!(grace.take(two), []);
        assert_eq!(grace.take(one).len(), 5);
        assert_eq!((grace.deadline(), grace.take_due(at(100))), (None, vec![]));
    }
}
