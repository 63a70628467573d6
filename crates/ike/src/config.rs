//! What the owner of an [`Endpoint`](crate::Endpoint) decides: limits of the whole endpoint, and
//! one [`PeerConfig`] for each tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand_core::{CryptoRng, RngCore};
use sa::{Bits, CbcIntegrity, Lifetime, Secret, SelectorSet, TrafficSelector, TunnelId};

use crate::message::Identity;
use crate::suite::{EspEncryption, EspProposals, Hash, IkeEncryption, IkeProposals, KeGroup};

/// Randomness for nonces, private values, SPIs, IVs and fuzz.
pub trait IkeRng: RngCore + CryptoRng {}

impl<T: RngCore + CryptoRng> IkeRng for T {}

/// Ports and limits of one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointConfig {
    /// The port without non-ESP marker, 500 on real machines.
    pub ike_port: u16,
    /// The port with non-ESP marker and ESP in UDP, 4500 on real machines.
    pub nat_t_port: u16,
    /// The most IKE SAs that a peer may have begun without having authenticated. Above it new
    /// requests are dropped: the bound on memory for strangers.
    pub half_open_limit: usize,
    /// From this number of half-open IKE SAs on, requests must bring a COOKIE (RFC 7296 2.6).
    pub cookie_threshold: usize,
    /// The most half-open IKE SAs of one source: an IPv4 address, or an IPv6 /64.
    pub half_open_per_source: usize,
    /// How long a half-open IKE SA may take to authenticate.
    pub half_open_timeout: Duration,
    /// How long an inbound Child SA still receives after its DELETE, for packets under way.
    pub inbound_grace: Duration,
    /// When the responder of a Child rekey sends on the new SA although nothing came on it yet, if the
    /// peer has its answer.
    pub outbound_switch: Duration,
    /// The most replies a second to datagrams that belong to no IKE SA (INVALID_IKE_SPI,
    /// INVALID_MAJOR_VERSION), and the most [`Event::Failed`](crate::Event::Failed) a second
    /// about strangers.
    pub stranger_rate: u32,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            ike_port: 500,
            nat_t_port: 4500,
            half_open_limit: 1024,
            cookie_threshold: 64,
            half_open_per_source: 16,
            half_open_timeout: Duration::from_secs(30),
            inbound_grace: Duration::from_secs(5),
            outbound_switch: Duration::from_secs(5),
            stranger_rate: 10,
        }
    }
}

/// Dead peer detection. A peer is asked when nothing authenticated came from it for `idle`, and
/// is dead when nothing came for `timeout` and a request of ours is unanswered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dpd {
    /// Silence after which a liveness exchange starts.
    pub idle: Duration,
    /// Silence after which the peer is dead.
    pub timeout: Duration,
}

/// How requests are retransmitted: after `first`, then each time `factor` times later.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Retransmit {
    /// Time from the first transmission to the second.
    pub first: Duration,
    /// By how much each interval is longer than the one before; at least 1.
    pub factor: f64,
    /// Transmissions in all.
    pub tries: u32,
}

impl Retransmit {
    /// The longest interval between two transmissions.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// The wait after transmission number `sent` (from 1).
    #[must_use]
    pub fn interval(&self, sent: u32) -> Duration {
        let factor = if self.factor.is_finite() { self.factor.max(1.0) } else { 1.0 };
        let power = factor.powi(i32::try_from(sent.saturating_sub(1)).unwrap_or(i32::MAX));
        let seconds = (self.first.as_secs_f64() * power).min(Self::LONGEST.as_secs_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or(Self::LONGEST)
    }

    /// From the first transmission until the request is given up; a day at most.
    #[must_use]
    pub fn patience(&self) -> Duration {
        const DAY: Duration = Duration::from_secs(86_400);
        let mut total = Duration::ZERO;
        for sent in 1..=self.tries.min(100) {
            total = total.saturating_add(self.interval(sent));
        }
        let further = self.interval(100).saturating_mul(self.tries.saturating_sub(100));
        total.saturating_add(further).min(DAY)
    }
}

impl Default for Retransmit {
    /// 0.5, 1, 2, 4, 8, 16 and 32 seconds: given up after 63.5 seconds.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), factor: 2.0, tries: 7 }
    }
}

