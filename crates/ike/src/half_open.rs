//! Limits on IKE SAs that strangers begin.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

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

/// The half-open IKE SAs of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    by_request: BTreeMap<(u64, SocketAddr), u64>,
    by_spi: BTreeMap<u64, (u64, SocketAddr)>,
    by_source: BTreeMap<Source, usize>,
}

impl HalfOpen {
    /// The one that a request with this SPI from this address began: our SPI.
    pub(crate) fn find(&self, spi_i: u64, remote: SocketAddr) -> Option<u64> {
        self.by_request.get(&(spi_i, remote)).copied()
    }

    /// Whether one more of this source may begin.
    pub(crate) fn admits(&self, remote: SocketAddr, config: &EndpointConfig) -> bool {
        let of_source = self.by_source.get(&remote.ip().into()).copied().unwrap_or(0);
        self.by_spi.len() < config.half_open_limit && of_source < config.half_open_per_source
    }

    /// Whether requests must bring a COOKIE.
    pub(crate) fn wants_cookie(&self, config: &EndpointConfig) -> bool {
        self.by_spi.len() >= config.cookie_threshold
    }

    pub(crate) fn add(&mut self, spi: u64, spi_i: u64, remote: SocketAddr) {
        self.by_request.insert((spi_i, remote), spi);
        self.by_spi.insert(spi, (spi_i, remote));
        *self.by_source.entry(remote.ip().into()).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, spi: u64) {
        let Some(request) = self.by_spi.remove(&spi) else { return };
        self.by_request.remove(&request);
        let source = Source::from(request.1.ip());
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len()
    }
}
