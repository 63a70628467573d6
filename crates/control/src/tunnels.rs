//! All tunnels by number, with what follows from their states kept in order: with thousands of them
//! a message or a timer of one must not cost a look at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use sa::TunnelId;

use crate::tunnel::TunnelState;

/// See the module. [`Self::settle`] brings the indexes up to date with what was touched.
#[derive(Default)]
pub(crate) struct Tunnels {
    entries: BTreeMap<TunnelId, Entry>,
    touched: Vec<TunnelId>,
    deadlines: BTreeSet<(Instant, TunnelId)>,
    /// The inner MTUs of tunnels that are up, and how many have each.
    mtus: BTreeMap<u16, usize>,
    /// Those whose peers are at an address.
    by_remote: BTreeSet<(IpAddr, TunnelId)>,
}

struct Entry {
    state: TunnelState,
    touched: bool,
    known: Known,
}

/// What the indexes know of one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Known {
    deadline: Option<Instant>,
    mtu: Option<u16>,
    remote: Option<IpAddr>,
}

impl Tunnels {
    pub(crate) fn insert(&mut self, id: TunnelId, state: TunnelState) {
        self.remove(id);
        let entry = Entry { state, touched: true, known: Known::default() };
        self.entries.insert(id, entry);
        self.touched.push(id);
    }

    pub(crate) fn remove(&mut self, id: TunnelId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.forget(id, entry.known);
    }

    pub(crate) fn get(&self, id: TunnelId) -> Option<&TunnelState> {
        self.entries.get(&id).map(|entry| &entry.state)
    }

    pub(crate) fn get_mut(&mut self, id: TunnelId) -> Option<&mut TunnelState> {
        let entry = self.entries.get_mut(&id)?;
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push(id);
        }
        Some(&mut entry.state)
    }

    pub(crate) fn contains(&self, id: TunnelId) -> bool {
        self.entries.contains_key(&id)
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TunnelId, &TunnelState)> {
        self.entries.iter().map(|(id, entry)| (*id, &entry.state))
    }

    /// Brings the indexes up to date; `link_mtu` is the configured MTU of the outer path.
    pub(crate) fn settle(&mut self, link_mtu: u16) {
        for id in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.touched) else {
                continue;
            };
            entry.touched = false;
            let new = Known {
                deadline: entry.state.deadline(),
                mtu: entry.state.mtu(link_mtu),
                remote: entry.state.ike.as_ref().map(|ike| ike.path.remote.ip()),
            };
            let old = std::mem::replace(&mut entry.known, new);
            if new == old {
                continue;
            }
            self.forget(id, old);
            self.deadlines.extend(new.deadline.map(|at| (at, id)));
            self.by_remote.extend(new.remote.map(|remote| (remote, id)));
            if let Some(mtu) = new.mtu {
                *self.mtus.entry(mtu).or_default() += 1;
            }
        }
    }

    fn forget(&mut self, id: TunnelId, Known { deadline, mtu, remote }: Known) {
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(remote) = remote {
            self.by_remote.remove(&(remote, id));
        }
        if let Some((mtu, count)) = mtu.and_then(|mtu| Some((mtu, self.mtus.get_mut(&mtu)?))) {
            *count -= 1;
            if *count == 0 {
                self.mtus.remove(&mtu);
            }
        }
    }

    /// Those whose peers are at this address, by number.
    pub(crate) fn at(&self, remote: IpAddr) -> Vec<TunnelId> {
        let (first, last) = (TunnelId(0), TunnelId(u32::MAX));
        self.by_remote.range((remote, first)..=(remote, last)).map(|(_, id)| *id).collect()
    }

    /// When the first of them wants something done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Those that want something done now, by number.
    pub(crate) fn due(&self, now: Instant) -> Vec<TunnelId> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let mut ids: Vec<TunnelId> = due.map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The largest inner MTU of those that are up.
    pub(crate) fn largest_mtu(&self) -> Option<u16> {
        self.mtus.last_key_value().map(|(mtu, _)| *mtu)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use sa::Secret;

    use super::*;
    use crate::config::{Config, Role, Tunnel};
    use crate::gateway::tests::ike_info;
    use crate::probe::Prober;

    /// Few, so that several are at the same.
    fn remote(number: u64) -> IpAddr {
        [198, 51, 100, (number % 3) as u8].into()
    }

    const CONFIG: &str = r#"
        [customer_gateway]
        id = "cgw"
        identity = "branch.example"
        onprem_cidrs = ["192.168.0.0/16"]
        [[vpn_connection]]
        id = "vpn"
        vpc_cidrs = ["10.0.0.0/16"]
        [[vpn_connection.tunnel]]
        outside_address = "198.51.100.10"
        tunnel_inside_cidr = "169.254.10.0/30"
        pre_shared_key_file = "psk"
        [[vpn_connection.tunnel]]
        outside_address = "198.51.100.11"
        tunnel_inside_cidr = "169.254.11.0/30"
        pre_shared_key_file = "psk"
    "#;

    fn tunnel() -> Tunnel {
        Config::parse(Role::Agent, CONFIG, "test").unwrap().connections[0].tunnels[0].clone()
    }

    fn state(now: Instant) -> TunnelState {
        TunnelState::new(tunnel(), 0, Default::default(), Secret::default(), now)
    }

    proptest! {
        /// Whatever is changed, the index says what a look at all tunnels says.
        #[test]
        fn what_the_indexes_say_is_what_a_search_says(
            steps in proptest::collection::vec((0..6_u32, 0..7_u8, 0..20_u64), 0..60),
        ) {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut tunnels = Tunnels::default();
            for (id, what, second) in steps {
                let id = TunnelId(id);
                match (what, tunnels.get_mut(id)) {
                    (0, _) => tunnels.insert(id, state(start)),
                    (1, _) => tunnels.remove(id),
                    (2, Some(tunnel)) => tunnel.retry_at = Some(at(second)),
                    (3, Some(tunnel)) => tunnel.retry_at = None,
                    (4, Some(tunnel)) => {
                        let (timeout, raise) = (Duration::from_secs(4), Duration::from_secs(60));
                        tunnel.prober = Some(Prober::new(Some(timeout), raise, 1500, at(second)));
                    }
                    (5, Some(tunnel)) => tunnel.ike = Some(ike_info(remote(second), start)),
                    (6, Some(tunnel)) => tunnel.ike = None,
                    _ => {}
                }
                tunnels.settle(1500);
                let all = || tunnels.iter().filter_map(|(id, t)| Some((id, t.deadline()?)));
                prop_assert_eq!(tunnels.deadline(), all().map(|(_, at)| at).min());
                let due: Vec<TunnelId> =
                    all().filter(|(_, due)| *due <= at(10)).map(|(id, _)| id).collect();
                prop_assert_eq!(tunnels.due(at(10)), due);
                for second in 0..20 {
                    let ip = remote(second);
                    let is_there = |t: &TunnelState| {
                        t.ike.as_ref().is_some_and(|ike| ike.path.remote.ip() == ip)
                    };
                    let there = tunnels.iter().filter(|(_, t)| is_there(t));
                    let there: Vec<TunnelId> = there.map(|(id, _)| id).collect();
                    prop_assert_eq!(tunnels.at(ip), there);
                }
            }
        }
    }
}
