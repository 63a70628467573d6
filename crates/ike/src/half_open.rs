//! Limits on IKE SAs that strangers begin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use aws_lc_rs::digest;

use crate::config::EndpointConfig;

/// A source as budgets count it: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Source(u128);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self(u128::from(a.to_bits())),
            IpAddr::V6(a) => Self(a.to_bits() >> 64 << 64 | 1),
        }
    }
}

/// How many times the half-open IKE SAs of a source it may waste in requests, COOKIE or not.
const WASTED: usize = 4;

/// The half-open IKE SAs of an endpoint. Whoever brought a COOKIE is counted apart from those who did
/// not: what others send in the name of a source takes nothing from the true one.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    by_request: BTreeMap<Request, u64>,
    by_spi: BTreeMap<u64, Begun>,
    by_source: BTreeMap<Source, Share>,
    /// Requests that cost a key exchange and led to nothing, until when they count.
    wasted: BTreeSet<(Instant, u64, Source)>,
    next_wasted: u64,
}

/// A request as it is told from others: by all of it, since anybody who saw one can send another with the
/// same SPI in the same name (RFC 7296 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Request {
    remote: SocketAddr,
    digest: [u8; 32],
}

impl Request {
    pub(crate) fn new(remote: SocketAddr, datagram: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, datagram).as_ref());
        Self { remote, digest }
    }
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    request: Request,
    proved: bool,
}

/// What one source has.
#[derive(Clone, Copy, Default, Debug)]
struct Share {
    unproved: usize,
    proved: usize,
    wasted: usize,
}

impl HalfOpen {
    /// The one that this request began: our SPI.
    pub(crate) fn find(&self, request: Request) -> Option<u64> {
        self.by_request.get(&request).copied()
    }

    /// Whether one more of this source may begin, which brought a COOKIE (`proved`) or not.
    pub(crate) fn admits(&self, remote: SocketAddr, proved: bool, config: &EndpointConfig) -> bool {
        let (share, most) = (self.share(remote), config.half_open_per_source);
        let of_source = if proved { share.proved } else { share.unproved };
        // Without a COOKIE nobody wastes more than `most` in the name of another.
        let waster = share.wasted >= most.saturating_mul(WASTED);
        self.by_spi.len() < config.half_open_limit && of_source < most && !waster
    }

    /// Whether a request of this source must bring a COOKIE: there are many half-open IKE SAs, or
    /// many in its name.
    pub(crate) fn wants_cookie(&self, remote: SocketAddr, config: &EndpointConfig) -> bool {
        let share = self.share(remote);
        self.by_spi.len() + self.wasted.len() >= config.cookie_threshold
            || share.unproved + share.wasted >= config.half_open_per_source
    }

    fn share(&self, remote: SocketAddr) -> Share {
        self.by_source.get(&remote.ip().into()).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, spi: u64, request: Request, proved: bool) {
        self.by_request.insert(request, spi);
        self.by_spi.insert(spi, Begun { request, proved });
        let share = self.by_source.entry(request.remote.ip().into()).or_default();
        *(if proved { &mut share.proved } else { &mut share.unproved }) += 1;
    }

    pub(crate) fn remove(&mut self, spi: u64) {
        let Some(Begun { request, proved }) = self.by_spi.remove(&spi) else { return };
        self.by_request.remove(&request);
        self.take(request.remote.ip().into(), |share| {
            *(if proved { &mut share.proved } else { &mut share.unproved }) -= 1;
        });
    }

    /// A request cost a key exchange and led to nothing: until `until` it counts.
    pub(crate) fn waste(&mut self, remote: SocketAddr, until: Instant, config: &EndpointConfig) {
        if self.wasted.len() >= config.half_open_limit {
            return;
        }
        let source = remote.ip().into();
        self.wasted.insert((until, self.next_wasted, source));
        self.next_wasted = self.next_wasted.wrapping_add(1);
        self.by_source.entry(source).or_default().wasted += 1;
    }

    /// Forgets what was wasted long ago.
    pub(crate) fn forget(&mut self, now: Instant) {
        while let Some((until, _, source)) = self.wasted.first().copied()
            && until <= now
        {
            self.wasted.pop_first();
            self.take(source, |share| share.wasted -= 1);
        }
    }

    fn take(&mut self, source: Source, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.by_source.get_mut(&source) else { return };
        change(share);
        if share.unproved + share.proved + share.wasted == 0 {
            self.by_source.remove(&source);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len()
    }
}
