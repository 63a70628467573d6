//! The network between the sites: links with loss, repetition, delay and reordering, a path MTU,
//! cuts, and a NAT before some of the customer gateways.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sa::Path;

use crate::draw::Draw;

/// Octets of the outer IPv4 and UDP headers.
pub(crate) const OUTER: usize = 28;

/// What every link is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quality {
    /// Datagrams in a thousand that are lost.
    pub loss: u32,
    /// Datagrams in a thousand that arrive twice.
    pub duplicates: u32,
    /// One-way time of every datagram.
    pub delay: Duration,
    /// Up to this much more, drawn for each: what reorders.
    pub jitter: Duration,
}

impl Quality {
    /// A good link.
    pub(crate) const GOOD: Self =
        Self { loss: 0, duplicates: 0, delay: Duration::from_millis(10), jitter: Duration::ZERO };
}

/// What vanishes during a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Everything.
    All,
    /// Everything from or to one of the VGW's addresses.
    Address(u8),
    /// What this site sends.
    From(usize),
    /// What this site would receive.
    To(usize),
}

/// The address of VGW endpoint 0 or 1.
pub(crate) fn vgw_address(number: u8) -> IpAddr {
    [198, 51, 100, 10 + number].into()
}

struct Nat {
    outside: IpAddr,
    ports: BTreeMap<SocketAddr, u16>,
    /// Outer port and remote socket: what may come in, because it was sent to.
    allowed: BTreeSet<(u16, SocketAddr)>,
    next: u16,
}

struct Host {
    addresses: Vec<IpAddr>,
    nat: Option<Nat>,
}

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flying {
    pub(crate) at: Instant,
    order: u64,
    from_host: usize,
    from: SocketAddr,
    to: SocketAddr,
    pub(crate) octets: Vec<u8>,
    /// The inner packet in it, if it is ESP of one.
    pub(crate) cargo: Option<usize>,
}

/// See the module.
pub(crate) struct Net {
    pub(crate) quality: Quality,
    pub(crate) mtu: usize,
    pub(crate) cut: Option<Cut>,
    hosts: Vec<Host>,
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
    draw: Draw,
    /// Copies that links made, and datagrams that they lost, ESP only.
    pub(crate) esp_copies: u64,
    pub(crate) esp_lost: u64,
    /// Datagrams that links lost.
    pub(crate) lost: u64,
}

impl Net {
    pub(crate) fn new(quality: Quality, draw: Draw) -> Self {
        Self {
            quality,
            mtu: 1500,
            cut: None,
            hosts: Vec::new(),
            flying: BinaryHeap::new(),
            order: 0,
            draw,
            esp_copies: 0,
            esp_lost: 0,
            lost: 0,
        }
    }

    /// Adds a host; with an outside address it stands behind a NAT.
    pub(crate) fn add_host(&mut self, addresses: Vec<IpAddr>, outside: Option<IpAddr>) {
        let nat = outside.map(|outside| Nat {
            outside,
            ports: BTreeMap::new(),
            allowed: BTreeSet::new(),
            next: 20_000,
        });
        self.hosts.push(Host { addresses, nat });
    }

    /// Whether a host stands behind a NAT.
    pub(crate) fn is_translated(&self, host: usize) -> bool {
        self.hosts[host].nat.is_some()
    }

    /// The NAT before `host` forgets everything; with `address`, its own address changes, too.
    pub(crate) fn rebind(&mut self, host: usize, address: bool) {
        let Some(nat) = &mut self.hosts[host].nat else { return };
        nat.ports.clear();
        nat.allowed.clear();
        nat.next += 100;
        if address && let IpAddr::V4(old) = nat.outside {
            nat.outside = IpAddr::V4((u32::from(old) ^ 0x40).into());
        }
    }

    /// `host`, which has no NAT, has another address from now on. Returns it.
    pub(crate) fn renumber(&mut self, host: usize) -> IpAddr {
        let own = &mut self.hosts[host].addresses[0];
        if let IpAddr::V4(old) = *own {
            *own = IpAddr::V4((u32::from(old) ^ 0x40).into());
        }
        *own
    }

