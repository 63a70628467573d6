//! Somebody on the path who knows no key.

use std::net::SocketAddr;

use sa::Path;

use crate::plan::Knock;
use crate::world::World;

impl World {
    /// Sends `count` datagrams to `host`.
    pub(crate) fn knock(&mut self, host: usize, knock: Knock, count: u64) {
        for _ in 0..count {
            let Some((path, octets)) = self.forge(host, knock) else { return };
            if self.nodes[host].alive {
                self.receive(host, path, &octets, None);
            }
        }
    }

    fn stranger(&mut self) -> SocketAddr {
        let last = self.draw.number(1..=250) as u8;
        let port = self.draw.number(1024..=65_000) as u16;
        SocketAddr::from(([192, 0, 2, last], port))
    }

    fn forge(&mut self, host: usize, knock: Knock) -> Option<(Path, Vec<u8>)> {
        let begins = |octets: &[u8]| {
            let at = if octets.starts_with(&[0; 4]) { 4 } else { 0 };
            octets.get(at + 18) == Some(&34) && octets.get(at + 19) == Some(&8)
        };
        let of_host: Vec<usize> = (0..self.seen.len())
            .filter(|i| self.seen[*i].0 == host)
            .filter(|i| knock != Knock::Begin || begins(&self.seen[*i].2))
            .collect();
        if of_host.is_empty() {
            return None;
        }
        let (_, mut path, mut octets) = self.seen[of_host[self.draw.index(of_host.len())]].clone();
        match knock {
            Knock::Replay => {}
            Knock::ReplayFromElsewhere => path.remote = self.stranger(),
            Knock::Flip => {
                for _ in 0..self.draw.number(1..=4) {
                    let at = self.draw.index(octets.len());
                    octets[at] ^= 1 << self.draw.index(8);
                }
            }
            Knock::Noise => {
                let keep = self.draw.index(33);
                let length = self.draw.index(200);
                octets.truncate(keep);
                octets.resize(keep + length, 0);
                self.draw.fill(&mut octets[keep..]);
            }
            Knock::Begin => {
                path.remote = self.stranger();
                let at = if path.local.port() == 500 { 0 } else { 4 };
                self.draw.fill(octets.get_mut(at..at + 8)?);
            }
        }
        Some((path, octets))
    }
}
