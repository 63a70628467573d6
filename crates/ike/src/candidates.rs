//! Which tunnel a request belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use sa::{Path, TunnelId};

use crate::config::PeerConfig;

/// The tunnels that a peer on this path may be: those that name its address before those for any
/// address, and within that those that name ours first.
pub(crate) fn candidates(
    peers: &BTreeMap<TunnelId, Arc<PeerConfig>>,
    path: Path,
) -> Vec<Arc<PeerConfig>> {
    let fits = |p: &&Arc<PeerConfig>| {
        p.local.is_none_or(|a| a == path.local.ip())
            && p.remote.is_none_or(|a| a == path.remote.ip())
    };
    let mut found: Vec<Arc<PeerConfig>> = peers.values().filter(fits).cloned().collect();
    found.sort_by_key(|p| (p.remote.is_none(), p.local.is_none(), p.tunnel));
    found
}