    /// The address that `host` has itself.
    pub(crate) fn address(&self, host: usize) -> IpAddr {
        self.hosts[host].addresses[0]
    }

    /// Whether datagrams to `to` reach `host` now, were they sent by a peer that it sent to.
    pub(crate) fn reaches(&self, host: usize, from: IpAddr, to: SocketAddr) -> bool {
        match &self.hosts[host].nat {
            None => self.hosts[host].addresses.contains(&to.ip()),
            Some(nat) => {
                to.ip() == nat.outside
                    && nat
                        .allowed
                        .iter()
                        .any(|(port, peer)| *port == to.port() && peer.ip() == from)
            }
        }
    }

    /// Takes a datagram from a host. The address is the host's first where it is left open.
    pub(crate) fn send(
        &mut self,
        host: usize,
        path: Path,
        octets: Vec<u8>,
        cargo: Option<usize>,
        now: Instant,
    ) {
        let mut from = path.local;
        if from.ip().is_unspecified() {
            from.set_ip(self.hosts[host].addresses[0]);
        }
        if let Some(nat) = &mut self.hosts[host].nat {
            let next = &mut nat.next;
            let port = *nat.ports.entry(from).or_insert_with(|| {
                *next += 1;
                *next
            });
            nat.allowed.insert((port, path.remote));
            from = SocketAddr::new(nat.outside, port);
        }
        let esp = cargo.is_some();
        let stale = !self.hosts[host].addresses.contains(&path.local.ip())
            && !path.local.ip().is_unspecified();
        let cut = self.cut.is_some_and(|cut| match cut {
            Cut::All => true,
            Cut::Address(number) => {
                let address = vgw_address(number);
                from.ip() == address || path.remote.ip() == address
            }
            Cut::From(cut) => cut == host,
            Cut::To(cut) => Some(cut) == self.owner(path.remote),
        });
        if stale || cut || octets.len() + OUTER > self.mtu || self.draw.chance(self.quality.loss) {
            return self.lose(esp);
        }
        let twice = self.draw.chance(self.quality.duplicates);
        self.esp_copies += u64::from(twice && esp);
        for _ in 0..if twice { 2 } else { 1 } {
            let spread = self.quality.jitter.as_micros() as u64;
            let extra = if spread == 0 { 0 } else { self.draw.number(0..=spread) };
            self.order += 1;
            self.flying.push(Reverse(Flying {
                at: now + self.quality.delay + Duration::from_micros(extra),
                order: self.order,
                from_host: host,
                from,
                to: path.remote,
                octets: octets.clone(),
                cargo,
            }));
        }
    }

    /// The host that an outer address belongs to.
    fn owner(&self, to: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| match &host.nat {
            Some(nat) => nat.outside == to.ip(),
            None => host.addresses.contains(&to.ip()),
        })
    }

    /// Counts a datagram that no host gets.
    pub(crate) fn lose(&mut self, esp: bool) {
        self.lost += 1;
        self.esp_lost += u64::from(esp);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.flying.peek().map(|f| f.0.at)
    }

    pub(crate) fn esp_flying(&self) -> u64 {
        self.flying.iter().filter(|f| f.0.cargo.is_some()).count() as u64
    }

    /// The next datagram that is due, with the host that it reaches and what that host sees.
    pub(crate) fn arrive(&mut self, now: Instant) -> Option<(Flying, Option<(usize, Path)>)> {
        if self.next_at()? > now {
            return None;
        }
        let flying = self.flying.pop()?.0;
        let arrived = self.owner(flying.to).and_then(|host| {
            let local = match &self.hosts[host].nat {
                None => flying.to,
                Some(nat) => {
                    if !nat.allowed.contains(&(flying.to.port(), flying.from)) {
                        return None;
                    }
                    let port = flying.to.port();
                    *nat.ports.iter().find(|(_, outer)| **outer == port)?.0
                }
            };
            Some((host, Path { local, remote: flying.from }))
        });
        if arrived.is_none() {
            self.lose(flying.cargo.is_some());
        }
        Some((flying, arrived))
    }
}

impl Flying {
    /// The host that sent it.
    pub(crate) fn sender(&self) -> usize {
        self.from_host
    }
}
