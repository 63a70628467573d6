//! Who may use which inner source address: one table for all peers, ESP and WireGuard.

use std::net::IpAddr;

use sa::TunnelId;

use crate::SourceRoute;
use crate::spd::Prefixes;

/// The table, and the last answer: packets of one flow come together.
#[derive(Default)]
pub(crate) struct Sources {
    owners: Prefixes<Option<[TunnelId; 2]>>,
    last: Option<(IpAddr, TunnelId)>,
}

/// What the table says of a source address that a peer uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// Its longest prefix is this peer's.
    Own,
    /// It is in no prefix of the table.
    Unrouted,
    /// Its longest prefix is another peer's, or our own network's.
    Foreign,
}

impl Sources {
    pub(crate) fn new(routes: &[SourceRoute]) -> Self {
        Self { owners: Prefixes::new(routes.iter().map(|r| (r.prefix, r.owner))), last: None }
    }

    pub(crate) fn claim(&mut self, source: IpAddr, tunnel: TunnelId) -> Claim {
        if self.last == Some((source, tunnel)) {
            return Claim::Own;
        }
        match self.owners.lookup(source) {
            None => Claim::Unrouted,
            Some(Some(owner)) if owner.contains(&tunnel) => {
                self.last = Some((source, tunnel));
                Claim::Own
            }
            Some(_) => Claim::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_whose_a_source_is() {
        let route = |prefix: &str, owner: Option<[u32; 2]>| SourceRoute {
            prefix: prefix.parse().unwrap(),
            owner: owner.map(|o| o.map(TunnelId)),
        };
        let mut sources = Sources::new(&[
            route("10.0.0.0/8", Some([4, 4])),
            route("10.1.0.0/16", Some([0, 1])),
            route("10.1.2.0/24", None),
            route("fd00::/8", Some([4, 4])),
            route("fd00:1::/32", Some([0, 1])),
        ]);
        for (source, tunnel, claim) in [
            ("10.9.9.9", 4, Claim::Own),
            ("10.9.9.9", 0, Claim::Foreign),
            ("10.1.9.9", 4, Claim::Foreign),
            ("10.1.9.9", 0, Claim::Own),
            ("10.1.9.9", 1, Claim::Own),
            ("10.1.2.9", 0, Claim::Foreign),
            ("10.1.2.9", 4, Claim::Foreign),
            ("192.0.2.1", 0, Claim::Unrouted),
            ("fd00:1::1", 4, Claim::Foreign),
            ("fd00:1::1", 1, Claim::Own),
            ("fd00:2::1", 4, Claim::Own),
            ("2001:db8::1", 4, Claim::Unrouted),
        ] {
            // Twice: the remembered answer is the same.
            for _ in 0..2 {
                let found = sources.claim(source.parse().unwrap(), TunnelId(tunnel));
                assert_eq!(found, claim, "{source} by {tunnel}");
            }
        }
    }
}
