//! The tunnels of an endpoint, and which of them a request belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sa::{Path, TunnelId};

use crate::config::PeerConfig;
use crate::message::Identity;
use crate::suite::IkeProposals;

/// The addresses that a tunnel is for: the peer's and ours, `None` for any.
type Addresses = (Option<IpAddr>, Option<IpAddr>);

/// See the module. With thousands of tunnels a request still finds its own without a search
/// through all of them, unless they are all for anyone from any address.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: BTreeMap<TunnelId, Arc<PeerConfig>>,
    by_addresses: BTreeMap<Addresses, Group>,
}

/// The tunnels for the same addresses.
#[derive(Debug, Default)]
struct Group {
    all: BTreeSet<TunnelId>,
    /// By whom the peer must be, as [`Identity::folded`]; `None` for anyone.
    by_identity: BTreeMap<Option<Identity>, BTreeSet<TunnelId>>,
    by_suites: BTreeMap<IkeProposals, BTreeSet<TunnelId>>,
}

impl Group {
    fn insert(&mut self, peer: &PeerConfig) {
        let identity = peer.remote_id.as_ref().map(Identity::folded);
        self.all.insert(peer.tunnel);
        self.by_identity.entry(identity).or_default().insert(peer.tunnel);
        match self.by_suites.get_mut(&peer.ike) {
            Some(set) => drop(set.insert(peer.tunnel)),
            None => drop(self.by_suites.insert(peer.ike.clone(), BTreeSet::from([peer.tunnel]))),
        }
    }

    fn remove(&mut self, peer: &PeerConfig) {
        let identity = peer.remote_id.as_ref().map(Identity::folded);
        self.all.remove(&peer.tunnel);
        remove_from(&mut self.by_identity, &identity, peer.tunnel);
        remove_from(&mut self.by_suites, &peer.ike, peer.tunnel);
    }

    /// Those that `identity` may be, by their numbers.
    fn of_identity(&self, identity: &Identity) -> Vec<TunnelId> {
        let named = self.by_identity.get(&Some(identity.folded()));
        let anyone = self.by_identity.get(&None);
        let mut ids: Vec<TunnelId> = named.into_iter().chain(anyone).flatten().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The first of those with the same suites each, by their numbers.
    fn of_suites(&self) -> Vec<TunnelId> {
        let firsts = self.by_suites.values().filter_map(BTreeSet::first);
        let mut ids: Vec<TunnelId> = firsts.copied().collect();
        ids.sort_unstable();
        ids
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<TunnelId>>, key: &K, tunnel: TunnelId) {
    if let Some(set) = index.get_mut(key) {
        set.remove(&tunnel);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

impl Peers {
    pub(crate) fn insert(&mut self, peer: Arc<PeerConfig>) {
        self.remove(peer.tunnel);
        self.by_addresses.entry((peer.remote, peer.local)).or_default().insert(&peer);
        self.all.insert(peer.tunnel, peer);
    }

    pub(crate) fn remove(&mut self, tunnel: TunnelId) {
        let Some(peer) = self.all.remove(&tunnel) else { return };
        let addresses = (peer.remote, peer.local);
        if let Some(group) = self.by_addresses.get_mut(&addresses) {
            group.remove(&peer);
            if group.all.is_empty() {
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
        self.groups(path).flat_map(|group| &group.all).filter_map(|id| self.all.get(id))
    }

    /// Of [`Self::candidates`] those that `identity` may be, in the same order.
    pub(crate) fn candidates_named(
        &self,
        path: Path,
        identity: &Identity,
    ) -> impl Iterator<Item = &Arc<PeerConfig>> {
        let ids = self.groups(path).flat_map(|group| group.of_identity(identity));
        ids.filter_map(|id| self.all.get(&id))
    }

    /// Of [`Self::candidates`] the first one for each list of suites, in the same order: what a
    /// proposal is compared with, where there may be thousands of tunnels with the same list.
    pub(crate) fn candidates_apart(&self, path: Path) -> impl Iterator<Item = &Arc<PeerConfig>> {
        let ids = self.groups(path).flat_map(Group::of_suites);
        ids.filter_map(|id| self.all.get(&id))
    }

    fn groups(&self, path: Path) -> impl Iterator<Item = &Group> {
        let (remote, local) = (path.remote.ip(), path.local.ip());
        let order =
            [(Some(remote), Some(local)), (Some(remote), None), (None, Some(local)), (None, None)];
        order.into_iter().filter_map(|key| self.by_addresses.get(&key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sa::Secret;

    use super::*;
    use crate::suite::KeGroup;

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

    const NAMES: [&str; 6] = ["a.example", "A.Example", "b.example", "u@A.b", "u@a.b", "U@a.b"];

    proptest! {
        /// The indexes find what a search through all candidates finds, in its order, whatever is
        /// added, replaced and removed before.
        #[test]
        fn the_indexes_agree_with_a_search(
            changes in proptest::collection::vec(
                (0..12_u32, 0..3_u8, 0..3_u8, 0..=NAMES.len(), 0..4_usize),
                0..40,
            ),
            asked in (0..3_u8, 0..3_u8, 0..NAMES.len()),
        ) {
            let groups = [KeGroup::X25519, KeGroup::Ecp256, KeGroup::Ecp384];
            let address = |last: u8| (last > 0).then_some(last);
            let mut peers = Peers::default();
            for (id, remote, local, name, suite) in changes {
                let Some(group) = groups.get(suite) else {
                    peers.remove(TunnelId(id));
                    continue;
                };
                let mut peer = Arc::unwrap_or_clone(peer(id, address(remote), address(local)));
                peer.remote_id = NAMES.get(name).map(|name| name.parse().unwrap());
                peer.ike.groups = vec![*group];
                peers.insert(Arc::new(peer));
            }
            let path = Path {
                local: ([192, 0, 2, asked.1], 4500).into(),
                remote: ([192, 0, 2, asked.0], 4500).into(),
            };
            let ids = |found: Vec<&Arc<PeerConfig>>| -> Vec<u32> {
                found.iter().map(|p| p.tunnel.0).collect()
            };
            let id: Identity = NAMES[asked.2].parse().unwrap();
            let named = |p: &&Arc<PeerConfig>| {
                p.remote_id.as_ref().is_none_or(|expected| expected.matches(&id))
            };
            prop_assert_eq!(
                ids(peers.candidates_named(path, &id).collect()),
                ids(peers.candidates(path).filter(named).collect())
            );
            for group in groups {
                let suits = |p: &&Arc<PeerConfig>| p.ike.groups == [group];
                prop_assert_eq!(
                    peers.candidates_apart(path).find(suits).map(|p| p.tunnel),
                    peers.candidates(path).find(suits).map(|p| p.tunnel)
                );
            }
        }

        #[test]
        fn identities_are_folded_to_the_same_key_if_they_match(
            (a, b) in (0..8_usize, 0..8_usize)
        ) {
            let others = [Identity::Rfc822("u".into()), Identity::KeyId(b"a.example".to_vec())];
            let known = NAMES.iter().map(|name| name.parse().unwrap()).chain(others);
            let known: Vec<Identity> = known.collect();
            prop_assert_eq!(known[a].matches(&known[b]), known[a].folded() == known[b].folded());
        }
    }
}