/// One tunnel: who the peer is, what is negotiated with it, and how long things live.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Names the tunnel in every command and event.
    pub tunnel: TunnelId,
    /// Names the tunnel in messages for people: `vpn-1/tunnel 1`.
    pub name: String,
    /// Our outside address; `None` for any of the host's.
    pub local: Option<IpAddr>,
    /// The peer's outside address; `None` if it may come from any (dynamic, or behind NAT). A
    /// tunnel without one cannot be initiated.
    pub remote: Option<IpAddr>,
    /// Where an initiation goes: 500, 4500, or another port, which is taken to speak like 4500.
    pub remote_port: u16,
    /// Who we are.
    pub local_id: Identity,
    /// Whether a user took the tunnel down: an authenticated peer is refused with
    /// TEMPORARY_FAILURE, so that it knows that neither key nor identity is wrong.
    pub admin_down: bool,
    /// Who the peer must be; `None` for anyone who knows the key.
    pub remote_id: Option<Identity>,
    /// The pre-shared key.
    pub psk: Secret,
    /// Suites of the IKE SA in our order of preference.
    pub ike: IkeProposals,
    /// Suites of the Child SA in our order of preference; with groups: perfect forward secrecy.
    pub esp: EspProposals,
    /// What inner addresses may be on our side.
    pub local_selectors: SelectorSet,
    /// What inner addresses may be on the peer's side.
    pub remote_selectors: SelectorSet,
    /// Whether the peer is made to believe in a NAT, so that it encapsulates ESP in UDP. Our data
    /// plane speaks nothing else, so only a peer of the same kind can do without.
    pub force_encapsulation: bool,
    /// Whether IKE fragmentation is offered (RFC 7383).
    pub fragmentation: bool,
    /// Whether addresses may change under the IKE SA (MOBIKE, RFC 4555), if the peer can do it.
    pub mobike: bool,
    /// Largest IP datagram of an IKE message, in octets, when the peer agreed to fragmentation.
    pub fragment_size: u16,
    /// Age at which an IKE SA must be gone.
    pub ike_lifetime: Duration,
    /// When a Child SA must be gone (time), or be rekeyed by the data plane's word.
    pub child_lifetime: Lifetime,
    /// How long before the end of a lifetime a rekey starts, at the latest.
    pub rekey_margin: Duration,
    /// By how much of the margin, in percent and at random, a rekey starts earlier.
    pub rekey_fuzz_percent: u8,
    /// Packets of the anti-replay window of inbound Child SAs.
    pub replay_window: u32,
    /// Dead peer detection.
    pub dpd: Dpd,
    /// Silence of ours after which a NAT keepalive is sent, if we are behind a NAT.
    pub nat_keepalive: Duration,
    /// Retransmission of requests.
    pub retransmit: Retransmit,
}

impl PeerConfig {
    /// A tunnel with the identities and key given, AWS's default lifetimes, every suite that we
    /// know, and all traffic of both families.
    #[must_use]
    pub fn new(
        tunnel: TunnelId,
        local_id: Identity,
        remote_id: Option<Identity>,
        psk: Secret,
    ) -> Self {
        let everything = everything();
        Self {
            tunnel,
            name: format!("tunnel {tunnel}"),
            local: None,
            remote: None,
            remote_port: 4500,
            local_id,
            admin_down: false,
            remote_id,
            psk,
            ike: IkeProposals::default(),
            esp: EspProposals::default(),
            local_selectors: everything.clone(),
            remote_selectors: everything,
            force_encapsulation: true,
            fragmentation: true,
            mobike: true,
            fragment_size: 1280,
            ike_lifetime: Duration::from_secs(28_800),
            child_lifetime: Lifetime {
                time: Duration::from_secs(3_600),
                bytes: None,
                packets: None,
            },
            rekey_margin: Duration::from_secs(270),
            rekey_fuzz_percent: 100,
            replay_window: 1024,
            dpd: Dpd { idle: Duration::from_secs(10), timeout: Duration::from_secs(30) },
            nat_keepalive: Duration::from_secs(20),
            retransmit: Retransmit::default(),
        }
    }

    /// Where an initiation goes, if the peer has an address.
    #[must_use]
    pub fn remote_socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remote?, self.remote_port))
    }
}

/// All traffic of both families.
fn everything() -> SelectorSet {
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED)..=IpAddr::V4(Ipv4Addr::BROADCAST);
    let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED)..=IpAddr::V6(Ipv6Addr::from(u128::MAX));
    let all = [v4, v6].into_iter().filter_map(|r| TrafficSelector::new(r, 0, 0..=u16::MAX).ok());
    SelectorSet(all.collect())
}

impl Default for IkeProposals {
    /// Everything that we know, best first.
    fn default() -> Self {
        Self {
            encryption: vec![
                IkeEncryption::AesGcm16(Bits::B256),
                IkeEncryption::AesGcm16(Bits::B128),
                IkeEncryption::ChaCha20Poly1305,
                IkeEncryption::AesCbc(Bits::B256),
                IkeEncryption::AesCbc(Bits::B128),
            ],
            integrity: vec![Hash::Sha512, Hash::Sha384, Hash::Sha256],
            prf: vec![Hash::Sha512, Hash::Sha384, Hash::Sha256],
            groups: KeGroup::ALL.to_vec(),
        }
    }
}

impl Default for EspProposals {
    /// Everything that we know, best first, with perfect forward secrecy.
    fn default() -> Self {
        Self {
            encryption: vec![
                EspEncryption::AesGcm16(Bits::B256),
                EspEncryption::AesGcm16(Bits::B128),
                EspEncryption::ChaCha20Poly1305,
                EspEncryption::AesCbc(Bits::B256),
                EspEncryption::AesCbc(Bits::B128),
            ],
            integrity: vec![CbcIntegrity::Sha512, CbcIntegrity::Sha384, CbcIntegrity::Sha256],
            groups: KeGroup::ALL.to_vec(),
            esn: vec![true, false],
        }
    }
}
