//! The tunnels of an endpoint, and which of them a request belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sa::{Path, TunnelId};

use crate::config::PeerConfig;

/// The addresses that a tunnel is for: the peer's and ours, `None` for any.
type Addresses = (Option<IpAddr>, Option<IpAddr>);

/// See the module. With thousands of tunnels a request still finds its own without a search
/// through all of them, unless they are all for any address.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: BTreeMap<TunnelId, Arc<PeerConfig>>,
    by_addresses: BTreeMap<Addresses, BTreeSet<TunnelId>>,
}

impl Peers {
    pub(crate) fn insert(&mut self, peer: Arc<PeerConfig>) {
        self.remove(peer.tunnel);
        self.by_addresses.entry((peer.remote, peer.local)).or_default().insert(peer.tunnel);
        self.all.insert(peer.tunnel, peer);
    }

    pub(crate) fn remove(&mut self, tunnel: TunnelId) {
        let Some(peer) = self.all.remove(&tunnel) else { return };
        let addresses = (peer.remote, peer.local);
        if let Some(set) = self.by_addresses.get_mut(&addresses) {
            set.remove(&tunnel);
            if set.is_empty() {
                self.by_addresses.remove(&addresses);
            }
        }
    }

    pub(crate) fn get(&self, tunnel: TunnelId) -> Option<&Arc<PeerConfig>> {
        self.all.get(&tunnel)
    }

    /// The tunnels that a peer on this path may be: those that name its address before those for
    /// any address, and within that those that name ours first.
    pub(crate) fn candidates(&self, path: Path) -> impl Iterator<Item = &Arc<PeerConfig>> {
        let (remote, local) = (path.remote.ip(), path.local.ip());
        let order =
            [(Some(remote), Some(local)), (Some(remote), None), (None, Some(local)), (None, None)];
        let ids = order.into_iter().filter_map(|key| self.by_addresses.get(&key)).flatten();
        ids.filter_map(|id| self.all.get(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sa::Secret;

    fn peer(id: u32, remote: Option<u8>, local: Option<u8>) -> Arc<PeerConfig> {
        let name = "gw.example".parse().unwrap();
        let mut peer = PeerConfig::new(TunnelId(id), name, None, Secret::default());
        peer.remote = remote.map(|last| [192, 0, 2, last].into());
        peer.local = local.map(|last| [192, 0, 2, last].into());
        Arc::new(peer)
    }

    #[test]
    fn the_more_a_tunnel_says_about_addresses_the_earlier_it_comes() {
        let mut peers = Peers::default();
        for (id, remote, local) in [
            (1, None, None),
            (2, None, Some(1)),
            (3, Some(9), None),
            (4, Some(9), Some(1)),
            (5, Some(9), Some(2)),
            (6, Some(8), None),
            (7, None, None),
        ] {
            peers.insert(peer(id, remote, local));
        }
        let at = |peers: &Peers, remote: u8, local: u8| -> Vec<u32> {
            let path = Path {
                local: ([192, 0, 2, local], 4500).into(),
                remote: ([192, 0, 2, remote], 4500).into(),
            };
            peers.candidates(path).map(|p| p.tunnel.0).collect()
        };
        assert_eq!(at(&peers, 9, 1), [4, 3, 2, 1, 7]);
        assert_eq!(at(&peers, 9, 2), [5, 3, 1, 7]);
        assert_eq!(at(&peers, 7, 7), [1, 7]);
        // What is replaced is found at its new place only.
        peers.insert(peer(4, Some(7), None));
        peers.remove(TunnelId(1));
        assert_eq!(at(&peers, 9, 1), [3, 2, 7]);
        assert_eq!(at(&peers, 7, 7), [4, 7]);
    }
}
