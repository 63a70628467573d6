//! How much of the log one tunnel may fill: a peer that is authenticated and misbehaves, or flaps, can
//! cause lines as fast as it can send.

use std::collections::BTreeMap;

use sa::TunnelId;

/// Lines about one tunnel in a second.
const MOST: u32 = 20;

/// Lines since the last tick.
#[derive(Debug, Default)]
pub(crate) struct Lines(BTreeMap<TunnelId, u32>);

impl Lines {
    /// Whether one more about this tunnel may be written.
    pub(crate) fn admit(&mut self, tunnel: TunnelId) -> bool {
        let count = self.0.entry(tunnel).or_default();
        *count = count.saturating_add(1);
        *count <= MOST
    }

    /// A second is over: how many lines about which tunnels were left out.
    pub(crate) fn tick(&mut self) -> Vec<(TunnelId, u32)> {
        let over = std::mem::take(&mut self.0).into_iter();
        over.filter(|(_, count)| *count > MOST).map(|(id, count)| (id, count - MOST)).collect()
    }
}
